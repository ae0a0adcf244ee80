"""The bytes of an upstream's answer, handed on as they land. A body ends with its end proved, or raises.

A long one whose length is known goes on through a tube (``tube.py``). What aiohttp read before is handed on first; from
then on its parser sees nothing more of this answer, so the end is ours to tell it.
"""

from __future__ import annotations

import asyncio
import errno
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import aiohttp

from fileproxy.clock import Clock
from fileproxy.control.quality import Quality
from fileproxy.errors import FileProxyError, IdleTimeout, Truncated, UpstreamReset
from fileproxy.model import Nudged, Piece, PipeSlice
from fileproxy.tcpinfo import NetPath
from fileproxy.upstream.progress import ProgressMeter
from fileproxy.upstream.translate import translate
from fileproxy.upstream.tube import Tube, Tubes
from fileproxy.upstream.watch import Watch

WORTH_BYTES = 512 * 1024  # a rest that is shorter is not worth a tube
# Bytes of one read past aiohttp: as much as is taken in some milliseconds, so that a slow client costs little (law 5)
# and a fast one, or a fill, few reads: what is done for each costs as much as copying a MiB.
READS = 32 * 1024, 4 * 1024 * 1024
SOON_S, LATE_S = 0.01, 0.02  # asked for so soon again, or so late, a read is of twice, or half, the size
_T = TypeVar("_T")
_Moved = TypeVar("_Moved", int, bytes)


class HttpBody:
    """A :class:`fileproxy.model.Body` over aiohttp's stream.

    Args:
        response: whose head was read.
        length: bytes that must come, None when only the framing tells.
        framed: False when the close of the connection is the only end.
        meter: how long the origin may be silent.
        on_bytes: told how many bytes came, as they come.
        address: ``host:port`` for error texts.
        watch: looks at the connection now and then; None where nothing is to be learned.
        idle_s: the time ``meter`` allows on a path of such quality; None: it stays as it is.
        tubes: where a tube is had from; None: never.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        *,
        length: int | None,
        framed: bool,
        meter: ProgressMeter,
        clock: Clock,
        on_bytes: Callable[[int], None],
        address: str,
        watch: Watch | None = None,
        idle_s: Callable[[Quality | None], float] | None = None,
        tubes: Tubes | None = None,
    ) -> None:
        self.length = length
        self.framed = framed
        self._response = response
        self._content = response.content
        self._meter = meter
        self._clock = clock
        self._on_bytes = on_bytes
        self._address = address
        self._received = 0
        self._watch = watch
        self._look_at = math.inf if watch is None else watch.next_at
        self._idle_s = idle_s
        self._tubes = tubes  # None: it is settled whether there is a tube
        self._tube: Tube | None = None
        self._most = READS[0]  # of the next read through it
        self._read_at = 0.0  # when the last one was done
        self._full = True  # it brought all that it could
        self.waited_s = 0.0  # for the mirror, of the time since the head came
        self.path: NetPath | None = None  # the connection it comes over
        self._deadline: asyncio.Timeout | None = None  # while it is waited for bytes
        self._nudged = False
        self._first: bytes | None = None  # read ahead by prefetch
        self._closed = False
        self._over = False
        self._on_over: Callable[[FileProxyError | None], None] | None = None
        self._lost: asyncio.Future[None] | None = None
        connection = response.connection
        if connection is not None and connection.protocol is not None:
            # aiohttp does not tell a waiting reader when a body breaks the rules of its framing; the connection does.
            self._lost = connection.protocol.closed
            if self._lost is not None:
                self._lost.remove_done_callback(_look_at)  # of the answer before this one
                self._lost.add_done_callback(_look_at)
                self._lost.add_done_callback(self._on_lost)
        self._paused: asyncio.ReadTransport | None = None  # until more is asked for than came with the head
        self._pause()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece, self._first = self._first, None
        if piece is None:
            try:
                piece = await self._read()
            except FileProxyError as error:
                self._end(error)
                raise
        if not piece:
            self._end(None)
            raise StopAsyncIteration
        return piece

    def piped(self) -> AsyncIterator[Piece | PipeSlice]:
        """See ``model.Piping``. May be left for the body itself between two pieces."""
        return _Piped(self)

    @property
    def received(self) -> int:
        """Bytes that came so far."""
        return self._received

    @property
    def landed(self) -> bool:
        """All of it is here, read or not."""
        return self.length is not None and self._content.total_bytes >= self.length

    def when_over(self, tell: Callable[[FileProxyError | None], None]) -> None:
        """``tell`` once: None at the proved end or when it is closed before, else the error that it broke with."""
        self._on_over = tell

    def _end(self, error: FileProxyError | None) -> None:
        if not self._over:
            self._over = True
            if self._watch is not None:
                self._watch.look(self._received, self.waited_s, failed=error is not None)
            if self._on_over is not None:
                self._on_over(error)

    async def prefetch(self) -> None:
        """Wait for the first piece, which the next iteration then returns."""
        self._first = await self._read()

    def _pause(self) -> None:
        """Nothing more is read yet of a long answer: in a crowd much would come before anybody takes it."""
        connection = self._response.connection
        protocol = None if connection is None else connection.protocol
        if self._tubes is None or self.length is None or protocol is None or protocol._reading_paused:  # noqa: SLF001
            return
        if self.length - self._content.total_bytes >= WORTH_BYTES and protocol.transport is not None:
            self._paused = protocol.transport
            self._paused.pause_reading()

    def _resume(self) -> None:
        paused, self._paused = self._paused, None
        if paused is not None and not paused.is_closing():
            paused.resume_reading()

    async def _read(self) -> bytes:
        if self._closed:
            raise UpstreamReset(f"{self._address}: the body was closed")
        if self._ready_for_tube():
            return await self._drawn()
        content = self._content
        try:
            if content.total_bytes > self._received or content.is_eof():
                data = await content.readany()
                if self._paused is not None:
                    self._paused.pause_reading()  # it went on, as little is left
            else:
                self._resume()
                data = await self._wait(content.readany)
            self._meter.record(len(data), 0.0)
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            # aiohttp raises before it hands on what had come in time; the next read finds the error again.
            data = content._read_nowait(-1)  # noqa: SLF001 - read_nowait() raises, too
            if not data and self._received != self.length:
                raise translate(error, self._address) from error
            # All is here; how the connection ended afterwards changes nothing (aiohttp issue 13348).
        if not data:
            if self.length is not None and self._received != self.length:
                raise Truncated(f"{self._address}: {self._received} of {self.length} bytes came")
            if not self.framed and self._was_reset():
                raise UpstreamReset(f"{self._address}: the connection broke after byte {self._received}")
            self._forget()
            return b""
        self._note(len(data))
        return data

    def _note(self, amount: int) -> None:
        """So many bytes of the body came."""
        self._received += amount
        self._on_bytes(amount)
        if self._received >= self._look_at:
            self._look()

    def _look(self) -> None:
        assert self._watch is not None
        quality = self._watch.look(self._received, self.waited_s)
        self._look_at = self._watch.next_at
        if self._idle_s is not None:
            self._meter.idle_s = self._idle_s(quality)

    # --- through a tube -----------------------------------------------------------------------------------------------

    def _ready_for_tube(self) -> bool:
        """A tube is laid, or can be laid now: it is worth it, and nothing that aiohttp has read waits to be read."""
        if self._tube is not None:
            return True
        if self._tubes is None or self._closed:
            return False
        content, protocol = self._content, self._response.connection and self._response.connection.protocol
        if self.length is None or self.length - self._received < WORTH_BYTES or protocol is None:
            self._tubes = None
            return False
        # Paused, it may hold bytes that it has not parsed.
        waits = content.total_bytes > self._received or content.is_eof() or content.exception() is not None
        if waits or protocol._reading_paused or protocol.transport is None:  # noqa: SLF001 - nothing public tells
            return False
        self._tube, self._tubes = self._tubes.lay(protocol.transport), None
        if self._tube is not None:
            self._paused = None  # from now on the tube reads
        return self._tube is not None

    async def next_piped(self) -> Piece | PipeSlice:
        """The next piece, in a pipe if that can be."""
        if self._first is not None or not self._ready_for_tube() or self._received == self.length:
            return await anext(self)
        tube = self._tube
        assert tube is not None
        if not tube.has_pipe():
            return await anext(self)
        try:
            return PipeSlice(tube.outlet, await self._through(tube, tube.splice))
        except _CannotSplice:
            return await anext(self)
        except FileProxyError as error:
            self._end(error)
            raise

    async def _drawn(self) -> bytes:
        """The next bytes through the tube, b"" at the end."""
        tube = self._tube
        assert tube is not None
        if self._received == self.length:
            self._let_go()
            return b""
        now = self._clock.now()
        idle_s, (least, most) = now - self._read_at, READS
        if idle_s <= SOON_S and self._full:
            self._most = min(most, 2 * self._most)
        elif idle_s >= LATE_S:
            self._most = max(least, self._most // 2)
        self._full = False
        try:
            # Reads end at multiples of what they may be: then most of them end where blocks do, and nothing is joined.
            upto = self._most - self._received % self._most
            data = await self._through(tube, lambda left: tube.read(min(left, upto)))
            self._full = len(data) == upto
            return data
        finally:
            self._read_at = self._clock.now()

    async def _through(self, tube: Tube, move: Callable[[int], _Moved]) -> _Moved:
        """What ``move`` (at most so many bytes) brings, as soon as there is any: bytes, or their number."""
        assert self.length is not None
        while True:
            if self._closed or self._lost is None or self._lost.done():
                raise UpstreamReset(f"{self._address}: the connection broke after byte {self._received}")
            try:
                moved = move(self.length - self._received)
            except BlockingIOError:
                await self._wait(tube.readable)
                continue
            except OSError as error:
                if error.errno == errno.EINVAL and move == tube.splice:
                    raise _CannotSplice from error
                raise translate(error, self._address) from error
            if not moved:
                raise Truncated(f"{self._address}: {self._received} of {self.length} bytes came")
            amount = moved if isinstance(moved, int) else len(moved)
            self._meter.record(amount, 0.0)
            self._note(amount)
            return moved

    def _let_go(self) -> None:
        """The whole answer went through the tube: aiohttp is told, and has its connection back.

        What arrives on it unasked must not be taken for more of this body, so its parser goes.
        """
        assert self._tube is not None
        self._forget()
        self._tube.close()
        self._tube = None
        connection = self._response.connection
        if connection is not None and connection.protocol is not None:
            connection.protocol._parser = None  # noqa: SLF001
        self._content.feed_eof()

    async def _wait(self, readable: Callable[[], Awaitable[_T]]) -> _T:
        since = self._clock.now()
        try:
            async with asyncio.timeout(self._meter.allowance_s) as self._deadline:
                found = await readable()
        except TimeoutError as error:
            if self._nudged:
                waited_s = self._clock.now() - since
                self.waited_s += waited_s
                self._meter.record(0, waited_s)
                raise Nudged from None
            self._abort()
            raise IdleTimeout(
                f"{self._address}: only {self._meter.arrived} bytes came in an idle window after byte {self._received}"
            ) from error
        finally:
            self._deadline, self._nudged = None, False
        waited_s = self._clock.now() - since
        self.waited_s += waited_s
        self._meter.record(0, waited_s)
        return found

    def nudge(self) -> None:
        """See ``model.Connected``."""
        if self._deadline is not None and not self._deadline.expired():
            self._nudged = True
            self._deadline.reschedule(asyncio.get_running_loop().time())

    def _on_lost(self, lost: asyncio.Future[None]) -> None:
        error = None if lost.cancelled() else lost.exception()
        if self._tube is not None:
            self._tube.wake()
        if not self._content.is_eof() and self._content.exception() is None:
            self._content.set_exception(
                aiohttp.ClientPayloadError("the connection was lost inside the body") if error is None else error
            )

    def _was_reset(self) -> bool:
        """A body that the close ends must not take a reset for its end, as aiohttp does."""
        lost = self._lost
        return lost is not None and lost.done() and not lost.cancelled() and lost.exception() is not None

    def _forget(self) -> None:
        if self._lost is not None:
            self._lost.remove_done_callback(self._on_lost)
            self._lost = None

    def _abort(self) -> None:
        """Close without waiting for anything still on its way (also under TLS, which would say goodbye first)."""
        if self._tube is not None:
            self._tube.close()
            self._tube = None
        connection = self._response.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
        self._response.close()

    async def aclose(self) -> None:
        """Give the connection back when the whole answer is here, read or not; else close it."""
        if self._closed:
            return
        self._closed = True
        self._end(None)
        self._first = None
        self._resume()
        if self._tube is not None and self._received == self.length:
            self._let_go()
        self._forget()
        if self._content.is_eof():
            self._response.close()
        else:
            self._abort()


class _Piped:
    """Not a generator: one ends when it is nudged."""

    __slots__ = ("_body",)

    def __init__(self, body: HttpBody) -> None:
        self._body = body

    def __aiter__(self) -> _Piped:
        return self

    async def __anext__(self) -> Piece | PipeSlice:
        return await self._body.next_piped()


class _CannotSplice(Exception):
    """The kernel does not splice this connection."""


def _look_at(lost: asyncio.Future[None]) -> None:
    """How a connection ended was looked at, even if that was long after its last answer."""
    if not lost.cancelled():
        lost.exception()
