"""The ladder of tiers as one store: memory, then disk, then the shared store.

* Looking up goes down the ladder; what is found below memory is remembered there. Purges (``bans.py``) are tested
  on the way.
* Storing never waits: memory at once, disk and shared store by background writers with a bound on what is under way
  (what the memory tier leaves of its budget counts with it: readers find there what a slow disk has still to write).
  Over it, storing is skipped and counted, never the client (law 5).
* Jobs of one key run in order (``writers.py``): a record saved later wins, and is there before its block. What is
  being dropped is not found any more, also before its turn has come.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from fileproxy.cache.ban import Judged
from fileproxy.cache.memory import MemoryTier
from fileproxy.cache.writers import Lost, Waiting, Writers
from fileproxy.model import UNKNOWN_SIZE, Bytes, Counters, FileSlice, Meta, Piece, Record, Tier, VaryRule
from fileproxy.tasks import Tasks

MOST_PENDING = 64 * 1024 * 1024  # bytes on their way to disk in one worker, beside what memory has room for
SMALL = 256 * 1024  # bytes of a block; larger ones are not kept in memory where there is a disk tier
Kept = Literal["", "memory", "below"]
"""Where a block is now: nowhere, in memory (which may lose it), or on its way below."""


class Judge(Protocol):
    """The purges (``bans.py``)."""

    @property
    def seq(self) -> int: ...

    def judge(self, record: Record) -> Judged:
        """The record, tested against all purges: as it is, expired by a soft one, or gone."""
        ...


@runtime_checkable
class Near(Protocol):
    """A disk tier that hands out without waiting what it has open (``disk.py``)."""

    def held_now(self, meta: Meta) -> bool: ...

    def slice_now(self, meta: Meta, index: int, most: int) -> FileSlice | None: ...


@runtime_checkable
class Runs(Protocol):
    """A tier that writes blocks that follow each other together (``disk.py``)."""

    async def write_run(self, meta: Meta, first: int, blocks: Sequence[Bytes]) -> list[bool]: ...


class Store:
    """See the module's docstring. ``disk`` and ``shared`` may be None; ``bans`` judges what is found."""

    def __init__(
        self,
        *,
        memory: MemoryTier,
        disk: Tier | None,
        shared: Tier | None,
        bans: Judge,
        counters: Counters,
        tasks: Tasks,
    ) -> None:
        self.memory = memory
        self.disk = disk
        self._near: Near | None = disk if isinstance(disk, Near) else None
        self._runs: Runs | None = disk if isinstance(disk, Runs) else None
        self.shared = shared
        self._bans = bans
        self._counters = counters
        self._pending: dict[tuple[bytes, int], Waiting] = {}
        self._pending_bytes = 0
        self._newest: tuple[bytes, bytes] | None = None  # rid and bytes of a small object that ``finished`` comes for
        self._records: dict[bytes, Record] = {}  # on their way to disk
        self._dropping: dict[tuple[bytes, bytes], int] = {}  # key and rid → jobs that are to drop it
        self._looking: dict[bytes, list[set[tuple[bytes, bytes]]]] = {}  # key → what was dropped while it is looked for
        self._writers = Writers(tasks, self._write, runs=self._runs is not None)

    @property
    def ban(self) -> int:
        """The newest purge: what is stored from now on was made after it."""
        return self._bans.seq

    # --- looking up ---------------------------------------------------------------------------------------------------

    def find_now(self, key: bytes) -> Record | None:
        """The record, if memory has it."""
        record = self.memory.find_now(key) or self._records.get(key)
        return None if record is None else self.judged(record)

    async def find(self, key: bytes) -> Record | None:
        """The record from any tier."""
        record = self.find_now(key)
        if record is not None:
            return record
        dropped = set(self._dropping)
        looking = self._looking.setdefault(key, [])
        looking.append(dropped)
        try:
            return await self._find_below(key, dropped)
        finally:
            looking[:] = [one for one in looking if one is not dropped]
            if not looking:
                self._looking.pop(key, None)

    async def _find_below(self, key: bytes, dropped: set[tuple[bytes, bytes]]) -> Record | None:
        for tier in (self.disk, self.shared):
            if tier is None or (record := await tier.find(key)) is None:
                continue
            if (newer := self.find_now(key)) is not None:
                return newer  # saved while the tier was asked
            if _name(record) in dropped:
                continue
            record = self.judged(record)
            if record is not None:
                self.memory.save_now(record)
                return record
        return None

    def judged(self, record: Record) -> Record | None:
        """The record after all purges: as it is, expired, or None (and dropped)."""
        if record.ban == self._bans.seq:
            return record
        judged = self._bans.judge(record).record
        if judged is None:
            self._counters.add("cache.purged")
            self.drop(record)
        elif (known := self.memory.find_now(record.key)) is not None and _name(known) == _name(record):
            self.memory.save_now(judged)
        return judged

    async def held(self, meta: Meta) -> set[int]:
        """The blocks that some tier has."""
        found = set(self.memory.held_now(meta))
        found.update(index for rid, index in self._pending if rid == meta.rid)
        for tier in (self.disk, self.shared):
            if tier is not None and len(found) < meta.blocks and meta.size != UNKNOWN_SIZE:
                found |= await tier.held(meta)
        return found

    def held_now(self, meta: Meta) -> frozenset[int]:
        """The blocks that memory has, or all when the disk tier can hand them out without waiting."""
        if self._near is not None and self._near.held_now(meta):
            return frozenset(range(meta.blocks))
        return self.memory.held_now(meta)

    def read_now(self, meta: Meta, index: int) -> bytes | None:
        """A block from memory, or on its way to disk."""
        if (data := self.memory.read_now(meta, index)) is None and (waiting := self._pending.get((meta.rid, index))):
            return waiting.whole()
        return data

    def slice_now(self, meta: Meta, index: int, most: int) -> FileSlice | None:
        """A run of blocks as a slice of a file that is open (the caller closes its descriptor)."""
        return None if self._near is None else self._near.slice_now(meta, index, most)

    async def read(self, meta: Meta, index: int, most: int) -> Piece | None:
        """A block, or a run of blocks as a slice of a file (the caller closes its descriptor)."""
        if (data := self.read_now(meta, index)) is not None:
            return data
        for tier in (self.disk, self.shared):
            if tier is not None and (piece := await tier.read(meta, index, most)) is not None:
                if isinstance(piece, FileSlice) and meta.blocks == 1 and meta.size <= SMALL:
                    piece = _bytes_now(piece) or piece  # checked just now; the next ask finds it in memory
                if isinstance(piece, bytes):
                    self.memory.write_now(meta, index, piece)
                return piece
        return None

    # --- storing ------------------------------------------------------------------------------------------------------

    def put(self, meta: Meta, index: int, data: Bytes, *, disk: bool, lost: Lost = lambda index: None) -> Kept:
        """Keep a block; ``disk``: below memory too. What is on its way there is found by readers meanwhile.

        ``lost``: told the index when it is nowhere in the end, though it was on its way.
        """
        large = disk and self.disk is not None and len(data) > SMALL  # the page cache is its memory
        kept: Kept = ""
        self._newest = None
        if not large:
            data = bytes(data)
            if self.memory.write_now(meta, index, data):
                kept = "memory"
        if disk and self.shared is not None and meta.blocks == 1:
            self._newest = (meta.rid, bytes(data))
            if meta.pinned and not kept:
                kept = "memory"  # until ``finished``: it can be had again
        if not disk or self.disk is None:
            return kept
        if self._pending_bytes + len(data) > MOST_PENDING + self.memory.room:
            self._counters.add("cache.disk_skipped")
            if large and self.memory.write_now(meta, index, bytes(data)):
                return "memory"
            return kept
        job = self._pending[meta.rid, index] = Waiting(meta, index, data, large, lost)
        self._pending_bytes += len(data)
        self._writers.submit(meta.key, job)
        return "below"

    def save(self, record: Record, *, disk: bool) -> None:
        """Keep a record, instead of an older one under its key."""
        self.memory.save_now(record)
        if disk and self.shared is not None and isinstance(record, VaryRule):
            shared = self.shared
            self._writers.submit(record.key, lambda: shared.save(record))
        if not disk or self.disk is None:
            return
        tier = self.disk
        self._records[record.key] = record

        async def save() -> None:
            try:
                await tier.save(record)
            finally:
                if self._records.get(record.key) is record:
                    del self._records[record.key]

        self._writers.submit(record.key, save)

    def finished(self, meta: Meta) -> None:
        """All blocks have landed: a small object goes to the shared store, too."""
        tier, newest, self._newest = self.shared, self._newest, None
        if tier is None or meta.blocks != 1:
            return
        data = newest[1] if newest is not None and newest[0] == meta.rid else self.read_now(meta, 0)
        if data is None:
            return
        whole = data

        async def share() -> None:
            if await tier.save(meta):
                await tier.write(meta, 0, whole)

        self._writers.submit(meta.key, share)

    def drop(self, record: Record) -> None:
        """Forget a record and its blocks, in every tier."""
        self.memory.drop_now(record)
        name = _name(record)
        for dropped in self._looking.get(record.key, ()):
            dropped.add(name)
        if (saving := self._records.get(record.key)) is not None and _name(saving) == name:
            del self._records[record.key]
        if isinstance(record, Meta) and record.size == UNKNOWN_SIZE:
            return  # nothing below names it; whoever fills it knows how much of it there is
        for tier in (self.disk, self.shared):
            if tier is not None:
                self._dropping[name] = self._dropping.get(name, 0) + 1
                self._writers.submit(record.key, lambda tier=tier: self._drop(tier, record))  # type: ignore[misc]

    async def _drop(self, tier: Tier, record: Record) -> None:
        name = _name(record)
        try:
            await tier.drop(record)
        finally:
            self._dropping[name] -= 1
            if not self._dropping[name]:
                del self._dropping[name]

    # --- what the writers do ------------------------------------------------------------------------------------------

    async def _write(self, jobs: list[Waiting]) -> None:
        assert self.disk is not None
        meta, first, stored = jobs[0].meta, jobs[0].index, list[bool]()
        try:
            if self._runs is None:
                stored.append(await self.disk.write(meta, first, jobs[0].whole()))
            else:
                stored += await self._runs.write_run(meta, first, [job.data for job in jobs])
            for job, there in zip(jobs, stored, strict=True):
                if not there and not self._memory_takes(job):
                    job.lost(job.index)
        finally:
            for job in jobs:
                name = (meta.rid, job.index)
                if self._pending.get(name) is job:
                    del self._pending[name]
                self._pending_bytes -= len(job.data)

    def _memory_takes(self, job: Waiting) -> bool:
        """Put into memory what did not get to disk. False: there is no room, and it is nowhere."""
        if job.large:
            return self.memory.write_now(job.meta, job.index, job.whole())
        return job.index in self.memory.held_now(job.meta)

    async def settle(self) -> None:
        """Wait until all that was given to it is written."""
        await self._writers.settle()

    def statistics(self) -> dict[str, Any]:
        """For ``/stats`` and ``/health``."""
        tiers = {"memory": self.memory, "disk": self.disk, "shared": self.shared}
        return {
            "pending_bytes": self._pending_bytes,
            **{name: None if tier is None else tier.statistics() for name, tier in tiers.items()},
        }

    async def close(self) -> None:
        """Write what is under way, then let the tiers go."""
        await self.settle()
        for tier in (self.memory, self.disk, self.shared):
            if tier is not None:
                await tier.close()


def _bytes_now(piece: FileSlice) -> bytes | None:
    """The bytes of a slice, if they are in the page cache: then its descriptor is closed."""
    data = bytearray(piece.length)
    try:
        if os.preadv(piece.descriptor, [data], piece.offset, os.RWF_NOWAIT) < piece.length:
            return None
    except (OSError, AttributeError):  # a disk must be waited for, or cannot tell
        return None
    os.close(piece.descriptor)
    return bytes(data)


def _name(record: Record) -> tuple[bytes, bytes]:
    """What tells records under one key apart."""
    return record.key, record.rid if isinstance(record, Meta) else b""
