"""Files of the disk tier that stay open for a while, so that what was checked is handed out without a thread.

Nothing here waits for a disk: what would have to is left to the threads. A file that was unlinked, replaced or changed
since is not used any more: its inode says so, and of an extent its slots, which are looked at each time, as another
worker's scrubber may have marked a block absent. Only bytes that this worker has checked are handed out (law 10).
"""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass

from fileproxy.cache.disk_records import identity_of
from fileproxy.cache.extents import HEAD_END, HEAD_START, Extent, Known
from fileproxy.model import FileSlice, Meta

MOST = 128  # files
IDLE_S = 10.0  # since its last use; an evicted file's room is free then at the latest
_NOWAIT = getattr(os, "RWF_NOWAIT", None)


@dataclass(slots=True)
class _File:
    descriptor: int
    identity: int  # as Seen knows it
    start: bytes  # mark and slots of an extent when it was opened; b"": a record file
    offset: int  # of a record file's data
    used_at: float


class Opened:
    """By file name. Times are ``clock.now()``."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, _File] = OrderedDict()

    def __len__(self) -> int:
        return len(self._files)

    def keep(self, name: str, descriptor: int, identity: int, offset: int, *, extent: bool, now: float) -> None:
        """Remember a file that a thread has opened, by a duplicate of its descriptor."""
        old = self._files.get(name)
        start = b""
        if extent and (start := _start(descriptor)) == b"":
            return
        if old is not None and (old.identity, old.start) == (identity, start):
            return
        self.forget(name)
        try:
            duplicate = os.dup(descriptor)
        except OSError:  # none left: it is opened anew the next time
            return
        self._files[name] = _File(duplicate, identity, start, offset, now)
        if len(self._files) > MOST:
            self.forget(next(iter(self._files)))

    def record(self, name: str, meta: Meta, known: Known, now: float) -> FileSlice | None:
        """The data of a record file. The caller owns the descriptor."""
        file = self._at_hand(name, known, now)
        if file is None or not known.verified & 1 or known.bad & 1:
            return None
        return _slice(file, file.offset, meta.size)

    def run(self, name: str, extent: Extent, first: int, most: int, known: Known, now: float) -> FileSlice | None:
        """The checked blocks from slot ``first``, at most ``most``. The caller owns the descriptor."""
        file = self._at_hand(name, known, now)
        good = known.verified & ~known.bad
        if file is None or not good >> first & 1:
            return None
        bad = ~good >> first
        count = min((bad & -bad).bit_length() - 1, most, extent.blocks - first)
        length = (count - 1) * extent.block + extent.length_of(first + count - 1)
        return _slice(file, extent.offset_of(first), length)

    def has(self, name: str, blocks: int, known: Known, now: float) -> bool:
        """Whether so many blocks from the file's first on can be had."""
        wanted = (1 << blocks) - 1
        return known.verified & ~known.bad & wanted == wanted and self._at_hand(name, known, now) is not None

    def _at_hand(self, name: str, known: Known, now: float) -> _File | None:
        file = self._files.get(name)
        if file is None:
            return None
        if file.identity != known.identity or not _unchanged(file):
            self.forget(name)
            return None
        file.used_at = now
        self._files.move_to_end(name)
        return file

    def forget(self, name: str) -> None:
        """Let go of a file."""
        file = self._files.pop(name, None)
        if file is not None:
            os.close(file.descriptor)

    def expire(self, now: float) -> None:
        """Let go of those that were not used lately."""
        while self._files and now - (oldest := next(iter(self._files.items())))[1].used_at >= IDLE_S:
            self.forget(oldest[0])

    def close(self) -> None:
        for name in list(self._files):
            self.forget(name)


def _slice(file: _File, offset: int, length: int) -> FileSlice | None:
    try:
        return FileSlice(os.dup(file.descriptor), offset, length)
    except OSError:  # no descriptor is left
        return None


def _unchanged(file: _File) -> bool:
    info = os.fstat(file.descriptor)
    if not info.st_nlink:
        return False
    if file.start:
        return _start(file.descriptor) == file.start
    return file.identity == identity_of(info)


def _start(descriptor: int) -> bytes:
    """Mark and slots of an extent; b"" when they cannot be had at once."""
    if _NOWAIT is None:
        return b""
    start = bytearray(HEAD_END - HEAD_START)
    try:
        read = os.preadv(descriptor, [start], HEAD_START, _NOWAIT)
    except OSError:  # EAGAIN: not in the page cache. EOPNOTSUPP: this file system cannot tell
        return b""
    return bytes(start) if read == len(start) else b""
