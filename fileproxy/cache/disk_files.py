"""What the disk tier does to its folder: the few calls that change files, and the names it uses. Blocking.

``Files`` is the whole of what may change the disk, small enough that a test can record it and replay every prefix of it
(``tests/cache/test_disk_crash.py``) or let it fail.

Names::

    XX/<key>.r                 a record, and the data of an object of one block
    XX/<key>.r.<token>.tmp     the same while it is written
    XX/<rid>.<n>               extent n of a representation

``key`` and ``rid`` are 32 hex digits, XX the first two of them. Whatever else lies in the folder is not ours and is
left alone.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import Literal, NamedTuple

Kind = Literal["record", "extent", "leftover"]

_NAME = re.compile(r"([0-9a-f]{32})\.(?:(r)|([0-9]{1,9})|r\.[0-9a-f]{12}\.tmp)", re.ASCII)
PAGE = 4096  # unit of what a file takes on disk, near enough for a budget
SUBFOLDERS = tuple(f"{number:02x}" for number in range(256))


class Files:
    """The system calls. All raise OSError. No symbolic link is followed that somebody put where a file of ours is."""

    def open(self, path: str, flags: int) -> int:
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
        """All of ``data`` at ``offset``."""
        view = memoryview(data)
        while view:
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written

    def sync(self, descriptor: int) -> None:
        """What was written to this file is on the medium when this returns."""
        os.fdatasync(descriptor)

    def sync_folder(self, path: str) -> None:
        """The names in this folder are on the medium when this returns."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def make_folder(self, path: str) -> None:
        os.mkdir(path, 0o700)


class Name(NamedTuple):
    """A name of ours, taken apart."""

    kind: Kind
    id: bytes  # the key of a record, the rid of an extent
    number: int  # of the extent


def parse(subfolder: str, name: str) -> Name | None:
    """What a file in ``subfolder`` is, or None when it is not ours."""
    match = _NAME.fullmatch(name)
    if match is None or name[:2] != subfolder:
        return None
    identity = bytes.fromhex(match[1])
    if match[3] is not None:
        return Name("extent", identity, int(match[3]))
    return Name("record" if match[2] else "leftover", identity, 0)


def record_name(key: bytes) -> str:
    return f"{key.hex()}.r"


def extent_name(rid: bytes, number: int) -> str:
    return f"{rid.hex()}.{number}"


def path_of(folder: str, name: str) -> str:
    """Where a file of this name lies."""
    return f"{folder}/{name[:2]}/{name}"


def open_to_write(files: Files, path: str, flags: int) -> int:
    """Open a file that may be new, making its subfolder when that is missing (the folder itself must be there)."""
    try:
        return files.open(path, flags | os.O_CREAT)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):  # another worker was faster
            files.make_folder(os.path.dirname(path))
        return files.open(path, flags | os.O_CREAT)


def remove(files: Files, path: str, inode: int | None = None) -> int:
    """Unlink a file if it is there (and still this inode), and say how many bytes that frees."""
    try:
        info = os.stat(path, follow_symlinks=False)
        if inode is not None and info.st_ino != inode:
            return 0
        files.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    return info.st_blocks * 512


def taken(size: int) -> int:
    """Bytes that ``size`` bytes of a file take on disk."""
    return -(-size // PAGE) * PAGE
