"""A connection that is its descriptor: the transport of a front while the acceptor carries it (``acceptor.py``)."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from fileproxy.server.acceptor import Acceptor
    from fileproxy.server.front import Front

READ = 4096  # bytes of a read that is not the first


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
        self._waiting: Sequence[bytes | bytearray | memoryview[Any]] = ()
        self._reading = True
        self._moving = self._ended = self._leaving = self._aborted = False

    # --- what the acceptor calls ----------------------------------------------------------------------------------

    def more(self) -> bytes:
        """What came with the first bytes."""
        try:
            return os.read(self.descriptor, READ)
        except BlockingIOError:
            return b""

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
        self._waiting = [*self._waiting, *data]
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
        self._set_reading(False)

    def resume_reading(self) -> None:
        self._set_reading(True)

    def _set_reading(self, reads: bool) -> None:
        self._reading = reads
        if not self._moving and self.descriptor >= 0:
            self._acceptor.set_reading(self.descriptor, reads)

    def is_reading(self) -> bool:
        return self._reading

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self._waiting)) if self._waiting else 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "peername":
            return self._address
        return self.as_socket() if name == "socket" and self.descriptor >= 0 else default


class Arrival(asyncio.Protocol):
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
