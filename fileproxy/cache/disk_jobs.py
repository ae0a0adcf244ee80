"""What the disk tier's reading and dropping does in its threads. Blocking; all raise OSError."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from fileproxy.cache import disk_records, extents
from fileproxy.cache.disk_files import extent_name, path_of, record_name, remove
from fileproxy.cache.disk_usage import DiskFolder
from fileproxy.model import Meta, Record


class Unreadable(Exception):
    """A record file was damaged."""


@dataclass(frozen=True, slots=True)
class Found:
    run: extents.Run
    marked: bool  # damage in it could be marked on disk, and is not found again


def file_of(meta: Meta, index: int) -> str:
    """The name of the file a block lies in."""
    return record_name(meta.key) if disk_records.is_inline(meta) else extent_name(meta.rid, index // extents.BLOCKS)


class DiskJobs:
    """With ``writable=False`` nothing is changed. ``touch`` is the time of use to set on the files, None = leave it."""

    def __init__(self, folder: DiskFolder, *, writable: bool) -> None:
        self._folder = folder
        self._files, self._path = folder.files, folder.path
        self._writable = writable

    def find(self, key: bytes, touch: float | None) -> Record | None:
        """The record. Raises Unreadable."""
        stored = self._load(key)
        if stored is None:
            return None
        if touch is not None:
            self._touch(record_name(key), touch)
        return stored.record

    def held(self, meta: Meta) -> set[int]:
        """The blocks that are there. Raises Unreadable."""
        if not disk_records.is_inline(meta):
            return extents.held(self._files, self._path, meta)
        stored = self._load(meta.key)
        return {0} if stored is not None and stored.holds(meta) else set()

    def read(self, meta: Meta, index: int, most: int, known: extents.Known, touch: float | None) -> Found | None:
        """A run of checked blocks from ``index``."""
        name, marked = file_of(meta, index), True
        if disk_records.is_inline(meta):
            run = self._read_inline(meta, known)
            if run is not None and run.damaged:
                marked = self._drop_data(meta.key, run.identity)
        else:
            number, slot = divmod(index, extents.BLOCKS)
            extent = extents.extent_of(meta, number)
            run = extents.read_run(self._files, self._path, extent, slot, most, known)
            if run is not None and run.damaged:
                marked = self._quarantine(name, run.damaged)
        if run is None:
            return None
        if touch is not None and run.descriptor is not None:
            self._touch(name, touch)
            self._touch(record_name(meta.key), touch)  # it leads here, and must not be evicted before
        return Found(run, marked)

    def drop(self, record: Record) -> int:
        """See ``DiskTier.drop``."""
        name = record_name(record.key)
        try:
            stored = disk_records.load(self._files, self._path, record.key)
        except disk_records.Damaged as damage:
            self._discard(record.key, damage.inode)
            stored = None
        if stored is not None and getattr(stored.record, "rid", None) == getattr(record, "rid", None):
            self._folder.usage.add(name, -remove(self._files, path_of(self._path, name)))
        if isinstance(record, Meta) and not disk_records.is_inline(record):
            for extent, freed in extents.remove_all(self._files, self._path, record):
                self._folder.usage.add(extent, -freed)
        return 0

    def _load(self, key: bytes) -> disk_records.Stored | None:
        try:
            return disk_records.load(self._files, self._path, key)
        except disk_records.Damaged as damage:
            self._discard(key, damage.inode)
            raise Unreadable from damage

    def _read_inline(self, meta: Meta, known: extents.Known) -> extents.Run | None:
        try:
            opened = disk_records.open_data(self._files, self._path, meta, known.identity if known.verified else None)
        except disk_records.Damaged as damage:
            return extents.Run(None, 0, 0, damage.inode, 0, 1)
        if opened is None:
            return None
        descriptor, stored = opened
        return extents.Run(descriptor, stored.data_offset, stored.data_length, stored.identity, 1, 0)

    def _quarantine(self, name: str, slots: int) -> bool:
        if not self._writable:
            return False
        try:
            extents.quarantine(self._files, self._path, name, slots)
        except OSError:  # a read-only disk; the caller remembers
            return False
        return True

    def _drop_data(self, key: bytes, inode: int) -> bool:
        """Damaged data goes, its record stays: so the owner of the key, asked by another worker, can repair it."""
        if not self._writable:
            return False
        try:
            grown = disk_records.drop_data(self._files, self._path, key, inode)
        except (OSError, disk_records.Damaged):
            return self._discard(key, inode)
        self._folder.usage.add(record_name(key), grown)
        return True

    def _discard(self, key: bytes, inode: int) -> bool:
        """Unlink a damaged record file: what it held is fetched again."""
        if not self._writable:
            return False
        name = record_name(key)
        try:
            self._folder.usage.add(name, -remove(self._files, path_of(self._path, name), inode))
        except OSError:
            return False
        return True

    def _touch(self, name: str, epoch: float) -> None:
        with contextlib.suppress(OSError):  # it only makes eviction choose better
            os.utime(path_of(self._path, name), (epoch, epoch), follow_symlinks=False)
