"""The list of bans as a file, and the numbers by which workers see that it has grown.

Laws kept here:

* ``bans`` is only appended to; a line is its length, its CRC-32 and JSON. A ban counts once its line is synced. What a
  writer left half written at the end was never acknowledged: it is ignored, and cut off by the next writer.
* Nothing on disk is trusted (law 10). A whole line that cannot be read counts as a hard ban of everything, and so do
  bans that are known to have been (by ``bans.seq``) and are missing: a lost purge would be worse than a cold cache.
* ``bans.seq`` is mapped by all workers: generation, end and newest number are read without a system call. Readers never
  lock: bytes before the end do not change within one generation, and a reader that met a change looks again.
* A new file begins with a number above any earlier one (the time in milliseconds): what was stored under a list that
  is gone counts as banned.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fileproxy.cache.ban import Ban, FeedId
from fileproxy.cache.banlist import FORMAT, HIGHEST, BanList, Unreadable, ban_entry, encode_line, head_of
from fileproxy.clock import Clock

KEEP = 4096  # bans kept when the list is shortened
_MAGIC = 0x66_70_62_61_6E_73_31
_CELLS = 8
_C_MAGIC, _C_GENERATION, _C_END, C_SEQ, _C_LINES = range(5)


class BanFile:
    """The file of one folder. Methods that change it may be called in any thread, and raise OSError."""

    def __init__(self, folder: Path, clock: Clock, keep: int = KEEP) -> None:
        self._folder = folder
        self._path = folder / "bans"
        self._clock = clock
        self._keep = keep
        self._memory: mmap.mmap | None = None
        self.cells = memoryview(bytearray(_CELLS * 8)).cast("q")  # the numbers; another view after opening
        self.newest = self.cells[C_SEQ : C_SEQ + 1]  # of them the one that is looked at for each hit
        self.problem: str | None = "not opened"

    # --- the numbers --------------------------------------------------------------------------------------------------

    @property
    def seq(self) -> int:
        """The newest ban's number."""
        return self.cells[C_SEQ]

    def moved(self, known: BanList) -> bool:
        """Has the file changed since ``known`` was read?"""
        return self.cells[_C_END] != known.end or self.cells[_C_GENERATION] != known.generation

    # --- life ---------------------------------------------------------------------------------------------------------

    def open(self) -> bool:
        """Map the numbers and set them by the file, which is made or mended. False, and ``problem``: not usable."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                memory = _map(self._folder / "bans.seq")
                self._memory, self.cells = memory, memoryview(memory).cast("q")
                self.newest = self.cells[C_SEQ : C_SEQ + 1]
                self._mend()
        except OSError as error:
            self.problem = f"{self._path}: {error.strerror or error}"
            self._unmap()
            return False
        self.problem = None
        return True

    def close(self) -> None:
        self._unmap()
        self.problem = "closed"

    def _unmap(self) -> None:
        if self._memory is not None:
            private = memoryview(bytearray(bytes(self.cells))).cast("q")
            self.newest.release()
            self.cells.release()
            self._memory.close()
            self._memory, self.cells, self.newest = None, private, private[C_SEQ : C_SEQ + 1]

    # --- reading ------------------------------------------------------------------------------------------------------

    def read(self, known: BanList) -> BanList:
        """The list as it is now: ``known`` with what was appended, or a new one. Raises OSError."""
        for _ in range(3):
            if (now := self._look(known)) is not None:
                return now
        with self._locked(fcntl.LOCK_SH):
            if (now := self._look(known)) is not None:
                return now
        if self._memory is None:
            raise OSError(self.problem or "the list of bans cannot be read")
        with self._locked():
            self._mend()
            return self._look(BanList()) or known

    def read_only(self) -> BanList:
        """The list of a folder that cannot be written to; the private numbers are set by it. Raises OSError."""
        now = BanList()
        try:
            now.take(self._path.read_bytes())
        except (FileNotFoundError, Unreadable):
            now = BanList()
        self._set(now)
        return now

    def _look(self, known: BanList) -> BanList | None:
        """One try without a lock; None when a writer was in the midst of it."""
        cells = self.cells
        generation, end, seq = cells[_C_GENERATION], cells[_C_END], cells[C_SEQ]
        now = known if known.generation == generation and known.end <= end else BanList()
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            data = os.pread(descriptor, end - now.end, now.end)
            head = os.pread(descriptor, 4096, 0) if now is known else b""
        finally:
            os.close(descriptor)
        try:
            if now is known and head_of(head).generation != generation:
                return None
            now.take(data)
        except Unreadable:
            return None
        whole = (now.generation, now.end) == (generation, end) and now.newest >= seq
        return now if whole and cells[_C_GENERATION] == generation else None

    # --- writing ------------------------------------------------------------------------------------------------------

    def append(self, make: Callable[[int], Sequence[Ban]]) -> list[Ban]:
        """Add what ``make(newest number)`` returns, numbered from there. On an OSError nothing was added."""
        with self._locked():
            if self._memory is None:
                raise OSError(self.problem or "the list of bans cannot be written")
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                unseen = os.fstat(descriptor).st_size != self.cells[_C_END]
            finally:
                os.close(descriptor)
            if unseen or self.cells[_C_LINES] == 0:
                self._mend()
            bans = list(make(self.cells[C_SEQ]))
            self._write([ban_entry(ban) for ban in bans], newest=bans[-1].seq if bans else self.cells[C_SEQ])
            if self.cells[_C_LINES] > 2 * self._keep + 1:
                with suppress(OSError):  # the bans are kept; the next one tries again
                    self._shorten()
            return bans

    def mark(self, places: Sequence[tuple[str, FeedId]]) -> None:
        """Say which bans (by uid) have which place in the stream between machines."""
        with self._locked():
            if self._memory is not None and places:
                if self.cells[_C_LINES] > 4 * self._keep + 1:
                    self._shorten()
                self._write([{"mark": uid, "feed": list(feed)} for uid, feed in places], newest=self.cells[C_SEQ])

    def _write(self, entries: Sequence[dict[str, Any]], newest: int) -> None:
        """Append lines at the end, sync them, then let the numbers say so. On an OSError the end is as it was."""
        cells = self.cells
        data, end = b"".join(map(encode_line, entries)), cells[_C_END]
        descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.pwrite(descriptor, data, end) != len(data):
                raise OSError(28, "No space left on device")
            os.fdatasync(descriptor)
        except OSError:
            os.ftruncate(descriptor, end)
            raise
        finally:
            os.close(descriptor)
        cells[_C_LINES] += len(entries)
        cells[_C_END] = end + len(data)
        cells[C_SEQ] = newest

    def _mend(self) -> None:
        """Read the whole file, cut off a torn tail, and set the numbers; the caller holds the lock."""
        now = BanList()
        try:
            data = self._path.read_bytes()
            now.take(data)
        except (FileNotFoundError, Unreadable):
            data, now = b"", BanList()
        counted = self.cells[C_SEQ] if self.cells[_C_MAGIC] == _MAGIC else 0
        counted = counted if 0 < counted < HIGHEST else 0
        if now.generation == 0:
            now = self._begin(max(int(self._clock.time() * 1000), counted + 1))
        elif len(data) > now.end:
            os.truncate(self._path, now.end)
        self._set(now)
        if counted > now.newest:  # bans that were acknowledged are missing
            lost = Ban(counted + 1, "all", "", False, 0.0, f"lost {counted + 1}", own=False)
            self._write([ban_entry(lost)], newest=lost.seq)

    def _begin(self, floor: int) -> BanList:
        earlier = self.cells[_C_GENERATION] if self.cells[_C_MAGIC] == _MAGIC else 0
        generation = earlier + 1 if 0 < earlier < HIGHEST else 1
        return self._replace(BanList(secrets.token_hex(8), generation, floor))

    def _shorten(self) -> None:
        """Keep the newest bans only; the lock is held."""
        now = BanList()
        now.take(self._path.read_bytes())
        kept, gone = now.bans[-self._keep :], now.bans[: -self._keep]
        floor = gone[-1].seq if gone else now.floor
        floor_feed = max((now.floor_feed, *(ban.feed for ban in gone)))
        self._set(self._replace(BanList(now.machine, now.generation + 1, floor, floor_feed, now.read, bans=kept)))

    def _replace(self, wanted: BanList) -> BanList:
        """Put a new file in the old one's place. Returns the list as a reader has it."""
        header = {
            "format": FORMAT,
            "machine": wanted.machine,
            "generation": wanted.generation,
            "floor": wanted.floor,
            "floor_feed": list(wanted.floor_feed),
            "read": list(wanted.read),
        }
        data = b"".join(map(encode_line, [header, *map(ban_entry, wanted.bans)]))
        unborn = self._path.with_suffix(".new")
        descriptor = os.open(unborn, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            if os.write(descriptor, data) != len(data):
                raise OSError(28, "No space left on device")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(unborn, self._path)
        _sync_folder(self._folder)
        now = BanList()
        now.take(data)
        return now

    def _set(self, now: BanList) -> None:
        cells = self.cells
        cells[_C_GENERATION] = now.generation
        cells[_C_LINES] = now.lines
        cells[_C_END] = now.end
        cells[C_SEQ] = now.newest
        cells[_C_MAGIC] = _MAGIC

    @contextmanager
    def _locked(self, how: int = fcntl.LOCK_EX) -> Iterator[None]:
        """Hold the list. The lock is on a file of its own, because the list is replaced when it is shortened."""
        descriptor = os.open(self._folder / "bans.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)


def _map(path: Path) -> mmap.mmap:
    """The shared numbers. Their block is allocated first, so that a full disk cannot end a worker by SIGBUS."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, _CELLS * 8)
        return mmap.mmap(descriptor, _CELLS * 8)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
