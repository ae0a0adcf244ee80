"""What looks after the disk tier while it serves: room, sync, scrubbing, the scan, and its health."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from fileproxy.cache import disk_evict
from fileproxy.cache.disk_alive import Alive
from fileproxy.cache.disk_files import SUBFOLDERS, path_of
from fileproxy.cache.disk_health import DiskHealth
from fileproxy.cache.disk_scrub import Scrubber
from fileproxy.cache.disk_seen import Seen
from fileproxy.cache.disk_threads import DiskThreads
from fileproxy.cache.disk_usage import DiskFolder
from fileproxy.clock import Clock
from fileproxy.model import Counters
from fileproxy.tasks import Tasks

TICK_S = 1.0
SYNC_EVERY = 10  # ticks
FIRST_SCAN_S = 5.0
SCAN_EVERY_S = 6 * 3600.0
SHARED_EVERY = 64  # so small a part of the budget is written by one worker until the others, and the next start, know
SCAN_TURN_S = 0.002  # of a thread at a time: a subfolder, or the many that are empty
SCAN_STEP_S = 0.05  # between two turns
SCRUB_PAUSE_S = 60.0  # between two passes
CHORE_PATIENCE_S = 5.0
LONG_PATIENCE_S = 60.0
_SLACK = 64 * 1024  # what a file takes beside the bytes in it, at most
_DIRTY = 4096  # names remembered for the next sync; the kernel writes the others back by itself
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
T = TypeVar("T")


class DiskCare:
    """The tasks behind ``DiskTier``. ``usage`` and ``health`` are for the tier to use."""

    def __init__(
        self,
        folder: DiskFolder,
        threads: DiskThreads,
        seen: Seen,
        *,
        size: int,
        min_free: int,
        scrub: int,
        writable: bool,
        counters: Counters,
        clock: Clock,
        tasks: Tasks,
        on_problem: Callable[[str], None],
        on_tick: Callable[[], None],
    ) -> None:
        self._place, self._folder, self._files, self.usage = folder, folder.path, folder.files, folder.usage
        self._threads, self._seen = threads, seen
        self._size, self._min_free, self._writable = size, min_free, writable
        self._counters, self._clock, self._tasks = counters, clock, tasks
        self.health = DiskHealth(clock, tasks, self._probe, on_problem)
        self.scrubber = Scrubber(
            folder,
            rate=scrub,
            clock=clock,
            chore=self.chore,
            on_damage=partial(counters.add, "cache.scrub_damaged"),
        )
        self._on_tick = on_tick
        self._alive = Alive(self._folder)
        self._unclean = False  # a worker died before it had shared all it did
        self._free: int | None = None
        self._asked = 0  # bytes that were refused because of the budget
        self._wanted = 0  # bytes that once were not to be had although the floor was kept
        self._dirty: set[str] = set()
        self._running: list[asyncio.Task[Any]] = []
        self._evicting: asyncio.Task[Any] | None = None
        self._rng = random.Random()  # noqa: S311 chooses samples

    async def open(self) -> None:
        """Try the folder, learn how full it is, start the tasks."""
        if why := await self._probe():
            self.health.report(why)
        if not self.health.stalled:
            await self.chore(self.usage.share)
            await self._begin()
        start = self._tasks.start
        self._running.append(start(self._keep(), "disk: keep"))
        if self._writable:
            self._running.append(start(self._scan_now_and_then(), "disk: scan"))
            self._running.append(start(self._scrub_for_ever(), "disk: scrub"))

    async def _begin(self) -> None:
        """Say that this worker uses the folder, and learn whether another one died while it did."""
        if self._writable and not self._alive.known and not self.health.detail:
            self._unclean = bool(await self.chore(self._alive.begin)) or self._unclean

    def apply(self, size: int, min_free: int, scrub: int) -> None:
        """See ``DiskTier.apply``."""
        self._size, self._min_free, self.scrubber.rate = size, min_free, scrub
        self.keep_room()

    async def close(self, *, written: bool) -> None:
        """End the tasks, sync, and share what is not shared yet. ``written``: no write is under way any more."""
        ending = [task for task in (*self._running, self._evicting) if task is not None]
        for task in ending:
            task.cancel()
        if ending:
            await asyncio.wait(ending)
        await self.health.close()
        if self._writable and not self.health.stalled:
            with contextlib.suppress(OSError):
                await self._threads.run(self._threads.sync, self._sync_all(), CHORE_PATIENCE_S)
            with contextlib.suppress(OSError):
                await self._threads.run(self._threads.chore, partial(self._end, written), CHORE_PATIENCE_S)

    def _end(self, written: bool) -> None:
        """In a thread: the last word to the estimate."""
        shared = False
        try:
            self.usage.share(last=True)
            shared = True
        finally:
            self._alive.end(clean=shared and written and not self._unclean)

    def statistics(self) -> dict[str, Any]:
        """See ``DiskTier.statistics``."""
        detail = self.health.detail
        return {
            "status": "degraded" if detail else "ok",
            **({"detail": detail} if detail else {}),
            "path": self._folder,
            "bytes": self.usage.total,
            "size": self._size,
            "free": self._free,
            "min_free": self._min_free,
            "scrub": self.scrubber.statistics(),
        }

    # --- room ---

    def has_room(self, length: int) -> bool:
        """May ``length`` bytes more be written now? When the budget says no, room is made for the next ones."""
        if self.health.detail:
            return False
        if length > self._size:
            return False
        if self.usage.total + length > self._size:
            self._asked = max(self._asked, length)
            self.make_room()
            return False
        return True

    def check_floor(self, length: int) -> None:
        """In a thread, before a write. Raises OSError (ENOSPC) when the file system would be fuller than it may."""
        free = _free(self._folder)
        if self._min_free and free - length < self._min_free:
            raise OSError(errno.ENOSPC, _too_full(free, self._min_free))

    def written(self, name: str, grown: int) -> None:
        """In a thread: a file of this name was written and takes ``grown`` bytes more."""
        self.usage.add(name, grown)
        if self.usage.unshared > self._size // SHARED_EVERY:
            with contextlib.suppress(OSError):  # the timer tries again, and tells
                self.usage.share()
        if len(self._dirty) < _DIRTY:
            self._dirty.add(name)

    def keep_room(self) -> None:
        """After a write: begin to evict before the next ones would have to be refused."""
        if self.usage.total > self._high:
            self.make_room()

    def failed(self, error: OSError, length: int = 0) -> None:
        """A call failed; ``length``: what it wanted to write."""
        if isinstance(error, TimeoutError) and error.errno is None:
            self.health.report(f"{self._folder}: the disk does not answer in time", stalled=True)
            return
        if error.errno in _NO_ROOM:
            self._wanted = max(self._wanted, length + _SLACK)
            self.make_room()
        self.health.report(_sentence(self._folder, error))

    def make_room(self) -> None:
        """Start evicting, unless that is running."""
        if self._writable and (self._evicting is None or self._evicting.done()):
            self._evicting = self._tasks.start(self.evict(), "disk: evict")

    async def evict(self) -> None:
        """Unlink what was used least recently until there is room. One worker at a time does it."""
        lock = await self.chore(partial(_lock, f"{self._folder}/evict.lock"))
        if lock is None:
            return
        try:
            while (need := await self.chore(self._need) or 0) > 0:
                round_ = partial(
                    disk_evict.evict,
                    self._place,
                    need,
                    used=self._seen.used,
                    epoch=self._clock.time(),
                    rng=self._rng,
                )
                done = await self.chore(round_)
                if done is None or not done.freed:
                    break  # nothing of ours is left, or the disk is sick
                self._counters.add("cache.evicted", done.files)
                self._counters.add("cache.evicted_bytes", done.freed)
        finally:
            os.close(lock)
        await self.chore(self.usage.share, missing_ok=False)

    @property
    def _high(self) -> int:
        return self._size - self._size // 20

    def _must(self) -> bool:
        """In a thread: is it time to evict? A little before writes would have to be refused."""
        floor = self._min_free + min(self._min_free // 4, 64 * 1024 * 1024)
        self._free = _free(self._folder)
        return self.usage.total > self._high or self._free < max(floor, self._min_free + self._wanted)

    def _need(self) -> int:
        """In a thread: bytes to free, so that it is not time again at once."""
        floor = self._min_free + min(self._min_free // 2, 128 * 1024 * 1024)
        self._free = _free(self._folder)
        missing = max(floor, self._min_free + self._wanted) - self._free
        need = max(self.usage.total - (self._size - max(self._size // 10, self._asked)), missing)
        if need <= 0:
            self._wanted = self._asked = 0
        return need

    # --- tasks ---

    async def _keep(self) -> None:
        """Share the estimate, keep room, sync."""
        ticks = 0
        while True:
            await self._clock.sleep(TICK_S)
            ticks += 1
            self._on_tick()
            await self.chore(self.usage.share, missing_ok=False)
            if not self._writable:
                continue
            await self._begin()  # where the folder could not be used before
            if await self.chore(self._must):
                self.make_room()
            if ticks % SYNC_EVERY == 0 and self._dirty:
                await self.sync()

    async def sync(self) -> None:
        """Bring what was written to the medium. Nothing depends on it but what a power loss costs."""
        with contextlib.suppress(TimeoutError):  # a busy disk; the kernel writes back by itself
            await self._chore_in(self._threads.sync, self._sync_all())

    async def _scan_now_and_then(self) -> None:
        """Count the folder when nobody has for long, or a worker died, in small steps."""
        while True:
            await self._clock.sleep(FIRST_SCAN_S)
            if self._unclean or not 0 <= self._clock.time() - self.usage.scanned_at < SCAN_EVERY_S:
                await self.scan()
            if not self._unclean:
                await self._clock.sleep(SCAN_EVERY_S / 10)

    async def scan(self) -> None:
        """Count everything once, unless another worker is at it."""
        lock = await self.chore(partial(_lock, f"{self._folder}/scan.lock"))
        if lock is None:
            return
        self._unclean, unclean = False, self._unclean
        try:
            left: Sequence[str] = SUBFOLDERS
            while left:
                epoch = self._clock.time()
                rest = await self.chore(partial(disk_evict.scan, self._place, left, epoch, SCAN_TURN_S))
                left = left[1:] if rest is None else rest  # one that cannot be read waits for the next scan
                await self._clock.sleep(SCAN_STEP_S)
            await self.chore(partial(self.usage.share, self._clock.time()))
            unclean = False
        finally:
            self._unclean = unclean or self._unclean
            os.close(lock)

    async def _scrub_for_ever(self) -> None:
        while True:
            await self._clock.sleep(SCRUB_PAUSE_S)
            if not self.scrubber.rate:
                continue
            lock = await self.chore(partial(_lock, f"{self._folder}/scrub.lock"))
            if lock is None:
                continue  # another worker does it
            try:
                await self.scrubber.pass_once()
            finally:
                os.close(lock)

    # --- threads ---

    async def chore(self, work: Callable[[], T], *, missing_ok: bool = True) -> T | None:
        """Run something that blocks in the thread for chores; None when it failed, which is reported."""
        try:
            return await self._chore_in(self._threads.chore, work, missing_ok=missing_ok)
        except TimeoutError as error:
            self.failed(error)
            return None

    async def _chore_in(self, pool: ThreadPoolExecutor, work: Callable[[], T], *, missing_ok: bool = True) -> T | None:
        try:
            return await self._threads.run(pool, work, LONG_PATIENCE_S)
        except FileNotFoundError as error:
            if not missing_ok:  # otherwise it went while it was looked at
                self.failed(error)
        except OSError as error:
            if isinstance(error, TimeoutError) and error.errno is None:
                raise
            self.failed(error)
        return None

    async def _probe(self) -> str:
        """What is wrong with the disk; empty when nothing is."""
        try:
            return await self._threads.run(self._threads.chore, self._try, CHORE_PATIENCE_S)
        except TimeoutError:
            self.health.stalled = True
            return f"{self._folder}: the disk does not answer in time"
        except OSError as error:
            return _sentence(self._folder, error)

    def _try(self) -> str:
        if not self._writable:
            os.close(os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            return ""
        os.makedirs(self._folder, 0o700, exist_ok=True)
        room = os.statvfs(self._folder)
        self._free = room.f_bavail * room.f_frsize
        if self._free < self._min_free + self._wanted:
            return f"{self._folder}: {_too_full(self._free, self._min_free + self._wanted)}"
        self._wanted = 0
        if room.f_files and not room.f_favail:
            return f"{self._folder}: the file system has no inodes left"
        path = f"{self._folder}/probe"
        descriptor = self._files.open(path, os.O_WRONLY | os.O_CREAT)
        try:
            self._files.write(descriptor, bytes(4096), 0)
        finally:
            self._files.close(descriptor)
            with contextlib.suppress(FileNotFoundError):  # another worker tries it, too
                self._files.unlink(path)
        return ""

    def _sync_all(self) -> Callable[[], None]:
        """Sync what was written since the last time, and the folders its names are in."""
        names, self._dirty = self._dirty, set()

        def work() -> None:
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    descriptor = self._files.open(path_of(self._folder, name), os.O_RDONLY)
                    try:
                        self._files.sync(descriptor)
                    finally:
                        self._files.close(descriptor)
            for subfolder in sorted({name[:2] for name in names}):
                with contextlib.suppress(FileNotFoundError):
                    self._files.sync_folder(f"{self._folder}/{subfolder}")
            self._files.sync_folder(self._folder)

        return work


def _free(folder: str) -> int:
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize


def _too_full(free: int, floor: int) -> str:
    return f"{free} bytes are free on the file system, {floor} must be; nothing is stored"


def _sentence(folder: str, error: OSError) -> str:
    return f"{folder}: {error.strerror or error}"


def _lock(path: str) -> int | None:
    """A descriptor that holds the lock until it is closed, or the process dies; None while somebody else has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
