"""Fills whose origin breaks, lies or changes, whose clients leave; restarts and purges meanwhile (laws 1 and 2)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients import Connection
from tests.conftest import OpenHouse
from tests.origin import MIB, Content, Gate, Origin, Reply, fin, reset, stall
from tests.trips.fills import BLOCK, cached, idle, opened, read_exactly, whole

pytestmark = pytest.mark.loops("asyncio", "uvloop")

FILE = Content(3, 3 * MIB + 12_345)


# --- breaks (laws 1 and 2) -------------------------------------------------------------------------------------------

BREAKS: dict[str, Callable[[int], Reply]] = {
    "reset": lambda at: Reply(FILE, breaks=reset(at=at)),
    "fin": lambda at: Reply(FILE, breaks=fin(at=at)),
    "stall": lambda at: Reply(FILE, breaks=stall(at=at)),
    "short": lambda at: Reply(FILE.read(0, at), length=FILE.size, etag=FILE.etag, after="fin"),
}


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("at", [0, 1, BLOCK, MIB + 77, FILE.size - 1])
async def test_a_pinned_file_goes_on_at_the_missing_byte(
    house: OpenHouse, origin: Origin, tmp_path: Path, how: str, at: int
) -> None:
    if at == 0 and how == "stall":
        pytest.skip("nothing has come: that is the upstream's first-byte timeout")
    origin.script("/f", BREAKS[how](at), Reply(FILE))
    upstream = {"timeouts": {"idle": "300ms", "first_byte": "1s"}}
    running = await house(cached(origin, folder=tmp_path / "c", upstream=upstream))
    await whole(running, FILE)
    await idle(running)
    if at:
        assert origin.last.get("range") == f"bytes={at}-{FILE.size - 1}"
        assert origin.last.get("if-range") == FILE.etag
        assert origin.sent["/f"] == FILE.size
        assert running.counts["flight.resumed"] == 1
    assert (await running.fetch("/f", "Cache-Control: only-if-cached")).sha256 == FILE.sha256()


@pytest.mark.parametrize("how", ["reset", "fin", "stall"])
async def test_last_modified_pins_without_etag(house: OpenHouse, origin: Origin, tmp_path: Path, how: Any) -> None:
    broken = {"reset": reset, "fin": fin, "stall": stall}[how](at=MIB)
    origin.script("/f", Reply(FILE, etag=None, breaks=broken), Reply(FILE, etag=None))
    running = await house(cached(origin, folder=tmp_path / "c", upstream={"timeouts": {"idle": "300ms"}}))
    await whole(running, FILE)
    assert origin.last.get("if-range") == "Sun, 01 Nov 2026 12:00:00 GMT"


UNPINNED: dict[str, Reply] = {
    "length, reset": Reply(FILE, etag=None, last_modified=None, breaks=reset(at=MIB)),
    "length, fin": Reply(FILE, etag='W/"weak"', last_modified=None, breaks=fin(at=MIB)),
    "length, stall": Reply(FILE, etag=None, last_modified=None, breaks=stall(at=MIB)),
    "chunked, reset": Reply(FILE, framing="chunked", breaks=reset(at=MIB)),
    "chunked, no end": Reply(FILE, framing="chunked", chunk_fault="truncated"),
    "chunked, bad size": Reply(FILE, framing="chunked", chunk_fault="bad_size"),
    "chunked, fin": Reply(FILE, framing="chunked", breaks=fin(at=MIB)),
}


@pytest.mark.parametrize("name", UNPINNED)
async def test_an_unpinned_file_is_visibly_cut(house: OpenHouse, origin: Origin, tmp_path: Path, name: str) -> None:
    origin.script("/f", UNPINNED[name], Reply(FILE, etag=None, last_modified=None))
    running = await house(cached(origin, folder=tmp_path / "c", upstream={"timeouts": {"idle": "300ms"}}))
    got = await running.fetch("/f")
    if got.status == 200 and got.complete:  # it broke before its first byte: the upstream asked again
        assert (got.body, len(origin.requests)) == (FILE.read(), 2)
    elif got.status == 200:
        assert got.body == FILE.read(0, got.size)
    else:
        assert got.status == 502
    await idle(running)
    await whole(running, FILE)  # what came of the first is not mixed in
    assert len(origin.requests) == 2


async def test_every_reader_of_a_broken_fill_is_told(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    gate = Gate()
    reply = Reply(FILE, etag=None, last_modified=None, before_head=gate, breaks=reset(at=MIB))
    origin.script("/f", reply)
    running = await house(cached(origin, folder=tmp_path / "c"))
    clients = [asyncio.create_task(running.fetch("/f")) for _ in range(4)]
    await running.counts.wait_for(lambda: running.counts["downloads.active"] == 4)
    gate.open()
    for got in await asyncio.gather(*clients):
        assert not got.complete
        assert got.body == FILE.read(0, got.size)
    assert len(origin.requests) == 1


async def test_a_file_that_changes_in_between_is_aborted(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    newer = Content(33, FILE.size)
    origin.script("/f", Reply(FILE, breaks=reset(at=MIB)), Reply(newer))
    running = await house(cached(origin, folder=tmp_path / "c"))
    got = await running.fetch("/f")
    assert not got.complete
    assert got.body == FILE.read(0, got.size)
    await idle(running)
    assert running.counts["cache.condemned"] == 1
    await whole(running, newer)
    await idle(running)
    assert (await running.fetch("/f", "Cache-Control: only-if-cached")).sha256 == newer.sha256()


@pytest.mark.option("upstreams.mirrors_match")
@pytest.mark.parametrize("match", ["etag", "size+mtime"])
async def test_a_mirror_with_an_etag_of_its_own_takes_over_where_size_and_time_are_enough(
    house: OpenHouse, origin: Origin, mirror: Origin, tmp_path: Path, match: str
) -> None:
    origin.script("/f", Reply(FILE, breaks=reset(at=MIB)), Reply(b"", status=404))
    mirror.script("/f", Reply(FILE, etag='"own"'))
    running = await house(cached(origin, mirror, folder=tmp_path / "c", upstream={"mirrors_match": match}))
    got = await running.fetch("/f")
    assert mirror.last.get("range") == f"bytes={MIB}-{FILE.size - 1}"
    assert mirror.last.get("if-range") == (FILE.etag if match == "etag" else "Sun, 01 Nov 2026 12:00:00 GMT")
    assert mirror.last.status == (200 if match == "etag" else 206)
    if match == "etag":
        assert not got.complete
        assert got.body == FILE.read(0, got.size)
        return
    assert (got.complete, got.sha256, got.get("etag")) == (True, FILE.sha256(), FILE.etag)
    await idle(running)
    stored = await running.fetch("/f", "Cache-Control: only-if-cached")
    assert (stored.sha256, stored.get("etag")) == (FILE.sha256(), FILE.etag)


async def test_a_mirror_whose_file_is_of_another_time_does_not_take_over(
    house: OpenHouse, origin: Origin, mirror: Origin, tmp_path: Path
) -> None:
    origin.script("/f", Reply(FILE, breaks=reset(at=MIB)), Reply(b"", status=404))
    mirror.script("/f", Reply(Content(33, FILE.size), last_modified="Sun, 01 Nov 2026 12:00:01 GMT"))
    running = await house(cached(origin, mirror, folder=tmp_path / "c", upstream={"mirrors_match": "size+mtime"}))
    got = await running.fetch("/f")
    assert mirror.last.status == 200
    assert not got.complete
    assert got.body == FILE.read(0, got.size)


@pytest.mark.parametrize("status", [404, 410, 412, 416])
async def test_a_file_that_goes_away_in_between_is_aborted(
    house: OpenHouse, origin: Origin, tmp_path: Path, status: int
) -> None:
    origin.script("/f", Reply(FILE, breaks=reset(at=MIB)), Reply(b"", status=status))
    running = await house(cached(origin, folder=tmp_path / "c"))
    got = await running.fetch("/f")
    assert not got.complete
    assert got.body == FILE.read(0, got.size)


@pytest.mark.parametrize("lie", [{"content_range": "bytes 5-9/10"}, {"content_range": "nonsense"}, {"etag": 'W/"w"'}])
async def test_a_resume_that_cannot_be_joined_is_asked_again(
    house: OpenHouse, origin: Origin, tmp_path: Path, lie: dict[str, Any]
) -> None:
    if "10" in lie.get("content_range", ""):
        lie = {"content_range": f"bytes {MIB + 1}-{FILE.size - 1}/{FILE.size}"}
    if lie.get("etag"):
        lie = {"etag": f"W/{FILE.etag}", "headers": (("X-Weak", "1"),)}
    broken = Reply(FILE, breaks=reset(at=MIB))
    lying = Reply(FILE, **lie)
    if "etag" in lie:  # the honest part of the scripted origin would not answer 206 to a validator it does not know
        head = f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {MIB}-{FILE.size - 1}/{FILE.size}\r\n"
        head += f"Content-Length: {FILE.size - MIB}\r\nETag: W/{FILE.etag}\r\n\r\n"
        lying = Reply(raw=head.encode() + FILE.read(MIB), after="close")
    origin.script("/f", broken, lying, Reply(FILE))
    running = await house(cached(origin, folder=tmp_path / "c"))
    await whole(running, FILE)
    assert len(origin.requests) == 3


async def test_a_chunked_file_is_stored_after_its_framed_end(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    gate = Gate()
    origin.script("/f", Reply(FILE, framing="chunked", breaks=stall(at=2 * MIB, lasts=gate)))
    folder = tmp_path / "c"
    async with opened(cached(origin, folder=folder), tmp_path / "run") as running:
        ask = asyncio.create_task(whole(running, FILE))
        await origin.wait_for(lambda: origin.sent["/f"] == 2 * MIB)
        await running.counts.wait_for(lambda: running.counts["flight.running"] == 1)
        key = _key(running)
        await running.house._caching.store.settle()
        assert await running.house._caching.store.find(key) is None
        gate.open()
        got = await ask
        assert got.get("content-length") is None
        await idle(running)
        assert await running.house._caching.store.find(key) is not None
    async with opened(cached(origin, folder=folder), tmp_path / "run") as running:
        stored = await whole(running, FILE)
    assert (stored.get("x-cache"), stored.get("content-length")) == ("HIT", str(FILE.size))
    assert len(origin.requests) == 1


@pytest.mark.parametrize("size", [0, 100, BLOCK, 2 * BLOCK, 64 * BLOCK, 64 * BLOCK + 1])
async def test_chunked_files_of_every_size_survive_a_restart(
    house: OpenHouse, origin: Origin, tmp_path: Path, size: int
) -> None:
    content, folder = Content(14, size), tmp_path / "c"
    origin.script("/f", Reply(content, framing="chunked"))
    async with opened(cached(origin, folder=folder, memory=0), tmp_path / "run") as running:
        await whole(running, content)
        await idle(running)
    async with opened(cached(origin, folder=folder, memory=0), tmp_path / "run") as running:
        assert (await whole(running, content)).get("x-cache") == "HIT"
    assert len(origin.requests) == 1


async def test_what_only_the_close_ends_is_never_stored(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    origin.script("/f", Reply(FILE, framing="close"))
    running = await house(cached(origin, folder=tmp_path / "c"))
    for _ in range(2):
        got = await running.fetch("/f")
        assert (got.body, got.get("x-cache")) == (FILE.read(), "BYPASS")
    assert len(origin.requests) == 2


# --- leaving ---------------------------------------------------------------------------------------------------------


@pytest.mark.option("cache.fill_after_abort")
@pytest.mark.parametrize("most", [0, 4 * MIB])
async def test_a_fill_nobody_waits_for_ends_or_finishes(
    house: OpenHouse, origin: Origin, tmp_path: Path, most: int
) -> None:
    gate = Gate()
    origin.script("/f", Reply(FILE, breaks=stall(at=MIB, lasts=gate)), Reply(FILE))
    running = await house(cached(origin, folder=tmp_path / "c", fill_after_abort=most))
    async with await Connection.open(running.port) as client:
        await client.request("GET", "/f")
        await client.head()
        await read_exactly(client, MIB)
        client.reset()
    await running.quiet()
    if most:
        gate.open()
    await idle(running)
    assert origin.sent["/f"] == (FILE.size if most else MIB)
    if not most:
        await origin.wait_for(lambda: origin.open == 0)
    await whole(running, FILE)  # what was there was kept
    assert origin.sent["/f"] == FILE.size


async def test_an_origin_that_thinks_is_left_when_nobody_waits(house: OpenHouse, origin: Origin) -> None:
    gate = Gate()
    origin.script("/f", Reply(FILE, before_head=gate), Reply(FILE))
    running = await house(cached(origin, folder=None))
    clients = [await Connection.open(running.port) for _ in range(2)]
    for client in clients:
        await client.request("GET", "/f")
    await running.counts.wait_for(lambda: running.counts["downloads.active"] == 2)
    await origin.wait_for(lambda: len(origin.requests) == 1)
    clients[0].reset()
    await running.counts.wait_for(lambda: running.counts["downloads.active"] == 1)
    assert origin.open == 1  # the other one waits
    clients[1].reset()
    await origin.wait_for(lambda: origin.open == 0)
    await whole(running, FILE)
    for client in clients:
        await client.close()


async def test_a_leader_who_leaves_takes_nothing_from_the_others(house: OpenHouse, origin: Origin) -> None:
    gate = Gate()
    origin.script("/f", Reply(FILE, before_head=gate))
    running = await house(cached(origin, folder=None))
    leader = await Connection.open(running.port)
    await leader.request("GET", "/f")
    await origin.wait_for(lambda: len(origin.requests) == 1)
    others = [asyncio.create_task(whole(running, FILE)) for _ in range(3)]
    await running.counts.wait_for(lambda: running.counts["downloads.active"] == 4)
    leader.reset()
    await running.counts.wait_for(lambda: running.counts["downloads.active"] == 3)
    gate.open()
    await asyncio.gather(*others)
    await leader.close()
    assert len(origin.requests) == 1


@pytest.mark.option("cache.disk.path", "cache.disk")
async def test_a_restart_completes_what_is_there_in_part(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    gate, folder = Gate(), tmp_path / "c"
    origin.script("/f", Reply(FILE, breaks=stall(at=MIB + 5, lasts=gate)), Reply(FILE))
    async with opened(cached(origin, folder=folder, fill_after_abort=0), tmp_path / "run") as running:
        async with await Connection.open(running.port) as client:
            await client.request("GET", "/f")
            await client.head()
            await read_exactly(client, MIB)
            client.reset()
        await idle(running)
    async with opened(cached(origin, folder=folder), tmp_path / "run") as running:
        got = await whole(running, FILE)
        assert got.get("x-cache") == "PARTIAL"
        assert origin.last.get("range") == f"bytes={MIB}-{FILE.size - 1}"
        await idle(running)
    asked = len(origin.requests)
    async with opened(cached(origin, folder=folder), tmp_path / "run") as running:
        assert (await whole(running, FILE)).get("x-cache") == "HIT"
    assert len(origin.requests) == asked
    assert list(folder.iterdir())


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_purge_during_a_fill(house: OpenHouse, origin: Origin, tmp_path: Path, framing: Any) -> None:
    gate, newer = Gate(), Content(44, MIB)
    origin.script("/f", Reply(FILE, framing=framing, breaks=stall(at=MIB, lasts=gate)), Reply(newer))
    running = await house(cached(origin, folder=tmp_path / "c"))
    ask = asyncio.create_task(whole(running, FILE))
    await origin.wait_for(lambda: origin.sent["/f"] == MIB)
    await running.house._caching.bans.announce([("all", "", False)])
    await whole(running, newer)
    gate.open()
    await ask
    await idle(running)
    got = await whole(running, newer)
    assert got.get("x-cache") == "HIT"
    assert len(origin.requests) == 2


def _key(running: Any) -> bytes:
    """The key of the only entry being filled."""
    (entry,) = running.house._caching.filler._entries.values()
    key: bytes = entry.meta.key
    return key
