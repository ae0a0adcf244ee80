"""Which transports have a descriptor that takes the bytes of files as they are."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest

from fileproxy.errors import ClientGone
from fileproxy.model import FileSlice
from fileproxy.server import sendfile
from fileproxy.server.running import Held
from fileproxy.server.sendfile import Outlet
from tests.house import settled
from tests.origin import MIB


def test_not_where_bytes_are_encrypted_or_gone() -> None:
    class Transport:
        def __init__(self, **extra: Any) -> None:
            self._extra = extra

        def is_closing(self) -> bool:
            return "closing" in self._extra

        def get_extra_info(self, name: str) -> Any:
            return self._extra.get(name)

    with socket.socket() as sock:
        found = [
            sendfile.descriptor_of(transport)  # type: ignore[arg-type]
            for transport in (
                Transport(socket=sock), Transport(socket=sock, sslcontext=object()), Transport(), None,
                Transport(socket=sock, closing=True),
            )
        ]  # fmt: skip
        assert found == [sock.fileno(), None, None, None, None]


class Open:
    """A transport that is not closing."""

    def is_closing(self) -> bool:
        return False


class Way:
    """An outlet to a client, and what it told."""

    def __init__(self, readers: ThreadPoolExecutor, ours: socket.socket, client: socket.socket, most: int) -> None:
        self.client = client
        self.told: list[int] = []
        self.turns = 0
        self.outlet = Outlet(
            cast(asyncio.Transport, Open()), ours.fileno(), readers,
            idle_s=10.0, most=lambda: most, went=self.told.append, turn=self._turn, held=Held(),
        )  # fmt: skip

    async def _turn(self) -> None:
        self.turns += 1
        await asyncio.sleep(0)

    async def take(self, size: int) -> bytes:
        """So many bytes, as the client."""
        loop, data = asyncio.get_running_loop(), bytearray()
        while len(data) < size and (more := await loop.sock_recv(self.client, MIB)):
            data += more
        return bytes(data)


@pytest.fixture
async def way() -> AsyncIterator[Way]:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as readers:
        client = socket.create_connection(listener.getsockname(), 10)
        ours, _ = listener.accept()
        ours.setblocking(False)
        client.setblocking(False)
        with client, ours:
            made = Way(readers, ours, client, 4 * MIB)
            yield made
            made.outlet.close()


@pytest.fixture
def piece(tmp_path: Path) -> FileSlice:
    (tmp_path / "file").write_bytes(os.urandom(MIB) * 40)
    return FileSlice(os.open(tmp_path / "file", os.O_RDONLY), 5, 40 * MIB - 5)


async def test_much_is_told_now_and_then_and_all_of_it(way: Way, piece: FileSlice) -> None:
    whole = os.pread(piece.descriptor, piece.length, piece.offset)
    taking = asyncio.ensure_future(way.take(4 + piece.length))
    assert await way.outlet.send(b"head", piece) == (b"", 0)
    assert await taking == b"head" + whole
    assert way.told[0] == 0  # the head
    assert sum(way.told) == piece.length
    assert 0 not in way.told[1:]


async def test_it_is_told_while_the_client_takes_nothing(way: Way, piece: FileSlice) -> None:
    sending = asyncio.ensure_future(way.outlet.send(b"", piece))
    await settled(lambda: not way.told)
    assert not sending.done()
    assert sum(way.told) >= 64 * 1024
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


async def test_what_went_before_the_client_left_is_told(way: Way, piece: FileSlice) -> None:
    sending = asyncio.ensure_future(way.outlet.send(b"", piece))
    got = await way.take(10 * MIB)
    way.client.close()
    with pytest.raises(ClientGone):
        await sending
    assert len(got) <= sum(way.told) < piece.length


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What was looked for in the page cache, and found."""
    seen: list[tuple[int, int]] = []

    def resident(descriptor: int, first: int, end: int) -> bool:
        seen.append((first, end))
        return True

    monkeypatch.setattr(sendfile, "resident", resident)
    return seen


async def test_what_was_found_in_the_page_cache_is_not_looked_for_again_at_once(
    way: Way, piece: FileSlice, looks: list[tuple[int, int]]
) -> None:
    taking = asyncio.ensure_future(way.take(piece.length))
    await way.outlet.send(b"", piece)
    await taking
    assert looks[0] == (5, 5 + 16 * MIB)
    assert looks[-1][1] == 40 * MIB
    assert all(one[0] == before[1] for before, one in pairwise(looks)), "nothing twice"
    assert len(looks) == 3


async def test_what_was_found_long_ago_is_looked_for_again(
    way: Way, piece: FileSlice, looks: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow client's file may leave the page cache under it."""
    monkeypatch.setattr(sendfile, "_FOUND_S", -1.0)
    taking = asyncio.ensure_future(way.take(piece.length))
    await way.outlet.send(b"", piece)
    whole = os.pread(piece.descriptor, piece.length, piece.offset)
    assert await taking == whole
    assert len(looks) > 3


async def test_the_next_bytes_are_enough_to_go_on(way: Way, piece: FileSlice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file that is half in the page cache, that half goes without a thread."""
    warmed: list[int] = []

    def resident(descriptor: int, first: int, end: int) -> bool:
        return end <= 20 * MIB

    read = sendfile._read_and_close

    def reading(descriptor: int, offset: int, upto: int) -> None:
        warmed.append(offset)
        read(descriptor, offset, upto)

    monkeypatch.setattr(sendfile, "resident", resident)
    monkeypatch.setattr(sendfile, "_read_and_close", reading)
    taking = asyncio.ensure_future(way.take(piece.length))
    await way.outlet.send(b"", piece)
    assert await taking == os.pread(piece.descriptor, piece.length, piece.offset)
    assert warmed[0] >= 15 * MIB
