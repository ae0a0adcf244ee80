"""How a client connection ends, and when: the half of ``front.py`` that does not read requests.

Laws kept here:

* Whoever cannot be served is told, and can read it: an error is written, our side is ended, and what still comes is
  thrown away for a moment, because closing at once would reset the connection under the answer.
* An answer cut short is cut by a reset, so that it never looks complete (law 2).
* Time is looked at by the sweep of ``connections.py`` once a second; a connection has no timer.
"""

from __future__ import annotations

import asyncio
import enum
import secrets
from abc import ABC, abstractmethod
from email.utils import formatdate
from typing import TYPE_CHECKING

from fileproxy.errors import ClientError
from fileproxy.http.problem import CONTENT_TYPE, problem
from fileproxy.server.framing import BodyScanner
from fileproxy.server.heads import BadHead, Head
from fileproxy.server.serving import Serving
from fileproxy.sockets import reset_on_close

if TYPE_CHECKING:
    from fileproxy.server.connections import Connections
    from fileproxy.server.rows import Block

LINGER_S = 2.0  # how long input is thrown away after our last byte
LINGER_BYTES = 1024 * 1024  # and how much of it
REST_S = 1.0  # a handler that served nothing for so long goes: it weighs five times the rest, and is soon made anew
ASKS_S = 1.0  # who has just connected is about to ask, and gets so long to do so although the worker leaves
PROGRESS_FLOOR = 1024  # bytes in an idle window that count as progress


class Phase(enum.Enum):
    """Where a connection stands. IDLE → HEAD → SERVING → IDLE …, and from each of them → LINGERING → CLOSING → GONE.

    One that the acceptor carried begins as MOVING; one that goes back to it is GONE for its front.
    """

    IDLE = "at a clean boundary: all that came was handed on and answered"
    HEAD = "part of a head has come"
    MOVING = "on its way from the acceptor to the loop: there is no transport yet"
    SERVING = "a request was handed on; its answer has not ended, or its body has not been read to its end"
    LINGERING = "our last byte is written; what still comes is thrown away"
    CLOSING = "closed, perhaps with bytes still to flush"
    GONE = "aborted, lost or given back: its descriptor may already be another's"


_IDLE, _CLOSING, _GONE = Phase.IDLE, Phase.CLOSING, Phase.GONE  # looked up once: an enum's members take their time


class Ends(asyncio.Protocol, ABC):
    """The state of a connection, its ends, and the look at the time."""

    __slots__ = (
        "_answered", "_at", "_body", "_body_held", "_body_started", "_body_taken", "_buffered", "_connections", "_eof",
        "_eof_at", "_handler", "_held", "_last", "_paused", "_reading", "_rested_at", "_served", "_since",
        "_thrown_away",
        "block", "ending", "head", "peer", "phase", "raw", "room", "socket", "transport", "written",
    )  # fmt: skip

    head: Head  # not set before the first request that was handed on
    transport: asyncio.Transport

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.peer = ""
        self.phase = _IDLE
        self.ending = "client_gone"
        self.raw = b""  # the head as it came, where its answer may be tabled (fast.py)
        self.block: Block | None = None  # the last one that fast.py knew
        self.socket: int | None = None  # its descriptor, once it is asked for; -1: none to write to (pages.py)
        self.room = 0  # bytes that it took at once
        self.written = False
        self._handler: Serving | None = None
        self._held = b""  # came, but not handed on
        self._at = 0  # where in it the next request begins
        self._rested_at = 0.0  # when it had nothing more to do that is not known
        self._since = 0.0  # when the phase began, or when bytes last made progress in it
        self._body: BodyScanner | None = None  # of the request being served, until its end
        self._body_held = False  # the handler reads no more of it for now
        self._body_started = False
        self._body_taken = 0  # bytes since _since
        self._answered = True
        self._last = False  # no request follows this one; input is thrown away
        self._served = False  # at least one request was handed on or answered
        self._reading = True
        self._paused = False  # the client does not take what was written
        self._eof = False  # the client ended its side
        self._eof_at = 0.0
        self._buffered = 0  # bytes the client had not taken at the last sweep
        self._thrown_away = 0

    @property
    def busy(self) -> bool:
        """A request is being served, or its last bytes are still on their way."""
        if self.phase in (Phase.IDLE, Phase.HEAD):
            return self.transport.get_write_buffer_size() > 0
        return self.phase is not Phase.GONE

    # --- ends -----------------------------------------------------------------------------------------------------

    def abort(self, ending: str = "aborted") -> None:
        """Reset the connection: the client sees that the answer is cut short. The handler is cancelled at once.

        ``ending`` is what the request counts as, should its handler learn of it only by being cancelled.
        """
        if self.phase is Phase.GONE:
            return
        self.ending = ending
        if self.phase is Phase.MOVING:
            self.phase = Phase.GONE  # when it arrives it is cut
            return
        flushed = self.phase is Phase.CLOSING and not self.transport.get_write_buffer_size()
        self.phase = Phase.GONE
        self._cut(reset=not flushed)

    def _cut(self, *, reset: bool = True) -> None:
        if reset:
            reset_on_close(self.transport.get_extra_info("socket"))  # the descriptor is surely still ours
        self.transport.abort()

    def _refuse(self, error: BadHead) -> None:
        """Answer a head that cannot be served. The handler is idle, so nobody else writes."""
        self._connections.counters.add(f"ending.{error.ending}")
        self._send(error_answer(error.status, error.title, error.detail))

    def _send(self, answer: bytes) -> None:
        self.transport.write(answer)
        self._linger()

    def _spoil(self, error: ClientError) -> None:
        """The framing is lost. Whoever reads the body is told; the answer may end; then the connection closes."""
        self._last = True
        self._body = None
        self._held, self._at = b"", 0
        if self._answered:
            self._linger()
        elif self._handler is not None:
            self._handler.spoil(error)
        self._steer_reading()

    def _linger(self) -> None:
        self._held, self._at, self._body = b"", 0, None
        if self._eof or not self.transport.can_write_eof():
            self._close()
            return
        self.phase = Phase.LINGERING
        self._since = self._connections.clock.now()
        self.transport.write_eof()
        self._steer_reading()

    def _close(self) -> None:
        """Close; what is buffered is still flushed, for as long as the client takes it (see the sweep)."""
        phase = self.phase
        if phase is not _CLOSING and phase is not _GONE:
            self.phase = _CLOSING
            self._held, self._at, self._body = b"", 0, None
            self._buffered = self.transport.get_write_buffer_size()
            if self._buffered:
                self._since = self._connections.clock.now()
            self.transport.close()

    def drain(self) -> None:
        """The worker leaves: close if idle."""
        if self.phase is Phase.IDLE and (self._served or self._connections.clock.now() - self._since >= ASKS_S):
            self._close()

    @abstractmethod
    def _steer_reading(self) -> None:
        """Pause or resume the transport's reading, as is right now."""

    @abstractmethod
    def _rest(self) -> None:
        """Let the handler go, and the loop."""

    # --- once a second --------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Look at the time: give up what makes no progress."""
        policy = self._connections.policy
        if self.phase is Phase.GONE or self.phase is Phase.MOVING:
            return
        if self.phase is Phase.SERVING:
            self._sweep_serving(now)
        elif self._is_flushing(now):
            if now - self._since >= policy.client_idle:
                self.abort("client_stalled")
        elif self.phase is Phase.IDLE:
            if now - self._since >= policy.keepalive_idle:
                self._close()
            elif self._connections.draining:
                self.drain()
            elif now - self._rested_at >= REST_S:
                self._rest()
        elif self.phase is Phase.HEAD:
            if now - self._since >= policy.head_timeout:
                detail = f"The request head did not come within {policy.head_timeout:g} s."
                self._refuse(BadHead(408, detail, ending="head_timeout"))
        elif self.phase is Phase.LINGERING and now - self._since >= LINGER_S:
            self._close()

    @property
    def resting(self) -> bool:
        """At a clean boundary, with all written and no handler: whoever carries the connection may change."""
        return self.phase is Phase.IDLE and self._handler is None and not self.transport.get_write_buffer_size()

    def _sweep_serving(self, now: float) -> None:
        policy = self._connections.policy
        if self._eof and not self.written and now - self._eof_at >= policy.half_close_grace:
            self.abort("client_gone")
        elif self._body is not None:
            asked_for = self.head.expect is None or self.written or self._body_started
            if self._body_held or not asked_for or self._body_taken >= PROGRESS_FLOOR:
                self._since, self._body_taken = now, 0
            elif now - self._since >= policy.client_idle:
                detail = f"Less than {PROGRESS_FLOOR} bytes of the request body came in {policy.client_idle:g} s."
                self._spoil(BadHead(408, detail, ending="client_stalled"))

    def _is_flushing(self, now: float) -> bool:
        """The answer's last bytes are still to be taken by the client; progress renews the time."""
        left = self.transport.get_write_buffer_size()
        if left != self._buffered:
            self._buffered, self._since = left, now
        return left > 0


def error_answer(status: int, title: str, detail: str, retry_after_s: int | None = None) -> bytes:
    body = problem(status, title, detail, secrets.token_hex(8), "")
    retry = "" if retry_after_s is None else f"Retry-After: {retry_after_s}\r\n"
    head = (
        f"HTTP/1.1 {status} {title}\r\nDate: {formatdate(usegmt=True)}\r\nContent-Type: {CONTENT_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\n{retry}Connection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
