"""Where client connections come in. They stay here, as mere descriptors, while what they ask for is known.

For an answer of the fast front a loop's transport costs more than the answer: it is made, asks for addresses that
nobody needs, and is told of each read through three layers. So where the kernel has epoll(7), connections are accepted,
read and written by their descriptors (``bare.py``). They wait on an epoll of ours, which the loop watches like one
socket.

A connection whose request is not known, or that does not take at once what is written to it, moves to the loop: it
gets a front and the loop's transport, and is looked at no more here. What was read and what was not taken goes with it,
and nothing is read meanwhile, so that no byte can overtake another. Once it has needed no handler for a while it comes
back.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from fileproxy.server.bare import READ, Bare
from fileproxy.server.ends import error_answer
from fileproxy.server.front import Front
from fileproxy.server.sendfile import descriptor_of
from fileproxy.sockets import address_of
from fileproxy.tasks import Tasks

if TYPE_CHECKING:
    from fileproxy.server.connections import Connections

ACCEPTS = 16  # connections taken at a time: then those that are here get their turn
EVENTS = 256  # looked at in a turn of the loop
ROUNDS = 4  # of such looks, while at least so many had something: the loop takes its time for each turn
FEW = 4
FIRST = 960  # bytes of a first read: most heads, and what malloc(3) has at hand; with the second, all that are known
ACCEPT_PAUSE_S = 1.0  # after the kernel had no descriptor or memory to give
_IN = getattr(select, "EPOLLIN", 0)
_WATCH = _IN | getattr(select, "EPOLLRDHUP", 0) | getattr(select, "EPOLLET", 0)  # told once for all that has come


class Acceptor:
    """The listening sockets of a worker, and what comes on those of its ``connections`` that wait here.

    ``turn(True)`` is called between a look at what has come and serving it, ``turn(False)`` after the last one.
    """

    def __init__(self, connections: Connections, turn: Callable[[bool], None]) -> None:
        self._connections = connections
        self._bare = connections.bare
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self._poll = select.epoll()
        self._listeners: dict[int, socket.socket] = {}
        self._moves = Tasks(self._move_failed)
        self._loop.add_reader(self._poll.fileno(), self._look)

    def listen(self, listener: socket.socket) -> Listening:
        """Accept from a socket that listens. What is returned closes it."""
        listener.setblocking(False)  # an inherited one may block, and with it the loop once nobody waits any more
        if listener.family != socket.AF_UNIX:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as loops do; accepted sockets inherit it
        self._listeners[listener.fileno()] = listener
        self._poll.register(listener.fileno(), _IN)
        return Listening(self, listener)

    def forget(self, listener: socket.socket) -> None:
        """Accept no more from it, and close it."""
        if self._listeners.pop(listener.fileno(), None) is not None:
            self._pause(listener.fileno())
            listener.close()

    async def close(self) -> None:
        """Close what listens. The connections were closed by whoever counts them."""
        for listener in tuple(self._listeners.values()):
            self.forget(listener)
        await self._moves.close()
        self._loop.remove_reader(self._poll.fileno())
        self._poll.close()

    # --- what comes -----------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Serve what has come and accept who is waiting, some rounds of it."""
        try:
            for _ in range(ROUNDS):
                events = self._poll.poll(0, EVENTS)
                self._turn(True)
                self._serve(events)
                if len(events) < FEW:
                    break
        finally:
            self._turn(False)

    def _serve(self, events: list[tuple[int, int]]) -> None:
        """Read all, then answer all: an answer wakes its client, who sleeps again when the next is long in coming."""
        get, read, answer = self._bare.get, os.read, self._connections.answer
        asks: list[tuple[Bare, bytes, int]] = []
        for descriptor, event in events:
            one = get(descriptor)
            if one is None:
                if (listener := self._listeners.get(descriptor)) is not None:
                    self._accept(listener)
                continue
            try:
                data = read(descriptor, FIRST)
                if len(data) == FIRST:
                    data += one.more()
            except BlockingIOError:
                continue
            except OSError:  # the kernel has lost it
                data = b""
            asks.append((one, data, event))
        for one, data, event in asks:
            try:  # as ``_stays`` does, and a call less for each hit
                answered_at = answer(data, one)
            except Exception as error:
                self._failed(one, error)
                continue
            if answered_at is None:
                self._not_known(one, data)
                continue
            one.since = answered_at
            one.served = True
            if one.over:
                self._over(one)
            elif event != _IN:
                self._serve_last(one)

    def _accept(self, listener: socket.socket) -> None:
        came = self._arrivals(listener)
        self._turn(True)  # what they asked may have come after the turn began
        for one, data in came:
            if data is None or self._stays(one, data):
                try:
                    self._poll.register(one.descriptor, _WATCH)  # tells of what is there
                except OSError:  # it takes no more
                    self._connections.end(one)

    def _arrivals(self, listener: socket.socket) -> list[tuple[Bare, bytes | None]]:
        """Some of those who wait, and what they ask: that has often come with them."""
        connections, bare, now = self._connections, self._bare, self._connections.clock.now()
        family = int(listener.family)  # looked up once: it is made an enum's member each time
        came: list[tuple[Bare, bytes | None]] = []
        for _ in range(ACCEPTS):
            try:
                descriptor, address = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001  (socket.accept makes an object of it)
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break
            except OSError as error:
                self._cannot_accept(listener, error)
                break
            os.set_blocking(descriptor, False)
            one = Bare(descriptor, family, address_of(address), now)
            if refusal := connections.admit(one.peer, descriptor):
                self._turn_away(one, refusal)
                continue
            bare[descriptor] = one
            came.append((one, one.read(FIRST)))
        return came

    def _serve_last(self, one: Bare) -> None:
        """It ended its side behind what was read, or behind more: the kernel does not tell again."""
        while (data := one.read(READ)) is not None:
            self._turn(True)  # it may have come after the turn began
            if not self._stays(one, data):
                return

    def _stays(self, one: Bare, data: bytes) -> bool:
        """Answer ``data``, or see to it that somebody does. Whether the connection is still carried here."""
        try:
            answered_at = self._connections.answer(data, one)
        except Exception as error:
            self._failed(one, error)
            return False
        if answered_at is None:
            self._not_known(one, data)
            return False
        one.since = answered_at
        one.served = True
        if one.over:
            self._over(one)
            return False
        return True

    def _cannot_accept(self, listener: socket.socket, error: OSError) -> None:
        """No descriptor or no memory is left: try again later, because the socket stays readable."""
        descriptor = listener.fileno()
        self._pause(descriptor)
        self._loop.call_later(ACCEPT_PAUSE_S, self._resume, descriptor)
        self._loop.call_exception_handler({"message": "a connection could not be accepted", "exception": error})

    def _pause(self, descriptor: int) -> None:
        with suppress(FileNotFoundError):  # it pauses already, or has not begun
            self._poll.unregister(descriptor)

    def _resume(self, descriptor: int) -> None:
        if descriptor in self._listeners:
            self._poll.register(descriptor, _IN)

    # --- what goes ------------------------------------------------------------------------------------------------

    def _not_known(self, one: Bare, data: bytes) -> None:
        """What it sent is for a front; b"": it ended its side."""
        if data:
            self._hand_over(one, data)
        else:
            self._connections.end(one)

    def _over(self, one: Bare) -> None:
        """It was answered for the last time here."""
        if one.rest and not one.cut:
            self._hand_over(one, b"")
        else:
            self._connections.end(one)

    def _failed(self, one: Bare, error: Exception) -> None:
        """A bug of ours, which is told and is this connection's end alone."""
        self._tell(error)
        one.abort()
        self._connections.end(one)

    def _turn_away(self, one: Bare, refusal: str) -> None:
        front = Front.of(self._connections, one)
        if self._connections.turn_away(front):
            one.write(error_answer(503, "Service Unavailable", refusal, retry_after_s=1))
            one.leave()
            self._moves.start(self._move(front, one, b""), "move-connection")
        else:
            one.abort()
            one.close()
            self._connections.lost(front)

    def _hand_over(self, one: Bare, data: bytes) -> None:
        """Let the loop have a connection."""
        self._pause(one.descriptor)
        self._moves.start(self._move(self._connections.move(one), one, data), "move-connection")

    async def _move(self, front: Front, one: Bare, data: bytes) -> None:
        sock = one.as_socket()
        sock.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(lambda: _Arrival(front, one, data), sock)
        except Exception as error:  # the client left meanwhile, or a bug
            if not isinstance(error, OSError):
                self._tell(error)
            sock.close()
            front.connection_lost(error)

    def take_back(self, front: Front) -> None:
        """Carry a connection that the loop carried until now, and that rests. Where the kernel has no room: not yet."""
        transport = front.transport
        if not front.resting or (owned := descriptor_of(transport)) is None:
            return
        try:
            descriptor = os.dup(owned)
        except OSError:
            return
        try:
            self._poll.register(descriptor, _WATCH)
        except OSError:
            os.close(descriptor)
            return
        self._connections.rested(front, descriptor, int(transport.get_extra_info("socket").family))
        transport.set_protocol(asyncio.Protocol())
        transport.abort()  # its descriptor alone is closed: the connection has another

    def _move_failed(self, name: str, error: BaseException) -> None:
        self._loop.call_exception_handler({"message": f"{name} failed", "exception": error})

    def _tell(self, error: Exception) -> None:
        self._loop.call_exception_handler({"message": "a connection failed", "exception": error})


class _Arrival(asyncio.Protocol):
    """Takes a connection from the loop for its front."""

    def __init__(self, front: Front, one: Bare, data: bytes) -> None:
        self._front, self._one, self._data = front, one, data

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream, front = cast(asyncio.Transport, transport), self._front  # uvloop's is no subclass
        stream.set_protocol(front)
        try:
            front.arrive(stream, self._one, self._data)
        except OSError:  # the client left meanwhile
            front.abort()
        except Exception:  # a bug of ours, which the loop tells; nothing would end the connection
            front.abort()
            raise


class Listening:
    """A socket that is accepted from, like an ``asyncio.Server``."""

    def __init__(self, acceptor: Acceptor, listener: socket.socket) -> None:
        self._acceptor = acceptor
        self._listener = listener

    def close(self) -> None:
        self._acceptor.forget(self._listener)
