"""How many bytes the disk tier takes, without counting files: an estimate that all workers share and a scan corrects.

A file ``usage`` in the folder holds one number for each subfolder. Every worker adds its changes to it under a lock, on
a timer and when they have become many; what a killed worker had not added yet is set right by a scan soon after
(``disk_alive.py``). Blocking, but ``add`` and ``total``.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from typing import NamedTuple

from fileproxy.cache.checksum import crc32
from fileproxy.cache.disk_files import SUBFOLDERS, Files

_FORMAT = struct.Struct("<8sd256q")  # magic, time of the last whole scan, bytes of each subfolder
_MAGIC = b"FPusage1"
_BYTES = _FORMAT.size + 4


class Usage:
    """The estimate. ``add`` and ``correct`` may be called from any thread."""

    def __init__(self, folder: str, *, writable: bool) -> None:
        self._path = f"{folder}/usage"
        self._writable = writable
        self._lock = threading.Lock()
        self._known = [0] * 256
        self._added = [0] * 256
        self._corrected: dict[int, int] = {}
        self._total = self._unshared = 0
        self.scanned_at = 0.0  # since the epoch; 0 = never

    @property
    def total(self) -> int:
        """Bytes taken, as far as is known."""
        return max(0, self._total)

    def add(self, name: str, amount: int) -> None:
        """A file of this name grew, came or (negative) went."""
        if amount:
            with self._lock:
                self._added[int(name[:2], 16)] += amount
                self._total += amount
                self._unshared += abs(amount)

    @property
    def unshared(self) -> int:
        """Bytes of its changes that only this worker knows: what a kill would make it forget until the next scan."""
        return self._unshared

    def correct(self, subfolder: str, counted: int) -> None:
        """What a scan of one subfolder found."""
        number = int(subfolder, 16)
        with self._lock:
            self._total += counted - self._known[number] - self._added[number]
            self._known[number], self._added[number] = counted, 0
            self._corrected[number] = counted

    def share(self, scanned_at: float | None = None, *, last: bool = False) -> None:
        """Add this worker's changes to the file and learn the others'. Raises OSError; nothing is lost then.

        While another worker is at it nothing happens: the next time will do. ``last``: there is none, so wait for it.
        """
        flags = os.O_RDWR | os.O_CREAT if self._writable else os.O_RDONLY
        try:
            descriptor = os.open(self._path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:
            if self._writable:
                raise
            return
        try:
            if self._writable:
                fcntl.flock(descriptor, fcntl.LOCK_EX if last else fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._merge(descriptor, scanned_at)
        except BlockingIOError:
            return
        finally:
            os.close(descriptor)

    def _merge(self, descriptor: int, scanned_at: float | None) -> None:
        at, numbers = _unpack(os.pread(descriptor, _BYTES, 0))
        with self._lock:
            changed = scanned_at is not None or bool(self._corrected) or any(self._added)
            for number, counted in self._corrected.items():
                numbers[number] = counted
            numbers = [max(0, known + added) for known, added in zip(numbers, self._added, strict=True)]
            if self._writable and changed:
                at = at if scanned_at is None else scanned_at
                packed = _FORMAT.pack(_MAGIC, at, *numbers)
                os.pwrite(descriptor, packed + crc32(packed).to_bytes(4, "little"), 0)
                self._added = [0] * len(SUBFOLDERS)
                self._corrected.clear()
                self._unshared = 0
            self._known, self.scanned_at, self._total = numbers, at, sum(numbers)


class DiskFolder(NamedTuple):
    """The folder of the tier: where, what changes it, how full it is."""

    path: str
    files: Files
    usage: Usage


def _unpack(data: bytes) -> tuple[float, list[int]]:
    """What the file says; nothing and "never scanned" when it is new or damaged."""
    if len(data) == _BYTES and crc32(data[:-4]) == int.from_bytes(data[-4:], "little"):
        magic, at, *numbers = _FORMAT.unpack(data[:-4])
        if magic == _MAGIC:
            return at, numbers
    return 0.0, [0] * 256
