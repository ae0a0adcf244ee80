"""Making room on disk: which files go, by sampling; and the scan that sets the estimate of usage right. Blocking.

There is no index. Files are looked at in random subfolders until enough are known, and the oldest of these go: with
many files about the least recently used, with few exactly. What a file was last used at is its time on disk, which
readers set now and then, or what this worker remembers, whichever is later.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fileproxy.cache import disk_records, extents
from fileproxy.cache.disk_files import SUBFOLDERS, Name, parse, path_of, remove
from fileproxy.cache.disk_usage import DiskFolder
from fileproxy.model import Meta

_ENOUGH = 256  # files to choose among
_PER_SUBFOLDER = 64
_SHARE = 8  # one in so many of them goes at a time
_LEFTOVER_S = 600.0  # no record takes that long to write: its writer is dead
_EXTENTS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Candidate:
    name: str
    parsed: Name
    used_at: float  # seconds since the epoch
    size: int


@dataclass(frozen=True, slots=True)
class Evicted:
    files: int
    freed: int  # bytes


def oldest(candidates: list[Candidate], need: int) -> list[Candidate]:
    """Which of a sample go now: the least recently used, no more than ``need`` bytes ask for (pure)."""
    chosen: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda one: one.used_at)[: max(1, len(candidates) // _SHARE)]:
        if need <= 0:
            break
        chosen.append(candidate)
        need -= candidate.size
    return chosen


def evict(folder: DiskFolder, need: int, *, used: Callable[[str], float], epoch: float, rng: random.Random) -> Evicted:
    """One round: unlink about ``need`` bytes of what was used least recently, at most an eighth of the sample.

    ``used(name)``: when this worker used it. Nothing freed: nothing is left to free. Raises OSError.
    """
    count = freed = 0
    for candidate in oldest(_sample(folder, used, epoch, rng), need):
        gone = _remove(folder, candidate)
        count += len(gone)
        for name, size in gone:
            folder.usage.add(name, -size)
            freed += size
    return Evicted(count, freed)


def scan(folder: DiskFolder, subfolders: Sequence[str], epoch: float, seconds: float) -> Sequence[str]:
    """Count subfolders, and clear them of what dead writers left: one, and more until ``seconds`` have passed.

    Returns those that are left. Raises OSError when the first one cannot be read.
    """
    until = time.monotonic() + seconds
    for number, subfolder in enumerate(subfolders):
        if number and time.monotonic() >= until:
            return subfolders[number:]
        try:
            found = _look(folder, subfolder, _list(folder, subfolder), epoch)
            folder.usage.correct(subfolder, sum(one.size for one in found))
        except OSError:
            if number:
                return subfolders[number:]
            raise
    return ()


def _sample(folder: DiskFolder, used: Callable[[str], float], epoch: float, rng: random.Random) -> list[Candidate]:
    found: list[Candidate] = []
    for subfolder in rng.sample(SUBFOLDERS, len(SUBFOLDERS)):
        names = _list(folder, subfolder)
        if len(names) > _PER_SUBFOLDER:
            names = rng.sample(names, _PER_SUBFOLDER)
        found.extend(
            Candidate(one.name, one.parsed, max(one.used_at, used(one.name)), one.size)
            for one in _look(folder, subfolder, names, epoch)
        )
        if len(found) >= _ENOUGH:
            break
    return found


def _list(folder: DiskFolder, subfolder: str) -> list[str]:
    try:
        return os.listdir(f"{folder.path}/{subfolder}")
    except (FileNotFoundError, NotADirectoryError):
        return []


def _look(folder: DiskFolder, subfolder: str, names: list[str], epoch: float) -> Iterator[Candidate]:
    """Those that are ours, and of any use."""
    for name in names:
        parsed = parse(subfolder, name)
        if parsed is None:
            continue
        path = path_of(folder.path, name)
        try:
            info = os.stat(path, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if parsed.kind != "leftover":
            yield Candidate(name, parsed, info.st_mtime, info.st_blocks * 512)
        elif epoch - info.st_mtime > _LEFTOVER_S:
            remove(folder.files, path)


def _remove(folder: DiskFolder, candidate: Candidate) -> list[tuple[str, int]]:
    """Unlink one file; with a record the extents that only it leads to."""
    gone = []
    if candidate.parsed.kind == "record" and (meta := _large(folder, candidate.parsed.id)) is not None:
        gone = extents.remove_all(folder.files, folder.path, meta)
    if size := remove(folder.files, path_of(folder.path, candidate.name)):
        gone.append((candidate.name, size))
    return gone


def _large(folder: DiskFolder, key: bytes) -> Meta | None:
    """The record under this key if it has extents, and not so many that they must go by themselves."""
    try:
        stored = disk_records.load(folder.files, folder.path, key)
    except disk_records.Damaged:
        return None
    meta = stored.record if stored is not None else None
    if not isinstance(meta, Meta) or disk_records.is_inline(meta):
        return None
    return meta if meta.blocks <= _EXTENTS_AT_ONCE * extents.BLOCKS else None
