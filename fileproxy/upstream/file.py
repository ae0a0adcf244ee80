"""A local folder as an origin: ``file:///srv/files``.

What the folder does not hold is not there: paths are resolved by the kernel beneath the folder (openat2 with
RESOLVE_BENEATH), so that neither ``..`` nor a symbolic link leads out of it, even when names change meanwhile. Relative
links that stay inside are followed. Kernels without openat2 get a walk that follows no link at all. Names that begin
with a dot, devices, pipes and sockets are answered like what does not exist.

The answer carries an open descriptor; conditions and ranges are the server's business.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import mimetypes
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import formatdate
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit

from fileproxy.clock import Clock
from fileproxy.errors import Shed, UpstreamError
from fileproxy.model import Answer, Body, BytesBody, FileBody, Headers, Target, Want

_THREADS = 4
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK  # a pipe must not block the thread
_INDEX = b"index.html"
# A change within the same clock tick leaves mtime as it was; an ETag that young is not strong (RFC 9110 §8.8.1).
_SETTLED_S = 2.0
_SYS_OPENAT2 = 437  # the same number on every architecture
_RESOLVE_BENEATH, _RESOLVE_NO_MAGICLINKS = 0x08, 0x02
_AGAIN = 16
_NOT_THERE = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EXDEV, errno.ENXIO, errno.ENODEV, errno.EISDIR}
)
_TYPES = mimetypes.MimeTypes(filenames=())  # Python's own table: the machine's must not change what we say
_COMPRESSED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(folder: int, path: bytes) -> int:
    """Open ``path`` for reading so that it cannot lie outside ``folder`` (a descriptor). OSError as open(2) has it."""
    how = _OpenHow(_FLAGS, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    for _ in range(_AGAIN):
        opened: int = _libc.syscall(_SYS_OPENAT2, folder, path, ctypes.byref(how), ctypes.sizeof(how))
        if opened >= 0:
            return opened
        number = ctypes.get_errno()
        if number in (errno.ENOSYS, errno.EPERM):  # an old kernel, or a sandbox that does not know the call
            return open_walking(folder, path)
        if number not in (errno.EAGAIN, errno.EINTR):  # EAGAIN: something was renamed on the way
            raise OSError(number, os.strerror(number))
    raise OSError(errno.ENOENT, "the folder changes all the time")


def open_walking(folder: int, path: bytes) -> int:
    """The same without openat2, component by component, refusing every symbolic link."""
    *folders, last = path.split(b"/")
    here = os.dup(folder)
    try:
        for name in folders:
            deeper = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = deeper
        return os.open(last, _FLAGS | os.O_NOFOLLOW, dir_fd=here)
    finally:
        os.close(here)


@dataclass(frozen=True, slots=True)
class Found:
    """What a path turned out to be. ``descriptor`` is open for a file only."""

    status: int
    descriptor: int = -1
    name: bytes = b""
    size: int = 0
    mtime_ns: int = 0
    inode: int = 0


def segments(path: str) -> list[bytes] | None:
    """The decoded names of a path (the last one empty when it ends in ``/``), or None when nothing may be there."""
    names = [unquote_to_bytes(part.encode("utf-8", "surrogateescape")) for part in path.split("/")[1:]]
    if not path.startswith("/") or b"" in names[:-1]:
        return None
    if any(name.startswith(b".") or b"/" in name or b"\0" in name for name in names):
        return None
    return names


def look_up(root: str, path: str) -> Found:
    """Blocking. 200 with an open descriptor, 301 for a folder without its slash, 403, or 404."""
    names = segments(path)
    if names is None:
        return Found(404)
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        wants_folder = names[-1] == b""
        if wants_folder:
            names[-1] = _INDEX
        descriptor = open_beneath(folder, b"/".join(names))
    except OSError as error:
        if error.errno in _NOT_THERE:
            return Found(404)
        if error.errno in (errno.EACCES, errno.EPERM):
            return Found(403)
        raise
    finally:
        os.close(folder)
    return _inspect(descriptor, names[-1], wants_folder)


def _inspect(descriptor: int, name: bytes, wants_folder: bool) -> Found:
    status = 404
    try:
        info = os.fstat(descriptor)
        if stat.S_ISREG(info.st_mode):
            status = 200
            return Found(200, descriptor, name, info.st_size, info.st_mtime_ns, info.st_ino)
        return Found(301 if stat.S_ISDIR(info.st_mode) and not wants_folder else 404)
    finally:
        if status != 200:
            os.close(descriptor)


def content_type(name: bytes) -> str:
    """By the name's ending. A compressed file is what it is: no Content-Encoding is claimed for it."""
    guessed, encoding = _TYPES.guess_type(os.fsdecode(name), strict=True)
    if encoding is not None:
        return _COMPRESSED.get(encoding, "application/octet-stream")
    if guessed is None:
        return "application/octet-stream"
    return f"{guessed}; charset=utf-8" if guessed.startswith("text/") else guessed


def etag(found: Found, now_epoch: float) -> str:
    """From modification time, size and inode; weak while the file is too young for that to be proof."""
    tag = f'"{found.mtime_ns:x}-{found.size:x}-{found.inode:x}"'
    return f"W/{tag}" if abs(now_epoch - found.mtime_ns / 1e9) < _SETTLED_S else tag


def slash_location(target: Target) -> str:
    """Where a folder asked for without its slash is: relative, because a route may have taken a prefix away."""
    last = target.path.rpartition("/")[2]
    # "./" keeps a colon in the name from reading as a scheme (RFC 3986 §4.2).
    return f"./{quote_from_bytes(unquote_to_bytes(last.encode('utf-8', 'surrogateescape')))}/" + (
        "" if target.query is None else f"?{target.query}"
    )


class FileTransport:
    """A :class:`fileproxy.model.Transport` to a folder, given as ``file:///…``. Blocking calls run in few threads."""

    def __init__(self, url: str, *, label: str, clock: Clock) -> None:
        self.folder = os.fsdecode(unquote_to_bytes(urlsplit(url).path))
        self.label = label
        self._clock = clock
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="file")

    async def fetch(self, want: Want) -> Answer:
        """The file as a descriptor, or 301, 403, 404, 405.

        Raises:
            UpstreamError: the folder itself cannot be read.
            Shed: out of descriptors.
        """
        if want.method not in ("GET", "HEAD"):
            return self._text(405, "Method Not Allowed", want, (("Allow", "GET, HEAD"),))
        try:
            found = await self._in_thread(lambda: look_up(self.folder, want.target.path))
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise Shed(f"{self.folder}: {error.strerror}") from error
            raise UpstreamError(f"{self.folder}: {error.strerror}") from error
        if found.status == 301:
            return self._text(301, "Moved Permanently", want, (("Location", slash_location(want.target)),))
        if found.status != 200:
            return self._text(found.status, "Forbidden" if found.status == 403 else "Not Found", want)
        return self._file(found, want)

    def _file(self, found: Found, want: Want) -> Answer:
        body: Body = FileBody(found.descriptor, 0, found.size, (found.size, found.mtime_ns))
        if want.method == "HEAD":
            os.close(found.descriptor)
            body = BytesBody()
        now = self._clock.time()
        headers: Headers = (
            ("Date", formatdate(now, usegmt=True)),
            ("Content-Type", content_type(found.name)),
            ("Content-Length", str(found.size)),
            ("Last-Modified", formatdate(found.mtime_ns // 10**9, usegmt=True)),
            ("ETag", etag(found, now)),
            ("Accept-Ranges", "bytes"),
        )
        return Answer(200, "OK", headers, body, self.label)

    def _text(self, status: int, reason: str, want: Want, extra: Headers = ()) -> Answer:
        data = f"{reason}\n".encode()
        headers: Headers = (
            ("Date", formatdate(self._clock.time(), usegmt=True)),
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(data))),
            *extra,
        )
        return Answer(status, reason, headers, BytesBody(b"" if want.method == "HEAD" else data), self.label)

    async def _in_thread(self, call: Callable[[], Found]) -> Found:
        future = asyncio.get_running_loop().run_in_executor(self._threads, call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(_discard)
            raise

    async def close(self) -> None:
        """Let the threads end; one that hangs in a dead network folder is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _discard(future: asyncio.Future[Found]) -> None:
    """Nobody waits for this file any more: close it."""
    if not future.cancelled() and future.exception() is None and future.result().descriptor >= 0:
        os.close(future.result().descriptor)
