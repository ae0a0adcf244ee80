"""Bytes from a pipe to a client's socket, without this process touching them (Linux: ``splice``).

It writes beside the connection's transport, so only when nothing waits in that one's buffer, and only while nobody else
writes: within one answer, between two pieces. uvloop refuses a transport's own descriptor; a duplicate is used.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from fileproxy.errors import ClientStalled
from fileproxy.model import PipeSlice
from fileproxy.server.sendfile import PROGRESS_FLOOR, unsent

if TYPE_CHECKING:
    from fileproxy.server.deliver import Course

COPY = 64 * 1024  # bytes of a piece that must be copied, at once
_FLAGS = getattr(os, "SPLICE_F_MOVE", 0) | getattr(os, "SPLICE_F_NONBLOCK", 0)


class Spout:
    """The way past the transport, for one answer to one client. Close it in any case."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self._loop = asyncio.get_running_loop()
        self._target = -1  # the duplicate
        self._source = -1  # the pipe, and what of it is still to be sent
        self._left = 0
        self._refused = False  # the kernel does not splice to this socket
        self._settled: asyncio.Future[None] | None = None  # while the client is waited for
        self._timer: asyncio.TimerHandle | None = None
        self._moved = 0  # bytes that went to the socket
        self._taken = 0  # of them by the client, when last looked at

    async def send(self, piece: PipeSlice) -> None:
        """All of ``piece``. Raises ConnectionError when the client is gone, ClientStalled."""
        course = self._course
        course.writer.send_headers()
        await course.flushed()
        self._source, self._left = piece.descriptor, piece.length
        waited = not self._push()
        if waited:
            await self._watched()
        while self._left:
            data = os.read(self._source, min(self._left, COPY))
            self._left -= len(data)
            await course.write(data)
        if not waited:
            await asyncio.sleep(0)  # others get their turn

    def _push(self) -> bool:
        """What the socket takes now. Whether that is all that goes this way."""
        course = self._course
        transport = course.writer.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the connection was closed")
        if self._target < 0:
            self._target = os.dup(transport.get_extra_info("socket").fileno())
        before = self._left
        try:
            while self._left and not self._refused:
                moved = os.splice(self._source, self._target, min(self._left, course.most()), flags=_FLAGS)
                self._left -= moved
        except BlockingIOError:
            return False
        except ConnectionError:
            raise
        except OSError:
            self._refused = True
        finally:
            if before > self._left:
                self._moved += before - self._left
                course.past_the_writer(before - self._left)
        return True

    # --- the socket is full -------------------------------------------------------------------------------------------

    async def _watched(self) -> None:
        """Send whenever the socket takes more."""
        held, loop = self._course.held, self._loop
        settled = self._settled = loop.create_future()
        self._taken = self._moved - unsent(self._target)
        self._timer = loop.call_later(self._course.idle_s, self._look)
        loop.add_writer(self._target, self._ready)
        held.by_client = True
        try:
            await settled
        finally:
            held.by_client = False
            self._unwatch()

    def _unwatch(self) -> None:
        self._settled = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._loop.remove_writer(self._target)

    def _ready(self) -> None:
        settled = self._settled
        if settled is None or settled.done():
            return
        try:
            if self._push():
                settled.set_result(None)
        except ConnectionError as error:
            settled.set_exception(error)

    def _look(self) -> None:
        """An idle window has passed. What a slow client took shows in the kernel long before there is room for more."""
        settled = self._settled
        if settled is None or settled.done():
            return
        taken, idle_s = self._moved - unsent(self._target), self._course.idle_s
        if taken - self._taken < PROGRESS_FLOOR:
            settled.set_exception(ClientStalled(f"The client took less than {PROGRESS_FLOOR} bytes in {idle_s:g} s."))
            return
        self._taken = taken
        self._timer = self._loop.call_later(idle_s, self._look)

    def close(self) -> None:
        """Let go of the duplicate; the connection stays."""
        self._unwatch()
        target, self._target = self._target, -1
        if target >= 0:
            os.close(target)


def spout_of(course: Course) -> Spout | None:
    """The way past the transport; None where there is none: TLS, chunks, another system."""
    writer = course.writer
    transport = writer.transport
    if transport is None or writer.chunked or writer._compress is not None or not hasattr(os, "splice"):  # noqa: SLF001
        return None
    if transport.get_extra_info("socket") is None or transport.get_extra_info("sslcontext") is not None:
        return None
    return Spout(course)
