"""A connection's bytes into a pipe, without this process touching them (Linux: ``splice``).

From the moment a tube is laid, nobody else reads the connection: what aiohttp read before must have been handed on. It
works on a duplicate of the descriptor, as uvloop refuses a transport's own. Bytes can also be had as such.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from typing import Any

from fileproxy.model import Counters

CAPACITY = 1024 * 1024  # of a pipe; the most that a process without privileges may have
READ = 256 * 1024  # bytes of one read
MOST = 64  # tubes of one upstream in a worker: what they may hold in the kernel
AVAILABLE = hasattr(os, "splice") and hasattr(fcntl, "F_SETPIPE_SZ")


class Tube:
    """Lay it with :meth:`Tubes.lay`. ``outlet``: the end of the pipe that its reader empties."""

    def __init__(self, tubes: Tubes, source: int, outlet: int, inlet: int) -> None:
        self.outlet = outlet
        self._tubes = tubes
        self._source = source
        self._inlet = inlet
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False

    def splice(self, most: int) -> int:
        """So many bytes are in the pipe now, which must have been empty; 0 = the peer has closed.

        Raises BlockingIOError when there are none yet, another OSError when the connection broke or cannot be spliced.
        """
        flags = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
        amount = os.splice(self._source, self._inlet, min(most, CAPACITY), flags=flags)
        self._tubes.counters.add("bytes.spliced", amount)
        return amount

    def read(self, most: int) -> bytes:
        """The same bytes as such."""
        return os.read(self._source, min(most, READ))

    async def readable(self) -> None:
        """Wait until there is something to splice or read, or until :meth:`wake`."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        loop.add_reader(self._source, self.wake)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if not self._closed:
                loop.remove_reader(self._source)

    def wake(self) -> None:
        """Whoever waits looks again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Let go of the pipe and of the duplicate; the connection itself is as it was."""
        if self._closed:
            return
        if self._waiter is not None:
            asyncio.get_running_loop().remove_reader(self._source)
            self.wake()
        self._closed = True
        self._tubes.laid -= 1
        for descriptor in (self._source, self._inlet, self.outlet):
            os.close(descriptor)


class Tubes:
    """The tubes of one upstream."""

    def __init__(self, counters: Counters, most: int = MOST) -> None:
        self.counters = counters
        self.laid = 0
        self._most = most

    def lay(self, transport: Any) -> Tube | None:
        """A tube from this connection, which its transport no longer reads; None where that cannot be: TLS, another
        system, too many already, no descriptors left.
        """
        sock = transport.get_extra_info("socket")
        if not AVAILABLE or self.laid >= self._most or sock is None or sock.fileno() < 0:
            return None
        if transport.get_extra_info("ssl_object") is not None:
            return None
        opened: list[int] = []
        try:
            opened += os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.fcntl(opened[1], fcntl.F_SETPIPE_SZ, CAPACITY)
            opened.append(os.dup(sock.fileno()))
        except OSError:  # no descriptors, or no memory for pipes: bytes can go the usual way
            for descriptor in opened:
                os.close(descriptor)
            return None
        transport.pause_reading()
        self.laid += 1
        return Tube(self, opened[2], opened[0], opened[1])
