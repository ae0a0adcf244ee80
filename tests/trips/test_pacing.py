"""How much an upstream is asked for: less while it fails, in turn for all who ask, and not at all what is hopeless."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from fileproxy.cache.freshness import AUTO
from fileproxy.clock import ManualClock
from fileproxy.fill.peer import PeerSource
from fileproxy.fill.values import Need
from fileproxy.fill.wire import PeerAsk
from fileproxy.model import Target, Want
from fileproxy.settings import Settings
from tests.clients import Got
from tests.conftest import OpenHouse
from tests.house import Running, _relaying
from tests.origin import Content, Gate, Origin, Reply
from tests.trips.plays import settings

pytestmark = pytest.mark.loops("asyncio", "uvloop")
OK, BAD = Reply(b"ok"), Reply(b"no", status=503)


async def stats(running: Running) -> dict[str, Any]:
    got: dict[str, Any] = json.loads((await running.fetch("/stats")).body)
    return got


async def rate(running: Running) -> tuple[int | None, int | None]:
    """As /stats says it: of all upstreams, and of the one there is."""
    got = await stats(running)
    return got["performance_optimizer"]["current_rate_limit"], got["upstreams"]["files"]["rate_limit"]


def waiting(running: Running) -> int:
    return running.counts.of("upstream.waiting", "files")


async def test_an_origin_that_fails_is_asked_less_and_more_again_when_it_is_well(
    house: OpenHouse, origin: Origin
) -> None:
    clock = ManualClock()
    origin.serve("/f", b"ok")
    options = {"retry": {"attempts": 1}, "circuit_breaker": "off"}
    running = await house(settings(origin, upstream=options), clock)
    assert await rate(running) == (1000, 1000)
    origin.script("/bad", *[BAD if number % 8 == 0 else OK for number in range(40)])
    for _ in range(40):
        await running.fetch("/bad")
    await clock.advance(10.0)
    assert await rate(running) == (800, 800)
    assert running.counts.of("upstream.rate_lowered", "files") == 1
    await clock.advance(10.0)  # no answers say nothing
    assert await rate(running) == (800, 800)
    for _ in range(20):
        await running.fetch("/f")
    await clock.advance(10.0)
    assert await rate(running) == (960, 960)
    got = await stats(running)
    assert got["upstreams"]["files"]["answers"] == 60
    assert got["upstreams"]["files"]["errors"] == 5
    assert got["upstreams"]["files"]["concurrency_limit"] == 50


@pytest.mark.option("upstreams.rate_limit")
async def test_who_is_closing_does_not_take_the_lead_again(house: OpenHouse, origin: Origin) -> None:
    running = await house(settings(origin), ManualClock())
    pacing = running.house._pacing
    assert pacing._lock is not None
    pacing.close()
    pacing.tell()  # the next look may come while the house still closes
    assert pacing._lock is None


async def test_hopeless_waiting_is_told_with_retry_after(house: OpenHouse, origin: Origin) -> None:
    clock = ManualClock()
    origin.serve("/f", b"ok")
    running = await house(settings(origin, upstream={"rate_limit": 1, "retry": {"within": "5s"}}), clock)
    assert (await running.fetch("/f")).status == 200
    asking = [asyncio.create_task(running.fetch("/f")) for _ in range(5)]
    await running.counts.wait_for(lambda: waiting(running) == 5)
    hopeless = await running.fetch("/f")
    assert (hopeless.status, hopeless.get("retry-after")) == (503, "6")
    assert hopeless.get("content-type") == "application/problem+json"
    assert "fileproxy; error=proxy_internal_response" in (hopeless.get("proxy-status") or "")
    for number in range(1, 6):
        await clock.advance(1.01)
        await running.counts.wait_for(lambda: running.counts.endings.get("completed", 0) == 1 + number)  # noqa: B023
    assert [got.status for got in await asyncio.gather(*asking)] == [200] * 5
    await running.quiet()
    assert running.counts.endings == {"completed": 6, "shed": 1}
    assert (await rate(running))[0] == 1
    row = (await stats(running))["upstreams"]["files"]
    assert (row["waited"], row["shed"], row["waiting"]) == (5, 1, 0)


@pytest.mark.option("upstreams.concurrency")
async def test_one_greedy_client_does_not_starve_another(house: OpenHouse, origin: Origin) -> None:
    held = Gate()
    origin.script("/held", Reply(b"held", before_head=held))
    for number in range(20):
        origin.serve(f"/greedy{number}", b"x")
    origin.serve("/modest", b"x")
    running = await house(settings(origin, upstream={"concurrency": 1}))

    def ask(path: str, client: str) -> asyncio.Task[Got]:
        return asyncio.create_task(running.fetch(path, f"X-Forwarded-For: {client}"))

    asking = [ask("/held", "192.0.2.1")]
    await origin.wait_for(lambda: origin.requests_of("/held") == 1)
    asking += [ask(f"/greedy{number}", "192.0.2.1") for number in range(20)]
    await running.counts.wait_for(lambda: waiting(running) == 20)
    asking.append(ask("/modest", "192.0.2.2"))
    await running.counts.wait_for(lambda: waiting(running) == 21)
    assert len(origin.requests) == 1
    held.open()
    assert {got.status for got in await asyncio.gather(*asking)} == {200}
    paths = [request.target for request in origin.requests]
    assert paths.index("/modest") == 2  # after the one that ran and one of those that waited before


async def test_clients_that_leave_the_line_leave_nothing_behind(house: OpenHouse, origin: Origin) -> None:
    held = Gate()
    origin.script("/held", Reply(b"held", before_head=held))
    origin.serve("/f", b"x")
    running = await house(settings(origin, upstream={"concurrency": 1}))
    first = asyncio.create_task(running.fetch("/held"))
    await origin.wait_for(lambda: origin.requests_of("/held") == 1)
    async with await running.connect() as leaving:
        await leaving.request("GET", "/f")
        await running.counts.wait_for(lambda: waiting(running) == 1)
        leaving.reset()
    await running.counts.wait_for(lambda: waiting(running) == 0)
    held.open()
    assert (await first).status == 200
    assert (await running.fetch("/f")).status == 200
    assert origin.requests_of("/f") == 1


async def test_what_is_stored_is_never_limited(house: OpenHouse, origin: Origin) -> None:
    clock = ManualClock()
    origin.script("/f", Reply(Content(1, 5000), headers=(("Cache-Control", "max-age=999999999"),)))
    options = settings(origin, upstream={"rate_limit": 1, "retry": {"within": 0}}, cache={"memory": "8MiB"})
    running = await house(options, clock)
    for _ in range(20):
        assert (await running.fetch("/f")).status == 200
    assert origin.requests_of("/f") == 1
    assert (await running.fetch("/other")).status == 503


async def test_the_baseline_limits_nothing_on_a_running_service(house: OpenHouse, origin: Origin) -> None:
    clock = ManualClock()
    origin.script("/held", Reply(b"held", before_head=(held := Gate())))
    origin.serve("/f", b"x")
    plain = settings(origin)
    running = await house(plain, clock)
    upstream = running.house._upstreams["files"]
    upstream._gate.apply("auto", 1)  # so that somebody waits
    first = asyncio.create_task(running.fetch("/held"))
    await origin.wait_for(lambda: origin.requests_of("/held") == 1)
    second = asyncio.create_task(running.fetch("/f"))
    await running.counts.wait_for(lambda: waiting(running) == 1)

    await running.house.apply(Settings.model_validate(_relaying({**plain, "profile": "baseline"})), 1)
    assert (await second).status == 200  # who waited is free
    assert await rate(running) == (None, None)
    assert (await stats(running))["upstreams"]["files"]["concurrency_limit"] is None
    fixed = settings(origin, upstream={"rate_limit": 77}, profile="baseline")
    await running.house.apply(Settings.model_validate(_relaying(fixed)), 2)
    assert await rate(running) == (77, 77)  # what is configured does not adapt
    await running.house.apply(Settings.model_validate(_relaying(plain)), 3)
    assert await rate(running) == (1000, 1000)
    held.open()
    assert (await first).status == 200


@pytest.mark.option("upstreams.rate_limit", "upstreams.concurrency")
async def test_limits_change_live_without_losing_a_connection(house: OpenHouse, origin: Origin) -> None:
    clock = ManualClock()
    origin.serve("/f", b"x")
    running = await house(settings(origin), clock)
    upstream = running.house._upstreams["files"]
    for number, (limit, shown) in enumerate([(5, 5), ("off", None), ("auto", 1000)]):
        options = settings(origin, upstream={"rate_limit": limit, "concurrency": limit})
        await running.house.apply(Settings.model_validate(_relaying(options)), number)
        assert (await running.fetch("/f")).status == 200
        assert (await rate(running))[0] == shown
        assert running.house._upstreams["files"] is upstream
    assert running.counts["upstream.connections"] == 1


async def test_a_crowd_of_requests_at_a_healthy_origin_waits_for_nothing(house: OpenHouse, origin: Origin) -> None:
    """As many as one parallel download starts with, at a pool that has room for them."""
    held = Gate()
    clock = ManualClock()
    paths = [f"/part{number}" for number in range(64)]
    for path in paths:
        origin.script(path, Reply(b"x", before_head=held))
    running = await house(settings(origin, upstream={"pool": {"per_host": 64}}), clock)
    asking = [asyncio.create_task(running.fetch(path)) for path in paths]
    await origin.wait_for(lambda: len(origin.requests) == 64)
    assert running.counts.of("upstream.waited", "files") == 0
    held.open()
    assert {got.status for got in await asyncio.gather(*asking)} == {200}


async def test_a_fill_is_its_askers_in_the_worker_that_owns_the_file_too(house: OpenHouse, origin: Origin) -> None:
    running = await house(settings(origin, cache={"memory": "8MiB"}))
    peer: Any = PeerSource(None, "files", ("/", ()), None, running.counts)  # type: ignore[arg-type]
    wanted = Want("GET", Target("/f"), (), id="1", client="192.0.2.7")
    need = Need(b"k" * 16, b"k" * 16, "files//f", (), wanted, AUTO, peer)
    travelled = msgspec.msgpack.decode(msgspec.msgpack.encode(peer._ask(need)), type=PeerAsk)
    there = running.house._caching._need_of(travelled)
    assert there is not None
    assert there.want.client == "192.0.2.7"
