"""``OUT.part`` and its journal ``OUT.part.json``: what makes a download resumable, after a crash too.

Law: the journal never says more than the part file holds. Data is written, then flushed to the disk, and only then a
new journal takes the place of the old one (temporary file, flush, rename). What the journal names may be continued
only under the same validator and size. The name of the file itself appears when the file is complete, not before.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Iterable
from pathlib import Path

import msgspec

from fileproxy.client.failures import PartFileError
from fileproxy.client.plan import Span, Spans
from fileproxy.model import Headers, Meta

VERSION = 1
_VALIDATING = frozenset({"etag", "last-modified", "content-encoding"})


class Journal(msgspec.Struct, frozen=True, kw_only=True):
    """What ``OUT.part.json`` says. ``url`` is without its query, which may be a secret."""

    version: int
    url: str
    size: int
    validator: Headers  # ETag, Last-Modified and Content-Encoding as they came
    received_at: float
    done: tuple[Span, ...]


def meta_of(url: str, headers: Headers, size: int, now: float) -> Meta:
    """The representation whose bytes are collected, as ``fill/join.py`` compares it. Only for pinned ones."""
    return Meta(
        key=b"",
        rid=b"",
        url=url.partition("?")[0],
        status=200,
        reason="OK",
        headers=tuple(pair for pair in headers if pair[0].lower() in _VALIDATING),
        size=size,
        block=max(1, size),
        pinned=True,
        requested_at=now,
        received_at=now,
        age_s=0.0,
    )


class PartFile:
    """The open part file of ``out``. Only one process at a time has it.

    ``meta`` and ``done`` are what its journal says; None and empty for a new one.
    """

    def __init__(self, out: Path, descriptor: int, meta: Meta | None, done: Spans) -> None:
        self.out = out
        self.descriptor = descriptor
        self.meta = meta
        self.done = done
        self.path = part_of(out)
        self._journal = journal_of(out)
        self._lock = threading.Lock()
        self._promised = 0  # bytes that the journal names
        self._finished = False

    @classmethod
    def open(cls, out: Path, *, resume: bool, restart: bool) -> PartFile:
        """Open what an interrupted download left (``resume``), or a new part file.

        Raises:
            PartFileError: one is in the way, is used just now, or cannot be continued. ``restart`` starts over then.
            OSError: the folder cannot be written.
        """
        path = part_of(out)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise PartFileError(f"{path} is a symbolic link; remove it first") from None
            raise
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise PartFileError(f"{path} is being written by another download") from error
            if not _is(path, descriptor):
                # It was finished by another download just now: what we have open is the complete file.
                raise PartFileError(f"{path} was taken away by another download; try again")
            meta, done = cls._left(out, descriptor, resume=resume, restart=restart)
            part = cls(out, descriptor, meta, done)
            if meta is None:
                part.reset()
            return part
        except BaseException:
            os.close(descriptor)
            raise

    @classmethod
    def _left(cls, out: Path, descriptor: int, *, resume: bool, restart: bool) -> tuple[Meta | None, Spans]:
        size = os.fstat(descriptor).st_size
        there = size > 0 or journal_of(out).exists()
        if not there or (restart and not resume):
            return None, Spans()
        if not resume:
            raise PartFileError(
                f"{part_of(out)} is left from an interrupted download; -c continues it, --restart starts over"
            )
        try:
            journal = read_journal(out)
            if journal is None and size > 0:
                raise PartFileError(f"{part_of(out)} has no journal that says what it holds; --restart starts over")
            if journal is None:
                return None, Spans()
            done = Spans(journal.done)
            if any(end > size for _, end in done):
                raise PartFileError(f"{part_of(out)} is shorter than its journal says; --restart starts over")
        except PartFileError:
            if restart:
                return None, Spans()
            raise
        meta = meta_of(journal.url, journal.validator, journal.size, journal.received_at)
        return meta, done

    def reset(self) -> None:
        """Nothing is here any more."""
        self.meta, self.done, self._promised = None, Spans(), 0
        self._journal.unlink(missing_ok=True)
        os.ftruncate(self.descriptor, 0)

    def begin(self, meta: Meta) -> None:
        """From now on it holds bytes of this representation. The journal says so with the next ``save``."""
        self.meta = meta

    def write(self, data: bytes | memoryview, at: int) -> None:
        """Put bytes in their place. OSError: the disk is full, and the like."""
        view = memoryview(data)
        while view:
            count = os.pwrite(self.descriptor, view, at)
            view, at = view[count:], at + count

    def start_flush(self, spans: Iterable[Span]) -> None:
        """Let the kernel begin to write these bytes to the disk. Returns before it is done; may run in a thread."""
        with self._lock:
            for first, end in spans:
                if self.descriptor >= 0:
                    os.posix_fadvise(self.descriptor, first, end - first, os.POSIX_FADV_DONTNEED)

    def save(self, done: tuple[Span, ...]) -> None:
        """Flush what is here and say in the journal that these bytes are. Blocks; may run in a thread.

        ``done`` was taken before: what lands while the disk flushes is not promised.
        """
        with self._lock:
            total = sum(end - first for first, end in done)
            if self.meta is not None and self.descriptor >= 0 and not self._finished and total >= self._promised:
                self._save(self.meta, done)
                self._promised = total

    def _save(self, meta: Meta, done: tuple[Span, ...]) -> None:
        os.fdatasync(self.descriptor)
        journal = Journal(
            version=VERSION,
            url=meta.url,
            size=meta.size,
            validator=meta.headers,
            received_at=meta.received_at,
            done=done,
        )
        replace_file(self._journal, msgspec.json.format(msgspec.json.encode(journal), indent=1) + b"\n")

    def check_room(self, missing: int) -> None:
        """PartFileError when the disk has not so many bytes left."""
        found = os.fstatvfs(self.descriptor)
        free = found.f_bavail * found.f_frsize
        if missing > free:
            raise PartFileError(f"{self.out.parent} has {free:,} bytes left; {missing:,} are needed")

    def finish(self, *, force: bool) -> None:
        """The file is complete: it gets its name, and the journal goes.

        Raises PartFileError when the name has been taken meanwhile and may not be replaced.
        """
        os.fsync(self.descriptor)
        if force:
            self.path.replace(self.out)
        else:
            try:
                os.link(self.path, self.out, follow_symlinks=False)  # unlike a rename it replaces nothing
            except FileExistsError:
                raise PartFileError(f"{self.out} exists; {self.path} is complete and was kept") from None
            except OSError:  # a file system without hard links
                if self.out.exists():
                    raise PartFileError(f"{self.out} exists; {self.path} is complete and was kept") from None
                self.path.rename(self.out)
            else:
                self.path.unlink()
        with self._lock:
            self._finished = True
        self._journal.unlink(missing_ok=True)
        _sync_folder(self.out.parent)

    def discard(self) -> None:
        """Nothing worth keeping is here."""
        with self._lock:
            self._finished = True
        self.path.unlink(missing_ok=True)
        self._journal.unlink(missing_ok=True)

    def close(self) -> None:
        """The lock goes with the descriptor."""
        with self._lock:
            if self.descriptor >= 0:
                os.close(self.descriptor)
                self.descriptor = -1


def part_of(out: Path) -> Path:
    return out.with_name(out.name + ".part")


def journal_of(out: Path) -> Path:
    return out.with_name(out.name + ".part.json")


def read_journal(out: Path) -> Journal | None:
    """The journal of ``out``; None when there is none. PartFileError when it cannot be believed."""
    path = journal_of(out)
    try:
        journal = msgspec.json.decode(path.read_bytes(), type=Journal)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise PartFileError(f"{path} cannot be read as a journal; --restart starts over") from None
    sound = all(0 <= first < end <= journal.size for first, end in journal.done)
    if journal.version != VERSION or not sound:
        raise PartFileError(f"{path} cannot be read as a journal; --restart starts over")
    return journal


def replace_file(path: Path, data: bytes) -> None:
    """All of the new content or all of the old, whenever the power fails."""
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.replace(path)


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
