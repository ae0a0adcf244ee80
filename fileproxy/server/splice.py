"""Bytes from a pipe to a client's socket, without this process touching them (Linux: ``splice``).

It writes beside the connection's transport, so only when nothing waits in that one's buffer, and only while nobody else
writes: within one answer, between two pieces. uvloop refuses a transport's own descriptor; a duplicate is used.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
from typing import TYPE_CHECKING

from fileproxy.errors import ClientStalled
from fileproxy.model import PipeSlice

if TYPE_CHECKING:
    from fileproxy.server.deliver import Course

COPY = 64 * 1024  # bytes of a piece that must be copied, at once
TURN = 1024 * 1024  # bytes after which others get their turn
PROGRESS_FLOOR = 1024  # bytes in an idle window that count as progress


class Spout:
    """The way past the transport, for one answer to one client. Close it in any case."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self._target = -1
        self._refused = False  # the kernel does not splice to this socket
        self._turn = TURN

    async def send(self, piece: PipeSlice) -> None:
        """All of ``piece``. Raises ConnectionError when the client is gone, ClientStalled."""
        left = piece.length
        if not self._refused:
            self._course.writer.send_headers()
            await self._course.flushed()
        while left:
            most = min(left, self._course.most)
            moved = await self._copied(piece.descriptor, most) if self._refused else self._spliced(piece, most)
            left -= moved
            if not moved and not self._refused:
                await self._writable()
        if self._turn <= 0:
            await asyncio.sleep(0)
            self._turn = TURN

    def _spliced(self, piece: PipeSlice, most: int) -> int:
        """So many bytes went; 0: the client must be waited for, or (``_refused``) this does not work here."""
        target = self._descriptor()
        try:
            moved = os.splice(piece.descriptor, target, most, flags=os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            return 0
        except ConnectionError:
            raise
        except OSError:
            self._refused = True
            return 0
        self._course.past_the_writer(moved)
        self._turn -= moved
        return moved

    async def _copied(self, descriptor: int, most: int) -> int:
        data = os.read(descriptor, min(most, COPY))
        await self._course.write(data)
        return len(data)

    def _descriptor(self) -> int:
        transport = self._course.writer.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the connection was closed")
        if self._target < 0:
            self._target = os.dup(transport.get_extra_info("socket").fileno())
        return self._target

    async def _writable(self) -> None:
        """Wait until the socket takes more. Raises ClientStalled when the client takes too little meanwhile."""
        loop, target, course = asyncio.get_running_loop(), self._descriptor(), self._course
        ready = asyncio.Event()
        before = _unacknowledged(target)
        loop.add_writer(target, ready.set)
        course.held.by_client = True
        try:
            while not await _within(course.idle_s, ready):
                left = _unacknowledged(target)
                if before - left < PROGRESS_FLOOR:
                    raise ClientStalled(f"The client took less than {PROGRESS_FLOOR} bytes in {course.idle_s:g} s.")
                before = left
        finally:
            course.held.by_client = False
            loop.remove_writer(target)
        self._turn = TURN

    def close(self) -> None:
        """Let go of the duplicate; the connection stays."""
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


async def _within(seconds: float, ready: asyncio.Event) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await ready.wait()
    except TimeoutError:
        return False


def _unacknowledged(descriptor: int) -> int:
    """Bytes in the kernel that the client has not taken (Linux: SIOCOUTQ)."""
    answer = fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0\0\0\0")
    return int(struct.unpack("i", answer)[0])
