"""6 DELIVER: a body to its client, with backpressure.

What is held for one download is at most what the connection's write buffer takes plus one piece, however slow the
client is. A client that takes less than 1 KiB in an idle window is given up (law 3: progress is the deadline).
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from typing import cast

from aiohttp import web
from aiohttp.http_writer import StreamWriter

from fileproxy.errors import ClientGone, ClientStalled, FileChanged
from fileproxy.model import Body, FileSlice
from fileproxy.server.pace import LOOK_BYTES, ClientPace
from fileproxy.server.reply import Reply
from fileproxy.server.running import Held

TURN = 1024 * 1024  # bytes a download may write before others get their turn: kernels take several times this at once
PROGRESS_FLOOR = 1024  # bytes in an idle window that count as progress
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close sends RST


class Delivery:
    """Sends bodies for one worker.

    ``readers``: bounded threads for file reads; the loop never waits for a disk. ``chunk()``: bytes of a file read at
    once now (the memory manager lowers it).
    """

    def __init__(self, readers: Executor, chunk: Callable[[], int]) -> None:
        self._readers = readers
        self._chunk = chunk

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
        held = held or Held()
        pace: ClientPace | None = getattr(request.protocol, "pace", None)
        sent = 0
        try:
            writer = cast(StreamWriter, await reply.prepare(request))
            if request.method == "HEAD" or body.length == 0:
                on_first_byte()
            else:
                first, turn = True, TURN
                async for piece in self._bytes_of(body, pace):
                    await writer.write(piece, drain=False)
                    if first:
                        on_first_byte()
                        first = False
                    on_bytes(len(piece))
                    turn -= len(piece)
                    sent += len(piece)
                    if writer.protocol.writing_paused:
                        held.by_client = True
                        await _taken(writer, idle_s)
                        held.by_client = False
                        turn = TURN
                    elif turn <= 0:
                        await asyncio.sleep(0)
                        turn = TURN
                if first:
                    on_first_byte()
            await reply.write_eof()
            if writer.protocol.writing_paused:
                held.by_client = True
                await _taken(writer, idle_s)
            if pace is not None and sent >= LOOK_BYTES:
                pace.ended()
        except ConnectionError as error:
            raise ClientGone("The client closed its connection.") from error

    async def _bytes_of(self, body: Body, pace: ClientPace | None) -> AsyncIterator[bytes | memoryview]:
        async for piece in body:
            if isinstance(piece, bytes):
                if pace is None or pace.write is None or len(piece) <= pace.write:
                    yield piece
                    continue
                rest = memoryview(piece)
                while rest:
                    most = pace.write or len(rest)
                    yield rest[:most]
                    rest = rest[most:]
                continue
            offset, left = piece.offset, piece.length
            while left:
                most = self._chunk() if pace is None or pace.write is None else pace.write
                data = await self._read(piece, offset, min(left, most))
                offset += len(data)
                left -= len(data)
                yield data

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
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()
