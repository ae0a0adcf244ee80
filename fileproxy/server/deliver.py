"""6 DELIVER: a body to its client, with backpressure.

A dispatcher: ``Delivery.send`` takes the body piece by piece, and each goes by the cheapest mechanism that can carry
it: bytes through the transport, a slice of a file by ``sendfile.py``, or read in a thread where that cannot be, what
lies in a pipe by ``splice.py``.
``Course`` is what they share. What is held for one download is at most what the connection's write buffer takes plus
one piece, however slow the client is. A client that takes less than 1 KiB in an idle window is given up (law 3).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Executor
from typing import cast

from aiohttp import web
from aiohttp.http_writer import StreamWriter

from fileproxy.errors import ClientGone, ClientStalled, FileChanged
from fileproxy.model import Body, Counters, FileSlice, PipeSlice, Piping
from fileproxy.server.front import front_of
from fileproxy.server.pace import LOOK_BYTES, ClientPace
from fileproxy.server.reply import Reply
from fileproxy.server.running import Held
from fileproxy.server.sendfile import PROGRESS_FLOOR, Outlet, descriptor_of
from fileproxy.server.splice import spout_of
from fileproxy.server.turnstile import TURN, Turnstile
from fileproxy.sockets import reset_on_close

# What may lie between us and a client, in its socket and ours. ``sendfile`` hands over pages, not bytes: a file changed
# in place changes them under way. So of what may change the last so much is copied: when the check before its last byte
# finds the file as it was, the pages have arrived.
IN_FLIGHT = 16 * 1024 * 1024
FIRST = 128 * 1024  # bytes of a download's first turn in a crowd: what others wait for comes before what it reads later


class Course:
    """One body on its way: where it goes, and what is noted of it."""

    def __init__(
        self,
        request: web.Request,
        reply: Reply,
        writer: StreamWriter,
        *,
        idle_s: float,
        on_first_byte: Callable[[], None],
        on_bytes: Callable[[int], None],
        held: Held,
        turnstile: Turnstile,
    ) -> None:
        self.turnstile = turnstile
        self.reply = reply
        self.writer = writer
        self.idle_s = idle_s
        self.held = held
        self.pace: ClientPace | None = getattr(request.protocol, "pace", None)
        self.sent = 0  # bytes of the body
        self._front = front_of(request)
        self._on_first_byte: Callable[[], None] | None = on_first_byte
        self._on_bytes = on_bytes
        self._turn = FIRST if turnstile.crowded else TURN

    @property
    def limit(self) -> int | None:
        """The most bytes of one write, as the client's path deserves; None = pieces as they come."""
        return None if self.pace is None else self.pace.write

    def begun(self) -> None:
        """The head is out."""
        if self._on_first_byte is not None:
            self._on_first_byte()
            self._on_first_byte = None

    def passed(self, length: int) -> None:
        """So many bytes of the body were handed over."""
        self.begun()
        self.sent += length
        self._on_bytes(length)

    def past_the_writer(self, length: int) -> None:
        """The same, when they went to the socket directly; 0: (part of) the head did."""
        self._front.written = True
        self.reply.went(length)
        if length:
            self.passed(length)
        else:
            self.begun()

    def most(self) -> int:
        """Bytes to hand over at once."""
        pace = self.pace
        return (pace and pace.write) or (self._turn if self._on_first_byte else self.turnstile.share)

    async def write(self, data: bytes | memoryview) -> None:
        """Through the transport, in turns or as pieces its path deserves; waits while the client does not take them."""
        while len(data) > (most := self.most()):
            data = memoryview(data)
            await self._write(data[:most])
            data = data[most:]
        await self._write(data)

    async def _write(self, data: bytes | memoryview) -> None:
        await self.writer.write(data, drain=False)
        if self.writer.protocol.writing_paused:
            self.passed(len(data))
            await self.taken()
            self._turn = TURN
        else:
            await self.turned(len(data), False)

    async def turned(self, length: int, waited: bool) -> None:
        """So many bytes were handed over, and the client ``waited`` for or not: others get their turn."""
        self.passed(length)
        self._turn = TURN if waited else self._turn - length
        if self._turn <= 0:
            await self.turnstile.next()
            self._turn = TURN

    async def taken(self) -> None:
        """Wait until the client has taken enough that more may be written. Raises ClientStalled."""
        self.held.by_client = True
        await _taken(self.writer, self.idle_s)
        self.held.by_client = False

    async def flushed(self) -> None:
        """Wait until the transport has nothing left to write, so that others may. Raises ClientStalled."""
        transport = self.writer.transport
        if transport is None or not transport.get_write_buffer_size():
            return
        low, high = transport.get_write_buffer_limits()
        transport.set_write_buffer_limits(high=0)
        try:
            await self.taken()
        finally:
            transport.set_write_buffer_limits(high=high, low=low)


class Delivery:
    """Sends bodies for one worker.

    ``readers``: bounded threads for file reads; the loop never waits for a disk. ``chunk()``: bytes of a file read at
    once now (the memory manager lowers it).
    """

    def __init__(self, readers: Executor, chunk: Callable[[], int], counters: Counters) -> None:
        self._readers = readers
        self._chunk = chunk
        self._counters = counters
        self._turnstile = Turnstile()

    async def send(
        self,
        request: web.Request,
        reply: Reply,
        body: Body,
        *,
        idle_s: float,
        on_first_byte: Callable[[], None],
        on_bytes: Callable[[int], None],
        held: Held | None = None,
    ) -> None:
        """Send head and body to their end.

        ``on_first_byte`` is called when the head leaves, ``on_bytes`` with the length of each piece handed over.
        ``held`` is told while it is the client that is waited for. Writes are as long as its path deserves.
        Raises ClientGone, ClientStalled, or what the body raises.
        """
        course = None
        try:
            writer = cast(StreamWriter, await reply.prepare(request))
            course = Course(
                request,
                reply,
                writer,
                idle_s=idle_s,
                on_first_byte=on_first_byte,
                on_bytes=on_bytes,
                held=held or Held(),
                turnstile=self._turnstile,
            )
            self._turnstile.downloads += 1
            if request.method != "HEAD" and body.length != 0:
                await self._pass(course, body)
            course.begun()
            await reply.write_eof()
            if writer.protocol.writing_paused:
                await course.taken()
            if course.pace is not None and course.sent >= LOOK_BYTES:
                course.pace.ended()
        except ConnectionError as error:
            raise ClientGone("The client closed its connection.") from error
        finally:
            if course is not None:
                self._turnstile.downloads -= 1

    async def _pass(self, course: Course, body: Body) -> None:
        """Each piece by the mechanism that suits it."""
        outlet: Outlet | None = None
        piping = cast(Piping, body) if hasattr(body, "piped") else None  # isinstance asks a Protocol at length
        spout = None if piping is None else spout_of(course)
        try:
            async for piece in body if spout is None or piping is None else piping.piped():
                if isinstance(piece, bytes):
                    await course.write(piece)
                    continue
                if isinstance(piece, PipeSlice):
                    assert spout is not None
                    await spout.send(piece)
                    continue
                direct = _direct(piece, None if body.length is None else body.length - course.sent)
                if direct and outlet is None:
                    outlet = self._outlet(course)
                await self._slice(course, piece, direct, outlet)
        finally:
            if outlet is not None:
                outlet.close()
            if spout is not None:
                spout.close()

    async def _slice(self, course: Course, piece: FileSlice, direct: int, outlet: Outlet | None) -> None:
        """A part of a file: ``direct`` bytes of it past the transport where that can be, the rest copied."""
        if direct and outlet is not None:
            await course.flushed()
            if piece.stamp is not None:
                _check(piece)
            first = FileSlice(piece.descriptor, piece.offset, direct, piece.stamp)
            ahead, left = await outlet.send(course.reply.take_head(), first)
            if ahead:
                await course.writer.write(ahead, drain=False)
            if (done := direct - left) == piece.length:
                return
            piece = FileSlice(piece.descriptor, piece.offset + done, piece.length - done, piece.stamp)
        await self._copy(course, piece)

    def _outlet(self, course: Course) -> Outlet | None:
        writer = course.writer
        if writer.chunked or writer._compress is not None:  # noqa: SLF001
            return None
        descriptor = descriptor_of(writer.transport)
        if descriptor is None or writer.transport is None:
            return None

        def went(length: int) -> None:
            course.past_the_writer(length)
            self._counters.add("bytes.sendfile", length)

        return Outlet(
            writer.transport,
            descriptor,
            self._readers,
            idle_s=course.idle_s,
            most=course.most,
            went=went,
            turn=course.turnstile.next,
            held=course.held,
        )

    async def _copy(self, course: Course, piece: FileSlice) -> None:
        """A slice, read in a thread and written like any bytes."""
        offset, left = piece.offset, piece.length
        while left:
            most = course.limit or self._chunk()
            data = await self._read(piece, offset, min(left, most))
            offset += len(data)
            left -= len(data)
            await course.write(data)

    async def _read(self, piece: FileSlice, offset: int, length: int) -> bytes:
        """One read in a thread. The descriptor is duplicated: a cancelled download may close its own at once."""
        duplicate = os.dup(piece.descriptor)
        job = self._readers.submit(_read_and_close, duplicate, offset, length, piece.stamp)
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            if job.cancel():  # it never started, so nobody else will close it
                os.close(duplicate)
            raise


def _direct(piece: FileSlice, left: int | None) -> int:
    """How much of a slice may go by ``sendfile``, of a body of which ``left`` bytes are still to be sent (pure)."""
    if left is None:
        return 0
    return piece.length if piece.stamp is None else max(0, min(piece.length, left - IN_FLIGHT))


def _check(piece: FileSlice) -> None:
    status = os.fstat(piece.descriptor)
    if (status.st_size, status.st_mtime_ns) != piece.stamp:
        raise FileChanged("The file changed while it was being sent.")


def _read_and_close(descriptor: int, offset: int, length: int, stamp: tuple[int, int] | None) -> bytes:
    try:
        data = os.pread(descriptor, length, offset)
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not data or (stamp is not None and (status.st_size, status.st_mtime_ns) != stamp):
        raise FileChanged("The file changed while it was being sent.")
    return data


async def _taken(writer: StreamWriter, idle_s: float) -> None:
    """Wait until the client has taken enough that more may be written. Raises ClientStalled."""
    while True:
        transport = writer.transport
        before = transport.get_write_buffer_size() if transport is not None else 0
        try:
            async with asyncio.timeout(idle_s):
                await writer.drain()
                return
        except TimeoutError:
            left = transport.get_write_buffer_size() if transport is not None else 0
            if before - left < PROGRESS_FLOOR:
                raise ClientStalled(f"The client took less than {PROGRESS_FLOOR} bytes in {idle_s:g} s.") from None


def abort(request: web.Request, reply: Reply | None) -> None:
    """Cut the connection so that the client sees a broken download, never a finished one (laws 1 and 2).

    Where length or chunks frame the answer, what was sent stays valid and the missing end shows. Where only the close
    would end it, the close must be a reset.
    """
    transport = request.transport
    if reply is not None:
        reply.abandon()
    if transport is None:
        return
    if reply is None or reply.close_delimited:
        reset_on_close(transport.get_extra_info("socket"))
    transport.abort()
