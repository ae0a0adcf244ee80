"""Bodies sent without a copy, over a socket pair: what goes past the transport, what is left to it, and when."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from fileproxy.errors import FileChanged
from fileproxy.server.front import Asker
from fileproxy.server.pages import MOST, Pages, Shelf

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Beside:
    """A front with its transport: ``waiting`` bytes in that one's buffer, ``taken`` what was written to it."""

    def __init__(self, sock: socket.socket, **extra: object) -> None:
        self.extra: dict[str, object] = {"socket": sock, **extra}
        self.transport = self
        self.socket: int | None = None
        self.room = 0
        self.waiting = 0
        self.taken = b""

    def get_extra_info(self, name: str) -> object:
        return self.extra.get(name)

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def write(self, data: bytes) -> None:
        self.taken += data

    def writelines(self, pieces: tuple[bytes, ...]) -> None:
        self.taken += b"".join(pieces)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    one = Shelf()
    yield one
    one.clear()
    assert (len(one), one.bytes) == (0, 0)


def put(shelf: Shelf, body: bytes, rid: bytes = b"r", most: int = 1 << 24) -> Pages:
    pages = shelf.put(rid, body, most)
    assert pages is not None
    return pages


def send(pages: Pages, beside: Beside) -> int | None:
    return pages.send(cast(Asker, beside), HEAD)


def test_head_and_body_arrive(shelf: Shelf, pair: Any) -> None:
    body, beside = os.urandom(20_000), Beside(pair[0])
    assert send(put(shelf, body), beside) == len(body)
    assert pair[1].recv(65536, socket.MSG_WAITALL | socket.MSG_DONTWAIT) == HEAD + body
    assert beside.taken == b""


def test_the_transport_gets_what_the_client_does_not_take(shelf: Shelf, pair: Any) -> None:
    body, beside = os.urandom(4_000_000), Beside(pair[0])
    sent = send(put(shelf, body), beside)
    assert sent == len(body) - len(beside.taken) < len(body)
    got = b""
    while len(got) < len(HEAD) + len(body) - len(beside.taken):
        got += pair[1].recv(1 << 20)
    assert got + beside.taken == HEAD + body


@pytest.mark.parametrize("why", ["waiting", "tls", "no socket", "gone", "full", "broken"])
def test_it_does_nothing_where_it_may_not_write(shelf: Shelf, pair: Any, why: str) -> None:
    ours, theirs = pair
    body, beside = os.urandom(20_000), Beside(ours)
    pages = put(shelf, body)
    match why:
        case "waiting":
            beside.waiting = 1
        case "tls":
            beside.extra["sslcontext"] = object()
        case "no socket":
            del beside.extra["socket"]
        case "gone":
            shelf.clear()
        case "full":
            with contextlib.suppress(BlockingIOError):
                while True:
                    ours.send(b"x" * 65536)
        case "broken":
            theirs.close()
    assert send(pages, beside) is None
    assert beside.taken == b""


def test_the_shelf_is_bounded_and_closes_what_it_drops(shelf: Shelf) -> None:
    most = MOST * 1000
    kept = [put(shelf, b"x" * 10, str(number).encode(), most) for number in range(MOST + 5)]
    assert (len(shelf), shelf.bytes) == (MOST, most)
    assert [pages.descriptor < 0 for pages in kept] == [True] * 5 + [False] * MOST
    assert put(shelf, b"x" * 10, b"6", most) is kept[6]
    large = put(shelf, b"x" * (most + 1), b"large", most)
    assert large.descriptor < 0


@pytest.mark.parametrize("why", ["shorter", "unreadable"])
def test_a_stored_file_that_fails_is_not_sent_from_again(
    shelf: Shelf, pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    path, beside = tmp_path / "file", Beside(pair[0])
    path.write_bytes(b"x" * 20_000)
    pages = Pages(os.open(path, os.O_RDONLY), 0, 20_000, stored=True)
    shelf.keep(b"r", pages, 1 << 24)
    assert send(pages, beside) == 20_000
    if why == "shorter":
        os.truncate(path, 10_000)
    else:
        monkeypatch.setattr("fileproxy.server.pages.sendfile", _unreadable)
        monkeypatch.setattr(os, "pread", _unreadable)
    with pytest.raises(FileChanged):
        send(pages, beside)
    assert pages.descriptor < 0
    assert send(pages, beside) is None


def _unreadable(*_: int) -> int:
    raise OSError(errno.EIO, "Input/output error")
