"""Files that go to their client from the page cache: everything a download promises holds for them, too."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fileproxy.clock import SystemClock
from fileproxy.errors import FileChanged
from fileproxy.model import Meta
from fileproxy.server import sendfile
from fileproxy.server.front import Asker
from fileproxy.server.large import open_stored
from fileproxy.server.pace import ClientPace
from fileproxy.server.pages import Pages
from fileproxy.server.proof import Disk
from tests.clients import Connection
from tests.conftest import Authority, OpenHouse
from tests.house import Running
from tests.origin import KIB, MIB, Content, Origin
from tests.trips.fills import cached, part, spans, whole
from tests.trips.plays import settings

pytestmark = pytest.mark.loops("asyncio", "uvloop")
FILE = Content(41, 6 * MIB + 77)
BIG = Content(42, 40 * MIB + 5)


@pytest.fixture
def stored(house: OpenHouse, origin: Origin, tmp_path: Path) -> Any:
    """``await stored(content, …)``: a house that has ``/f`` on disk and not in memory."""

    async def start(content: Content = FILE, block: str = "1MiB", cache_memory: str = "0", **options: Any) -> Running:
        origin.serve("/f", content)
        values = cached(origin, folder=tmp_path / "cache", memory=cache_memory, block=block)
        running = await house({**values, **options})
        await whole(running, content)
        await running.house._caching.store.settle()
        if cache_memory == "0":
            running.house._caching.store.memory.resize(0)
        return running

    return start


async def test_a_stored_file_goes_past_us(stored: Any) -> None:
    """Twice on one connection, HEAD between: what is counted is what went."""
    running = await stored()
    before = running.counts["traffic"]
    async with await running.connect() as client:
        for _ in range(2):
            got = await client.ask("GET", "/f")
            assert (got.complete, got.sha256, got.get("x-cache")) == (True, FILE.sha256(), "HIT")
            head = await client.ask("HEAD", "/f")
            assert head.get("content-length") == str(FILE.size)
    await running.quiet()
    assert running.counts["bytes.sendfile"] == 2 * FILE.size == running.counts["traffic"] - before
    assert running.counts.endings == {"completed": 5}


async def test_a_file_of_one_block(stored: Any) -> None:
    content = Content(43, 700 * KIB)
    running = await stored(content)
    for _ in range(3):
        await whole(running, content)
    assert running.counts["bytes.sendfile"] == 3 * content.size


async def test_ranges(stored: Any) -> None:
    running = await stored(block="64KiB")
    asked = spans(FILE, 12)
    for first, last in asked:
        await part(running, FILE, first, last)
    assert running.counts["bytes.sendfile"] == sum(last - first + 1 for first, last in asked)


async def test_several_ranges_in_one_answer(stored: Any) -> None:
    """Part heads go through the transport, the parts past it, in turns."""
    running = await stored(block="64KiB")
    got = await running.fetch("/f", f"Range: bytes=5-{2 * MIB}, {3 * MIB}-{3 * MIB + 9}, -{MIB}")
    assert (got.status, got.complete) == (206, True)
    for first, length in ((5, 2 * MIB - 4), (3 * MIB, 10), (FILE.size - MIB, MIB)):
        assert FILE.read(first, length) in got.body
    assert running.counts["bytes.sendfile"] == 2 * MIB - 4 + 10 + MIB


async def test_a_slow_client_is_waited_for(stored: Any) -> None:
    running = await stored(BIG)
    async with await running.connect(receive_buffer=16 * KIB) as client:
        await client.request("GET", "/f")
        got = await client.head()
        await running.counts.wait_for(lambda: held(running))
        other = await running.fetch("/f", "Range: bytes=0-99")
        assert other.body == BIG.read(0, 100)
        assert running.counts["traffic"] < 2 * BIG.size  # it did not run ahead of its client
        await client.body(got)
        assert (got.complete, got.sha256) == (True, BIG.sha256())
        again = await client.ask("GET", "/f", "Range: bytes=7-9")
        assert again.body == BIG.read(7, 3)
    await running.quiet()
    assert set(running.counts.endings) == {"completed"}


def held(running: Running) -> bool:
    """Whether a download waits for its client."""
    return any(trip.held.by_client for trip in running.house._service.downloads._trips)


async def test_a_client_that_takes_nothing_is_given_up(stored: Any) -> None:
    running = await stored(BIG, limits={"client_idle": "200ms"})
    async with await running.connect(receive_buffer=16 * KIB) as client:
        await client.request("GET", "/f")
        got = await client.head()
        await running.counts.wait_for(lambda: running.counts["ending.client_stalled"] == 1)
        await client.body(got)
        assert not got.complete
    assert running.counts["downloads.cut"] == 1


async def test_a_client_that_takes_little_is_not(stored: Any) -> None:
    """Over many idle windows the socket never turns writable, but the client does take bytes."""
    running = await stored(BIG, limits={"client_idle": "300ms"})
    clock = SystemClock()
    async with await running.connect(receive_buffer=16 * KIB) as client:
        await client.request("GET", "/f")
        await client.head()
        until, taken = clock.now() + 1.5, bytearray()
        while clock.now() < until:
            taken += await client.reader.read(64 * KIB)
            await asyncio.sleep(0.02)  # a client's own pace
        before = running.counts["traffic"]
        assert running.counts["ending.client_stalled"] == 0
        assert before - BIG.size >= len(taken)
        while len(taken) < BIG.size:
            piece = await client.reader.read(256 * KIB)
            assert piece
            taken += piece
        assert bytes(taken) == BIG.read()


@pytest.mark.parametrize("leave", [Connection.reset, Connection.half_close])
async def test_a_client_that_leaves(stored: Any, leave: Callable[[Connection], None]) -> None:
    running = await stored(BIG, server={"half_close_grace": "100ms"})
    client = await running.connect(receive_buffer=16 * KIB)
    await client.request("GET", "/f")
    await client.head()
    await running.counts.wait_for(lambda: held(running))
    leave(client)
    if leave is Connection.half_close:
        await client.close()
    await running.counts.wait_for(lambda: running.counts["ending.client_gone"] == 1)
    await running.quiet()
    assert running.counts["downloads.cut"] == 0  # it was the client that left
    await whole(running, BIG)


async def test_cancelled_midway_it_is_visibly_cut(stored: Any) -> None:
    """The duplicate of the socket is closed with it: no descriptor, no watch is left, and the client sees the cut."""
    running = await stored(BIG)
    async with await running.connect(receive_buffer=16 * KIB) as client:
        await client.request("GET", "/f")
        got = await client.head()
        await running.counts.wait_for(lambda: held(running))
        for connection in list(running.house._connections._open):
            connection.abort("drained_out")
        await client.body(got)
        assert not got.complete
    await running.quiet()


@pytest.mark.parametrize("block", ["64KiB", "1MiB"])
async def test_a_damaged_block_is_not_sent(stored: Any, tmp_path: Path, block: str) -> None:
    """It is found before its first use in this worker, and fetched anew."""
    content = Content(44, 300 * KIB)
    running = await stored(content, block=block)
    for file in (tmp_path / "cache").rglob("*"):
        if file.is_file() and file.stat().st_size > 200 * KIB:
            with file.open("r+b") as raw:
                raw.seek(200 * KIB)
                raw.write(b"damage")
    await whole(running, content)
    assert running.counts["cache.damaged"] >= 1


async def test_a_file_that_shrinks_is_cut(stored: Any, tmp_path: Path) -> None:
    running = await stored(BIG)
    async with await running.connect(receive_buffer=16 * KIB) as client:
        await client.request("GET", "/f")
        got = await client.head()
        await running.counts.wait_for(lambda: held(running))
        for file in (tmp_path / "cache").rglob("*.0"):
            os.truncate(file, 5 * MIB)
        await client.body(got)
        assert not got.complete
        assert got.size < BIG.size
    await running.counts.wait_for(lambda: running.counts["ending.upstream_changed"] == 1)


async def test_what_may_change_in_place_is_copied_at_its_end(house: OpenHouse, tmp_path: Path) -> None:
    """So that the last look at the file comes when all pages handed over have arrived."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "big").write_bytes(BIG.read())
    running = await house(settings(f"file://{folder}"))
    assert (await running.fetch("/big")).sha256 == BIG.sha256()
    direct = running.counts["bytes.sendfile"]
    assert 0 < direct <= BIG.size - 16 * MIB
    async with await running.connect(receive_buffer=16 * KIB) as client:
        await client.request("GET", "/big")
        got = await client.head()
        await running.counts.wait_for(lambda: held(running))
        with (folder / "big").open("r+b") as file:
            file.seek(BIG.size - 3)
            file.write(b"new")
        await client.body(got)
        assert not got.complete
    await running.counts.wait_for(lambda: running.counts["ending.upstream_changed"] == 1)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS])
async def test_where_it_cannot_be_it_is_copied(stored: Any, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    running = await stored()
    monkeypatch.setattr(os, "sendfile", refuse)
    async with await running.connect() as client:
        for _ in range(2):
            got = await client.ask("GET", "/f")
            assert (got.complete, got.sha256) == (True, FILE.sha256())
    assert running.counts["bytes.sendfile"] == 0


async def test_what_is_not_in_the_page_cache_is_read_by_a_thread(stored: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    running = await stored()
    warmed: list[tuple[int, int]] = []
    read = sendfile._read_and_close

    def note(descriptor: int, offset: int, upto: int) -> None:
        warmed.append((offset, upto))
        read(descriptor, offset, upto)

    monkeypatch.setattr(sendfile, "_read_and_close", note)
    monkeypatch.setattr(sendfile, "resident", lambda *_: False)
    await whole(running, FILE)
    assert sum(upto - offset for offset, upto in warmed) >= FILE.size
    assert running.counts["bytes.sendfile"] == FILE.size


async def test_it_keeps_its_turn_and_its_clients_write_size(stored: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    send = os.sendfile

    def note(out: int, source: int, offset: int, count: int) -> int:
        counts.append(count)
        return send(out, source, offset, count)

    running = await stored(BIG)
    monkeypatch.setattr(os, "sendfile", note)
    await whole(running, BIG)
    assert max(counts) == 4 * MIB
    async with await running.connect() as client:
        await client.ask("HEAD", "/f")
        (connection,) = running.house._connections._open
        pace = connection._handler.pace
        assert pace is not None
        monkeypatch.setattr(ClientPace, "look", lambda *_: None)
        pace.write = 16 * KIB
        counts.clear()
        got = await client.ask("GET", "/f", f"Range: bytes=0-{MIB}")
        assert got.body == BIG.read(0, MIB + 1)
        assert max(counts) == 16 * KIB


async def test_over_tls_it_is_copied(stored: Any, authority: Authority) -> None:
    running = await stored()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(running.house.protocol, "127.0.0.1", 0, ssl=authority.context("localhost"))
    trusting = ssl.create_default_context(cafile=str(authority.pem))
    reader, writer = await asyncio.open_connection(
        *server.sockets[0].getsockname(), ssl=trusting, server_hostname="localhost"
    )
    client = Connection(reader, writer)
    for _ in range(2):
        got = await client.ask("GET", "/f")
        assert (got.complete, got.sha256) == (True, FILE.sha256())
    await client.close()
    server.close()
    assert running.counts["bytes.sendfile"] == 0


async def test_the_fast_front_sends_a_stored_file_of_one_block(stored: Any, origin: Origin) -> None:
    """With the counts and log lines of the long way, and byte for byte; a purged one is not sent."""
    content = Content(45, 700 * KIB)
    running = await stored(content, cache_memory="64MiB")
    fast = running.house._service.fast
    async with await running.connect() as client:
        for _ in range(8):
            got = await client.ask("GET", "/f")
            assert (got.complete, got.sha256, got.get("x-cache")) == (True, content.sha256(), "HIT")
        assert fast.statistics()["hits"] >= 4
        assert running.counts["bytes.sendfile"] == 8 * content.size
        assert running.counts["cache.hit"] == 8
        assert len(running.lines.access_lines) == 9
        origin.serve("/f", FILE)
        await running.house._caching.bans.announce([("all", "", False)])
        got = await client.ask("GET", "/f")
        assert (got.sha256, got.get("x-cache")) == (FILE.sha256(), "MISS")


async def test_a_stored_file_that_many_ask_for_stays_open_for_a_moment(
    stored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first hits on; and when that time is over it is opened again."""
    content, opened = Content(47, 700 * KIB), list[Pages]()

    def noted(disk: Disk, record: Meta) -> Pages | None:
        if (found := open_stored(disk, record)) is not None:
            opened.append(found)
        return found

    monkeypatch.setattr("fileproxy.server.fast.open_stored", noted)
    running = await stored(content, cache_memory="64MiB")
    fast = running.house._service.fast
    async with await running.connect() as client:

        async def ask() -> None:
            assert (await client.ask("GET", "/f")).sha256 == content.sha256()

        async def lent() -> Pages:
            for _ in range(40):
                await ask()
                fast.statistics()  # which counts the hits
                if opened and opened[-1].descriptor >= 0:
                    return opened[-1]
            raise AssertionError("it was opened for each of 40 hits")

        first, before = await lent(), len(opened)
        assert before >= 8
        await ask()
        assert len(opened) == before
        first.gone()  # its time is over
        assert await lent() is not first


async def test_the_fast_front_leaves_what_has_no_room_to_the_long_way(
    stored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = Content(46, 700 * KIB)
    running = await stored(content, cache_memory="64MiB")
    fast = running.house._service.fast
    async with await running.connect() as client:
        for _ in range(4):
            await client.ask("GET", "/f")
        hits = fast.statistics()["hits"]
        monkeypatch.setattr(Pages, "send", lambda *_: None)
        for _ in range(3):
            assert (await client.ask("GET", "/f")).sha256 == content.sha256()
        assert fast.statistics()["hits"] == hits
        monkeypatch.setattr(Pages, "send", _short)
        assert not (await client.ask("GET", "/f")).complete
    assert not (await running.fetch("/f")).complete  # and on a connection that is but a descriptor
    assert running.counts["ending.upstream_changed"] == 2


def _short(_: Pages, asker: Asker, head: bytes) -> int | None:
    asker.write(head)
    raise FileChanged("The file became shorter while it was being sent.")
