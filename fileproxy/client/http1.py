"""The client's own way to ask an HTTP/1.1 server: GET, nothing else, over connections that are kept for the next one.

It is here for the sake of start-up: aiohttp and the settings of an upstream take half a second to import, which is
longer than most downloads from a good server. What it believes is less than what aiohttp believes: an answer that is
not exactly framed (RFC 9112 §6) is refused. Laws: a body ends with its end proved or raises (law 2); bytes that came
before a break are handed on first; a connection is used again only when its answer came to its end, with nothing after.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import cast

from fileproxy.client.connect import broken
from fileproxy.client.framing import HEAD_BYTES, Chunks, framing, parse_head
from fileproxy.errors import BadAnswer, IdleTimeout, Truncated, UpstreamError, UpstreamReset
from fileproxy.model import Headers
from fileproxy.upstream.progress import ProgressMeter


class Connection(asyncio.BufferedProtocol):
    """One connection, with at most one answer under way: ``body``. ``idle`` when it may be asked again.

    Args:
        buffer: bytes read at once, and about how many may wait for their reader.
        over: told once, when the connection can take the next request or none any more.
        came: the first request was sent before, and this is what was read of its answer.
    """

    def __init__(
        self,
        address: str,
        buffer: int,
        over: Callable[[Connection], None],
        came: Sequence[bytes] | None = None,
    ) -> None:
        self.address = address
        self.body: Http1Body | None = None
        self.lost = False
        self._over = over
        self._space = bytearray(buffer)
        self._view = memoryview(self._space)
        self._head = bytearray()
        self._came = came
        self._answer: asyncio.Future[tuple[int, str, Headers]] | None = None
        self._transport: asyncio.Transport | None = None
        self._keep = False

    @property
    def idle(self) -> bool:
        return not self.lost and self._answer is None and self.body is None

    async def ask(self, request: bytes) -> tuple[int, str, Headers]:
        """Send a request and wait for the head of its answer; ``body`` is then there. Raises UpstreamError."""
        assert self.idle
        assert self._transport is not None
        self._head.clear()
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._awaited()

    async def asked(self) -> tuple[int, str, Headers]:
        """The same where the request was sent before."""
        self._catch_up()
        return await self._awaited()

    async def _awaited(self) -> tuple[int, str, Headers]:
        assert self._answer is not None
        try:
            return await self._answer
        finally:
            self._answer = None

    def abort(self) -> None:
        """Close at once, whatever is on its way."""
        if self._transport is not None:
            self._transport.abort()
        self.lost = True

    def flow(self, on: bool) -> None:
        """Read on, or leave the rest to the kernel for now."""
        if self._transport is not None and not self.lost:
            (self._transport.resume_reading if on else self._transport.pause_reading)()

    def done_with(self, body: Http1Body) -> None:
        """Its reader needs no more of it."""
        if body is not self.body:
            return
        self.body = None
        if not body.complete or not self._keep:
            self.abort()
        else:
            self.flow(True)
        self._over(self)

    # --- what the event loop calls -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        if self._came is not None:
            self._answer = asyncio.get_running_loop().create_future()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        self._catch_up()
        self._arrived(bytes(self._view[:nbytes]))

    def _catch_up(self) -> None:
        """What came before it was ours goes before all else."""
        came, self._came = self._came or (), None
        for piece in came:
            self._arrived(piece)

    def _arrived(self, data: bytes) -> None:
        try:
            if self.body is None and self._answer is not None and not self._answer.done():
                self._head += data
                data = self._read_head()
            if data:
                self._read_body(data)
        except UpstreamError as error:
            self._fail(error)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._catch_up()
        self.lost = True
        if self.body is not None:
            self.body.cut(exc)
        elif self._answer is not None and not self._answer.done():
            said = "closed before an answer came" if exc is None else f"broken ({exc})"
            self._answer.set_exception(UpstreamReset(f"{self.address}: the connection was {said}"))
        self._over(self)

    # --- reading -----------------------------------------------------------------------------------------------------

    def _read_head(self) -> bytes:
        """Take a head off what came, interim answers (1xx) passed over; the rest is of the body."""
        assert self._answer is not None
        while (end := self._head.find(b"\r\n\r\n")) >= 0 and end <= HEAD_BYTES:
            lines = bytes(self._head[:end]).split(b"\r\n")
            del self._head[: end + 4]
            status, reason, headers, self._keep = parse_head(lines, self.address)
            if status == 101:
                raise BadAnswer(f"{self.address}: switched protocols without being asked to")
            if status >= 200:
                self.body = Http1Body(self, *framing(status, headers, self.address))
                self._keep = self._keep and self.body.framed
                self._answer.set_result((status, reason, headers))
                rest = bytes(self._head)
                self._head.clear()
                return rest
        if len(self._head) > HEAD_BYTES:
            raise BadAnswer(f"{self.address}: the head of the answer is too long")
        return b""

    def _read_body(self, data: bytes) -> None:
        after = data if self.body is None else self.body.feed(data)
        if after:  # nobody asked for that
            self._keep = False
            self.abort()

    def _fail(self, error: UpstreamError) -> None:
        self._keep = False
        if self.body is not None:
            self.body.fail(error)
        elif self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self.abort()


class Http1Body:
    """A :class:`fileproxy.model.Body`. What came is handed on in the pieces it came in."""

    def __init__(self, connection: Connection, length: int | None, chunked: bool) -> None:
        self.length = length
        self.framed = chunked or length is not None
        self.complete = length == 0
        self.meter = ProgressMeter(60.0)
        self.on_bytes: Callable[[int], None] = lambda _: None
        self._connection = connection
        self._chunks = Chunks(connection.address) if chunked else None
        self._came = 0
        self._pieces: deque[bytes] = deque()
        self._waiting = 0  # bytes in them
        self._paused = False
        self._news: asyncio.Future[None] | None = None
        self._error: UpstreamError | None = None
        self._closed = False

    # --- what came ---------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> bytes:
        """Bytes of the connection; those behind the body's end are returned. Raises BadAnswer."""
        if self._chunks is not None:
            pieces, after = self._chunks.feed(data)
            self.complete = self._chunks.over
        elif self.length is None:
            pieces, after = [data], b""
        else:
            left = self.length - self._came
            pieces, after = [data[:left]] if left < len(data) else [data], data[left:]
            self.complete = left <= len(data)
        for piece in pieces:
            if piece:
                self._came += len(piece)
                self._waiting += len(piece)
                self._pieces.append(piece)
        if self._waiting > len(self._connection._space) and not self._paused and not self.complete:  # noqa: SLF001
            self._paused = True
            self._connection.flow(False)
        self._tell()
        return after

    def cut(self, error: Exception | None) -> None:
        """The connection ended."""
        if self.complete or self._error is not None:
            return
        address = self._connection.address
        if error is not None:
            self._error = broken(error, f"{address}: the connection broke inside the body")
        elif self.framed:
            of = "" if self.length is None else f"{self._came} of {self.length} bytes came"
            self._error = Truncated(f"{address}: {of or 'the body ended before its end'}")
        else:
            self.complete = True  # which proves nothing: ``framed`` says so
        self._tell()

    def fail(self, error: UpstreamError) -> None:
        if not self.complete:
            self._error = self._error or error
        self._tell()

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # --- reading it --------------------------------------------------------------------------------------------------

    def __aiter__(self) -> Http1Body:
        return self

    async def __anext__(self) -> bytes:
        if not self._pieces:
            await self.wait()
            if not self._pieces:
                raise StopAsyncIteration
        piece = self._pieces.popleft()
        self._waiting -= len(piece)
        if self._paused and not self._pieces:
            self._paused = False
            self._connection.flow(True)
        self.on_bytes(len(piece))
        return piece

    async def wait(self) -> None:
        """Until there is a piece, or the proved end. Raises UpstreamError."""
        loop = asyncio.get_running_loop()
        while not self._pieces and not self.complete:
            if self._error is not None:
                raise self._error
            if self._closed:
                raise UpstreamReset(f"{self._connection.address}: the body was closed")
            since = loop.time()
            before = self._came
            self._news = loop.create_future()
            try:
                async with asyncio.timeout(self.meter.allowance_s):
                    await self._news
            except TimeoutError as error:
                self._connection.abort()
                raise IdleTimeout(
                    f"{self._connection.address}: only {self.meter.arrived} bytes came in an idle window after byte "
                    f"{self._came}"
                ) from error
            finally:
                self._news = None
            self.meter.record(self._came - before, loop.time() - since)

    async def aclose(self) -> None:
        """Give the connection back when the whole answer is here, read or not; else close it."""
        if not self._closed:
            self._closed = True
            self._connection.done_with(self)
