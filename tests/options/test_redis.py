"""redis.pool, redis.timeout: against a real server, or one that answers when the test says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fileproxy.embedded import find_valkey
from tests.conftest import OpenHouse
from tests.origin import Origin
from tests.trips.plays import settings


@pytest.fixture
async def valkey(short_path: Path) -> AsyncIterator[str]:
    """The URL of a server of this test."""
    program = find_valkey()
    assert program is not None
    path = short_path / "valkey.sock"
    options = ["--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(short_path), "--daemonize", "no"]
    process = await asyncio.create_subprocess_exec(program, *options, stdout=asyncio.subprocess.DEVNULL)
    async with asyncio.timeout(15):
        while not await _listens(path):
            assert process.returncode is None
            await asyncio.sleep(0.01)
    yield f"unix://{path}"
    process.terminate()
    await process.wait()


async def _listens(path: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def state(running: Any) -> str:
    return str(json.loads((await running.fetch("/health")).body)["parts"]["shared_store"]["state"])


@pytest.mark.option("redis.pool", "redis.url")
async def test_pool(house: OpenHouse, origin: Origin, valkey: str) -> None:
    running = await house(settings(origin, redis={"url": valkey, "pool": 3, "timeout": "10s"}))
    assert await state(running) == "ok"
    store = running.house._store

    async def wait(redis: Any) -> str:
        await redis.blpop("fileproxy:nothing", timeout=0.2)
        return "had a connection"

    had = 0
    for _ in range(20):  # the ping that watches over the server may have one of them just now
        answers = await asyncio.gather(*(store.call(wait) for _ in range(5)))
        had = sum(answer is not None for answer in answers)
        assert had <= 3
        if had == 3:
            return
    raise AssertionError(f"never more than {had} connections")


@pytest.mark.option("redis.timeout")
@pytest.mark.parametrize(("timeout", "expected"), [("10s", "ok"), ("20ms", "down")])
async def test_timeout(house: OpenHouse, origin: Origin, timeout: str, expected: str) -> None:
    """A server that thinks for a moment longer than the default allows."""

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(4096):
                await asyncio.sleep(0.2)
                answer = b"+PONG\r\n" if b"PING" in data.upper() else b"+OK\r\n"
                writer.write(answer * data.count(b"*"))
                await writer.drain()
        except ConnectionError:
            pass  # given up by the other side, as one of the cases wants
        finally:
            writer.close()

    server = await asyncio.start_server(slow, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        running = await house(settings(origin, redis={"url": f"redis://127.0.0.1:{port}", "timeout": timeout}))
        assert await state(running) == expected
