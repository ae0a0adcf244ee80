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
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from fileproxy.server.sendfile import descriptor_of
from fileproxy.tasks import Tasks

if TYPE_CHECKING:
    from fileproxy.server.front import Front

ACCEPTS = 16  # connections taken at a time: then those that are here get their turn
EVENTS = 256  # looked at in a turn of the loop
ROUNDS = 4  # of such looks, while at least so many had something: the loop takes its time for each turn
FEW = 4
FIRST = 960  # bytes of a connection's first read: most heads, and what malloc(3) has at hand
READ = 4096  # of the others
READS = 8  # of a connection in a turn: who sends without end does not keep others waiting
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
            if self._read_on(one, ended=not data):
                self._poll.modify(descriptor, _WATCH)

    def _read_on(self, one: Bare, *, ended: bool) -> bool:
        """There may be more, of which the kernel does not tell again. Whether it should: others get their turn."""
        try:
            for _ in range(READS):
                if not self._is_read(one):
                    return False
                if ended:
                    one.ended()
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
                    self._read_on(one, ended=False)  # what a client asks has often come with it
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

    def read_on(self, descriptor: int, reads: bool) -> None:
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
            await self._loop.connect_accepted_socket(lambda: _Arrival(one), sock)
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


class Bare(asyncio.Transport):
    """A connection that is a descriptor and its front, and the transport of that front until it moves to the loop.

    What is written goes out at once; what does not, waits for the loop's transport.
    """

    __slots__ = (
        "_aborted", "_acceptor", "_address", "_ended", "_family", "_leaving", "_moving", "_reading", "_socket",
        "_waiting", "descriptor", "front", "received",
    )  # fmt: skip

    def __init__(self, acceptor: Acceptor, front: Front, descriptor: int, family: int, address: object) -> None:
        self.front = front
        self.received = front.data_received
        self.descriptor = descriptor  # -1: closed
        self._acceptor = acceptor
        self._family = family
        self._address = address
        self._socket: socket.socket | None = None  # owns the descriptor, once somebody wanted it
        self._waiting: list[bytes | bytearray | memoryview[Any]] = []
        self._reading = True
        self._moving = self._ended = self._leaving = self._aborted = False

    # --- what the acceptor calls ----------------------------------------------------------------------------------

    def more(self) -> bytes:
        """What came with the first bytes."""
        try:
            return os.read(self.descriptor, READ)
        except BlockingIOError:
            return b""

    def ended(self) -> None:
        """The client ended its side."""
        self.front.eof_received()

    def lost(self, error: OSError) -> None:
        """The connection is broken."""
        if not self._moving:
            self._end(error)

    def as_socket(self) -> socket.socket:
        """The connection as an object, which closes it."""
        if self._socket is None:
            self._socket = socket.socket(self._family, socket.SOCK_STREAM, 0, fileno=self.descriptor)
        return self._socket

    def arrive(self, transport: asyncio.Transport) -> None:
        """It has moved: do on the loop's transport what was asked for meanwhile."""
        front = self.front
        front.carried_by(transport)
        if self._aborted:
            transport.abort()
            return
        if self._waiting:
            front.resume_writing()  # unless the transport objects
            transport.writelines(self._waiting)
        if self._leaving:
            transport.close()
            return
        if self._ended:
            transport.write_eof()
        if not self._reading:
            transport.pause_reading()
        front.go_on()

    # --- what the front calls -------------------------------------------------------------------------------------

    def move(self) -> None:
        """Go to the loop. Nothing is read until then."""
        if not self._moving:
            self._moving = True
            self._acceptor.move(self)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not self._waiting:
            try:
                sent = os.write(self.descriptor, data)
            except OSError:  # it takes no more; or it is broken, which the loop's transport will find out
                sent = 0
            if sent == len(data):
                return
            data = memoryview(data)[sent:]
        self._wait_with([data])

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        parts = list(list_of_data)
        sent = 0
        if not self._waiting:
            with suppress(OSError):  # as above
                sent = os.writev(self.descriptor, parts)
        rest = []
        for part in parts:
            if sent < len(part):
                rest.append(memoryview(part)[sent:])
            sent = max(0, sent - len(part))
        if rest:
            self._wait_with(rest)

    def _wait_with(self, data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """The loop's transport is to write this."""
        self._waiting.extend(data)
        self.front.pause_writing()
        self.move()

    def write_eof(self) -> None:
        self._ended = True
        self.move()

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self._leaving = True
        if not self._moving:
            self._end(None)

    def abort(self) -> None:
        self._aborted = True
        if not self._moving:
            self._end(None)

    def _end(self, error: Exception | None) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor < 0:
            return
        self._acceptor.closed(descriptor)
        if self._socket is None:
            os.close(descriptor)
        else:
            self._socket.close()
        self.front.connection_lost(error)

    def is_closing(self) -> bool:
        return self._leaving or self._aborted or self.descriptor < 0

    def pause_reading(self) -> None:
        self._read_on(False)

    def resume_reading(self) -> None:
        self._read_on(True)

    def _read_on(self, reads: bool) -> None:
        self._reading = reads
        if not self._moving and self.descriptor >= 0:
            self._acceptor.read_on(self.descriptor, reads)

    def is_reading(self) -> bool:
        return self._reading

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self._waiting)) if self._waiting else 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "peername":
            return self._address
        return self.as_socket() if name == "socket" and self.descriptor >= 0 else default


class _Arrival(asyncio.Protocol):
    """Takes a connection from the loop for its front."""

    def __init__(self, one: Bare) -> None:
        self._one = one

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        stream.set_protocol(self._one.front)
        try:
            self._one.arrive(stream)
        except Exception:  # a bug of ours, which the loop tells; nothing would end the connection
            self._one.front.abort()
            raise
