"""Where client connections come in. They stay here, as mere descriptors, while what they ask for is known.

For an answer of the fast front a loop's transport costs more than the answer: it is made, asks for addresses that
nobody needs, and is told of each read through three layers. So where the kernel has epoll(7), connections are accepted,
read and written by their descriptors. They wait on an epoll of ours, which the loop watches like one socket.

A connection whose request is not known, or that does not take at once what is written to it, moves to the loop: its
front stays the same, its transport becomes the loop's (:meth:`Bare.move`). What was read is held by the front meanwhile
and nothing more is read, so that no byte can overtake another. Once it has needed no handler for a while it comes back.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from fileproxy.server.bare import READ, Arrival, Bare
from fileproxy.server.sendfile import descriptor_of
from fileproxy.tasks import Tasks

if TYPE_CHECKING:
    from fileproxy.server.front import Front

ACCEPTS = 16  # connections taken at a time: then those that are here get their turn
EVENTS = 256  # looked at in a turn of the loop
ROUNDS = 4  # of such looks, while at least so many had something: the loop takes its time for each turn
FEW = 4
FIRST = 960  # bytes of a connection's first read: most heads, and what malloc(3) has at hand
READS = 8  # further ones of a connection in a turn: who sends without end does not keep others waiting
ACCEPT_PAUSE_S = 1.0  # after the kernel had no descriptor or memory to give
_IN = getattr(select, "EPOLLIN", 0)
_WATCH = _IN | getattr(select, "EPOLLRDHUP", 0) | getattr(select, "EPOLLET", 0)  # told once for all that has come


class Acceptor:
    """The listening sockets of a worker, and the connections that wait here.

    ``make`` makes a front. ``turn(True)`` is called between a look at what has come and serving it, ``turn(False)``
    after the last one.
    """

    def __init__(self, make: Callable[[], Front], turn: Callable[[bool], None]) -> None:
        self._make = make
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self._poll = select.epoll()
        self._listeners: dict[int, socket.socket] = {}
        self._bare: dict[int, Bare] = {}
        self._moves = Tasks(self._move_failed)
        self._loop.add_reader(self._poll.fileno(), self._look)

    def __len__(self) -> int:
        return len(self._bare)

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
        get, read = self._bare.get, os.read
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
                if data:
                    one.received(data)
                    if event == _IN and len(data) < FIRST + READ:
                        continue  # the kernel has no more of it, and tells when it has
            except BlockingIOError:
                continue
            except Exception as error:
                self._failed(one, error)
                continue
            if self._read_rest(one, ended=not data):
                self._poll.modify(descriptor, _WATCH)

    def _read_first(self, one: Bare) -> None:
        """What a client asks has often come with it. Of what more is there the kernel tells."""
        try:
            data = os.read(one.descriptor, FIRST)
        except BlockingIOError:
            return
        if len(data) == FIRST:
            data += one.more()
        if data:
            self._turn(True)  # it may have come after the turn began
            one.received(data)
        else:
            one.front.eof_received()

    def _read_rest(self, one: Bare, *, ended: bool) -> bool:
        """There may be more, of which the kernel does not tell again. Whether it should: others get their turn."""
        try:
            for _ in range(READS):
                if not self._is_read(one):
                    return False
                if ended:
                    one.front.eof_received()
                    return False
                data = os.read(one.descriptor, READ)
                if data:
                    self._turn(True)  # it may have come after the turn began
                    one.received(data)
                ended = not data
        except BlockingIOError:
            return False
        except Exception as error:
            self._failed(one, error)
            return False
        return self._is_read(one)

    def _is_read(self, one: Bare) -> bool:
        return self._bare.get(one.descriptor) is one and one.is_reading()

    def _failed(self, one: Bare, error: Exception) -> None:
        """The kernel has lost the connection; or a bug of ours, which is told and is this connection's end alone."""
        if isinstance(error, OSError):
            one.lost(error)
        else:
            self._tell(one, error)
            one.front.abort()

    def _accept(self, listener: socket.socket) -> None:
        bare, family = self._bare, int(listener.family)  # looked up once: it is made an enum's member each time
        for _ in range(ACCEPTS):
            try:
                descriptor, address = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001  (socket.accept makes an object of it)
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._cannot_accept(listener, error)
                return
            os.set_blocking(descriptor, False)
            one = bare[descriptor] = Bare(self, self._make(), descriptor, family, address)
            try:
                one.front.connection_made(one)
                if bare.get(descriptor) is one:
                    self._read_first(one)
                    if bare.get(descriptor) is one:
                        self._poll.register(descriptor, _WATCH if one.is_reading() else 0)  # tells of what is there
            except Exception as error:
                self._failed(one, error)

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

    def closed(self, descriptor: int) -> None:
        """A connection was closed, and with that is on no epoll any more."""
        del self._bare[descriptor]

    def set_reading(self, descriptor: int, reads: bool) -> None:
        """Whether what comes for a connection is to be read."""
        with suppress(FileNotFoundError):  # it is just being accepted
            self._poll.modify(descriptor, _WATCH if reads else 0)

    def move(self, one: Bare) -> None:
        """Let the loop have a connection."""
        del self._bare[one.descriptor]
        self._pause(one.descriptor)
        self._moves.start(self._move(one), "move-connection")

    def take_back(self, front: Front) -> None:
        """Carry a connection that the loop carried until now, and that rests. Where the kernel has no room: not yet."""
        transport = front.transport
        if not front.resting or isinstance(transport, Bare) or (owned := descriptor_of(transport)) is None:
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
        family = transport.get_extra_info("socket").family
        one = Bare(self, front, descriptor, family, transport.get_extra_info("peername"))
        transport.set_protocol(asyncio.Protocol())
        transport.abort()  # its descriptor alone is closed: the connection has another
        front.carried_by(one)
        self._bare[descriptor] = one

    async def _move(self, one: Bare) -> None:
        sock = one.as_socket()
        sock.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(lambda: Arrival(one), sock)
        except Exception as error:  # the client left meanwhile, or a bug
            if not isinstance(error, OSError):
                self._tell(one, error)
            sock.close()
            one.front.connection_lost(error)

    def _move_failed(self, name: str, error: BaseException) -> None:
        self._loop.call_exception_handler({"message": f"{name} failed", "exception": error})

    def _tell(self, one: Bare, error: Exception) -> None:
        self._loop.call_exception_handler({"message": "a connection failed", "exception": error, "transport": one})


class Listening:
    """A socket that is accepted from, like an ``asyncio.Server``."""

    def __init__(self, acceptor: Acceptor, listener: socket.socket) -> None:
        self._acceptor = acceptor
        self._listener = listener

    def close(self) -> None:
        self._acceptor.forget(self._listener)
