"""The protocol that owns a client connection: from bytes to requests. ``ends.py`` is its other half.

Laws kept here:

* aiohttp is handed exactly one request at a time: its checked head, then the bytes that are its body's. What comes
  behind is held until the answer has ended and the body was read to its end, so that no body, and no half of a head, is
  ever read as a request.
* A head that is known word for word may be answered without all that (``fast.py``), but only at a clean boundary, in
  its turn, and only while the client takes what is written and the worker is not leaving.

Where connections come through the acceptor (``acceptor.py``), one that never sent anything but such heads is a mere
descriptor. A front and the loop's transport are made for it when it asks something else; the handler with the first
request that is handed on.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from aiohttp import web

from fileproxy.http.problem import CONTENT_TYPE, problem
from fileproxy.server.bare import Bare
from fileproxy.server.ends import LINGER_BYTES, Ends, Phase, error_answer
from fileproxy.server.framing import BodyScanner, scanner
from fileproxy.server.heads import BadHead, check_head, check_partial, head_end, without_upgrade
from fileproxy.server.known import LONGEST_HEAD
from fileproxy.server.serving import Serving, Tap
from fileproxy.sockets import address_of

if TYPE_CHECKING:
    from fileproxy.server.connections import Connections

_IDLE, _SERVING, _GONE = Phase.IDLE, Phase.SERVING, Phase.GONE  # looked at for every hit
HELD = 64 * 1024  # bytes of following requests kept before reading pauses


class Front(Ends):
    """One client connection. ``connections`` holds the policy, the clock, the counters and the aiohttp server.

    For handlers (by :func:`front_of`): ``head``, the checked head of the request being served; ``raw``, the same as it
    came; ``peer``, the TCP peer's address ("" on a Unix socket); ``transport``, the real one; ``abort(ending)``;
    ``ending``, the name to count the request under when its handler was cancelled; ``written``, whether bytes of the
    answer went out; ``last``.
    """

    __slots__ = ()

    @classmethod
    def of(cls, connections: Connections, one: Bare) -> Front:
        """The front of a connection that the acceptor carried; it is to ``arrive``."""
        front = cls(connections)
        front.phase = Phase.MOVING
        front.peer, front.block = one.peer, one.block
        front._since, front._served = one.since, one.served
        return front

    def as_bare(self, descriptor: int, family: int) -> Bare:
        """The connection for the acceptor, which has ``descriptor`` of it. The front is no more."""
        one = Bare(descriptor, family, self.peer, self._since)
        one.block, one.served = self.block, self._served
        self.phase = _GONE
        return one

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
        """Of a connection that comes straight from the loop."""
        self.transport = transport  # type: ignore[assignment]  # asyncio hands on more
        self._since = self._rested_at = self._connections.clock.now()
        self.peer = address_of(transport.get_extra_info("peername"))
        sock = transport.get_extra_info("socket")
        refusal = self._connections.admit(self.peer, -1 if sock is None else sock.fileno())
        if not refusal:
            self._connections.add(self)
        elif self._connections.turn_away(self):
            self._send(error_answer(503, "Service Unavailable", refusal, retry_after_s=1))
        else:
            self.abort()

    def arrive(self, transport: asyncio.Transport, one: Bare, data: bytes) -> None:
        """The loop carries ``one`` now: what was not taken goes first, then ``data``, its last read, is served."""
        self.transport = transport
        if self.phase is _GONE:
            self._cut()
            return
        self.phase = _IDLE
        self._rested_at = self._connections.clock.now()
        self._connections.carried(self, one.pace)
        if one.rest:
            transport.writelines(one.rest)  # it says whether that is too much
        if one.leaves:
            self._linger()
        else:
            self._held = data
            self._advance(asked=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancels the handler at once, so that its upstream is let go."""
        self.phase = _GONE
        self._connections.lost(self)
        self._held = b""
        self._body = None
        if self._handler is not None:
            self._handler.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        phase = self.phase
        if phase is _IDLE and not self._held and self._answer_known(data):
            return
        if phase is _SERVING:
            self._take_more(data)
        elif phase is Phase.LINGERING:
            self._thrown_away += len(data)
            if self._thrown_away > LINGER_BYTES:
                self._close()
        elif phase in (Phase.IDLE, Phase.HEAD):
            asked = not self._held
            self._held = self._held[self._at :] + data
            self._at = 0
            self._advance(asked=asked)

    def eof_received(self) -> bool:
        """Half-close: who waits for an answer gets it (within ``server.half_close_grace``); True keeps it open."""
        self._eof = True
        phase = self.phase
        if phase is _SERVING:
            self._eof_at = self._connections.clock.now()
            if self._body is not None:  # its end can never come
                self.abort("client_gone")
            return True
        if phase is Phase.HEAD:
            self._connections.counters.add("ending.malformed")
        self._close()
        return True

    def pause_writing(self) -> None:
        self._paused = True
        if self._handler is not None:
            self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._paused = False
        if self._handler is not None and self._handler.writing_paused:
            self._handler.resume_writing()

    # --- from bytes to requests -----------------------------------------------------------------------------------

    def _advance(self, *, asked: bool = False) -> None:
        """Hand on the next request as soon as its head is complete. Only called between two requests.

        ``asked``: all that is held was taken for one head, and that one is not known.
        """
        while self.phase in (Phase.IDLE, Phase.HEAD) and self._at < len(self._held):
            end = head_end(self._held, self._at)
            if end < 0:
                self._wait_for_head()
                break
            raw = self._held[self._at : end]
            was_asked = asked and len(raw) == len(self._held)
            if self.phase is Phase.IDLE and not was_asked and self._answer_known(raw):
                self._forget(end)
                continue
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

    def _answer_known(self, raw: bytes) -> bool:
        """Answer a head that is known word for word. Only called at a clean boundary: the handler is idle.

        False: ``raw`` is not one such head and nothing else, or this is no time for it; nothing was done.
        """
        if self._paused or (answered_at := self._connections.answer(raw, self)) is None:
            return False
        self._since = answered_at
        self._served = True
        return True

    def _begin(self, raw: bytes) -> None:
        """A complete head is here, and the connection is at a clean boundary.

        All before it was handed on and ended exactly where it begins, the handler is idle, and bytes behind it are
        held.
        """
        now = self._connections.clock.now()
        try:
            head = check_head(raw, self._connections.policy.head, now)
        except BadHead as error:
            self._refuse(error)
            return
        self.head = head
        self.raw = raw if len(raw) <= LONGEST_HEAD else b""
        self.phase = Phase.SERVING
        self.ending = "client_gone"
        self.written = self._answered = self._last = self._body_started = False
        self._served = True
        self._since = self._eof_at = now
        self._body = scanner(head)
        self._body_taken = 0
        if self._handler is None:
            self._handler = self._connections.handler(self, Tap(self, self.transport))
            if self._paused:
                self._handler.pause_writing()
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
            self._since = self._rested_at = self._connections.clock.now()
            self._buffered = 0
            self._advance()

    def _steer_reading(self) -> None:
        """Read unless the handler holds the body, or too much is held of what comes behind it.

        A head that has begun is read to its end: it has limits of its own.
        """
        if self._eof or self.phase in (Phase.CLOSING, Phase.GONE):
            return
        if self._body is not None:
            held = self._body_held
        else:
            held = self.phase is not Phase.HEAD and len(self._held) - self._at > HELD
        if self._reading and held:
            self._reading = False
            self.transport.pause_reading()
        elif not self._reading and not held:
            self._reading = True
            if self._body is not None:
                self._since = self._connections.clock.now()
                self._body_taken = 0
            self.transport.resume_reading()

    def _rest(self) -> None:
        if self._handler is not None:
            self._handler.retire()
            self._handler = None
            del self.head
        self._connections.rests(self)

    # --- what the aiohttp side calls ------------------------------------------------------------------------------

    def answered(self, keep: bool) -> bool:
        """The answer has ended. Returns False when the handler must close the connection now."""
        self._answered = True
        self.raw = b""
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

    # --- what the fast front calls --------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.transport.write(data)

    def writelines(self, parts: Iterable[bytes | bytearray | memoryview]) -> None:
        self.transport.writelines(parts)

    def leave(self) -> None:
        """Close behind an answer to a client that said it would ask no more, when all that it sent was read: at once,
        because nothing can come that a reset would answer.
        """
        self._close()


def front_of(request: web.BaseRequest) -> Front:
    """The connection a request came on."""
    return cast(Serving, request.protocol).front


Asker = Front | Bare  # who asks the fast front, and is told by it
