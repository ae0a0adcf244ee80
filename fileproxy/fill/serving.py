"""The owner's side: other workers of this machine ask for entries and segments, and get them as they land."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

from fileproxy.cache import records
from fileproxy.errors import FileProxyError, UpstreamReset
from fileproxy.fill import wire
from fileproxy.fill.entry import NEAR
from fileproxy.fill.filler import Filler, Opened
from fileproxy.fill.plan import widened
from fileproxy.fill.values import Need
from fileproxy.fill.window import Windows
from fileproxy.http.ranges import resolve
from fileproxy.model import UNKNOWN_SIZE, FileSlice, Piece
from fileproxy.tasks import Tasks

PIECE = 256 * 1024  # bytes of a frame, and read from a file at once
BUFFER = 1024 * 1024  # bytes on their way to another worker, in the kernel
NeedOf = Callable[[wire.PeerAsk], Need | None]


class PeerServer:
    """Answers the other workers.

    ``need_of`` makes the need of an ask, with this worker's own source; None when it knows no such route (its settings
    are of another generation): then the connection is closed, and the asking worker helps itself. What is on its way to
    one of them is bounded by a window of ``windows`` (the kernel counts its own overhead on top).
    """

    def __init__(self, filler: Filler, need_of: NeedOf, tasks: Tasks, windows: Windows) -> None:
        self._filler = filler
        self._windows = windows
        self._need_of = need_of
        self._tasks = tasks
        self._serving: set[asyncio.Task[Any]] = set()
        self._closing = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one ask; with signs of life while nothing lands. Who leaves stops the work."""
        mine = asyncio.current_task()
        assert mine is not None
        self._serving.add(mine)
        jobs: set[asyncio.Task[Any]] = set()
        widen(writer, min(BUFFER, self._windows.size))
        try:
            kind, data = await wire.read_frame(reader)
            if kind != wire.HEAD:
                return
            work = self._tasks.start(self._answer(wire.decode(data, wire.PeerAsk), writer), "peer answer")
            left = self._tasks.start(_gone(reader), "peer left")
            jobs = {work, left}
            while not (work.done() or left.done()):
                await asyncio.wait(jobs, timeout=wire.ALIVE_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
                if not (work.done() or left.done() or writer.is_closing()):
                    writer.write(wire.frame(wire.ALIVE))
        except UpstreamReset:
            return  # it left before it asked, or speaks something else: there is nobody to tell
        except asyncio.CancelledError:
            if not self._closing:
                raise
        finally:
            for job in jobs:
                job.cancel()
            if jobs:
                await asyncio.wait(jobs)
            writer.close()
            self._serving.discard(mine)

    async def _answer(self, ask: wire.PeerAsk, writer: asyncio.StreamWriter) -> None:
        try:
            need = self._need_of(ask)
            if need is not None:
                await (self._segment(ask, need, writer) if ask.rid else self._contact(need, writer))
        except FileProxyError as error:
            said = wire.PeerError(error.ending, error.detail, error.retry_after_s, error.retryable)
            writer.write(wire.message(wire.ERROR, said))
            await writer.drain()
        except ConnectionError:
            return  # the asking worker left

    async def _segment(self, ask: wire.PeerAsk, need: Need, writer: asyncio.StreamWriter) -> None:
        body = await self._filler.continued(need, ask.rid)
        if body is None:
            return  # not here any more: it asks the upstream itself, under law 1
        try:
            body.expect(ask.first)
            writer.write(wire.message(wire.HEAD, wire.PeerHead(offset=ask.first, end=ask.end)))
            await self._send(body.pieces(ask.first, ask.end - ask.first), writer)
        finally:
            await body.aclose()

    async def _contact(self, need: Need, writer: asyncio.StreamWriter) -> None:
        opened = await self._filler.open(need)
        if opened.body is None or opened.entry is None:
            await self._pass(opened, writer)
            return
        meta = opened.entry.meta
        offset, end = 0, meta.size
        if need.ranges and meta.size != UNKNOWN_SIZE:
            spans = resolve((widened(need.ranges, meta.block, NEAR),), meta.size)
            offset, end = (spans[0][0], sum(spans[0])) if spans else (0, 0)
        head = wire.PeerHead(
            meta=records.encode(meta),
            offset=offset,
            end=end,
            vary=self._filler.vary_of(need.primary),
            shared=opened.shared,
            confirmed=opened.how == "REVALIDATED",
        )
        try:
            opened.body.expect(offset)
            writer.write(wire.message(wire.HEAD, head))
            await self._send(opened.body.pieces(offset, end - offset), writer)
        finally:
            await opened.body.aclose()

    async def _pass(self, opened: Opened, writer: asyncio.StreamWriter) -> None:
        """An answer for this ask alone, or the word that there is none to share."""
        answer = opened.answer
        why = opened.status.detail or ""
        if answer is None:
            writer.write(wire.message(wire.HEAD, wire.PeerHead(why=why, not_cached=opened.how == "TIMEOUT")))
            await writer.drain()
            return
        head = wire.PeerHead(
            status=answer.status,
            reason=wire.encoded(answer.reason),
            headers=wire.packed(answer.headers),
            length=answer.body.length,
            why=why,
        )
        try:
            writer.write(wire.message(wire.HEAD, head))
            await self._send(aiter(answer.body), writer)
        finally:
            await answer.body.aclose()

    async def _send(self, pieces: AsyncIterator[Piece], writer: asyncio.StreamWriter) -> None:
        async for piece in pieces:
            if isinstance(piece, FileSlice):
                for at in range(piece.offset, piece.offset + piece.length, PIECE):
                    length = min(PIECE, piece.offset + piece.length - at)
                    data = await asyncio.to_thread(os.pread, piece.descriptor, length, at)
                    if len(data) != length:
                        raise UpstreamReset("a stored block was cut short")
                    writer.writelines((wire.opening(wire.DATA, len(data)), data))
                    await writer.drain()
            else:
                view = memoryview(piece)
                for at in range(0, len(piece), PIECE):
                    part = view[at : at + PIECE]
                    writer.writelines((wire.opening(wire.DATA, len(part)), part))
                    await writer.drain()
        writer.write(wire.frame(wire.END))
        await writer.drain()

    async def close(self) -> None:
        """Stop what is being answered."""
        self._closing = True
        serving = list(self._serving)
        for task in serving:
            task.cancel()
        if serving:
            await asyncio.wait(serving)


def widen(writer: asyncio.StreamWriter, most: int) -> None:
    """Let ``most`` bytes be on their way in the kernel, half as many before it.

    Each round of a busy worker's loop moves no more than fits; with Linux's 208 KiB a file of 8 MiB took 40 of them.
    """
    connection: socket.socket = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):  # it is only faster so
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, most)
    writer.transport.set_write_buffer_limits(high=most // 2)


async def _gone(reader: asyncio.StreamReader) -> None:
    """Wait for the asking worker to leave. It says nothing more after its ask, so whatever comes is its leaving."""
    with contextlib.suppress(ConnectionError):
        await reader.read(1)
