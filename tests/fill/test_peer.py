"""Two workers, one fetch: what one asks of the other, over their real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fileproxy import errors
from fileproxy.cache.key import primary_key
from fileproxy.caching import urls_of
from fileproxy.errors import FileProxyError
from fileproxy.fill import peer, wire
from fileproxy.fill.serving import widen
from tests.house import Running
from tests.origin import MIB, Content, Gate, Origin, Reply, fin, reset, stall
from tests.trips.fills import BLOCK, cached, idle, part, whole

pytestmark = pytest.mark.loops("asyncio", "uvloop")

FILE = Content(3, 3 * MIB + 12_345)


class Workers:
    """Houses that share run and cache folder, as the workers of one service do."""

    def __init__(self, origin: Origin, folder: Path, **cache: Any) -> None:
        self.origin = origin
        self.folder = folder
        self.settings = cached(origin, folder=folder / "c", **cache)
        self.houses: list[Running] = []

    async def open(self) -> Running:
        running = Running(self.settings, self.folder / "run")
        await running.open()
        self.houses.append(running)
        self.look()
        return running

    async def close(self, running: Running) -> None:
        self.houses.remove(running)
        await running.close()
        self.look()

    def look(self) -> None:
        """Who there is, is seen at once."""
        for running in self.houses:
            running.house._caching.owners._looked_at = float("-inf")

    def path(self, owner: Running) -> str:
        """A path whose key this worker owns."""
        for number in range(1000):
            if self._owns(owner, f"/f{number}"):
                return f"/f{number}"
        raise AssertionError("it owns nothing")

    def _owns(self, running: Running, path: str) -> bool:
        caching = running.house._caching
        generation = running.house._service.current
        (url,) = urls_of(f"http://files.test{path}", generation)
        key = primary_key(url, "http", (), generation.policies["/", ()], caching.secret)
        return caching.owners.owner(key) is None


@pytest.fixture
async def workers(origin: Origin, tmp_path: Path, tidy: None) -> AsyncIterator[Callable[..., Any]]:
    made: list[Workers] = []

    async def open_two(**cache: Any) -> tuple[Workers, Running, Running]:
        both = Workers(origin, tmp_path, **cache)
        made.append(both)
        return both, await both.open(), await both.open()

    yield open_two
    for one in made:
        for running in one.houses:
            for event in running.lines.events:
                print(event)
        for running in list(one.houses):
            async with asyncio.timeout(10):
                await one.close(running)


async def test_all_workers_share_one_fetch(workers: Any, origin: Origin) -> None:
    both, one, two = await workers()
    for path in (both.path(one), both.path(two)):
        gate = Gate()
        origin.script(path, Reply(FILE, before_head=gate))
        clients = [asyncio.create_task(whole(running, FILE, path)) for running in (one, two) for _ in range(4)]
        await one.counts.wait_for(lambda: one.counts["downloads.active"] == 4)
        await two.counts.wait_for(lambda: two.counts["downloads.active"] == 4)
        gate.open()
        await asyncio.gather(*clients)
        assert origin.sent[path] == FILE.size
        assert origin.requests_of(path) == 1
    assert one.counts["peer.alone"] == two.counts["peer.alone"] == 0


@pytest.mark.parametrize("size", [0, 1, BLOCK, BLOCK + 1, 5 * BLOCK])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_files_of_every_size_and_framing(workers: Any, origin: Origin, size: int, framing: Any) -> None:
    both, one, two = await workers()
    content, path = Content(5, size), both.path(one)
    origin.script(path, Reply(content, framing=framing, etag='W/"w"', last_modified=None))
    for running in (two, one, two):
        await whole(running, content, path)
    assert origin.requests_of(path) == 1


async def test_ranges_through_the_owner(workers: Any, origin: Origin) -> None:
    both, one, two = await workers()
    path = both.path(one)
    origin.serve(path, FILE)
    await part(two, FILE, 5 * BLOCK + 1, 7 * BLOCK, path)
    await part(one, FILE, 6 * BLOCK, 8 * BLOCK - 1, path)
    await part(two, FILE, 100, 200, path)
    await idle(one)
    assert origin.sent[path] == 4 * BLOCK
    suffix = await two.fetch(path, "Range: bytes=-1000")
    assert suffix.body == FILE.read(FILE.size - 1000)
    beyond = await two.fetch(path, f"Range: bytes={FILE.size}-")
    assert (beyond.status, beyond.get("content-range")) == (416, f"bytes */{FILE.size}")
    await whole(two, FILE, path)
    await whole(one, FILE, path)


async def test_parts_are_asked_for_beside_the_first_contact(workers: Any, origin: Origin) -> None:
    """Over both workers: while the origin thinks, everybody's part is on its way, and nothing is asked for twice."""
    both, one, two = await workers()
    for path in (both.path(one), both.path(two)):
        gate = Gate()
        origin.script(path, Reply(FILE, before_head=gate))
        spans = [(0, 10), (2 * BLOCK, 3 * BLOCK + 1), (6 * BLOCK + 9, 6 * BLOCK + 10)]
        clients = [asyncio.create_task(part(running, FILE, *span, path)) for span in spans for running in (one, two)]
        await origin.wait_for(partial(_has, origin, path, 3))
        await one.counts.wait_for(lambda: one.counts["downloads.active"] == 3)
        await two.counts.wait_for(lambda: two.counts["downloads.active"] == 3)
        gate.open()
        await asyncio.gather(*clients)
        await idle(one)
        await idle(two)
        assert origin.sent[path] == 4 * BLOCK
        assert origin.requests_of(path) == 3
    assert one.counts["flight.early"] + two.counts["flight.early"] >= 4
    assert one.counts["peer.alone"] == two.counts["peer.alone"] == 0


@pytest.mark.parametrize("most", [256 * 1024, 1024 * 1024])
async def test_big_pieces_are_on_their_way_to_another_worker(most: int) -> None:
    here, there = socket.socketpair()
    with here:
        _, writer = await asyncio.open_unix_connection(sock=there)
        widen(writer, most)
        allowed = int(Path("/proc/sys/net/core/wmem_max").read_text())
        assert there.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * min(most, allowed)  # socket(7): doubled
        assert writer.transport.get_write_buffer_limits()[1] == most // 2
        writer.transport.abort()


def _has(origin: Origin, path: str, requests: int) -> bool:
    return origin.requests_of(path) == requests


async def test_only_the_owner_writes_and_everybody_reads(workers: Any, origin: Origin) -> None:
    both, one, two = await workers(memory=0)
    path = both.path(one)
    origin.serve(path, FILE)
    await whole(two, FILE, path)
    await idle(one)
    await idle(two)
    assert one.counts["cache.disk_writes"] > 0
    assert two.counts["cache.disk_writes"] == 0
    before = one.counts["flight.started"]
    got = await whole(two, FILE, path)
    assert got.get("x-cache") == "HIT"
    assert two.counts["cache.disk_reads"] > 0
    assert one.counts["flight.started"] == before


async def test_what_may_not_be_shared_reaches_its_client(workers: Any, origin: Origin) -> None:
    both, one, two = await workers()
    path = both.path(one)
    origin.script(path, Reply(FILE, headers=(("Set-Cookie", "a=b"), ("Cache-Control", "private"))))
    for _ in range(2):
        got = await whole(two, FILE, path)
        assert (got.get("x-cache"), got.get("set-cookie")) == ("BYPASS", "a=b")
    assert origin.requests_of(path) == 2


async def test_variants_through_the_owner(workers: Any, origin: Origin) -> None:
    both, one, two = await workers()
    path, other = both.path(one), Content(12, MIB)
    vary = (("Vary", "Accept-Language"),)
    origin.script(path, Reply(FILE, headers=vary), Reply(other, headers=vary))
    for running in (two, one, two):
        assert (await running.fetch(path, "Accept-Language: en")).sha256 == FILE.sha256()
        assert (await running.fetch(path, "Accept-Language: de")).sha256 == other.sha256()
    assert origin.requests_of(path) == 2


@pytest.mark.parametrize("how", ["reset", "fin"])
async def test_the_owner_resumes_for_all(workers: Any, origin: Origin, how: str) -> None:
    both, one, two = await workers()
    path = both.path(one)
    origin.script(path, Reply(FILE, breaks={"reset": reset, "fin": fin}[how](at=MIB)), Reply(FILE))
    await whole(two, FILE, path)
    assert origin.sent[path] == FILE.size
    assert (one.counts["flight.resumed"], two.counts["flight.resumed"]) == (1, 0)


async def test_a_cut_at_the_owner_is_a_cut_everywhere(workers: Any, origin: Origin) -> None:
    both, one, two = await workers()
    path = both.path(one)
    origin.script(path, Reply(FILE, etag=None, last_modified=None, breaks=reset(at=MIB)))
    got = await two.fetch(path)
    assert not got.complete
    assert got.body == FILE.read(0, got.size)
    origin.script(path, Reply(FILE, framing="chunked", breaks=fin(at=MIB)))
    got = await two.fetch(path)
    assert not got.complete


async def test_the_next_owner_goes_on_when_one_dies(workers: Any, origin: Origin) -> None:
    both, one, two = await workers()
    path = both.path(one)
    origin.script(path, Reply(FILE, breaks=stall(at=MIB)), Reply(FILE))
    ask = asyncio.create_task(whole(two, FILE, path))
    await two.counts.wait_for(lambda: two.counts["cache.memory_admitted"] > MIB // BLOCK)
    await both.close(one)
    got = await ask
    assert got.sha256 == FILE.sha256()
    assert origin.last.get("range") == f"bytes={MIB}-{FILE.size - 1}"
    assert origin.sent[path] == FILE.size
    await idle(two)
    assert (await whole(two, FILE, path)).get("x-cache") in ("HIT", "PARTIAL")


async def test_a_draining_owner_still_answers_who_asked(workers: Any, origin: Origin) -> None:
    both, one, two = await workers()
    path, gate = both.path(one), Gate()
    origin.script(path, Reply(FILE, breaks=stall(at=MIB, lasts=gate)))
    ask = asyncio.create_task(whole(two, FILE, path))
    await two.counts.wait_for(lambda: two.counts["cache.memory_admitted"] > MIB // BLOCK)
    one.house._caching.drain()
    both.look()
    gate.open()
    await ask
    assert origin.requests_of(path) == 1
    fresh = next(f"/n{number}" for number in range(100))
    origin.serve(fresh, FILE)
    await whole(two, FILE, fresh)
    assert two.counts["cache.disk_writes"] > 0  # it owns all keys now


@pytest.fixture
async def hung(workers: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two workers of which the first holds its slot and takes connections, but says nothing."""
    monkeypatch.setattr(wire, "DEAD_AFTER_S", 0.2)
    both, one, two = await workers()
    silent: list[asyncio.StreamWriter] = []

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        silent.append(writer)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    owners = one.house._caching.owners
    path = both.path(one)
    owners._server.close()
    os.unlink(owners._folder / f"{owners._slot.number}.sock") if os.path.exists(
        owners._folder / f"{owners._slot.number}.sock"
    ) else None
    owners._server = await asyncio.start_unix_server(say_nothing, owners._path(f"{owners._slot.number}.sock"))
    return both, two, path, silent


async def test_an_owner_that_hangs_is_done_without(hung: Any, origin: Origin) -> None:
    _, two, path, silent = hung
    origin.serve(path, FILE)
    await whole(two, FILE, path)
    assert two.counts["peer.alone"] == 1
    assert two.counts["cache.disk_writes"] == 0  # fetched alone: nothing is stored below memory
    assert len(silent) == 1
    origin.serve("/other", FILE)
    await whole(two, FILE, "/other")  # it owns everything for a while
    assert len(silent) == 1


async def test_an_owner_that_falls_silent_in_the_middle(
    workers: Any, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "DEAD_AFTER_S", 0.3)
    monkeypatch.setattr(wire, "ALIVE_EVERY_S", 60.0)  # no signs of life
    both, one, two = await workers()
    path = both.path(one)
    origin.script(path, Reply(FILE, breaks=stall(at=MIB)), Reply(FILE))
    await whole(two, FILE, path)
    assert origin.requests_of(path) == 2
    assert two.counts["flight.resumed"] == 1


async def test_signs_of_life_while_the_origin_thinks(
    workers: Any, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "DEAD_AFTER_S", 0.3)
    monkeypatch.setattr(wire, "ALIVE_EVERY_S", 0.05)
    both, one, two = await workers()
    path = both.path(one)
    origin.script(path, Reply(FILE, before_head=1.2, breaks=stall(at=MIB, lasts=0.5)))
    await whole(two, FILE, path)
    assert origin.requests_of(path) == 1
    assert two.counts["peer.alone"] == two.counts["flight.resumed"] == 0


async def test_who_leaves_is_left_by_the_owner(workers: Any, origin: Origin) -> None:
    both, one, two = await workers()
    path = both.path(one)
    origin.script(path, Reply(FILE, before_head=Gate()))
    async with await two.connect() as client:
        await client.request("GET", path)
        await origin.wait_for(lambda: origin.requests_of(path) == 1)
        client.reset()
    await origin.wait_for(lambda: origin.open == 0)
    await two.quiet()


async def test_an_ask_of_other_settings_is_not_answered(workers: Any, origin: Origin) -> None:
    """Then the asking worker helps itself."""
    both, one, two = await workers()
    path = both.path(one)
    origin.serve(path, FILE)
    one.house._service.current.policies.clear()
    await whole(two, FILE, path)
    assert two.counts["peer.alone"] == 1


# --- errors keep their names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "status", "ending"),
    [
        (Reply(breaks=fin()), 502, "upstream_reset"),
        (Reply(raw=b"nonsense\r\n\r\n", after="close"), 502, "upstream_bad_answer"),
        (Reply(breaks=stall()), 504, "upstream_first_byte_timeout"),
    ],
)
async def test_errors_of_the_owner_s_upstream(
    workers: Any, origin: Origin, reply: Reply, status: int, ending: str
) -> None:
    both, one, two = await workers(
        upstream={"retry": {"attempts": 1}, "timeouts": {"first_byte": "300ms", "idle": "300ms"}}
    )
    path = both.path(one)
    origin.script(path, reply)
    assert (await two.fetch(path)).status == status
    await two.quiet()
    assert two.counts.endings == {ending: 1}


def kinds(kind: type[FileProxyError]) -> list[type[FileProxyError]]:
    return [kind, *(one for below in kind.__subclasses__() for one in kinds(below))]


@pytest.mark.parametrize("kind", [one for one in kinds(errors.UpstreamError) if one.__module__ == "fileproxy.errors"])
@pytest.mark.parametrize("retryable", [True, False])
def test_every_error_survives_the_socket(kind: type[FileProxyError], retryable: bool) -> None:
    error = kind("why", retryable=retryable, retry_after_s=7.0)
    said = wire.PeerError(error.ending, error.detail, error.retry_after_s, error.retryable)
    raised = peer._raised(wire.decode(wire.message(wire.ERROR, said)[5:], wire.PeerError))
    assert (raised.ending, raised.status, raised.detail) == (kind.ending, kind.status, "why")
    assert (raised.retryable, raised.retry_after_s) == (retryable, 7.0)
    assert isinstance(raised, errors.UpstreamError)


def test_shedding_survives_the_socket() -> None:
    raised = peer._raised(wire.PeerError("shed", "full", 3.0))
    assert isinstance(raised, errors.Shed)
    assert (raised.retry_after_s, raised.status) == (3.0, 503)
