"""A folder as an origin: what is in it, nothing else, with and without openat2."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.clock import ManualClock
from fileproxy.errors import Shed, UpstreamError
from fileproxy.model import FileBody, Target, header
from fileproxy.upstream import file
from fileproxy.upstream.file import (
    FileTransport,
    Found,
    content_type,
    etag,
    look_up,
    open_beneath,
    open_walking,
    segments,
    slash_location,
)
from tests.upstream.conftest import want

OLD = 1_700_000_000


@pytest.fixture
def folder(short_path: Path) -> Iterator[Path]:
    """``served`` with every kind of bait; ``secret`` lies beside it."""
    served = short_path / "served"
    (served / "sub").mkdir(parents=True)
    (served / "index").mkdir()
    (served / "index" / "index.html").write_bytes(b"<p>")
    (short_path / "secret").write_bytes(b"secret")
    (served / "file").write_bytes(b"hello")
    os.utime(served / "file", (OLD, OLD))
    (served / "sub" / "a b\udcff").write_bytes(b"odd")  # a name that is no UTF-8
    (served / ".hidden").write_bytes(b"secret")
    (served / "out").symlink_to("../secret")
    (served / "absolute").symlink_to(short_path / "secret")
    (served / "up").symlink_to("..")
    (served / "loop").symlink_to("loop")
    (served / "link").symlink_to("file")
    (served / "proc").symlink_to("/proc/self/fd/0")
    os.mkfifo(served / "pipe")
    (served / "locked").mkdir(mode=0)
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(served / "socket"))
        yield served
    (served / "locked").chmod(0o700)  # so that it can be taken away


@pytest.fixture(params=["openat2", "walking"])
def opener(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to open; the second as on a kernel without openat2."""
    if request.param == "walking":
        monkeypatch.setattr(file, "open_beneath", open_walking)
    return str(request.param)


def seen(folder: Path, path: str) -> tuple[int, bytes]:
    found = look_up(str(folder), path)
    if found.status != 200:
        assert found.descriptor == -1
        return found.status, b""
    try:
        return 200, os.read(found.descriptor, 100)
    finally:
        os.close(found.descriptor)


def test_what_is_there(folder: Path, opener: str) -> None:
    assert seen(folder, "/file") == (200, b"hello")
    assert seen(folder, "/%66ile") == (200, b"hello")
    assert seen(folder, "/sub/a%20b%FF") == (200, b"odd")
    assert seen(folder, "/sub/a b\udcff") == (200, b"odd")
    assert seen(folder, "/sub") == (301, b"")
    assert seen(folder, "/sub/") == (404, b"")
    assert seen(folder, "/index/") == (200, b"<p>")
    assert seen(folder, "/") == (404, b"")


@pytest.mark.parametrize(
    "path",
    ["/missing", "/file/", "/file/x", "/out", "/absolute", "/up/secret", "/up/served/file", "/loop", "/proc", "/pipe",
     "/socket", "/.hidden", "/%2ehidden", "/sub/../file", "/sub/%2e%2e/file", "/../secret", "/..", "/.", "/sub/./a",
     "//file", "/sub//x", "/sub%2F..%2F..%2Fsecret", "/..%2fsecret", "/file%00", "/file%00.txt", "file", "",
     "/" + "n" * 300, "/" + "d/" * 3000 + "x"],
)  # fmt: skip
def test_what_is_not(folder: Path, opener: str, path: str) -> None:
    assert seen(folder, path) == (404, b"")


def test_links_that_stay_inside_are_followed_where_the_kernel_can_watch_them(folder: Path) -> None:
    assert seen(folder, "/link") == (200, b"hello")


def test_without_openat2_no_link_is_followed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "open_beneath", open_walking)
    assert seen(folder, "/link") == (404, b"")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_a_kernel_or_sandbox_without_openat2(folder: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    class Libc:
        @staticmethod
        def syscall(*_: object) -> int:
            ctypes.set_errno(number)
            return -1

    monkeypatch.setattr(file, "_libc", Libc)
    assert seen(folder, "/file") == (200, b"hello")
    assert seen(folder, "/out") == (404, b"")


def test_a_folder_that_changes_all_the_time_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Libc:
        @staticmethod
        def syscall(*_: object) -> int:
            ctypes.set_errno(errno.EAGAIN)
            return -1

    monkeypatch.setattr(file, "_libc", Libc)
    assert seen(folder, "/file") == (404, b"")


@pytest.mark.parametrize("open_", [open_beneath, open_walking])
def test_an_exchange_of_names_meanwhile_leads_nowhere(folder: Path, open_: Callable[[int, bytes], int]) -> None:
    """Someone swaps a folder for a link to the outside, again and again, while it is asked for."""
    (folder / "swap").mkdir()
    (folder / "swap" / "secret").write_bytes(b"inside")
    (folder / "evil").symlink_to("..")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(folder / "swap", folder / "aside")
            os.rename(folder / "evil", folder / "swap")
            os.rename(folder / "swap", folder / "evil")
            os.rename(folder / "aside", folder / "swap")

    thread = threading.Thread(target=swap)
    thread.start()
    root = os.open(folder, os.O_RDONLY)
    read = set()
    try:
        for _ in range(300):
            try:
                descriptor = open_(root, b"swap/secret")
            except OSError:
                continue
            read.add(os.read(descriptor, 10))
            os.close(descriptor)
    finally:
        stop.set()
        thread.join()
        os.close(root)
    assert read <= {b"inside"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_forbidden(folder: Path, opener: str) -> None:
    assert seen(folder, "/locked/x") == (403, b"")
    (folder / "file").chmod(0)
    assert seen(folder, "/file") == (403, b"")


def test_refused_by_the_system_is_forbidden(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: int, path: bytes) -> int:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(file, "open_beneath", refuse)
    assert seen(folder, "/file") == (403, b"")


@given(st.text(alphabet="/.%2fFeE5cC\0\\abc", max_size=30))
def test_no_path_has_names_that_lead_elsewhere(path: str) -> None:
    names = segments("/" + path)
    assert names is None or all(
        name not in (b".", b"..") and b"/" not in name and b"\0" not in name and not name.startswith(b".")
        for name in names
    )


# --- what is said of a file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"a.txt", "text/plain; charset=utf-8"),
        (b"a.html", "text/html; charset=utf-8"),
        (b"a.json", "application/json"),
        (b"a.tar.gz", "application/gzip"),
        (b"a.txt.br", "application/octet-stream"),
        (b"a.iso", "application/octet-stream"),
        (b"a", "application/octet-stream"),
        (b"\xff.png", "image/png"),
    ],
)
def test_content_types(name: bytes, kind: str) -> None:
    assert content_type(name) == kind


def test_an_etag_is_strong_once_the_file_has_settled() -> None:
    found = Found(200, 3, b"x", size=10, mtime_ns=OLD * 10**9, inode=7)
    assert etag(found, OLD + 1.9).startswith('W/"')
    assert etag(found, OLD + 2.1).startswith('"')
    others = [Found(200, 3, b"x", 11, OLD * 10**9, 7), Found(200, 3, b"x", 10, OLD * 10**9 + 1, 7)]
    others.append(Found(200, 3, b"x", 10, OLD * 10**9, 8))
    assert len({etag(one, OLD + 9) for one in [found, *others]}) == 4


def test_a_folders_slash_is_relative() -> None:
    assert slash_location(Target("/a/sub")) == "./sub/"
    assert slash_location(Target("/a:b", "x=1&y")) == "./a%3Ab/?x=1&y"
    assert slash_location(Target("/%C3%A4%2b")) == "./%C3%A4%2B/"


# --- the transport ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def made(folder: Path) -> FileTransport:
    return FileTransport(f"file://{folder}", label="files/x", clock=ManualClock(epoch=OLD + 100))


async def test_the_answer(made: FileTransport) -> None:
    answer = await made.fetch(want("/file?ignored=1"))
    assert (answer.status, header(answer.headers, "Content-Length"), answer.mirror) == (200, "5", "files/x")
    assert header(answer.headers, "Accept-Ranges") == "bytes"
    assert header(answer.headers, "Last-Modified") == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert (header(answer.headers, "ETag") or "").startswith('"')
    assert isinstance(answer.body, FileBody)
    pieces = [piece async for piece in answer.body]
    assert [(piece.offset, piece.length) for piece in pieces if not isinstance(piece, bytes)] == [(0, 5)]
    await answer.body.aclose()
    await answer.body.aclose()
    await made.close()


async def test_head_keeps_no_descriptor(made: FileTransport) -> None:
    answer = await made.fetch(want("/file", method="HEAD"))
    assert (answer.status, header(answer.headers, "Content-Length"), answer.body.length) == (200, "5", 0)
    await made.close()


async def test_other_answers(made: FileTransport) -> None:
    moved = await made.fetch(want("/sub?a=1"))
    assert (moved.status, header(moved.headers, "Location")) == (301, "./sub/?a=1")
    assert (await made.fetch(want("/missing"))).status == 404
    refused = await made.fetch(want("/file", method="POST"))
    assert (refused.status, header(refused.headers, "Allow")) == (405, "GET, HEAD")
    await made.close()


async def test_a_folder_that_is_gone_is_the_origins_failure(tmp_path: Path) -> None:
    transport = FileTransport(f"file://{tmp_path}/gone", label="x", clock=ManualClock())
    with pytest.raises(UpstreamError, match="gone: No such file"):
        await transport.fetch(want("/file"))
    await transport.close()


async def test_out_of_descriptors_is_not(made: FileTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Found:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(file, "look_up", full)
    with pytest.raises(Shed):
        await made.fetch(want("/file"))
    await made.close()


async def test_who_is_cancelled_leaves_no_descriptor(made: FileTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is opened in a thread while its asker goes away; the fixture looks that nothing stays open."""
    gate, opened = threading.Event(), list[Found]()

    def slow(root: str, path: str) -> Found:
        gate.wait(10)
        opened.append(look_up(root, path))
        return opened[0]

    monkeypatch.setattr(file, "look_up", slow)
    asking = asyncio.create_task(made.fetch(want("/file")))
    await asyncio.sleep(0)
    asking.cancel()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.to_thread(made._threads.shutdown)  # the thread is through; its callback comes with the next turns
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert opened[0].status == 200
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0].descriptor)


def test_devices_are_not_files(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("making a device needs root")
    try:
        os.mknod(folder / "zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("the sandbox lets nobody make a device")
    assert seen(folder, "/zero") == (404, b"")
