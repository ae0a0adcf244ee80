"""The third tier: blocks and records in a folder that all workers share.

Laws kept here:

* Only the owner of a key writes it; everybody reads. That saves work: correctness rests on names and checksums.
* No blocking call on the event loop. A write that would have to queue behind more than ``QUEUE_BYTES``, or that the
  byte budget, the free-space floor or a sick disk forbid, is refused at once and counted (``cache.disk_skipped``).
* A block is checksummed once in this worker's life before its first use; damage is marked on disk where that is
  possible, remembered where it is not, and never handed out (law 10).
* Nothing raises for want of space, rights or a folder: ``statistics`` says so, and it is tried again (law 9).
* Nothing is scanned before serving. How full it is is an estimate (``disk_usage.py``), put right by a slow scan.

The file formats are in ``extents.py`` and ``disk_records.py``. Integrity needs no sync at all; so that a power loss
costs little, what was written is synced every ten seconds and at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fileproxy.cache import disk_records, extents
from fileproxy.cache.disk_care import DiskCare
from fileproxy.cache.disk_files import PAGE, Files, record_name
from fileproxy.cache.disk_jobs import DiskJobs, Found, Unreadable, file_of
from fileproxy.cache.disk_opened import Opened
from fileproxy.cache.disk_seen import Seen
from fileproxy.cache.disk_threads import DiskThreads
from fileproxy.cache.disk_usage import DiskFolder, Usage
from fileproxy.clock import Clock
from fileproxy.model import Bytes, Counters, FileSlice, Meta, Record
from fileproxy.tasks import Tasks

SMALL = 256 * 1024  # bytes of a file; it belongs into memory, and is not kept open
QUEUE_BYTES = 64 * 1024 * 1024  # of blocks that wait to be written
READ_PATIENCE_S = 5.0  # then the client is better served by the origin
WRITE_PATIENCE_S = 30.0
CLOSE_PATIENCE_S = 5.0
LOOKED_THROUGH = 4  # extents of a file that may be looked at without a thread
T = TypeVar("T")


class DiskTier:
    """A :class:`fileproxy.model.Tier` in ``folder``. A rid belongs to one key.

    ``size``: bytes it may take; ``min_free``: bytes of the file system that stay free; ``scrub``: bytes a second
    re-read (0 = never). With ``writable=False`` nothing in the folder is changed. ``on_problem(sentence)`` is told when
    something is wrong, and with an empty sentence when it is well again.
    """

    def __init__(
        self,
        folder: Path,
        *,
        size: int,
        min_free: int,
        scrub: int,
        writable: bool,
        counters: Counters,
        clock: Clock,
        tasks: Tasks,
        on_problem: Callable[[str], None] = lambda detail: None,
        files: Files | None = None,
    ) -> None:
        usage = Usage(str(folder), writable=writable)
        self._folder = DiskFolder(str(folder), files or Files(), usage)
        self._jobs = DiskJobs(self._folder, writable=writable)
        self._writable = writable
        self._counters = counters
        self._clock = clock
        self._threads = DiskThreads()
        self._seen = Seen()
        self._opened = Opened()
        self._queued = 0  # bytes
        self._next_writer = 0  # runs of blocks go to each in turn
        self._writing: set[asyncio.Event] = set()
        self._closed = False
        self._care = DiskCare(
            self._folder,
            self._threads,
            self._seen,
            size=size,
            min_free=min_free,
            scrub=scrub,
            writable=writable,
            counters=counters,
            clock=clock,
            tasks=tasks,
            on_problem=on_problem,
            on_tick=lambda: self._opened.expire(clock.now()),
        )

    async def open(self) -> None:
        """Make the folder if it is missing and look whether it can be used. Waits a few seconds at most."""
        await self._care.open()

    def apply(self, *, size: int, min_free: int, scrub: int) -> None:
        """Take over changed settings; what is too much now is evicted."""
        self._care.apply(size, min_free, scrub)

    # --- records ---

    async def find(self, key: bytes) -> Record | None:
        """The record under this key."""
        name = record_name(key)
        record = await self._ask(partial(self._jobs.find, key, self._touch(name)))
        if record is not None:
            self._seen.use(name, self._clock.now(), self._clock.time())
        return record

    async def save(self, record: Record) -> bool:
        """Keep a record, instead of an older one under its key. Data that is there already for it stays."""
        if not self._may_write(0):
            return False
        work = partial(disk_records.save, self._folder.files, self._folder.path, record)
        return await self._put(record.key[0], record_name(record.key), work, PAGE)

    async def drop(self, record: Record) -> None:
        """Forget the record if it is still the one under its key, and the blocks of its representation."""
        if isinstance(record, Meta):
            for index in range(0, record.blocks, extents.BLOCKS):
                self._opened.forget(file_of(record, index))
        if self._writable and not self._closed:
            await self._put(record.key[0], record_name(record.key), partial(self._jobs.drop, record), 0)

    # --- blocks ---

    async def held(self, meta: Meta) -> frozenset[int]:
        """The blocks of this representation that are here. Reads heads only."""
        if not meta.blocks:
            return frozenset()
        found: set[int] = await self._ask(partial(self._jobs.held, meta)) or set()
        now = self._clock.now()
        return frozenset(one for one in found if not self._seen.bad(file_of(meta, one), now) >> _slot(one) & 1)

    def held_now(self, meta: Meta) -> bool:
        """Whether ``slice_now`` has all of it. Asked only of what is not very large."""
        if not self._may_use_opened(meta) or meta.blocks > LOOKED_THROUGH * extents.BLOCKS:
            return False
        now = self._clock.now()
        for index in range(0, meta.blocks, extents.BLOCKS):
            name = file_of(meta, index)
            known = self._seen.known(name, now)
            if not self._opened.has(name, min(extents.BLOCKS, meta.blocks - index), known, now):
                return False
        return True

    def slice_now(self, meta: Meta, index: int, most: int) -> FileSlice | None:
        """As ``read``, without waiting: checked blocks of a file that is open. None: ``read`` may have it."""
        if not self._may_use_opened(meta):
            return None
        name, now = file_of(meta, index), self._clock.now()
        if self._seen.due(name, now):
            return None
        known = self._seen.known(name, now)
        if disk_records.is_inline(meta):
            piece = self._opened.record(name, meta, known, now)
        else:
            number, slot = divmod(index, extents.BLOCKS)
            piece = self._opened.run(name, extents.extent_of(meta, number), slot, most, known, now)
        if piece is not None:
            self._seen.use(name, now, self._clock.time())
            self._counters.add("cache.disk_reads")
        return piece

    def _may_use_opened(self, meta: Meta) -> bool:
        return bool(self._opened) and meta.size > SMALL and not self._closed and not self._care.health.stalled

    async def read(self, meta: Meta, index: int, most: int) -> FileSlice | None:
        """Block ``index`` and up to ``most - 1`` that follow, as far as they are here and in one file."""
        if not 0 <= index < meta.blocks or most < 1:
            return None
        name, now = file_of(meta, index), self._clock.now()
        known = self._seen.known(name, now)
        if known.bad >> _slot(index) & 1:
            return None
        work = partial(self._jobs.read, meta, index, most, known, self._touch(name))
        found = await self._ask(work, discard=_close)
        if found is None:
            return None
        run = found.run
        self._seen.verify(name, run.identity, run.verified)
        if run.damaged:
            self._counters.add("cache.damaged", run.damaged.bit_count())
            self._seen.unverify(name, run.damaged)
            if not found.marked:
                self._seen.condemn(name, run.damaged, now)
        if run.descriptor is None:
            return None
        self._seen.use(name, now, self._clock.time())
        self._counters.add("cache.disk_reads")
        if meta.size > SMALL and not self._closed:
            extent = not disk_records.is_inline(meta)
            self._opened.keep(name, run.descriptor, run.identity, run.offset, extent=extent, now=now)
        return FileSlice(run.descriptor, run.offset, run.length)

    async def write(self, meta: Meta, index: int, data: bytes) -> bool:
        """Keep one whole block; True once it is written. ValueError when it has not the length of that block."""
        return (await self.write_run(meta, index, (data,)))[0]

    async def write_run(self, meta: Meta, first: int, blocks: Sequence[Bytes]) -> list[bool]:
        """Keep whole blocks, ``first`` and those behind it; for each whether it is written. ValueError as ``write``."""
        for index, data in enumerate(blocks, first):
            if not 0 <= index < meta.blocks or len(data) != meta.length_of(index):
                raise ValueError(f"{len(data)} bytes are not block {index} of {meta.url}")
        jobs: list[Awaitable[list[bool]]] = []
        done = 0
        while done < len(blocks):
            part = blocks[done : done + extents.BLOCKS - _slot(first + done)]
            self._next_writer += 1
            jobs.append(self._write_within(meta, first + done, part, self._next_writer))
            done += len(part)
        if len(jobs) == 1:
            return await jobs[0]
        return [one for stored in await asyncio.gather(*jobs) for one in stored]

    async def _write_within(self, meta: Meta, first: int, blocks: Sequence[Bytes], writer: int) -> list[bool]:
        """The same for blocks of one file, by this writer."""
        length, count = sum(map(len, blocks)), len(blocks)
        if not self._may_write(length):
            self._counters.add("cache.disk_skipped", count)
            return [False] * count
        name, files, path = file_of(meta, first), self._folder.files, self._folder.path
        kept: frozenset[int] = frozenset()

        def work() -> int | None:
            nonlocal kept
            if disk_records.is_inline(meta):
                grown = disk_records.save_data(files, path, meta, bytes(blocks[0]))
                kept = frozenset() if grown is None else frozenset([first])
                return grown
            written = extents.write_run(files, path, meta, first, blocks)
            kept = written.stored
            if written.error is not None:
                self._care.written(name, written.grown)  # what was written before counts
                raise written.error
            return written.grown if kept else None

        if disk_records.is_inline(meta):
            writer = meta.key[0]  # it follows its record
        await self._put(writer, name, work, length)
        stored = [index in kept for index in range(first, first + count)]
        for index in range(first, first + count):
            self._seen.unverify(name, 1 << _slot(index))
        self._counters.add("cache.disk_writes", stored.count(True))
        self._counters.add("cache.disk_skipped", stored.count(False))
        return stored

    def statistics(self) -> dict[str, Any]:
        """``status``, ``detail`` when something is wrong, how full it is, and how far the scrubber is."""
        return {**self._care.statistics(), "queued": self._queued, "writable": self._writable}

    async def scrub_once(self) -> int:
        """Check everything on disk now, at full speed; how much damage was found."""
        return await self._care.scrubber.pass_once(paced=False)

    async def close(self) -> None:
        """Write what is queued and sync it, unless that takes too long."""
        if self._closed:
            return
        self._closed = True
        if self._writing:
            waiting = asyncio.gather(*(event.wait() for event in self._writing))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(waiting, CLOSE_PATIENCE_S)
        self._opened.close()
        await self._care.close(written=not self._writing)
        self._threads.close()

    # --- to the threads ---

    async def _ask(self, work: Callable[[], T], *, discard: Callable[[T], None] | None = None) -> T | None:
        """What a reading thread finds; None when the disk is sick or late."""
        if self._closed or self._care.health.stalled:
            return None
        try:
            return await self._threads.run(self._threads.read, work, READ_PATIENCE_S, discard=discard)
        except Unreadable:
            self._counters.add("cache.damaged")
        except OSError as error:
            self._care.failed(error)
        return None

    def _may_write(self, length: int) -> bool:
        if self._closed or not self._writable or self._queued + length > QUEUE_BYTES:
            return False
        return self._care.has_room(self._queued + length)

    async def _put(self, writer: int, name: str, work: Callable[[], int | None], length: int) -> bool:
        """Let a writing thread do ``work``, which stores ``length`` bytes and says by how much the disk is fuller."""
        ended = asyncio.Event()
        self._writing.add(ended)
        self._queued += length

        def end() -> None:
            self._queued -= length
            self._writing.discard(ended)
            ended.set()

        def guarded() -> bool:
            if length:
                self._care.check_floor(length)
            grown = work()
            if grown is not None:
                self._care.written(name, grown)
            return grown is not None

        try:
            stored = await self._threads.run(self._threads.writer(writer), guarded, WRITE_PATIENCE_S, ended=end)
        except OSError as error:
            self._care.failed(error, length)
            return False
        self._care.keep_room()
        return stored

    def _touch(self, name: str) -> float | None:
        """The time of use to set on this file now; None when it was set not long ago."""
        due = self._writable and self._seen.due(name, self._clock.now())
        return self._clock.time() if due else None


def _slot(index: int) -> int:
    return index % extents.BLOCKS


def _close(found: Found | None) -> None:
    """Nobody waits for this slice any more."""
    if found is not None and found.run.descriptor is not None:
        os.close(found.run.descriptor)
