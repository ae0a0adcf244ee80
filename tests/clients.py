"""Clients that hide nothing: raw HTTP/1.1 over a real socket, and the real programs people download with.

:class:`Connection` sends exactly the bytes it is given and says exactly what came back, including how the message
ended: ``complete`` is True only when the framing proved it.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

import pytest

Take = Callable[[bytes], None]
Ending = Literal["length", "chunked", "close", "none", "cut", "reset"]


@dataclass
class Got:
    """One answer as it was seen. Header text is latin-1, so every byte can be compared."""

    status: int
    reason: str
    version: str
    headers: list[tuple[str, str]]
    interim: list[bytes] = field(default_factory=list)  # whole 1xx heads before it
    raw_head: bytes = b""
    body: bytes = b""
    size: int = 0
    sha256: str = ""
    ending: Ending = "none"

    @property
    def complete(self) -> bool:
        """The framing proved the end. A body ended only by the close proves nothing and is not complete."""
        return self.ending in ("length", "chunked", "none")

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        values = self.all(name)
        return values[0] if values else None

    @property
    def names(self) -> set[str]:
        return {name.lower() for name, _ in self.headers}


class Connection:
    """A client connection. ``receive_buffer`` fixes SO_RCVBUF, so that a slow reader is slow within few bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, host: str = "127.0.0.1", receive_buffer: int | None = None) -> Self:
        raw = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            raw.setblocking(False)
            if receive_buffer is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            await asyncio.get_running_loop().sock_connect(raw, (host, port))
            reader, writer = await asyncio.open_connection(sock=raw, limit=64 * 1024)
        except BaseException:
            raw.close()
            raise
        return cls(reader, writer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- sending -----------------------------------------------------------------------------------------------------

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def request(self, method: str, target: str, *lines: str, body: bytes = b"", host: str = "files.test") -> None:
        """A request of exactly these header lines after Host; Content-Length is added for a body."""
        every = [f"{method} {target} HTTP/1.1", f"Host: {host}", *lines]
        if body:
            every.append(f"Content-Length: {len(body)}")
        await self.send("\r\n".join([*every, "", ""]).encode("latin-1") + body)

    async def ask(self, method: str, target: str, *lines: str, body: bytes = b"", host: str = "files.test") -> Got:
        await self.request(method, target, *lines, body=body, host=host)
        return await self.answer(method)

    # --- receiving ---------------------------------------------------------------------------------------------------

    async def head(self) -> Got:
        """The head of the next final answer; 1xx ones before it are kept in ``interim``."""
        interim: list[bytes] = []
        while True:
            raw = await self.reader.readuntil(b"\r\n\r\n")
            first, *lines = raw.decode("latin-1")[:-4].split("\r\n")
            version, status, reason = [*first.split(" ", 2), "", ""][:3]
            if 100 <= int(status) < 200:
                interim.append(raw)
                continue
            headers = [(name, value.strip(" \t")) for name, _, value in (line.partition(":") for line in lines)]
            return Got(int(status), reason, version, headers, interim, raw)

    async def answer(self, method: str = "GET") -> Got:
        """Head and body of the next answer."""
        got = await self.head()
        await self.body(got, method)
        return got

    async def body(self, got: Got, method: str = "GET", keep: int = 64 * 1024 * 1024) -> None:
        """Read the body into ``got``; at most ``keep`` bytes of it are kept, all are hashed and counted."""
        digest, kept = hashlib.sha256(), bytearray()

        def take(piece: bytes) -> None:
            digest.update(piece)
            got.size += len(piece)
            if len(kept) < keep:
                kept.extend(piece)

        try:
            got.ending = await self._read_body(got, method, take)
        except (asyncio.IncompleteReadError, EOFError):
            got.ending = "cut"
        except ConnectionError:
            got.ending = "reset"
        got.body, got.sha256 = bytes(kept), digest.hexdigest()

    async def _read_body(self, got: Got, method: str, take: Take) -> Ending:
        if method == "HEAD" or got.status in (204, 304):
            return "none"
        if "chunked" in (got.get("transfer-encoding") or "").lower():
            while (left := int((await self._line()).partition(b";")[0], 16)) > 0:
                await self._exactly(left, take)
                assert await self._line() == b""
            while await self._line():
                pass
            return "chunked"
        if (length := got.get("content-length")) is not None:
            await self._exactly(int(length), take)
            return "length"
        while piece := await self.reader.read(65536):
            take(piece)
        return "close"

    async def _line(self) -> bytes:
        return (await self.reader.readuntil(b"\r\n"))[:-2]

    async def _exactly(self, left: int, take: Take) -> None:
        while left:
            piece = await self.reader.read(min(left, 65536))
            if not piece:
                raise EOFError
            left -= len(piece)
            take(piece)

    async def ended(self) -> bool:
        """Wait for the end of what the server sends. True for an orderly close without further bytes."""
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return False

    # --- leaving -----------------------------------------------------------------------------------------------------

    def half_close(self) -> None:
        """Send no more (FIN), still read."""
        self.writer.write_eof()

    def reset(self) -> None:
        """Leave with an RST."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            return  # the server had reset it: closed as well


async def fetch(port: int, method: str, target: str, *lines: str, body: bytes = b"", host: str = "files.test") -> Got:
    """One request on a connection of its own."""
    async with await Connection.open(port) as connection:
        return await connection.ask(method, target, *lines, body=body, host=host)


def program(name: str) -> str:
    """The path of a program on PATH, or a skip that says what is missing."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


@dataclass(frozen=True)
class Ran:
    code: int
    out: bytes
    err: bytes


async def run(*command: str, env: dict[str, str] | None = None, within: float = 60.0) -> Ran:
    """Run a program to its end without blocking the loop; it is killed (by its pid) when it takes too long."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=env
    )
    try:
        async with asyncio.timeout(within):
            out, err = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Ran(process.returncode, out, err)
