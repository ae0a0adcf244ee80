"""The protocol that owns a client connection.

Laws kept here:

* aiohttp is handed exactly one request at a time: its checked head, then the bytes that are its body's. What comes
  behind is held until the answer has ended and the body was read to its end, so that no body, and no half of a head, is
  ever read as a request.
* Whoever cannot be served is told, and can read it: an error is written, our side is ended, and what still comes is
  thrown away for a moment, because closing at once would reset the connection under the answer.
* An answer cut short is cut by a reset, so that it never looks complete (law 2).
* Time is looked at by the sweep of ``connections.py`` once a second; a connection has no timer.

A connection that never sent anything is this object and its transport; the handler is made with the first request.
"""

from __future__ import annotations

import asyncio
import enum
import secrets
import socket
import struct
from email.utils import formatdate
from typing import TYPE_CHECKING, cast

from aiohttp import web

from fileproxy.errors import ClientError
from fileproxy.http.problem import CONTENT_TYPE, problem
from fileproxy.server.framing import BodyScanner, scanner
from fileproxy.server.heads import BadHead, Head, check_head, check_partial, head_end, without_upgrade
from fileproxy.server.serving import Serving, Tap

if TYPE_CHECKING:
    from fileproxy.server.connections import Connections

HELD = 64 * 1024  # bytes of following requests kept before reading pauses
LINGER_S = 2.0  # how long input is thrown away after our last byte
LINGER_BYTES = 1024 * 1024  # and how much of it
PROGRESS_FLOOR = 1024  # bytes in an idle window that count as progress
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close sends RST


class Phase(enum.Enum):
    """Where a connection stands. IDLE → HEAD → SERVING → IDLE …, and from each of them → LINGERING → CLOSING → GONE."""

    IDLE = "at a clean boundary: all that came was handed on and answered"
    HEAD = "part of a head has come"
    SERVING = "a request was handed on; its answer has not ended, or its body has not been read to its end"
    LINGERING = "our last byte is written; what still comes is thrown away"
    CLOSING = "closed, perhaps with bytes still to flush"
    GONE = "aborted or lost: its descriptor may already be another's"


class Front(asyncio.Protocol):
    """One client connection. ``connections`` holds the policy, the clock, the counters and the aiohttp server.

    For handlers (by :func:`front_of`): ``head``, the checked head of the request being served; ``peer``, the TCP peer's
    address ("" on a Unix socket); ``transport``, the real one; ``abort(ending)``; ``ending``, the name to count the
    request under when its handler was cancelled; ``written``, whether bytes of the answer went out; ``last``.
    """

    __slots__ = (
        "_answered", "_at", "_body", "_body_held", "_body_started", "_body_taken", "_buffered", "_connections", "_eof",
        "_eof_at", "_handler", "_held", "_last", "_reading", "_served", "_since", "_thrown_away", "_transport",
        "ending", "head", "peer", "phase", "written",
    )  # fmt: skip

    head: Head  # not set before the first request
    _transport: asyncio.Transport

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.peer = ""
        self.phase = Phase.IDLE
        self.ending = "client_gone"
        self.written = False
        self._handler: Serving | None = None
        self._held = b""  # came, but not handed on
        self._at = 0  # where in it the next request begins
        self._since = 0.0  # when the phase began, or when bytes last made progress in it
        self._body: BodyScanner | None = None  # of the request being served, until its end
        self._body_held = False  # the handler reads no more of it for now
        self._body_started = False
        self._body_taken = 0  # bytes since _since
        self._answered = True
        self._last = False  # no request follows this one; input is thrown away
        self._served = False  # at least one request was handed on
        self._reading = True
        self._eof = False  # the client ended its side
        self._eof_at = 0.0
        self._buffered = 0  # bytes the client had not taken at the last sweep
        self._thrown_away = 0

    @property
    def transport(self) -> asyncio.Transport:
        return self._transport

    @property
    def busy(self) -> bool:
        """A request is being served, or its last bytes are still on their way."""
        if self.phase in (Phase.IDLE, Phase.HEAD):
            return self._transport.get_write_buffer_size() > 0
        return self.phase is not Phase.GONE

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The handler's task, for whoever must wait until it has ended."""
        return None if self._handler is None else self._handler.task

    @property
    def last(self) -> bool:
        """No request can follow the one being served: who answers it says ``Connection: close``."""
        waits_for_100 = self.head.expect is not None and self._body is not None and not self._body_started
        truncated = self._eof and self._body is not None
        return self._last or not self.head.keep_alive or self._connections.draining or waits_for_100 or truncated

    # --- what the transport calls ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._since = self._connections.clock.now()
        self.peer = _address(transport.get_extra_info("peername"))
        refusal = self._connections.admit(self)
        if refusal == "":
            return
        if refusal is None:
            self.abort()
        else:
            self._send(_error_answer(503, "Service Unavailable", refusal, retry_after_s=1))

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancels the handler at once, so that its upstream is let go."""
        self.phase = Phase.GONE
        self._connections.lost(self)
        self._held = b""
        self._body = None
        if self._handler is not None:
            self._handler.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.phase is Phase.SERVING:
            self._take_more(data)
        elif self.phase is Phase.LINGERING:
            self._thrown_away += len(data)
            if self._thrown_away > LINGER_BYTES:
                self._close()
        elif self.phase in (Phase.IDLE, Phase.HEAD):
            self._held = self._held[self._at :] + data if self._held else data
            self._at = 0
            self._advance()

    def eof_received(self) -> bool:
        """Half-close: who waits for an answer gets it (within ``server.half_close_grace``); True keeps it open."""
        self._eof = True
        self._eof_at = self._connections.clock.now()
        if self.phase is Phase.SERVING:
            if self._body is not None:  # its end can never come
                self.abort("client_gone")
            return True
        if self.phase is Phase.HEAD:
            self._connections.counters.add("ending.malformed")
        self._close()
        return True

    def pause_writing(self) -> None:
        if self._handler is not None:
            self._handler.pause_writing()

    def resume_writing(self) -> None:
        if self._handler is not None and self._handler.writing_paused:
            self._handler.resume_writing()

    # --- from bytes to requests -----------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Hand on the next request as soon as its head is complete. Only called between two requests."""
        while self.phase in (Phase.IDLE, Phase.HEAD) and self._at < len(self._held):
            end = head_end(self._held, self._at)
            if end < 0:
                self._wait_for_head()
                break
            raw = self._held[self._at : end]
            self._forget(end)
            self._begin(raw)
        if self._eof and self.phase in (Phase.IDLE, Phase.HEAD):
            if self.phase is Phase.HEAD:
                self._connections.counters.add("ending.malformed")
            self._close()
        elif self._connections.draining:
            self.drain()
        self._steer_reading()

    def _wait_for_head(self) -> None:
        try:
            check_partial(self._held[self._at :], self._connections.policy.head)
        except BadHead as error:
            self._refuse(error)
            return
        if self.phase is Phase.IDLE:
            self.phase = Phase.HEAD
            self._since = self._connections.clock.now()

    def _begin(self, raw: bytes) -> None:
        """A complete head is here, and the connection is at a clean boundary.

        All before it was handed on and ended exactly where it begins, the handler is idle, and bytes behind it are
        held. This is the place to answer without parsing (a table of prepared answers): write, and stay IDLE.
        """
        now = self._connections.clock.now()
        try:
            head = check_head(raw, self._connections.policy.head, now)
        except BadHead as error:
            self._refuse(error)
            return
        self.head = head
        self.phase = Phase.SERVING
        self.ending = "client_gone"
        self.written = self._answered = self._last = self._body_started = False
        self._served = True
        self._since = self._eof_at = now
        self._body = scanner(head)
        self._body_taken = 0
        if self._handler is None:
            self._handler = self._connections.handler(self, Tap(self, self._transport))
        objection = self._handler.take_head(without_upgrade(raw) if head.upgrade else raw)
        if objection is not None:
            self._connections.counters.add(f"ending.{objection.ending}")
            self._spoil(objection)
        elif self._body is not None:
            held = self._held[self._at :]
            self._forget(len(self._held))
            self._take_more(held)

    def _take_more(self, data: bytes) -> None:
        """Bytes while a request is being served: its body's, and then what is to be held."""
        if self._last:
            return
        if self._body is not None:
            data = self._feed_body(self._body, data)
        if data and not self._last:
            self._held = self._held[self._at :] + data
            self._at = 0
        if self._eof and self._body is not None:  # its end can never come
            self.abort("client_gone")
            return
        self._look_for_boundary()
        self._steer_reading()

    def _feed_body(self, body: BodyScanner, data: bytes) -> bytes:
        """Hand on what is the body's; returns the rest."""
        try:
            handed_on, used = body.feed(data)
        except BadHead as error:
            self._spoil(error)
            return b""
        self._body_taken += used
        self._body_started = self._body_started or used > 0
        if handed_on:
            cast(Serving, self._handler).data_received(handed_on)
        if body.done:  # only now: the handler may say meanwhile that it has room, which must not look like a boundary
            self._body = None
        return data[used:]

    def _forget(self, end: int) -> None:
        """Bytes before ``end`` were handed on."""
        if end == len(self._held):
            self._held, self._at = b"", 0
        else:
            self._at = end

    def _look_for_boundary(self) -> None:
        """Go on to the next request once the answer has ended and the handler has all of the body."""
        if (
            self.phase is Phase.SERVING
            and self._answered
            and self._body is None
            and not (self._body_held or self._last)
        ):
            self.phase = Phase.IDLE
            self._since = self._connections.clock.now()
            self._buffered = 0
            self._advance()

    def _steer_reading(self) -> None:
        """Read unless the handler holds the body, or too much is held of what comes behind it."""
        if self._eof or self.phase in (Phase.CLOSING, Phase.GONE):
            return
        held = self._body_held if self._body is not None else len(self._held) - self._at > HELD
        if self._reading and held:
            self._reading = False
            self._transport.pause_reading()
        elif not self._reading and not held:
            self._reading = True
            if self._body is not None:
                self._since = self._connections.clock.now()
                self._body_taken = 0
            self._transport.resume_reading()

    # --- what the aiohttp side calls ------------------------------------------------------------------------------

    def answered(self, keep: bool) -> bool:
        """The answer has ended. Returns False when the handler must close the connection now."""
        self._answered = True
        self._last = self.last or not keep
        if self._last:
            return False
        self._look_for_boundary()
        return True

    def hold_body(self, held: bool) -> None:
        """Backpressure: the handler's buffer for the body is full, or has room again."""
        self._body_held = held
        self._look_for_boundary()
        self._steer_reading()

    def problem(self, error: BadHead | None) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers for an error nobody answered: a head refused by the parser, or (None) a bug."""
        status, title, detail = 500, "Internal Server Error", "The request could not be served because of an error."
        if error is not None:
            status, title, detail = error.status, error.title, error.detail
        body = problem(status, title, detail, secrets.token_hex(8), self.head.target)
        return status, body, {"Content-Type": CONTENT_TYPE}

    def finish(self) -> None:
        """The handler closes the connection: gently after an answer, with a reset in the midst of one."""
        if self.phase is Phase.SERVING and not self._answered:
            self.abort("aborted")
        elif self.phase in (Phase.IDLE, Phase.HEAD, Phase.SERVING):
            self._linger()

    # --- ends -----------------------------------------------------------------------------------------------------

    def abort(self, ending: str = "aborted") -> None:
        """Reset the connection: the client sees that the answer is cut short. The handler is cancelled at once.

        ``ending`` is what the request counts as, should its handler learn of it only by being cancelled.
        """
        if self.phase is Phase.GONE:
            return
        if self.phase is not Phase.CLOSING or self._transport.get_write_buffer_size():
            _reset_on_close(self._transport)  # the descriptor is surely still ours
        self.ending = ending
        self.phase = Phase.GONE
        self._transport.abort()

    def _refuse(self, error: BadHead) -> None:
        """Answer a head that cannot be served. The handler is idle, so nobody else writes."""
        self._connections.counters.add(f"ending.{error.ending}")
        self._send(_error_answer(error.status, error.title, error.detail))

    def _send(self, answer: bytes) -> None:
        self._transport.write(answer)
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
        if self._eof or not self._transport.can_write_eof():
            self._close()
            return
        self.phase = Phase.LINGERING
        self._since = self._connections.clock.now()
        self._transport.write_eof()
        self._steer_reading()

    def _close(self) -> None:
        """Close; what is buffered is still flushed, for as long as the client takes it (see the sweep)."""
        if self.phase not in (Phase.CLOSING, Phase.GONE):
            self.phase = Phase.CLOSING
            self._held, self._at, self._body = b"", 0, None
            self._since = self._connections.clock.now()
            self._buffered = self._transport.get_write_buffer_size()
            self._transport.close()

    def drain(self) -> None:
        """The worker leaves: close if idle. Who has just connected is about to ask, and gets a second to do so."""
        if self.phase is Phase.IDLE and (self._served or self._connections.clock.now() - self._since >= 1.0):
            self._close()

    # --- once a second --------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Look at the time: give up what makes no progress."""
        policy = self._connections.policy
        if self.phase is Phase.GONE:
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
        elif self.phase is Phase.HEAD:
            if now - self._since >= policy.head_timeout:
                detail = f"The request head did not come within {policy.head_timeout:g} s."
                self._refuse(BadHead(408, detail, ending="head_timeout"))
        elif self.phase is Phase.LINGERING and now - self._since >= LINGER_S:
            self._close()

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
        left = self._transport.get_write_buffer_size()
        if left != self._buffered:
            self._buffered, self._since = left, now
        return left > 0


def front_of(request: web.BaseRequest) -> Front:
    """The connection a request came on."""
    return cast(Serving, request.protocol).front


def _error_answer(status: int, title: str, detail: str, retry_after_s: int | None = None) -> bytes:
    body = problem(status, title, detail, secrets.token_hex(8), "")
    retry = "" if retry_after_s is None else f"Retry-After: {retry_after_s}\r\n"
    head = (
        f"HTTP/1.1 {status} {title}\r\nDate: {formatdate(usegmt=True)}\r\nContent-Type: {CONTENT_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\n{retry}Connection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


def _address(peername: object) -> str:
    """The address of a socket's peer, an IPv4 one as such; "" for a Unix socket."""
    address = str(peername[0]) if isinstance(peername, tuple) and peername else ""
    return address[7:] if address.startswith("::ffff:") and "." in address else address


def _reset_on_close(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6) and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
