"""The scrubber: reads the whole disk tier again, slowly, and marks what is no longer what was written (law 10)."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

from fileproxy.cache import disk_records, extents
from fileproxy.cache.disk_files import PAGE, SUBFOLDERS, Name, extent_name, parse, path_of, record_name, remove
from fileproxy.cache.disk_usage import DiskFolder
from fileproxy.clock import Clock

_SETTLED_S = 60.0  # a file without a head may be one that is being made
_OFF_S = 10.0  # how often a scrubber that is off looks whether it still is
_SLEEP_S = 0.05  # shorter ones are saved up
T = TypeVar("T")


class Chore(Protocol):
    """Runs a blocking call in a thread; None when it failed."""

    async def __call__(self, work: Callable[[], T], /) -> T | None: ...


class Scrubber:
    """Goes through the folder at ``rate`` bytes a second.

    ``on_damage`` is told how many blocks or files were found damaged.
    """

    def __init__(
        self, folder: DiskFolder, *, rate: int, clock: Clock, chore: Chore, on_damage: Callable[[int], None]
    ) -> None:
        self.rate = rate  # bytes a second; may be changed at any time, 0 = wait
        self._folder, self._clock, self._chore, self._on_damage = folder, clock, chore, on_damage
        self._done = 0  # subfolders of this pass
        self._read = 0  # bytes of this pass
        self._damaged = 0
        self._passes = 0
        self._last_s: float | None = None
        self._debt_s = 0.0

    async def pass_once(self, *, paced: bool = True) -> int:
        """Read everything once, beginning anywhere; returns how much damage there was."""
        began, before = self._clock.now(), self._damaged
        self._done = self._read = 0
        first = random.randrange(len(SUBFOLDERS))  # noqa: S311 a restart must not always scrub the same part
        for subfolder in SUBFOLDERS[first:] + SUBFOLDERS[:first]:
            for name in await self._chore(partial(_names, self._folder, subfolder)) or ():
                await self._file(name, paced)
            self._done += 1
        self._passes += 1
        self._last_s = self._clock.now() - began
        return self._damaged - before

    def statistics(self) -> dict[str, Any]:
        """Progress of this pass (0 to 1), and what there was."""
        return {
            "rate": self.rate,
            "progress": self._done / len(SUBFOLDERS),
            "read": self._read,
            "damaged": self._damaged,
            "passes": self._passes,
            "last_pass_s": self._last_s,
        }

    async def _file(self, name: Name, paced: bool) -> None:
        if name.kind == "record":
            await self._step(partial(_check_record, self._folder, name.id), paced)
            return
        found = await self._chore(partial(_identify, self._folder, name, self._clock.time()))
        if isinstance(found, Broken):
            self._found(1)
        elif found is not None:
            extent, slots = found
            for slot in range(extents.BLOCKS):
                if slots >> slot & 1:
                    await self._step(partial(_check_slot, self._folder, extent, slot), paced)

    async def _step(self, check: Callable[[], tuple[int, int]], paced: bool) -> None:
        read, damaged = await self._chore(check) or (0, 0)
        self._read += read
        self._found(damaged)
        if paced:
            while not self.rate:
                await self._clock.sleep(_OFF_S)
            self._debt_s += max(read, PAGE) / self.rate  # a small file costs the disk a page at least
            if self._debt_s >= _SLEEP_S:
                debt, self._debt_s = self._debt_s, 0.0
                await self._clock.sleep(debt)

    def _found(self, damaged: int) -> None:
        if damaged:
            self._damaged += damaged
            self._on_damage(damaged)


class Broken:
    """A file whose head was damaged, and which is gone now."""


def _names(folder: DiskFolder, subfolder: str) -> list[Name]:
    try:
        names = os.listdir(f"{folder.path}/{subfolder}")
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [one for one in (parse(subfolder, name) for name in names) if one is not None and one.kind != "leftover"]


def _check_record(folder: DiskFolder, key: bytes) -> tuple[int, int]:
    try:
        return disk_records.check(folder.files, folder.path, key), 0
    except disk_records.Damaged as damage:
        name = record_name(key)
        folder.usage.add(name, -remove(folder.files, path_of(folder.path, name), damage.inode))
        return PAGE, 1


def _identify(folder: DiskFolder, name: Name, epoch: float) -> tuple[extents.Extent, int] | Broken | None:
    try:
        return extents.identify(folder.files, folder.path, name)
    except ValueError:
        file = extent_name(name.id, name.number)
        path = path_of(folder.path, file)
        info = os.stat(path)
        if info.st_size < extents.DATA and abs(epoch - info.st_mtime) < _SETTLED_S:
            return None
        folder.usage.add(file, -remove(folder.files, path, info.st_ino))
        return Broken()


def _check_slot(folder: DiskFolder, extent: extents.Extent, slot: int) -> tuple[int, int]:
    read, right = extents.check_slot(folder.files, folder.path, extent, slot)
    if not right:
        extents.quarantine(folder.files, folder.path, extent.name, 1 << slot)
    return read, int(not right)
