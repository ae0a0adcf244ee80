"""A connection's bytes past its transport: read in big pieces, or into a pipe without being copied (``splice``).

From the moment a tube is laid, nobody else reads the connection: what aiohttp read before must have been handed on. It
works on a duplicate of the descriptor, as uvloop refuses a transport's own. aiohttp's parser copies what it is given,
and the loops before it; here bytes are copied once, out of the kernel, or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from typing import Any

from fileproxy.model import Counters

CAPACITY = 1024 * 1024  # of a pipe; the most that a process without privileges may have
# Pipes of one upstream in a worker: while there are fewer than so many, the next one is of such a size. All together
# they may hold 64 MiB in the kernel, as much as a user without privileges may have; what is in them is no memory of
# this process, so that a thousand slow clients cost it little.
SIZES = ((24, CAPACITY), (24 + 128, 64 * 1024), (24 + 128 + 1024, 32 * 1024))
AVAILABLE = hasattr(os, "splice") and hasattr(fcntl, "F_SETPIPE_SZ")
_FLAGS = getattr(os, "SPLICE_F_MOVE", 0) | getattr(os, "SPLICE_F_NONBLOCK", 0)


class Tube:
    """Laid by :class:`Tubes`. ``outlet``: the end of the pipe that its reader empties; -1 while there is none."""

    def __init__(self, tubes: Tubes, source: int) -> None:
        self.outlet = -1
        self._inlet = -1
        self._tubes = tubes
        self._source = source
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False

    def has_pipe(self) -> bool:
        """There is a pipe, or can be one: not on other systems, with too many already, or no descriptors left."""
        if self.outlet < 0 and not self._closed and (pipe := self._tubes.pipe()) is not None:
            self.outlet, self._inlet = pipe
        return self.outlet >= 0

    def splice(self, most: int) -> int:
        """So many bytes are in the pipe now, which must have been empty; 0 = the peer has closed.

        Raises BlockingIOError when there are none yet, another OSError when the connection broke or cannot be spliced.
        """
        amount = os.splice(self._source, self._inlet, min(most, CAPACITY), flags=_FLAGS)
        self._tubes.counters.add("bytes.spliced", amount)
        return amount

    def read(self, most: int) -> bytes:
        """The same bytes as such."""
        return os.read(self._source, most)

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
        os.close(self._source)
        if self.outlet >= 0:
            self._tubes.pipes -= 1
            os.close(self._inlet)
            os.close(self.outlet)


class Tubes:
    """The tubes of one upstream."""

    def __init__(self, counters: Counters) -> None:
        self.counters = counters
        self.pipes = 0

    def lay(self, transport: Any) -> Tube | None:
        """A tube from this connection, which its transport no longer reads; None where that cannot be: TLS, no
        descriptors left.
        """
        sock = transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0 or transport.get_extra_info("ssl_object") is not None:
            return None
        try:
            source = os.dup(sock.fileno())
        except OSError:
            return None
        transport.pause_reading()
        return Tube(self, source)

    def pipe(self) -> tuple[int, int] | None:
        """Both ends of a new pipe; None: there are enough, or none is to be had."""
        size = next((size for most, size in SIZES if self.pipes < most), 0)
        if not AVAILABLE or not size:
            return None
        try:
            outlet, inlet = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        with contextlib.suppress(OSError):  # this user has too much in pipes
            fcntl.fcntl(inlet, fcntl.F_SETPIPE_SZ, size)
        if fcntl.fcntl(inlet, fcntl.F_GETPIPE_SZ) < SIZES[-1][1]:  # far too much
            os.close(inlet)
            os.close(outlet)
            return None
        self.pipes += 1
        return outlet, inlet
