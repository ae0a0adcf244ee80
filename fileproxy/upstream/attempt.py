"""One try as it goes: queue → connect → send → first byte, and the deadline that applies to each phase.

There is no total deadline. Waiting for a free connection is bounded by ``queue_s`` (what the caller has left), opening
one by the connector's own timeout for each address, the request's body by progress, the head by ``first_byte_s`` from
the moment the request was sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from fileproxy.clock import Clock
from fileproxy.errors import FileProxyError, FirstByteTimeout, IdleTimeout, Shed
from fileproxy.model import Incoming


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds one try may take for what."""

    queue_s: float
    first_byte_s: float
    idle_s: float


class Attempt:
    """Where one try stands. ``timings`` has the seconds of the phases that are over: queue, connect, first_byte."""

    def __init__(
        self, clock: Clock, patience: Patience, uploads: bool, on_interim: Callable[[Any], None] | None = None
    ) -> None:
        self.uploads = uploads  # a request body follows the head
        self.on_interim = on_interim  # told of each 1xx answer (aiohttp's message)
        self._clock = clock
        self._patience = patience
        self._since = clock.now()
        self._phase = "queue"
        self._deadline: asyncio.Timeout | None = None
        self.timings: dict[str, float] = {}
        self.reused = False
        self.upload_error: Exception | None = None

    def deadline(self) -> asyncio.Timeout:
        """To be entered around the whole try; the phases move it."""
        self._deadline = asyncio.timeout(self._patience.queue_s)
        return self._deadline

    def timed_out(self, address: str) -> FileProxyError:
        """The error for the phase in which the deadline passed."""
        if self._phase == "queue":
            return Shed(f"{address}: no free connection within {self._patience.queue_s:g} s")
        if self._phase == "upload":
            return IdleTimeout(f"{address}: took no more of the request body for {self._patience.idle_s:g} s")
        return FirstByteTimeout(f"{address}: no answer within {self._patience.first_byte_s:g} s")

    def connecting(self) -> None:
        self._enter("connect", None)

    def connected(self) -> None:
        self._enter("send", None)

    def reusing(self) -> None:
        self.reused = True
        self._enter("send", None)

    def sent(self) -> None:
        """The whole request is on its way; from now on the mirror is waited for."""
        self._enter("first_byte", self._patience.first_byte_s)

    def answered(self) -> None:
        """The head is here. Its deadline stays for the first piece of the body, when that is waited for."""
        self.timings["first_byte"] = self._clock.now() - self._since
        self._phase = "answered"

    async def upload(self, body: Incoming) -> AsyncIterator[bytes]:
        """The request body on its way through. Only the mirror is timed here; the front watches over the client."""
        self._enter("upload", None)
        try:
            async for piece in body:
                self._allow(self._patience.idle_s)
                yield piece
                self._allow(None)
        except Exception as error:  # not a cancellation: that is aiohttp giving the upload up, because the answer came
            self.upload_error = error
            raise
        if self._phase == "upload":
            self.sent()

    def _enter(self, phase: str, seconds: float | None) -> None:
        now = self._clock.now()
        if self._phase in ("queue", "connect"):
            self.timings[self._phase] = now - self._since
        self._since, self._phase = now, phase
        self._allow(seconds)

    def _allow(self, seconds: float | None) -> None:
        """The deadline is this far away now (None: there is none). Nothing happens once the try is over."""
        deadline = self._deadline
        if deadline is None or self._phase == "over" or deadline.expired():
            return
        deadline.reschedule(None if seconds is None else asyncio.get_running_loop().time() + seconds)

    def over(self) -> None:
        """The try has ended one way or the other; a body still being sent must not touch the deadline any more."""
        self._phase = "over"
        self._deadline = None


async def _create_start(_session: aiohttp.ClientSession, attempt: Any, _params: object) -> None:
    attempt.connecting()


async def _create_end(_session: aiohttp.ClientSession, attempt: Any, _params: object) -> None:
    attempt.connected()


async def _reuse(_session: aiohttp.ClientSession, attempt: Any, _params: object) -> None:
    attempt.reusing()


async def _headers_sent(_session: aiohttp.ClientSession, attempt: Any, _params: object) -> None:
    if not attempt.uploads:
        attempt.sent()


def _context(trace_request_ctx: Any) -> Any:
    return trace_request_ctx


TRACE: aiohttp.TraceConfig = aiohttp.TraceConfig(trace_config_ctx_factory=_context)  # type: ignore[arg-type]
TRACE.on_connection_create_start.append(_create_start)
TRACE.on_connection_create_end.append(_create_end)
TRACE.on_connection_reuseconn.append(_reuse)
TRACE.on_request_headers_sent.append(_headers_sent)
