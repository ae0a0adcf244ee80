"""Progress is the deadline: connect, first byte and idle have limits; a download as a whole has none."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from tests.conftest import OpenHouse
from tests.origin import KIB, MIB, Content, Gate, Origin, Reply, blackhole, stall
from tests.trips.plays import WRITABLE, settings

pytestmark = pytest.mark.loops("asyncio", "uvloop")
FILE = Content(9, 2 * MIB)


@pytest.mark.option("upstreams.timeouts.connect")
async def test_connect(house: OpenHouse) -> None:
    with blackhole() as silent:
        running = await house(
            settings(f"http://{silent}", upstream={"timeouts": {"connect": "50ms"}, "retry": {"attempts": 2}})
        )
        got = await running.fetch("/f")
    assert got.status == 504
    assert "connection_timeout" in (got.get("proxy-status") or "")
    await running.quiet()
    assert running.counts.endings == {"upstream_connect_timeout": 1}
    assert running.counts.of("mirror.tries", f"files/{silent}") == 2


@pytest.mark.option("upstreams.timeouts.first_byte")
@pytest.mark.parametrize("at", [None, 0], ids=["no head", "a head and no body"])
async def test_first_byte(house: OpenHouse, origin: Origin, at: int | None) -> None:
    origin.script("/f", Reply(FILE, breaks=stall(at)))
    running = await house(settings(origin, upstream={"timeouts": {"first_byte": "50ms"}, "retry": {"attempts": 2}}))
    got = await running.fetch("/f")
    assert got.status == 504
    assert "http_response_timeout" in (got.get("proxy-status") or "")
    await running.quiet()
    assert running.counts.endings == {"upstream_first_byte_timeout": 1}
    assert origin.requests_of("/f") == 2
    await origin.wait_for(lambda: origin.open == 0)


async def test_a_slow_first_byte_is_waited_for(house: OpenHouse, origin: Origin) -> None:
    """Longer than every other limit: none of them applies before the first byte."""
    origin.script("/f", Reply(FILE, before_head=0.4))
    timeouts = {"connect": "100ms", "first_byte": "60s", "idle": "100ms", "stall": "100ms"}
    running = await house(settings(origin, upstream={"timeouts": timeouts}))
    assert (await running.fetch("/f")).sha256 == FILE.sha256()


@pytest.mark.option("upstreams.timeouts.idle")
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_silence_in_the_body(house: OpenHouse, origin: Origin, framing: Any) -> None:
    nameless = Reply(FILE, etag=None, last_modified=None, breaks=stall(70_000))  # else it goes on: test_relay.py
    origin.script("/f", replace(nameless, framing=framing))
    running = await house(settings(origin, upstream={"timeouts": {"idle": "100ms"}}))
    async with await running.connect() as client:
        await client.request("GET", "/f")
        got = await client.head()
        await client.body(got)
    assert (got.status, got.size) == (200, 70_000)
    assert got.ending in (("reset",) if framing == "close" else ("cut", "reset"))
    await running.quiet()
    assert running.counts.endings == {"upstream_idle_timeout": 1}
    await origin.wait_for(lambda: origin.open == 0)


async def test_a_drip_is_no_progress(house: OpenHouse, origin: Origin) -> None:
    """Bytes keep coming, but fewer than 1 KiB in an idle time."""
    origin.script("/f", Reply(b"x" * 5000, framing="chunked", chunk=1, rate=100.0))
    running = await house(settings(origin, upstream={"timeouts": {"idle": "200ms"}}))
    async with await running.connect() as client:
        await client.request("GET", "/f")
        got = await client.head()
        await client.body(got)
    assert not got.complete
    assert got.size < KIB
    await running.quiet()
    assert running.counts.endings == {"upstream_idle_timeout": 1}


async def test_a_slow_download_is_never_cut(house: OpenHouse, origin: Origin) -> None:
    """Steady progress for many times every limit that there is."""
    file = Content(9, 96 * KIB)
    origin.script("/f", Reply(file, framing="chunked", chunk=KIB, rate=80.0 * KIB))
    timeouts = {"connect": "300ms", "first_byte": "300ms", "idle": "300ms", "stall": "300ms"}
    upstream = {"timeouts": timeouts, "retry": {"within": "100ms"}}
    running = await house(settings(origin, upstream=upstream, limits={"client_idle": "300ms"}))
    got = await running.fetch("/f")
    assert (got.ending, got.sha256) == ("chunked", file.sha256())


async def test_a_slow_client_is_not_the_origins_fault(house: OpenHouse, origin: Origin) -> None:
    """While the client takes nothing the origin is not read, and nobody counts the time against it."""
    file = Content(9, 24 * MIB)
    origin.serve("/f", file)
    upstream = {"timeouts": {"idle": "100ms"}, "sockets": {"receive_buffer": "64KiB"}}
    server = {"sockets": {"send_buffer": "64KiB"}}  # so that the kernel does not hold the whole file
    running = await house(settings(origin, upstream=upstream, server=server, limits={"client_idle": "60s"}))
    async with await running.connect(receive_buffer=8 * KIB) as client:
        await client.request("GET", "/f")
        got = await client.head()
        sent = -1
        while origin.sent["/f"] > sent:  # until everything between origin and client is full for 3 idle times
            sent = origin.sent["/f"]
            await asyncio.sleep(0.3)
        assert sent < file.size
        await client.body(got)
    assert (got.complete, got.sha256) == (True, file.sha256())


async def test_an_origin_that_takes_no_more_of_an_upload(house: OpenHouse, origin: Origin) -> None:
    gate = Gate()
    origin.script("/f", Reply(reads=gate))
    running = await house(
        settings(origin, upstream={"timeouts": {"idle": "100ms", "first_byte": "60s"}}, route=WRITABLE)
    )
    async with await running.connect() as client:
        await client.send(b"POST /f HTTP/1.1\r\nHost: files.test\r\nContent-Length: 67108864\r\n\r\n")
        client.writer.write(b"x" * 33_554_432)
        got = await client.head()
        assert got.status == 504
    await running.quiet()
    assert running.counts.endings == {"upstream_idle_timeout": 1}
    gate.open()


async def test_no_free_connection_is_our_own_shortage(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", Content(9, 64 * MIB))
    upstream = {"pool": {"limit": 1}, "timeouts": {"first_byte": "50ms"}, "retry": {"within": "50ms"}}
    running = await house(settings(origin, upstream=upstream))
    async with await running.connect(receive_buffer=8 * KIB) as busy:
        await busy.request("GET", "/f")
        assert (await busy.head()).status == 200
        got = await running.fetch("/f")
        assert (got.status, got.get("retry-after")) == (503, "1")
        busy.reset()
    await running.quiet()
    assert running.counts.endings["shed"] == 1
