"""Downloads over several connections where one is too slow: right to the byte, within bounds, over when they are."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from fileproxy.control.growth import Growth
from fileproxy.control.segments import overdue
from fileproxy.fill import stream
from fileproxy.fill.alone import Alone
from fileproxy.tcpinfo import NetPath
from tests.conftest import OpenHouse
from tests.origin import KIB, MIB, Content, Origin, Reply, fin, reset, stall
from tests.trips.fills import cached, idle, part, read_exactly, whole

pytestmark = pytest.mark.loops("asyncio", "uvloop")

FILE = Content(31, 3 * MIB + 4_321)
OTHER = Content(32, FILE.size)
SLOW = 512.0 * KIB  # bytes a second of one connection: the rest would take six seconds
SOON = 60.0


def house_of(*origins: Origin, folder: Path, parallel: Any = "auto", **cache: Any) -> dict[str, Any]:
    upstream = {"segments": {"parallel": parallel}, "timeouts": {"idle": "20s", "stall": "500ms"}}
    return cached(*origins, folder=folder, upstream=upstream, **cache)


async def test_a_slow_connection_gets_help(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    origin.script("/f", Reply(FILE, rate=SLOW))
    running = await house(house_of(origin, folder=tmp_path))
    await whole(running, FILE)
    await idle(running)
    assert running.counts["stream.shared_out"] == 1
    assert origin.accepted > 2
    assert all(one.get("if-range") == FILE.etag for one in origin.requests[1:])
    assert origin.sent["/f"] < 1.6 * FILE.size  # what lies in the buffers of a connection that ends early is lost
    assert (await running.fetch("/f", "Cache-Control: only-if-cached")).sha256 == FILE.sha256()


@pytest.mark.option("upstreams.segments.parallel")
@pytest.mark.parametrize("parallel", ["off", 1, 3])
async def test_no_more_than_said(house: OpenHouse, origin: Origin, tmp_path: Path, parallel: Any) -> None:
    origin.script("/f", Reply(FILE, rate=2 * SLOW))
    running = await house(house_of(origin, folder=tmp_path, parallel=parallel))
    await whole(running, FILE)
    assert origin.requests_of("/f") == 1 if parallel in ("off", 1) else origin.requests_of("/f") > 3


async def test_the_baseline_has_one(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    origin.script("/f", Reply(FILE, rate=2 * SLOW))
    running = await house({**house_of(origin, folder=tmp_path), "profile": "baseline"})
    await whole(running, FILE)
    assert origin.requests_of("/f") == 1


async def test_half_of_the_pool_is_left_to_others(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    origin.script("/f", Reply(FILE, rate=SLOW))
    settings = house_of(origin, folder=tmp_path, parallel=16)
    settings["upstreams"]["files"]["pool"] = {"per_host": 6}
    running = await house(settings)
    most = 0

    async def watch() -> None:  # ours, not the origin's: it may see the end of one after the beginning of the next
        nonlocal most
        (upstream,) = running.house._upstreams.values()
        while True:
            most = max(most, upstream.describe()["mirrors"][0]["in_flight"])
            await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch())
    await whole(running, FILE)
    watching.cancel()
    assert 1 < most <= 3


async def test_what_a_starved_connection_would_hold_up_is_given_to_others(
    house: OpenHouse, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def spy(*args: Any) -> Any:
        found.append(overdue(*args))
        return found[-1]

    monkeypatch.setattr(stream, "overdue", spy)
    content = Content(33, 12 * MIB)
    good, starved = Reply(content, rate=SLOW), Reply(content, rate=24.0 * KIB)
    origin.script("/f", good, starved, good)
    running = await house(house_of(origin, folder=tmp_path, window="8MiB"))
    await whole(running, content)
    assert any(one is not None for one in found)


async def test_a_fast_connection_is_left_alone(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    origin.serve("/f", FILE)
    running = await house(house_of(origin, folder=tmp_path))
    await whole(running, FILE)
    assert origin.requests_of("/f") == 1
    assert running.counts["stream.shared_out"] == 0


@pytest.mark.parametrize("breaks", [reset, fin])
async def test_connections_that_break_are_replaced(
    house: OpenHouse, origin: Origin, tmp_path: Path, breaks: Any
) -> None:
    good = Reply(FILE, rate=SLOW)
    broken = [Reply(FILE, rate=SLOW, breaks=breaks(at=at)) for at in (1, 20_000, 65_535, 100_000)]
    origin.script("/f", good, *(one for each in broken for one in (each, good)))
    running = await house(house_of(origin, folder=tmp_path))
    await whole(running, FILE)
    assert running.counts["stream.shared_out"] == 1


async def test_one_that_stalls_is_replaced(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    origin.script("/f", Reply(FILE, breaks=stall(at=MIB)), Reply(FILE))
    running = await house(house_of(origin, folder=tmp_path))
    async with asyncio.timeout(15):  # far under the 20 s in which it would be given up
        await whole(running, FILE)
    assert running.counts["flight.resumed"] == 0


async def test_a_mirror_that_goes_silent_is_replaced(
    house: OpenHouse, origin: Origin, mirror: Origin, tmp_path: Path
) -> None:
    for one, other in ((origin, mirror), (mirror, origin)):
        path = f"/{'a' if one is origin else 'b'}"
        one.script(path, Reply(FILE, breaks=stall(at=MIB)), Reply(FILE, breaks=stall(at=0)))
        other.serve(path, FILE)
    running = await house(house_of(origin, mirror, folder=tmp_path))
    for path in ("/a", "/b"):
        async with asyncio.timeout(15):
            await whole(running, FILE, path)


async def test_a_mirror_far_slower_than_another_is_helped_by_it(
    house: OpenHouse, origin: Origin, mirror: Origin, tmp_path: Path
) -> None:
    origin.script("/f", Reply(FILE, rate=20.0 * KIB))
    mirror.script("/f", Reply(FILE, rate=4.0 * MIB))
    settings = house_of(origin, mirror, folder=tmp_path)
    settings["upstreams"]["files"]["balance"] = "round_robin"
    running = await house(settings)
    async with asyncio.timeout(SOON):  # alone it would take two and a half minutes
        await whole(running, FILE)
    assert mirror.sent["/f"] > FILE.size / 2


async def test_an_origin_without_parts_goes_on_alone(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    origin.script("/f", Reply(FILE, rate=SLOW, ranges="ignore"))
    running = await house(house_of(origin, folder=tmp_path, window="256KiB"))
    await whole(running, FILE)
    assert running.counts["flight.resumed"] == 0


async def test_one_that_sends_no_parts_after_all_breaks_and_goes_on(
    house: OpenHouse, origin: Origin, tmp_path: Path
) -> None:
    ignoring = Reply(FILE, rate=SLOW, ranges="ignore")
    origin.script("/f", Reply(FILE, rate=SLOW, ranges="ignore", breaks=reset(at=MIB)), ignoring)
    running = await house(house_of(origin, folder=tmp_path))
    await whole(running, FILE)


async def test_a_file_that_changes_is_never_mixed(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    origin.script("/f", Reply(FILE, rate=SLOW), Reply(OTHER, etag='"other"', rate=SLOW))
    running = await house(house_of(origin, folder=tmp_path))
    got = await running.fetch("/f")
    assert not got.complete
    assert got.body == FILE.read(0, got.size)
    got = await running.fetch("/f")
    assert got.sha256 == OTHER.sha256()


LIES = {
    "another place": Reply(FILE, rate=SLOW, content_range=f"bytes 0-65535/{FILE.size}"),
    "another size": Reply(FILE, rate=SLOW, content_range=f"bytes 65536-131071/{FILE.size + 1}"),
    "an error": Reply(b"no", status=500),
    "pushes back": Reply(b"no", status=503, headers=(("Retry-After", "1"),)),
}


@pytest.mark.parametrize("lie", LIES)
async def test_parts_that_lie_are_not_joined(house: OpenHouse, origin: Origin, tmp_path: Path, lie: str) -> None:
    good = Reply(FILE, rate=SLOW)
    origin.script("/f", good, LIES[lie], good, LIES[lie], good)
    running = await house(house_of(origin, folder=tmp_path))
    await whole(running, FILE)


async def test_no_more_is_held_than_the_windows(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    file = Content(33, 64 * MIB)
    origin.script("/f", Reply(file, rate=SLOW))
    running = await house(house_of(origin, folder=tmp_path, window="512KiB", disk="off", memory="1MiB"))
    async with await running.connect() as client:
        await client.send(b"GET /f HTTP/1.1\r\nHost: x\r\n\r\n")
        got = await read_exactly(client, 3 * MIB)
        await running.counts.wait_for(lambda: running.counts["stream.shared_out"] > 0)
        before = -1
        while before != (before := origin.sent["/f"]):
            await asyncio.sleep(0.3)  # as long as more comes
        assert got.endswith(file.read(3 * MIB - 1000, 1000)) or file.read(0, 1000) in got
        # What the sockets of client, proxy and origins hold is beyond our bounds: some 16 MiB.
        assert origin.sent["/f"] < 32 * MIB


async def test_who_leaves_leaves_nothing_behind(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    origin.script("/f", Reply(FILE, rate=SLOW / 4))
    running = await house(house_of(origin, folder=tmp_path))
    async with await running.connect() as client:
        await client.send(b"GET /f HTTP/1.1\r\nHost: x\r\n\r\n")
        await running.counts.wait_for(lambda: running.counts["stream.shared_out"] > 0)
        await read_exactly(client, 64 * KIB)
    await idle(running)
    assert running.counts["flight.running"] == 0


async def test_parts_beside_a_slow_fill_are_right(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    origin.script("/f", Reply(FILE, rate=SLOW))
    running = await house(house_of(origin, folder=tmp_path))
    asks = [part(running, FILE, at, at + 99_999) for at in (0, 700_000, 2_000_000, FILE.size - 100_000)]
    await asyncio.gather(whole(running, FILE), *asks, whole(running, FILE))


async def test_what_was_learnt_is_used_at_once(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    for path in ("/f", "/g"):
        origin.script(path, Reply(FILE, rate=SLOW))
    running = await house(house_of(origin, folder=tmp_path))
    await whole(running, FILE)
    before = origin.requests_of("/g")
    await whole(running, FILE, "/g")
    assert (before, running.counts["stream.shared_out"]) == (0, 2)


class Unmoved(Alone):
    """A connection that was found to be left alone best."""

    is_best = True
    next_look_s = 0.05

    def look(self, now: float, stall_s: float) -> bool:
        return True


async def test_one_that_minds_no_loss_is_left_alone_and_remembered(
    house: OpenHouse, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    were_known: list[bool] = []

    def alone(path: NetPath | None, now: float, *, known: bool) -> Unmoved:
        were_known.append(known)
        return Unmoved(path, now, known=known)

    monkeypatch.setattr(stream, "Alone", alone)
    origin.script("/f", Reply(FILE, rate=2 * SLOW))
    origin.script("/g", Reply(FILE))
    running = await house(house_of(origin, folder=tmp_path))
    await whole(running, FILE)
    assert origin.requests_of("/f") == 1
    await idle(running)
    await whole(running, FILE, "/g")
    assert were_known == [False, True]


class Refuted(Alone):
    """One that is no longer best left alone."""

    def look(self, now: float, stall_s: float) -> bool:
        self.refuted = True
        return False


async def test_what_was_remembered_and_is_refuted_is_tried_with_two(
    house: OpenHouse, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "Alone", Unmoved)
    origin.script("/f", Reply(FILE, rate=2 * SLOW))
    origin.script("/g", Reply(FILE, rate=SLOW))
    running = await house(house_of(origin, folder=tmp_path))
    await whole(running, FILE)
    await idle(running)
    begun: list[int] = []

    def growth(start: int, *args: Any, **said: Any) -> Growth:
        begun.append(start)
        return Growth(start, *args, **said)

    monkeypatch.setattr(stream, "Growth", growth)
    monkeypatch.setattr(stream, "Alone", Refuted)
    await whole(running, FILE, "/g")
    assert begun == [1, 2]  # one is what each download has before it is shared out


async def test_stats_say_what_is_in_parallel(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    origin.script("/f", Reply(FILE, rate=SLOW))
    running = await house(house_of(origin, folder=tmp_path))
    await whole(running, FILE)
    await idle(running)
    said = json.loads((await running.fetch("/-/stats")).body)["upstreams"]["files"]["parallel"]
    assert (said["parallel"], said["most"], said["downloads"], said["connections"]) == ("auto", 16, 0, 0)
    assert said["remembered"] > 1
    assert list(said["rates"]) == [f"files/127.0.0.1:{origin.port}"]
