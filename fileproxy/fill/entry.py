"""One representation while somebody reads or fills it: what is held, and the flights that bring the rest.

Everything here runs between two awaits, so that of all who miss a block only one starts a flight for it.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from fileproxy.cache.freshness import CachePolicy, passing
from fileproxy.clock import Clock
from fileproxy.errors import BadDigest, CannotContinue
from fileproxy.fill import plan
from fileproxy.fill.flight import WRONG, Flight
from fileproxy.fill.states import State
from fileproxy.fill.values import Keep, Need
from fileproxy.fill.window import Windows
from fileproxy.http.digests import Verifier, parse_digests
from fileproxy.model import UNKNOWN_SIZE, Body, Bytes, Counters, FileSlice, Meta
from fileproxy.tasks import Tasks

if TYPE_CHECKING:
    from fileproxy.fill.early import Early

NEAR = 8 * 1024 * 1024  # a reader this far ahead of a flight waits for it rather than asking for itself


@dataclass(slots=True, eq=False)
class Shared:
    """What all entries of a worker share."""

    store: Keep
    clock: Clock
    tasks: Tasks
    counters: Counters
    windows: Windows
    fill_after_abort: int
    block: int


class Entry:
    """See the module's docstring.

    ``held`` are the blocks believed to be in a tier (a wrong belief costs a look); ``kept`` those on their way to disk
    or on it, which nothing takes away while a reader needs them. ``writes``: this worker may put it on disk.
    ``gone``: purged, changed or wrong, so nobody new may have it; ``wrong``: nobody may have it to its end.
    """

    def __init__(self, shared: Shared, meta: Meta, held: set[int], *, writes: bool) -> None:
        self.shared = shared
        self.meta = meta
        self.held = held
        self.kept: set[int] = set()
        self.writes = writes
        self.passing = False  # nobody will use it once it was read: what fits one block stays off the disk
        self.no_ranges_until = float("-inf")  # clock.now(); until then a part is not asked of the origin again
        self.flights: list[Flight] = []
        self.early: dict[Flight, Early] = {}  # what was asked for before there was an entry, by the flight it is for
        self.gone = self.wrong = False
        self.digest = parse_digests(meta.headers, "Repr-Digest")
        self._verifying = asyncio.Lock()

    @property
    def complete(self) -> bool:
        return self.meta.size != UNKNOWN_SIZE and len(self.held) >= self.meta.blocks

    @property
    def to_disk(self) -> bool:
        """Larger ones go there in any case: who comes while they stream reads their beginning there."""
        return self.writes and not (self.passing and self.meta.blocks <= 1)

    @property
    def joinable(self) -> bool:
        """Whether a new reader can have all of it: what is not pinned cannot be asked for again."""
        if self.meta.pinned or self.complete:
            return True
        return any(flight.first == 0 and not flight.over and self._kept_before(flight.base) for flight in self.flights)

    def _kept_before(self, position: int) -> bool:
        return self.kept.issuperset(range(-(-position // self.meta.block)))

    def has_all(self, offset: int, length: int) -> bool:
        """Whether these bytes are believed to be in a tier."""
        block = self.meta.block
        return all(index in self.held for index in range(offset // block, -(-(offset + length) // block)))

    def has(self, position: int) -> bool:
        """Whether the byte is in a tier from which it cannot vanish under a reader."""
        return position // self.meta.block in self.kept

    # --- flights ------------------------------------------------------------------------------------------------------

    def flight_for(self, position: int) -> Flight | None:
        """The flight a reader at ``position`` should follow."""
        ahead = NEAR if self.meta.pinned else UNKNOWN_SIZE  # what cannot be joined cannot be asked for either
        serving = [flight for flight in self.flights if flight.serves(position, ahead)]
        return max(serving, key=lambda flight: flight.position, default=None)

    def only_flight(self) -> Flight | None:
        """The flight of what is not pinned: its readers follow it also where it is ahead of them."""
        return None if self.meta.pinned or not self.flights else self.flights[0]

    def start(self, need: Need, position: int, stop: int) -> Flight:
        """A new flight for the missing bytes at ``position``. Raises CannotContinue."""
        meta = self.meta
        if not meta.pinned:
            raise CannotContinue(f"{meta.url}: bytes from {position} on are missing and cannot be joined")
        first = position // meta.block
        end = plan.segment_end(
            first,
            -(-min(stop, meta.size) // meta.block),
            self.held,
            [(one.next_block, -(-(one.end or meta.size) // meta.block)) for one in self.flights],
            # Beside others in short steps: who comes meanwhile is near, so nothing is asked for that another brings.
            most=max(1, NEAR // meta.block) if self.flights else None,
        )
        return self.launch(Flight(self, need, first * meta.block, min(end * meta.block, meta.size)))

    def launch(self, flight: Flight) -> Flight:
        """Let a flight begin."""
        self.flights.append(flight)
        self.shared.windows.flights += 1
        self.shared.counters.add("flight.started")
        self.shared.counters.add("flight.running")
        flight.task = self.shared.tasks.start(flight.run(), "flight")
        flight.task.add_done_callback(flight.ended)
        self.shared.tasks.start(flight.watch(), "flight watch")
        return flight

    def left(self, flight: Flight) -> None:
        """A flight is over."""
        self.flights.remove(flight)
        if (early := self.early.pop(flight, None)) is not None:
            early.close()
        self.shared.counters.add("flight.running", -1)
        if not self.meta.pinned and (self.gone or flight.state is not State.DONE):
            # Nothing can complete it, and no record names what was kept of it.
            self.gone = True
            self.held.clear()
            self.shared.store.drop(self._so_far(flight.position))

    def _so_far(self, position: int) -> Meta:
        """The meta; where nobody knows how many bytes there are, of those that came: enough to find their blocks."""
        if self.meta.size != UNKNOWN_SIZE:
            return self.meta
        return msgspec.structs.replace(self.meta, size=max(position, 1))

    async def segment(self, flight: Flight) -> tuple[Body, int]:
        """The bytes a flight still misses."""
        early = self.early.pop(flight, None)
        if early is not None and (body := await early.joined(self.meta)) is not None:
            return body, 0
        end = self.meta.size if flight.end is None else flight.end
        return await flight.need.source.segment(self.meta, flight.need, flight.position, end)

    # --- what flights bring -------------------------------------------------------------------------------------------

    def commit(self, index: int, data: Bytes) -> bool:
        """A whole block has landed. False when it is nowhere from where it cannot vanish under a reader."""
        if self.gone:
            return False
        kept = self.shared.store.put(self.meta, index, data, disk=self.to_disk, lost=self.lost)
        if kept:
            self.held.add(index)
        if kept == "below":
            self.kept.add(index)
        return kept == "below"

    def lost(self, index: int) -> None:
        """A block is in no tier: who asks for it and those beside it asks for all of them at once."""
        self.held.discard(index)
        self.kept.discard(index)

    def ended(self, size: int, rest: bytes, *, verified: bool) -> None:
        """A body of unknown length has ended as its framing says: ``size`` bytes; ``rest`` is the last block."""
        headers = self.meta.headers
        if self.meta.status != 204:  # RFC 9110 §8.6: it must have none
            headers = (*headers, ("Content-Length", str(size)))
        self.meta = msgspec.structs.replace(self.meta, size=size, headers=headers, verified=verified)
        if rest:
            self.commit((size - 1) // self.meta.block, rest)
        self._save_single()
        self._finish()

    def filled(self, flight: Flight) -> None:
        """A flight has landed all its bytes."""
        if not self.meta.pinned:
            self._save_single()
        self._finish()

    def _save_single(self) -> None:
        if self.complete and not self.gone:
            self.shared.store.save(self.meta, disk=self.to_disk)

    def _finish(self) -> None:
        """All is here: a small file goes to other machines, too, whether or not this one keeps it."""
        if self.to_disk and not self.gone and (self.complete or self.meta.blocks == 1):
            self.shared.store.finished(self.meta)

    def proved(self) -> None:
        """The digest agrees."""
        self.meta = msgspec.structs.replace(self.meta, verified=True)
        if self.meta.pinned and not self.gone:
            self.shared.store.save(self.meta, disk=self.writes)

    def condemn(self, *, wrong: bool = False) -> None:
        """It is not what it says (``wrong``), or not any more: nobody may have it again."""
        self.wrong |= wrong
        if not self.gone:
            self.gone = True
            self.held.clear()
            self.shared.counters.add("cache.condemned")
            self.shared.store.drop(self._so_far(max((one.position for one in self.flights), default=0)))

    # --- integrity ----------------------------------------------------------------------------------------------------

    async def verify(self) -> None:
        """Check the digest over the stored blocks, once for all readers. Raises BadDigest.

        Blocks that cannot be read any more leave the file unchecked: then it is counted, and goes as it came.
        """
        if not self.digest or self.meta.verified:
            return
        async with self._verifying:
            if self.wrong:
                raise BadDigest(WRONG, retryable=False)
            if not self.meta.verified:
                await self._verify(Verifier(self.digest))

    async def _verify(self, verifier: Verifier) -> None:
        store, meta = self.shared.store, self.meta
        index = 0
        while index < meta.blocks:
            piece = await store.read(meta, index, 8) if self.complete else None
            if piece is None:
                self.shared.counters.add("cache.digest_unchecked")
                return
            if isinstance(piece, FileSlice):
                try:
                    await asyncio.to_thread(_feed, verifier, piece)
                finally:
                    os.close(piece.descriptor)
                index += -(-piece.length // meta.block)
            else:
                verifier.update(piece)
                index += 1
        if not verifier.agrees():
            self.shared.counters.add("cache.digest_mismatches")
            self.condemn(wrong=True)
            raise BadDigest(WRONG, retryable=False)
        self.proved()


def passes(meta: Meta, policy: CachePolicy) -> bool:
    """Whether nobody will use it once it was read (see ``cache/freshness.py``)."""
    return passing(meta.status, meta.headers, meta.received_at, meta.age_s, policy)


def _feed(verifier: Verifier, piece: FileSlice) -> None:
    at, end = piece.offset, piece.offset + piece.length
    while at < end:
        data = os.pread(piece.descriptor, min(1024 * 1024, end - at), at)
        if not data:
            return  # cut short: it will not agree
        verifier.update(data)
        at += len(data)
