"""The work of a hit without the kernel: a whole worker's house in this process, a client that is only a transport.

One real download (from an origin in this process) makes the head known. From then on the bytes of a request are handed
to the fast front directly, and what it writes is thrown away: what is left is our own work, which can be
counted (``instructions.py``) and does not drift with the machine's mood.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from email.utils import formatdate
from pathlib import Path
from typing import Any

from fileproxy.app import House
from fileproxy.clock import SystemClock
from fileproxy.observe.logs import Logs
from fileproxy.observe.page import Page
from fileproxy.observe.slots import Slots
from fileproxy.reports import COUNTERS
from fileproxy.server.bare import Bare
from fileproxy.server.heads import HeadLimits, check_head
from fileproxy.server.worker import new_loop
from fileproxy.settings import Settings

SETTLED_AFTER = 200  # hits that are counted and logged together: what comes in 2 ms at 100,000 a second
HEAD = b"GET /%b HTTP/1.1\r\nHost: files.test\r\n\r\n"
BROWSER = (
    b"GET /pub/files/image.iso HTTP/1.1\r\nHost: files.test\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n"
    b"Accept: */*\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Referer: http://files.test/pub/files/\r\nConnection: keep-alive\r\nPriority: u=0, i\r\n\r\n"
)
PATHS = {
    "hit": "1 KiB from memory on a kept connection, with the access log",
    "hit-quiet": "the same without the access log",
    "hit-64k": "64 KiB, with the access log",
    "connection": "a new connection, one hit of 1 KiB, the connection's end",
    "head": "checking a browser's request head, as is done for what is not known",
}
Work = Callable[[int], None]


class Deaf(Bare):
    """A connection that takes all and sends nothing. Its descriptor is none. ``taken``: bytes of everything written."""

    __slots__ = ("taken",)

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, socket.AF_INET, "127.0.0.1", 0.0)
        self.taken = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.taken += len(data)

    def writelines(self, parts: Iterable[bytes | bytearray | memoryview]) -> None:
        self.taken += sum(map(len, parts))

    def close(self) -> None: ...


async def _origin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers ``GET /SIZE`` with so many bytes that stay fresh for an hour."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), contextlib.closing(writer):
        while head := await reader.readuntil(b"\r\n\r\n"):
            size = int(head.split()[1].rpartition(b"/")[2])
            now = formatdate(usegmt=True)
            writer.write(
                f"HTTP/1.1 200 OK\r\nDate: {now}\r\nContent-Type: application/octet-stream\r\nETag: \"v{size}\"\r\n"
                f"Content-Length: {size}\r\nCache-Control: max-age=3600\r\n\r\n".encode() + bytes(size)
            )  # fmt: skip


@contextlib.asynccontextmanager
async def _house(folder: Path, *, access_log: bool) -> AsyncIterator[tuple[House, Logs]]:
    """A worker's house over an origin in this process."""
    origin = await asyncio.start_server(_origin, "127.0.0.1", 0)
    settings = Settings.model_validate(
        {
            "upstreams": {"files": f"http://127.0.0.1:{origin.sockets[0].getsockname()[1]}"},
            "cache": {"disk": "off"},
            "server": {"admin_token_file": str(folder / "token")},
            "logs": {"access": str(folder / "access.log") if access_log else "off", "audit": "off",
                     "error": str(folder / "error.log")},
        }
    )  # fmt: skip
    clock = SystemClock()
    slot = Slots(folder).claim()
    page = Page.create(folder / COUNTERS, slot.number, clock)
    logs = Logs(settings.logs, counters=page, clock=clock)
    house = House(settings, counters=page, logs=logs, run_dir=folder, identity="5eed" * 8, clock=clock)
    await house.open()
    try:
        yield house, logs
    finally:
        await house.close()
        logs.close()
        page.close()
        slot.release()
        origin.close()
        await origin.wait_closed()


async def _learned(house: House, head: bytes) -> None:
    """Ask by a real connection until the head is known."""
    server = await asyncio.get_running_loop().create_server(house.protocol, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        for _ in range(3):
            writer.write(head)
            got = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
            fields = dict(line.lower().split(b": ", 1) for line in got.split(b"\r\n")[1:-2])
            await asyncio.wait_for(reader.readexactly(int(fields[b"content-length"])), 60)
    finally:
        writer.close()
        server.close()


def _hits(house: Any, logs: Logs, head: bytes, size: int) -> Work:
    """``head`` again and again on one connection. Raises when it is not answered at once."""
    fast = house._service.fast  # noqa: SLF001 (what a service does by a timer is done by number here)
    one = Deaf(-1)
    if fast.answer(head, one) is None or not one.taken > size:
        raise RuntimeError(f"{head!r} is not answered from the tables")
    fast.settle()
    each = one.taken

    def work(times: int) -> None:
        before, answer, settle = one.taken, fast.answer, fast.settle
        for number in range(times):
            answer(head, one)
            if number % SETTLED_AFTER == 0:
                settle()
        settle()
        logs.flush()
        if one.taken - before < times * (each - 16):  # Age may be shorter by a digit
            raise RuntimeError("some heads were not answered at once")

    return work


def _connections(house: Any, logs: Logs, head: bytes, size: int) -> Work:
    """A connection for each ``head``."""
    fast, connections = house._service.fast, house._connections  # noqa: SLF001

    def work(times: int) -> None:
        for number in range(times):
            connections.admit("127.0.0.1", -1)
            one = connections.bare[-1] = Deaf(-1)
            if fast.answer(head, one) is None or not one.taken > size:
                raise RuntimeError("a head was not answered at once")
            connections.end(one)
            if number % SETTLED_AFTER == 0:
                fast.settle()
        fast.settle()
        logs.flush()

    return work


def _heads() -> Work:
    limits, now = HeadLimits(), 0.0

    def work(times: int) -> None:
        for _ in range(times):
            check_head(BROWSER, limits, now)

    return work


async def _with_work(path: str, folder: Path, use: Callable[[Work], None]) -> None:
    if path == "head":
        use(_heads())
        return
    size = 64 * 1024 if path == "hit-64k" else 1024
    head = HEAD % str(size).encode()
    async with _house(folder, access_log=path != "hit-quiet") as (house, logs):
        await _learned(house, head)
        use((_connections if path == "connection" else _hits)(house, logs, head, size))


def with_work(path: str, use: Callable[[Work], None]) -> None:
    """Call ``use`` with a function that walks the path as often as it is told. KeyError: no such path in ``PATHS``."""
    if path not in PATHS:
        raise KeyError(path)
    with tempfile.TemporaryDirectory(prefix="hit-path-") as folder:
        Path(folder).chmod(0o700)
        loop, _ = new_loop(Settings())
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(_with_work(path, Path(folder), use))
