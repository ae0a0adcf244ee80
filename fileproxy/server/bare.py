"""A client connection that is its descriptor: all there is of it while it asks only what is known (``acceptor.py``)."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING

from fileproxy.sockets import reset_on_close

if TYPE_CHECKING:
    from fileproxy.server.pace import ClientPace
    from fileproxy.server.rows import Block

READ = 4096  # bytes of a read that is not the first
_Data = bytes | bytearray | memoryview


class Bare:
    """One connection at a clean boundary, for the fast front like a ``Front``. What is written goes out at once.

    ``over``: it cannot stay what it is: ``rest`` was not taken by the client, or it ``leaves``, or it was cut.
    """

    __slots__ = (
        "_socket", "block", "cut", "descriptor", "family", "leaves", "over", "pace", "peer", "rest", "room", "served",
        "since",
    )  # fmt: skip

    def __init__(self, descriptor: int, family: int, peer: str, now: float) -> None:
        self.descriptor = descriptor
        self.family = family
        self.peer = peer
        self.since = now  # when it came, or was answered last
        self.served = self.over = self.leaves = self.cut = False
        self.room = 0  # bytes that it took at once
        self.block: Block | None = None  # the last one that fast.py knew
        self.rest: tuple[_Data, ...] = ()
        self.pace: ClientPace | None = None  # of the requests that had a handler
        self._socket: socket.socket | None = None  # owns the descriptor, once somebody wanted it

    def read(self, size: int) -> bytes | None:
        """At most ``size`` bytes, and what came with them. b"": there will be none any more; None: not yet."""
        try:
            data = os.read(self.descriptor, size)
        except BlockingIOError:
            return None
        except OSError:  # it is broken
            return b""
        return data if len(data) < size else data + self.more()

    def more(self) -> bytes:
        """What came with the first bytes."""
        try:
            return os.read(self.descriptor, READ)
        except OSError:  # nothing; or it is broken, which the next read will tell
            return b""

    def as_socket(self) -> socket.socket:
        """The connection as an object, which closes it."""
        if self._socket is None:
            self._socket = socket.socket(self.family, socket.SOCK_STREAM, 0, fileno=self.descriptor)
        return self._socket

    def close(self) -> None:
        """At once; with a reset where it was cut."""
        if self._socket is None and not self.cut:
            os.close(self.descriptor)
            return
        sock = self.as_socket()
        if self.cut:
            reset_on_close(sock)
        sock.close()

    # --- what the fast front calls --------------------------------------------------------------------------------

    # After what was not taken nothing more is tried: it would overtake that.

    def write(self, data: _Data) -> None:
        try:
            sent = 0 if self.rest else os.write(self.descriptor, data)
        except OSError:  # it takes no more; or it is broken, which the loop's transport will find out
            sent = 0
        if sent != len(data):
            self.rest = (*self.rest, memoryview(data)[sent:])
            self.over = True

    def writelines(self, parts: Iterable[_Data]) -> None:
        parts = tuple(parts)
        try:
            sent = 0 if self.rest else os.writev(self.descriptor, parts)
        except OSError:  # as above
            sent = 0
        for part in parts:
            if sent < len(part):
                self.rest = (*self.rest, memoryview(part)[sent:])
                self.over = True
            sent = max(0, sent - len(part))

    def leave(self) -> None:
        """Close behind an answer to a client that said it would ask no more."""
        self.leaves = self.over = True

    def abort(self) -> None:
        """Cut it, so that the client sees that the answer is cut short."""
        self.cut = self.over = True
