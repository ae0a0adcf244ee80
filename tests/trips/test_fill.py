"""Whole downloads through fills: each byte is fetched once, and right whatever the origin does (laws 1, 2, 4, 5, 6)."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fileproxy.server.deliver import FIRST, Course
from fileproxy.server.turnstile import CROWD
from tests.clients import Connection
from tests.conftest import OpenHouse
from tests.house import Running
from tests.origin import KIB, MIB, Content, Gate, Origin, Reply, stall
from tests.trips.fills import BLOCK, cached, idle, part, spans, whole

pytestmark = pytest.mark.loops("asyncio", "uvloop")

FILE = Content(3, 3 * MIB + 12_345)


# --- one fetch (law 4) -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", ["disk", "memory", "nothing"])
async def test_many_clients_share_one_fetch(house: OpenHouse, origin: Origin, tmp_path: Path, keep: str) -> None:
    gate = Gate()
    origin.script("/f", Reply(FILE, before_head=gate, rate=20 * MIB))
    folder = tmp_path / "c" if keep == "disk" else None
    running = await house(cached(origin, folder=folder, memory="64MiB" if keep == "memory" else 0, window="8MiB"))
    clients = [asyncio.create_task(whole(running, FILE)) for _ in range(12)]
    await running.counts.wait_for(lambda: running.counts["downloads.active"] == 12)
    gate.open()
    await asyncio.gather(*clients)
    assert origin.sent["/f"] == FILE.size


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK, 5 * BLOCK + 7])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_small_files_reach_all_who_waited_though_nothing_is_stored(
    house: OpenHouse, origin: Origin, size: int, framing: Any
) -> None:
    """The flight may have ended before those who waited for its head come to read."""
    content, gate = Content(4, size), Gate()
    origin.script("/f", Reply(content, before_head=gate, framing=framing, etag=None, last_modified=None))
    running = await house(cached(origin, folder=None, memory=0))
    clients = [asyncio.create_task(whole(running, content)) for _ in range(5)]
    await running.counts.wait_for(lambda: running.counts["downloads.active"] == 5)
    gate.open()
    await asyncio.gather(*clients)
    assert len(origin.requests) == 1


def _active(running: Running, number: int) -> bool:
    return running.counts["downloads.active"] == number


async def test_who_comes_into_a_crowd_gets_a_little_soon_and_more_in_turn(
    house: OpenHouse, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = Course._write, list[tuple[Course, int]]()

    async def spy(course: Course, data: bytes | memoryview) -> None:
        written.append((course, len(data)))
        await write(course, data)

    monkeypatch.setattr(Course, "_write", spy)
    content = Content(4, 12 * MIB)
    origin.serve("/f", content)
    running = await house(cached(origin, folder=None, memory="64MiB", block="1MiB"))
    await whole(running, content)
    written.clear()
    async with contextlib.AsyncExitStack() as stack:
        for number in range(1, CROWD + 3):  # of clients that take nothing
            client = await stack.enter_async_context(await Connection.open(running.port, receive_buffer=4096))
            await client.request("GET", "/f")
            await running.counts.wait_for(partial(_active, running, number))
        await running.counts.wait_for(lambda: len({course for course, _ in written}) == CROWD + 2)
        assert (await whole(running, content)).get("x-cache") == "HIT"
    courses = list(dict.fromkeys(course for course, _ in written))
    firsts = [next(length for course, length in written if course is one) for one in courses]
    assert firsts[:CROWD] == [MIB] * CROWD
    assert firsts[CROWD + 1 :] == [FIRST, FIRST]
    await idle(running)


async def test_who_comes_while_it_streams_reads_along(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    gate = Gate()
    origin.script("/f", Reply(FILE, breaks=stall(at=MIB, lasts=gate)))
    running = await house(cached(origin, folder=tmp_path / "c"))
    first = asyncio.create_task(whole(running, FILE))
    await origin.wait_for(lambda: origin.sent["/f"] == MIB)
    later = [asyncio.create_task(whole(running, FILE)) for _ in range(3)]
    ranged = asyncio.create_task(part(running, FILE, 100, MIB + 99))
    await running.counts.wait_for(lambda: running.counts["cache.partial"] == 4)
    gate.open()
    await asyncio.gather(first, ranged, *later)
    assert origin.sent["/f"] == FILE.size


async def test_who_comes_while_a_chunked_body_streams_reads_along(house: OpenHouse, origin: Origin) -> None:
    gate = Gate()
    origin.script("/f", Reply(FILE, framing="chunked", breaks=stall(at=MIB // 2, lasts=gate)))
    running = await house(cached(origin, folder=None, memory="64MiB"))
    first = asyncio.create_task(whole(running, FILE))
    await origin.wait_for(lambda: origin.sent["/f"] == MIB // 2)
    later = [asyncio.create_task(whole(running, FILE)) for _ in range(3)]
    await running.counts.wait_for(lambda: running.counts["cache.partial"] == 3)
    gate.open()
    await asyncio.gather(first, *later)
    assert len(origin.requests) == 1


async def test_random_ranges_fetch_each_block_once(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    origin.serve("/f", FILE)
    running = await house(cached(origin, folder=tmp_path / "c"))
    asks = spans(FILE, 60)
    for batch in range(0, 60, 6):
        await asyncio.gather(*(part(running, FILE, *span) for span in asks[batch : batch + 6]))
        await idle(running)
    await whole(running, FILE)
    touched = {index for first, last in asks for index in range(first // BLOCK, last // BLOCK + 1)}
    assert len(touched) > 30
    # At first contact of one key several may ask at once; from then on nothing is fetched twice.
    assert FILE.size <= origin.sent["/f"] <= FILE.size + 6 * 2 * BLOCK


async def test_a_range_over_a_partly_cached_file_fetches_only_what_is_missing(
    house: OpenHouse, origin: Origin, tmp_path: Path
) -> None:
    origin.serve("/f", FILE)
    running = await house(cached(origin, folder=tmp_path / "c"))
    await part(running, FILE, 0, 4 * BLOCK - 1)
    await part(running, FILE, 10 * BLOCK, 12 * BLOCK - 1)
    await idle(running)
    before = origin.sent["/f"]
    assert before == 6 * BLOCK
    await part(running, FILE, BLOCK, 11 * BLOCK)
    await idle(running)
    assert origin.sent["/f"] - before == 6 * BLOCK
    assert origin.last.get("range") == f"bytes={4 * BLOCK}-{10 * BLOCK - 1}"
    assert origin.last.get("if-range") == FILE.etag


@pytest.mark.option("cache.block")
async def test_a_small_range_of_a_huge_file_stays_small(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    huge = Content(9, 10 * 1024 * MIB)
    origin.serve("/f", huge)
    running = await house(cached(origin, folder=tmp_path / "c", block="128KiB"))
    at = 7 * 1024 * MIB + 128 * KIB - 500
    await part(running, huge, at, at + KIB - 1)
    await idle(running)
    assert origin.sent["/f"] == 2 * 128 * KIB
    suffix = await running.fetch("/f", "Range: bytes=-1000")
    assert suffix.body == huge.read(huge.size - 1000)
    await idle(running)
    assert origin.sent["/f"] <= 3 * 128 * KIB


async def test_a_suffix_is_asked_as_it_is(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    origin.serve("/f", FILE)
    running = await house(cached(origin, folder=tmp_path / "c"))
    got = await running.fetch("/f", "Range: bytes=-70000")
    assert got.body == FILE.read(FILE.size - 70_000)
    assert origin.last.get("range") == "bytes=-70000"
    await whole(running, FILE)
    assert origin.sent["/f"] <= FILE.size + BLOCK


async def test_a_seek_in_a_half_cached_file_starts_at_once(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    gate, content = Gate(), Content(5, 24 * MIB)
    origin.script("/f", Reply(content, breaks=stall(at=12 * MIB, lasts=gate)), Reply(content))
    running = await house(cached(origin, folder=tmp_path / "c", window="32MiB"))
    first = asyncio.create_task(whole(running, content))
    await origin.wait_for(lambda: origin.sent["/f"] >= 12 * MIB)
    await part(running, content, 5 * MIB + 3, 6 * MIB)  # stored
    await part(running, content, 22 * MIB + 3, 23 * MIB)  # far ahead: a request of its own
    assert not first.done()
    gate.open()
    await first
    await idle(running)
    assert origin.sent["/f"] <= content.size + MIB  # what was on its way when two flights met


async def test_several_ranges_at_once(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    origin.serve("/f", FILE)
    running = await house(cached(origin, folder=tmp_path / "c"))
    got = await running.fetch("/f", "Range: bytes=10-19,2000000-2000009")
    assert got.status == 206
    assert FILE.read(10, 10) in got.body
    assert FILE.read(2_000_000, 10) in got.body


async def test_an_if_range_that_does_not_hold_gets_the_whole_file(
    house: OpenHouse, origin: Origin, tmp_path: Path
) -> None:
    """Regression: the body had been told to expect other bytes than it was read from."""
    gate = Gate()
    origin.script("/f", Reply(FILE, breaks=stall(at=MIB, lasts=gate)))
    running = await house(cached(origin, folder=tmp_path / "c"))
    first = asyncio.create_task(whole(running, FILE))
    await origin.wait_for(lambda: origin.sent["/f"] == MIB)
    ask = asyncio.create_task(running.fetch("/f", "Range: bytes=900000-1900000", 'If-Range: "old"'))
    await running.counts.wait_for(lambda: running.counts["cache.partial"] == 1)
    gate.open()
    got = await ask
    assert (got.status, got.complete, got.sha256) == (200, True, FILE.sha256())
    await first


async def test_an_if_range_that_does_not_hold_on_a_miss(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    origin.serve("/f", FILE)
    running = await house(cached(origin, folder=tmp_path / "c"))
    got = await running.fetch("/f", "Range: bytes=900000-1900000", 'If-Range: "old"')
    assert (got.status, got.complete, got.sha256) == (200, True, FILE.sha256())


@pytest.mark.parametrize("first", [10, 2 * MIB])
async def test_an_origin_without_ranges(house: OpenHouse, origin: Origin, tmp_path: Path, first: int) -> None:
    origin.script("/f", Reply(FILE, ranges="ignore"))
    running = await house(cached(origin, folder=tmp_path / "c"))
    await part(running, FILE, first, first + 99_999)
    await whole(running, FILE)


async def test_head_and_conditions_on_a_miss_start_no_fill(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    origin.serve("/f", FILE)
    running = await house(cached(origin, folder=tmp_path / "c"))
    head = await running.fetch("/f", method="HEAD")
    assert (head.status, head.get("content-length")) == (200, str(FILE.size))
    assert (await running.fetch("/f", f"If-None-Match: {FILE.etag}")).status == 304
    await running.quiet()
    assert origin.sent["/f"] == 0
    assert running.counts["flight.started"] == 0
    assert [request.method for request in origin.requests] == ["HEAD", "GET"]


async def test_only_if_cached_on_a_miss(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    origin.serve("/f", FILE)
    running = await house(cached(origin, folder=tmp_path / "c"))
    assert (await running.fetch("/f", "Cache-Control: only-if-cached")).status == 504
    assert not origin.requests
    await whole(running, FILE)
    await idle(running)
    assert (await running.fetch("/f", "Cache-Control: only-if-cached")).sha256 == FILE.sha256()


async def test_variants_are_filled_apart(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    gate, english, german = Gate(), Content(11, MIB), Content(12, MIB + 5)
    vary = (("Vary", "Accept-Language"),)
    origin.script("/f", Reply(english, headers=vary, before_head=gate), Reply(german, headers=vary))
    running = await house(cached(origin, folder=tmp_path / "c"))
    one = asyncio.create_task(running.fetch("/f", "Accept-Language: en"))
    await origin.wait_for(lambda: len(origin.requests) == 1)
    same = asyncio.create_task(running.fetch("/f", "Accept-Language: en"))
    other = asyncio.create_task(running.fetch("/f", "Accept-Language: de"))
    await running.counts.wait_for(lambda: running.counts["downloads.active"] == 3)
    gate.open()
    assert (await one).sha256 == (await same).sha256 == english.sha256()
    assert (await other).sha256 == german.sha256()
    assert len(origin.requests) == 2


# --- pace and memory (law 5) -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("etag", ["auto", None])
async def test_a_slow_client_does_not_hold_back_a_fast_one(
    house: OpenHouse, origin: Origin, tmp_path: Path, etag: str | None
) -> None:
    content = Content(6, 24 * MIB)
    origin.script("/f", Reply(content, etag=etag, last_modified=None))
    running = await house(cached(origin, folder=tmp_path / "c"))
    async with await Connection.open(running.port, receive_buffer=16 * KIB) as slow:
        await slow.request("GET", "/f")
        head = await slow.head()
        got = await whole(running, content)
        assert got.size == content.size
        await slow.body(head)
        assert (head.complete, head.sha256) == (True, content.sha256())
    assert origin.sent["/f"] == content.size


@pytest.mark.option("cache.window")
@pytest.mark.parametrize("window", [512 * KIB, 2 * MIB])
async def test_a_fill_runs_no_further_than_its_window(
    house: OpenHouse, origin: Origin, tmp_path: Path, window: int
) -> None:
    content = Content(6, 64 * MIB)
    origin.serve("/f", content)
    running = await house(cached(origin, folder=tmp_path / "c", window=window))
    async with await Connection.open(running.port, receive_buffer=16 * KIB) as slow:
        await slow.request("GET", "/f")
        await slow.head()
        filler = running.house._caching.filler
        await running.counts.wait_for(lambda: running.counts["flight.running"] == 1)
        flight = next(flight for entry in filler._entries.values() for flight in entry.flights)
        async with asyncio.timeout(10):
            while flight.state.name != "PAUSED":
                await asyncio.sleep(0)
        assert window <= flight.position - max(one.position for one in flight.readers) < window + 512 * KIB
        assert flight.held < window + 512 * KIB
        slow.reset()


async def test_many_fills_share_what_all_windows_may_hold(house: OpenHouse, origin: Origin) -> None:
    content = Content(6, 8 * MIB)
    origin.otherwise(Reply(content))
    running = await house(cached(origin, folder=None, memory=0, window="1MiB"))
    windows = running.house._caching.windows
    windows.total = 4 * MIB
    slow = [await Connection.open(running.port, receive_buffer=16 * KIB) for _ in range(12)]
    for number, one in enumerate(slow):
        await one.request("GET", f"/{number}")
    for one in slow:
        await one.head()
    entries = list(running.house._caching.filler._entries.values())
    flights = [flight for entry in entries for flight in entry.flights]
    assert len(flights) == 12
    async with asyncio.timeout(10):
        while any(flight.state.name != "PAUSED" for flight in flights):
            await asyncio.sleep(0)
    assert windows.size == 4 * MIB // 12
    # Those that began while few ran may hold more until their reader moves.
    assert sum(flight.held for flight in flights[4:]) < 8 * (windows.size + 512 * KIB)
    for one in slow:
        one.reset()
        await one.close()
