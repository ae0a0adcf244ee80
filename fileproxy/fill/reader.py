"""A body over an entry: bytes from the flight that is followed, from memory, from disk, or from a flight of its own.

Where the next bytes come from is looked at anew for each piece, so that a break, an eviction or a slow reader changes
only that. The order: the flight it follows; memory; another flight that has them or is about to; disk; a new flight.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from fileproxy.errors import CannotContinue, UpstreamReset
from fileproxy.fill.entry import Entry
from fileproxy.fill.flight import Flight
from fileproxy.fill.landed import Cursor
from fileproxy.fill.states import State
from fileproxy.fill.values import Need
from fileproxy.model import UNKNOWN_SIZE, FileSlice, Piece

CHECKED_BLOCKS = 16  # of a file asked for at once where each may have to be checked before
OPEN_BLOCKS = 64  # and where they were: each slice is begun and ended, which costs as much as sending a MiB


class EntryBody:
    """A :class:`fileproxy.model.Body` and :class:`fileproxy.model.Seekable` over one entry.

    It follows the flight at its beginning from the moment it is made, so that the flight knows of its reader.
    """

    framed = True

    def __init__(self, entry: Entry, need: Need) -> None:
        self.entry = entry
        self._need = need
        self._flight: Flight | None = None
        self._cursor = Cursor(0)
        self._open: int | None = None  # descriptor of the slice handed out last

    @property
    def length(self) -> int | None:
        return None if self.entry.meta.size == UNKNOWN_SIZE else self.entry.meta.size

    def expect(self, position: int, landed: Flight | None = None) -> None:
        """Bytes from ``position`` on will be read soon: follow the flight that brings them.

        ``landed`` is one that brought them just now, and may be over already.
        """
        flight = self.entry.flight_for(position)
        if flight is None:
            flight = landed if landed is not None and landed.has(position) else self.entry.only_flight()
        if self._flight is None and flight is not None:
            self._follow(flight, position)

    def __aiter__(self) -> AsyncIterator[Piece]:
        return self.pieces(0, UNKNOWN_SIZE if self.length is None else self.length)

    async def pieces(self, offset: int, length: int) -> AsyncIterator[Piece]:
        """See ``Seekable``; with :data:`UNKNOWN_SIZE` as length, to the end whose place is not known yet."""
        entry, position, stop = self.entry, offset, offset + length
        if self._cursor.position != offset:  # other bytes than were expected
            self._leave()
        try:
            while position < stop:
                piece = await self._next(position, stop)
                if piece is None:
                    return
                size = piece.length if isinstance(piece, FileSlice) else len(piece)
                if position + size >= entry.meta.size and entry.digest and not entry.meta.verified:
                    await entry.verify()
                position += size
                if self._flight is not None and self._cursor.position < position:
                    self._flight.move(self._cursor, position)
                yield piece
                self._close_slice()
        finally:
            self._close_slice()
            self._leave()

    async def _next(self, position: int, stop: int) -> Piece | None:
        """The next bytes at ``position``; None at the end of a file whose size was not known."""
        entry = self.entry
        while True:
            flight = self._flight
            if flight is not None:
                chunk = flight.take(self._cursor, stop)
                if chunk is not None:
                    return chunk
                if not self._gone_on(flight, position):
                    await flight.landed()
                    continue
                if entry.meta.pinned or position >= flight.base:
                    self._leave()  # else it must not let go of what comes after the stored bytes
            meta = entry.meta
            if position >= meta.size:
                return None
            index, within = divmod(position, meta.block)
            if (data := entry.shared.store.read_now(meta, index)) is not None:
                upto = min(len(data), within + stop - position)
                return data if within == 0 and upto == len(data) else data[within:upto]
            if index in entry.held and (piece := self._open_slice(position, stop)) is not None:
                return piece
            if self._join(position):
                continue
            if index in entry.held and (piece := await self._from_store(position, stop)) is not None:
                return piece
            if not self._join(position):
                self._follow(entry.start(self._need, position, stop), position)

    def _gone_on(self, flight: Flight, position: int) -> bool:
        """Whether the followed flight can bring the byte no more. Raises its error when that is why."""
        if flight.has(position):
            return False
        if flight.state is State.FAILED and position >= flight.shown:
            raise flight.error or UpstreamReset("the fill failed")
        if flight.state is State.STOPPED and position >= flight.position and not self.entry.meta.pinned:
            raise flight.error or CannotContinue(f"{self.entry.meta.url}: the fill was stopped")
        return flight.over or position < flight.base

    async def _from_store(self, position: int, stop: int) -> Piece | None:
        entry, meta = self.entry, self.entry.meta
        index, within = divmod(position, meta.block)
        piece = await entry.shared.store.read(meta, index, self._blocks(position, stop, CHECKED_BLOCKS))
        if piece is None:
            entry.lost(index)
            return None
        if isinstance(piece, FileSlice):
            return self._part(piece, within, stop - position)
        return piece[within : within + stop - position]

    def _open_slice(self, position: int, stop: int) -> Piece | None:
        """What can be had of a file that is open, without waiting."""
        index, within = divmod(position, self.entry.meta.block)
        piece = self.entry.shared.store.slice_now(self.entry.meta, index, self._blocks(position, stop, OPEN_BLOCKS))
        return None if piece is None else self._part(piece, within, stop - position)

    def _blocks(self, position: int, stop: int, most: int) -> int:
        """How many blocks are asked for at once."""
        meta = self.entry.meta
        return min(most, -(-(position % meta.block + min(stop, meta.size) - position) // meta.block))

    def _part(self, piece: FileSlice, within: int, most: int) -> FileSlice:
        """The wanted part of a slice, whose descriptor is ours from now on."""
        self._open = piece.descriptor
        return FileSlice(piece.descriptor, piece.offset + within, min(piece.length - within, most), piece.stamp)

    def _join(self, position: int) -> bool:
        flight = self.entry.flight_for(position)
        if flight is None:
            return False
        self._follow(flight, position)
        return True

    def _follow(self, flight: Flight, position: int) -> None:
        self._leave()
        self._flight = flight
        self._cursor = flight.attach(position)

    def _leave(self) -> None:
        if self._flight is not None:
            self._flight.detach(self._cursor)
            self._flight = None

    def _close_slice(self) -> None:
        if self._open is not None:
            os.close(self._open)
            self._open = None

    async def aclose(self) -> None:
        self._close_slice()
        self._leave()
