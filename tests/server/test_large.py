"""A stored file in one go, or not at all: the way for who cannot wait."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from fileproxy.errors import FileChanged
from fileproxy.model import FileSlice, Meta
from fileproxy.server import large, pages
from fileproxy.server.front import Front
from fileproxy.server.large import open_stored
from tests.server.test_pages import Beside

DATA = bytes(range(256)) * 400
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Ours, not blocking, and the client's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), 10)
        ours, _ = listener.accept()
    ours.setblocking(False)
    with client, ours:
        yield ours, client


@pytest.fixture
def piece(tmp_path: Path) -> Iterator[FileSlice]:
    (tmp_path / "file").write_bytes(b"before" + DATA + b"behind")
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    yield FileSlice(descriptor, 6, len(DATA))
    os.close(descriptor)


class Shelved:
    """A disk tier with one open file."""

    def __init__(self, piece: FileSlice) -> None:
        self._piece = piece

    def slice_now(self, meta: Meta, index: int, most: int) -> FileSlice:
        return FileSlice(os.dup(self._piece.descriptor), self._piece.offset, self._piece.length)


def send_whole(ours: socket.socket, piece: FileSlice) -> bytes | None:
    """What was left to the transport; None: nothing was sent."""
    found = open_stored(Shelved(piece), cast(Meta, None))
    if found is None:
        return None
    beside = Beside(ours)
    try:
        sent = found.send(cast(Front, beside), HEAD)
    finally:
        found.gone()
    assert sent is None or sent + len(beside.taken) == piece.length
    return None if sent is None else beside.taken


def taken(ours: socket.socket, client: socket.socket) -> bytes:
    """All that the client got."""
    ours.shutdown(socket.SHUT_WR)
    return b"".join(iter(lambda: client.recv(1 << 20), b""))


def test_head_and_file_in_one_go(pair: tuple[socket.socket, socket.socket], piece: FileSlice) -> None:
    ours, client = pair
    assert send_whole(ours, piece) == b""
    assert ours.fileno() >= 0
    assert taken(ours, client) == HEAD + DATA


def test_nothing_where_it_has_no_room(pair: tuple[socket.socket, socket.socket], piece: FileSlice) -> None:
    ours, client = pair
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * 1024)
    assert send_whole(ours, piece) is None
    assert taken(ours, client) == b""


def test_nothing_where_the_client_has_not_taken_what_came_before(
    pair: tuple[socket.socket, socket.socket], piece: FileSlice
) -> None:
    ours, _ = pair
    while ours.send(bytes(1 << 20)) == 1 << 20:
        pass
    assert send_whole(ours, piece) is None


def test_nothing_where_a_disk_must_be_waited_for(
    pair: tuple[socket.socket, socket.socket], piece: FileSlice, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, client = pair
    monkeypatch.setattr(large, "resident", lambda *_: False)
    assert send_whole(ours, piece) is None
    assert taken(ours, client) == b""


@pytest.mark.parametrize("part", [0, 1000])
def test_what_it_did_not_take_is_the_transports(
    pair: tuple[socket.socket, socket.socket], piece: FileSlice, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    send = os.sendfile

    def less(out: int, source: int, offset: int, count: int) -> int:
        if not part:
            raise BlockingIOError(errno.EAGAIN, "full")
        return send(out, source, offset, part)

    ours, client = pair
    monkeypatch.setattr(pages, "sendfile", less)
    rest = send_whole(ours, piece)
    assert rest == DATA[part:]
    assert taken(ours, client) == HEAD + DATA[:part]


def test_a_file_that_became_shorter_is_told(pair: tuple[socket.socket, socket.socket], piece: FileSlice) -> None:
    ours, _ = pair
    longer = FileSlice(piece.descriptor, piece.offset, len(DATA) + 100)
    with pytest.raises(FileChanged):
        send_whole(ours, longer)


def test_a_connection_that_is_gone(pair: tuple[socket.socket, socket.socket], piece: FileSlice) -> None:
    ours, client = pair
    ours.shutdown(socket.SHUT_WR)
    assert send_whole(ours, piece) is None
    assert client.recv(1) == b""
