"""Record files: one for each key, with the data of an object of at most one block in the same file. Blocking.

    head    magic, version, flags; length and CRC-32 of the record; length and CRC-32 of the data; CRC-32 of the head
    record  as ``records.encode`` made it
    data    the object's only block, when flags say so

A record file is never changed, only replaced: written under another name and renamed, so a reader sees the old or the
new one. After a power loss the new name may stand before its bytes: the checksums then say that there is nothing.
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass

from fileproxy.cache.checksum import crc32
from fileproxy.cache.disk_files import Files, open_to_write, path_of, record_name, remove, taken
from fileproxy.cache.records import LARGEST, decode, encode
from fileproxy.model import Meta, Record

_HEAD = struct.Struct("<8sHHIIII")
_MAGIC = b"FPrecord"
_VERSION = 1
_INLINE = 1
HEAD_BYTES = _HEAD.size + 4
_FIRST_READ = 16 * 1024
_CHUNK = 256 * 1024


@dataclass(frozen=True, slots=True)
class Stored:
    """A record file whose head and record are right. Its data was not looked at yet."""

    record: Record
    encoded: bytes
    identity: int  # of the file, its last change included
    taken: int  # bytes the file takes on disk
    data_offset: int
    data_length: int
    data_crc: int
    inline: bool

    @property
    def inode(self) -> int:
        return self.identity & (1 << 64) - 1

    def holds(self, meta: Meta) -> bool:
        """Is the whole of this representation in here?"""
        return self.inline and isinstance(self.record, Meta) and self.record.rid == meta.rid


class Damaged(Exception):
    """What lies there is not what was written. ``inode`` is the file that was looked at."""

    def __init__(self, inode: int) -> None:
        super().__init__("damaged")
        self.inode = inode


def is_inline(meta: Meta) -> bool:
    """Does its data belong into the record's file?"""
    return meta.size <= meta.block


def load(files: Files, folder: str, key: bytes) -> Stored | None:
    """The record file of ``key``. Raises Damaged, OSError."""
    descriptor = _open(files, path_of(folder, record_name(key)))
    if descriptor is None:
        return None
    try:
        return _parse(descriptor, key)
    finally:
        files.close(descriptor)


def open_data(files: Files, folder: str, meta: Meta, verified: int | None) -> tuple[int, Stored] | None:
    """An open descriptor of the file that holds this representation whole; the caller owns it.

    Its data was checked, unless ``verified`` is the identity of the file. Raises Damaged, OSError.
    """
    descriptor = _open(files, path_of(folder, record_name(meta.key)))
    if descriptor is None:
        return None
    keep = False
    try:
        stored = _parse(descriptor, meta.key)
        if not stored.holds(meta):
            return None
        if stored.data_length != meta.size:
            raise Damaged(stored.inode)
        if stored.identity != verified and not _data_is_right(descriptor, stored, meta.rid):
            raise Damaged(stored.inode)
        keep = True
        return descriptor, stored
    finally:
        if not keep:
            files.close(descriptor)


def save(files: Files, folder: str, record: Record) -> int | None:
    """Put ``record`` in place of what is under its key; data that is already there for it stays.

    Returns by how many bytes the disk is fuller; None when the record is too long to be kept. Raises OSError.
    """
    encoded = encode(record)
    if len(encoded) > LARGEST:
        return None
    old = _load_or_nothing(files, folder, record.key)
    data: bytes | None = None
    if old is not None and isinstance(record, Meta) and old.holds(record):
        data = _data_of(files, folder, record)
    if old is not None and old.encoded == encoded and old.inline == (data is not None):
        return 0
    # Losing a record in a power loss loses the way to all its extents: there its bytes come before its name.
    careful = old is not None and isinstance(record, Meta) and not is_inline(record)
    path = path_of(folder, record_name(record.key))
    return _replace(files, path, _file(record, encoded, data), careful=careful) - (old.taken if old else 0)


def save_data(files: Files, folder: str, meta: Meta, data: bytes) -> int | None:
    """Put the only block of ``meta`` beside its record, which may have been renewed since and then stays.

    Returns as ``save``; None also when a newer representation is there, or other bytes, which stay (law 1). Raises
    OSError.
    """
    encoded = encode(meta)
    old = _load_or_nothing(files, folder, meta.key)
    if old is not None and isinstance(old.record, Meta):
        if old.record.rid == meta.rid:
            encoded = old.encoded
            if (there := _data_of(files, folder, meta)) is not None:
                return 0 if there == data else None
        elif old.record.received_at > meta.received_at:
            return None
    if len(encoded) > LARGEST:
        return None
    path = path_of(folder, record_name(meta.key))
    return _replace(files, path, _file(meta, encoded, data), careful=False) - (old.taken if old else 0)


def drop_data(files: Files, folder: str, key: bytes, inode: int) -> int:
    """Put the record alone in place of the file ``inode``, whose data is damaged: the way to the object stays known.

    Returns by how many bytes the disk is fuller (less than zero). Raises Damaged, OSError.
    """
    old = load(files, folder, key)
    if old is None or old.inode != inode:
        return 0
    path = path_of(folder, record_name(key))
    return _replace(files, path, _file(old.record, old.encoded, None), careful=False) - old.taken


def check(files: Files, folder: str, key: bytes) -> int:
    """Read a whole record file again, for the scrubber. Returns bytes read. Raises Damaged, OSError."""
    descriptor = _open(files, path_of(folder, record_name(key)))
    if descriptor is None:
        return 0
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # what is on the disk, not what was
        stored = _parse(descriptor, key)
        if stored.inline:
            assert isinstance(stored.record, Meta)
            if not _data_is_right(descriptor, stored, stored.record.rid):
                raise Damaged(stored.inode)
        return stored.data_offset + stored.data_length
    finally:
        files.close(descriptor)


def identity_of(info: os.stat_result) -> int:
    """What tells a record file from every other one; an inode alone may be that of an older file that is gone."""
    return info.st_ctime_ns << 64 | info.st_ino


def _open(files: Files, path: str) -> int | None:
    try:
        return files.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _parse(descriptor: int, key: bytes) -> Stored:
    info = os.fstat(descriptor)
    start = os.pread(descriptor, _FIRST_READ, 0)
    head = start[:HEAD_BYTES]
    if len(head) < HEAD_BYTES or crc32(head[:-4]) != int.from_bytes(head[-4:], "little"):
        raise Damaged(info.st_ino)
    magic, version, flags, length, crc, data_length, data_crc = _HEAD.unpack_from(head)
    if magic != _MAGIC or version != _VERSION or length > LARGEST:
        raise Damaged(info.st_ino)
    end = HEAD_BYTES + length
    if end > len(start):
        start += os.pread(descriptor, end - len(start), len(start))
    encoded = start[HEAD_BYTES:end]
    record = decode(encoded) if len(encoded) == length and crc32(encoded) == crc else None
    inline = bool(flags & _INLINE)
    if record is None or record.key != key or (inline and not isinstance(record, Meta)):
        raise Damaged(info.st_ino)
    if info.st_size != end + data_length:
        raise Damaged(info.st_ino)
    return Stored(record, encoded, identity_of(info), taken(info.st_size), end, data_length, data_crc, inline)


def _data_is_right(descriptor: int, stored: Stored, rid: bytes) -> bool:
    crc, offset, left = crc32(rid), stored.data_offset, stored.data_length
    while left:
        try:
            chunk = os.pread(descriptor, min(left, _CHUNK), offset)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return False  # a bad sector is damage like any other
        if not chunk:
            return False
        crc, offset, left = crc32(chunk, crc), offset + len(chunk), left - len(chunk)
    return crc == stored.data_crc


def _load_or_nothing(files: Files, folder: str, key: bytes) -> Stored | None:
    try:
        return load(files, folder, key)
    except Damaged:
        return None


def _data_of(files: Files, folder: str, meta: Meta) -> bytes | None:
    try:
        opened = open_data(files, folder, meta, None)
    except Damaged:
        return None
    if opened is None:
        return None
    descriptor, stored = opened
    try:
        data = os.pread(descriptor, stored.data_length, stored.data_offset)
    finally:
        files.close(descriptor)
    return data if len(data) == meta.size else None


def _file(record: Record, encoded: bytes, data: bytes | None) -> bytes:
    """The whole content of a record file."""
    flags, length, crc = 0, 0, 0
    if data is not None:
        assert isinstance(record, Meta)
        flags, length, crc = _INLINE, len(data), crc32(data, crc32(record.rid))
    head = _HEAD.pack(_MAGIC, _VERSION, flags, len(encoded), crc32(encoded), length, crc)
    return b"".join((head, crc32(head).to_bytes(4, "little"), encoded, data or b""))


def _replace(files: Files, path: str, content: bytes, *, careful: bool) -> int:
    """Put a file at ``path`` in one step; ``careful``: its bytes are on the medium before its name."""
    temporary = f"{path}.{os.urandom(6).hex()}.tmp"
    descriptor = open_to_write(files, temporary, os.O_WRONLY | os.O_EXCL)
    try:
        try:
            files.write(descriptor, content, 0)
            if careful:
                files.sync(descriptor)
        finally:
            files.close(descriptor)
        files.rename(temporary, path)
    except OSError:
        remove(files, temporary)
        raise
    return taken(len(content))
