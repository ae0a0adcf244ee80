"""One connection of the scripted origin: requests are read by hand, answers written as the reply says.

Written on a bare protocol, so that an early end, a reset and a peer that goes away are all seen the moment they happen.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast

from tests.origin.play import Gate, Plan, Reply, Wait, plan

if TYPE_CHECKING:
    from tests.origin.server import Origin

_HIGH = 256 * 1024  # bytes read ahead of the play: a slow reader must make the peer wait
_KEEP = 4 * 1024 * 1024  # request body bytes kept for looking at; beyond that only size and digest
_PIECE = 64 * 1024


@dataclass
class Request:
    """One request as it arrived. ``complete`` once its body was read to the end."""

    connection: int
    head: bytes
    method: str = ""
    target: str = ""
    version: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    body_size: int = 0
    complete: bool = False
    status: int = 0  # answered with
    sent: int = 0  # body bytes of the answer handed to the kernel
    _digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def body_sha256(self) -> str:
        return self._digest.hexdigest()

    def all(self, name: str) -> list[str]:
        """Every value of a header, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        values = self.all(name)
        return values[0] if values else None

    def took(self, piece: bytes) -> None:
        self.body_size += len(piece)
        self._digest.update(piece)
        self.body += piece[: max(0, _KEEP - len(self.body))]


def parse_head(connection: int, head: bytes) -> Request:
    """A recorded request from the raw head. Bytes become text one to one (latin-1), so nothing is lost."""
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    parts = first.split(" ")
    method, target, version = parts if len(parts) == 3 else (first, "", "")
    headers = [(name, value.strip(" \t")) for name, _, value in (line.partition(":") for line in lines)]
    return Request(connection, head, method, target, version, headers)


class Gone(Exception):
    """The peer closed or reset; the play on this connection is over."""


class Wire(asyncio.Protocol):
    """The server's end of one connection. ``serve`` runs as the origin's task until either side closes."""

    def __init__(self, origin: Origin, number: int) -> None:
        self.origin = origin
        self.number = number
        self.peer_closed = False  # FIN or RST from the peer before we closed
        self.lost = False
        self.idle = True
        self._buffer = bytearray()
        self._eof = False
        self._closing = False
        self._writable = asyncio.Event()
        self._news = asyncio.Event()
        self._transport: asyncio.Transport
        self._tls = False

    # --- what the event loop tells -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from asyncio's
        self._tls = transport.get_extra_info("ssl_object") is not None
        self._writable.set()
        self._transport.set_write_buffer_limits(high=_PIECE)
        self.origin.connected(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > _HIGH:
            self._transport.pause_reading()
        self._news.set()

    def eof_received(self) -> bool:
        self._peer_went()
        return not self._tls  # keep our side open: a half-closed peer may still be served

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._peer_went()
        self._writable.set()
        self.origin.disconnected(self)

    def _peer_went(self) -> None:
        self._eof = True
        if not self._closing:
            self.peer_closed = True
        self._news.set()
        self.origin.changed()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # --- reading -----------------------------------------------------------------------------------------------------

    async def _more(self) -> None:
        """Wait for further bytes. Raises Gone at the end."""
        if self._eof:
            raise Gone
        self._news.clear()
        self._transport.resume_reading()
        await self._news.wait()

    async def _until(self, end: bytes) -> bytes:
        while (at := self._buffer.find(end)) < 0:
            await self._more()
        found = bytes(self._buffer[: at + len(end)])
        del self._buffer[: at + len(end)]
        return found

    async def _some(self, most: int) -> bytes:
        while not self._buffer:
            await self._more()
        found = bytes(self._buffer[:most])
        del self._buffer[:most]
        return found

    async def _body(self, request: Request) -> AsyncIterator[bytes]:
        if "chunked" in (request.get("transfer-encoding") or "").lower():
            while (size := int((await self._until(b"\r\n")).partition(b";")[0], 16)) > 0:
                left = size
                while left:
                    piece = await self._some(left)
                    left -= len(piece)
                    yield piece
                assert await self._until(b"\r\n") == b"\r\n"
            while await self._until(b"\r\n") != b"\r\n":
                pass
            return
        left = int(request.get("content-length") or 0)
        while left:
            piece = await self._some(min(left, _PIECE))
            left -= len(piece)
            yield piece

    # --- the play ----------------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Requests in, replies out, until one of them ends the connection."""
        try:
            while not self._closing:
                self.idle = True
                while not self._buffer:
                    await self._more()
                self.idle = False
                request = parse_head(self.number, await self._until(b"\r\n\r\n"))
                reply = self.origin.received(request)
                await self._read_body(request, reply)
                await self._answer(request, reply)
        except Gone:
            self.close()

    async def _read_body(self, request: Request, reply: Reply) -> None:
        if reply.reads == "none":
            return
        if isinstance(reply.reads, Gate):
            await self._wait(reply.reads)
        if (request.get("expect") or "").lower() == "100-continue":
            await self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        async for piece in self._body(request):
            request.took(piece)
            self.origin.changed()
            if reply.read_rate:
                await self._wait(len(piece) / reply.read_rate)
        request.complete = True
        self.origin.changed()

    async def _answer(self, request: Request, reply: Reply) -> None:
        await self._wait(reply.before_head)
        for head in reply.interim:
            await self.write(head)
        if reply.breaks is not None and reply.breaks.at is None:
            await self._break(reply)
        if reply.raw is not None:
            await self.write(reply.raw)
        else:
            if reply.echo:
                reply = Reply(request.head + bytes(request.body), headers=reply.headers, after=reply.after, etag=None)
            planned = plan(reply, request.method, {name.lower(): value for name, value in request.headers})
            request.status = planned.status
            await self.write(planned.head)
            await self._wait(reply.before_body)
            if not planned.bodyless:
                await self._send_body(request, reply, planned)
        if reply.after in ("close", "fin") or (reply.framing == "close" and reply.raw is None):
            self.close()
        elif reply.after == "reset":
            self.abort()

    async def _send_body(self, request: Request, reply: Reply, planned: Plan) -> None:
        piece_size = reply.chunk if reply.framing == "chunked" else _PIECE
        at, end = 0, planned.length
        while True:
            if reply.breaks is not None and reply.breaks.at == at:
                await self._break(reply)
            if at >= end:
                break
            stop = min(end, at + piece_size)
            if reply.breaks is not None and reply.breaks.at is not None and at < reply.breaks.at < stop:
                stop = reply.breaks.at
            piece = reply.bytes_at(planned.start + at, stop - at)
            await self.write(self._framed(reply, piece))
            at = stop
            request.sent += len(piece)
            self.origin.has_sent(request, len(piece))
            if reply.rate:
                await self._wait(len(piece) / reply.rate)
        if reply.framing == "chunked":
            if reply.chunk_fault == "truncated":
                self.close()
            else:
                await self.write(b"0\r\n" + reply.trailers + b"\r\n")

    @staticmethod
    def _framed(reply: Reply, piece: bytes) -> bytes:
        if reply.framing != "chunked":
            return piece
        if reply.chunk_fault == "bad_size":
            return b"%xZ\r\n" % len(piece) + piece + b"\r\n"
        if reply.chunk_fault == "no_crlf":
            return b"%x\r\n" % len(piece) + piece
        return b"%x\r\n" % len(piece) + piece + b"\r\n"

    async def _break(self, reply: Reply) -> None:
        how: Literal["reset", "fin", "stall"] = reply.breaks.how if reply.breaks else "fin"
        if how == "stall":
            assert reply.breaks is not None
            await self._wait(reply.breaks.lasts if reply.breaks.lasts is not None else Gate())
            return
        if how == "reset":
            self.abort()
        raise Gone

    async def _wait(self, for_: Wait) -> None:
        """Pass a gate or let time go by; Gone as soon as the peer leaves."""
        if for_ == 0.0:
            return
        waiting = asyncio.create_task(for_.passed() if isinstance(for_, Gate) else asyncio.sleep(for_))
        try:
            while not waiting.done():
                leaving = asyncio.create_task(self._news.wait())
                await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
                leaving.cancel()
                if self.lost or (self._eof and not waiting.done()):
                    raise Gone
                self._news.clear()
        finally:
            waiting.cancel()

    async def write(self, data: bytes) -> None:
        """Hand bytes to the kernel, waiting while the peer is slow. Raises Gone when it left."""
        if self.lost or self._transport.is_closing():
            self._peer_went()  # uvloop closes before it tells
            raise Gone
        self._transport.write(data)
        await self._writable.wait()
        if self.lost:
            raise Gone
        await asyncio.sleep(0)

    # --- endings -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """An orderly end: what was written still goes out."""
        self._closing = True
        if not self.lost:
            self._transport.close()

    def abort(self) -> None:
        """RST: the peer learns that this was no end."""
        self._closing = True
        if self.lost:
            return
        raw: socket.socket | None = self._transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
