"""The bytes of an upstream's answer, handed on as they land. A body ends with its end proved, or raises."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable

import aiohttp

from fileproxy.clock import Clock
from fileproxy.control.quality import Quality
from fileproxy.errors import FileProxyError, IdleTimeout, Truncated, UpstreamReset
from fileproxy.model import Nudged
from fileproxy.tcpinfo import NetPath
from fileproxy.upstream.progress import ProgressMeter
from fileproxy.upstream.translate import translate
from fileproxy.upstream.watch import Watch


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

    @property
    def received(self) -> int:
        """Bytes that came so far."""
        return self._received

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

    async def _read(self) -> bytes:
        if self._closed:
            raise UpstreamReset(f"{self._address}: the body was closed")
        content = self._content
        try:
            if content.total_bytes > self._received or content.is_eof():
                data = await content.readany()
                self._meter.record(len(data), 0.0)
            else:
                data = await self._wait()
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
        self._received += len(data)
        self._on_bytes(len(data))
        if self._received >= self._look_at:
            self._look()
        return data

    def _look(self) -> None:
        assert self._watch is not None
        quality = self._watch.look(self._received, self.waited_s)
        self._look_at = self._watch.next_at
        if self._idle_s is not None:
            self._meter.idle_s = self._idle_s(quality)

    async def _wait(self) -> bytes:
        since = self._clock.now()
        try:
            async with asyncio.timeout(self._meter.allowance_s) as self._deadline:
                data = await self._content.readany()
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
        self._meter.record(len(data), waited_s)
        return data

    def nudge(self) -> None:
        """See ``model.Connected``."""
        if self._deadline is not None and not self._deadline.expired():
            self._nudged = True
            self._deadline.reschedule(asyncio.get_running_loop().time())

    def _on_lost(self, lost: asyncio.Future[None]) -> None:
        error = None if lost.cancelled() else lost.exception()
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
        self._forget()
        if self._content.is_eof():
            self._response.close()
        else:
            self._abort()


def _look_at(lost: asyncio.Future[None]) -> None:
    """How a connection ended was looked at, even if that was long after its last answer."""
    if not lost.cancelled():
        lost.exception()
