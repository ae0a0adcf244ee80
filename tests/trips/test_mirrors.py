"""Mirrors that die, fail and come back: the client sees none of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from fileproxy.clock import ManualClock
from fileproxy.settings import Settings
from tests.conftest import OpenHouse
from tests.house import Running, _relaying
from tests.origin import KIB, Content, Gate, Origin, Reply
from tests.trips.plays import settings

pytestmark = pytest.mark.loops("asyncio", "uvloop")
FILE = Content(3, 64 * KIB)
FAILING = Reply(b"no", status=503)


async def fetched(running: Running, times: int) -> None:
    """So many downloads, each complete and exact."""
    for _ in range(times):
        got = await running.fetch("/f")
        assert (got.status, got.sha256) == (200, FILE.sha256())


async def upstream_of(running: Running) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((await running.fetch("/health")).body)
    said: dict[str, Any] = {**report["parts"]["upstreams"]["upstreams"]["files"], "health": report["status"]}
    return said


def states(said: dict[str, Any]) -> list[str]:
    return [one["state"] for one in said["mirrors"]]


def play(*servers: Origin, **upstream: Any) -> dict[str, Any]:
    return settings(*servers, upstream={"slow_start": 0, **upstream})


@pytest.mark.option("upstreams.circuit_breaker.failure_threshold")
async def test_a_mirror_that_fails_is_soon_asked_nothing(house: OpenHouse, origin: Origin, mirror: Origin) -> None:
    origin.script("/f", FAILING)
    mirror.serve("/f", FILE)
    running = await house(play(origin, mirror), ManualClock())
    await fetched(running, 20)
    assert origin.requests_of("/f") == 5
    said = await upstream_of(running)
    assert (said["status"], said["health"], states(said)) == ("degraded", "degraded", ["open", "closed"])
    assert origin.authority in said["detail"]
    stats = json.loads((await running.fetch("/stats")).body)
    assert stats["mirrors"][f"files/{origin.authority}"]["shut_off"] == 1
    assert stats["mirrors"][f"files/{mirror.authority}"].get("shut_off", 0) == 0


@pytest.mark.option("upstreams.circuit_breaker")
async def test_without_a_breaker_it_is_asked_for_ever(house: OpenHouse, origin: Origin, mirror: Origin) -> None:
    origin.script("/f", FAILING)
    mirror.serve("/f", FILE)
    for options in (play(origin, mirror, circuit_breaker="off"), {**play(origin, mirror), "profile": "baseline"}):
        origin.requests.clear()
        running = await house(options)
        await fetched(running, 20)
        assert origin.requests_of("/f") == 10
        assert states(await upstream_of(running)) == ["closed", "closed"]


@pytest.mark.option("upstreams.circuit_breaker.timeout", "upstreams.circuit_breaker.half_open_max_calls")
async def test_a_dead_mirror_that_comes_back_gets_its_share_again(
    house: OpenHouse, origin: Origin, mirror: Origin
) -> None:
    for one in (origin, mirror):
        one.serve("/f", FILE)
    await origin.refuse()
    clock = ManualClock()
    breaker = {"timeout": "20s", "half_open_max_calls": 2, "failure_threshold": 3}
    running = await house(play(origin, mirror, circuit_breaker=breaker), clock)
    await fetched(running, 10)
    assert states(await upstream_of(running)) == ["open", "closed"]
    await origin.listen()
    await fetched(running, 10)
    assert origin.requests_of("/f") == 0  # nobody has looked
    clock.tick(20.0)
    await fetched(running, 2)
    assert states(await upstream_of(running)) == ["half_open", "closed"]
    await fetched(running, 2)
    said = await upstream_of(running)
    assert (states(said), said["status"]) == (["closed", "closed"], "ok")
    origin.requests.clear()
    await fetched(running, 10)
    assert origin.requests_of("/f") == 5


@pytest.mark.option("upstreams.servers.priority")
@pytest.mark.parametrize("balance", ["round_robin", "fastest_response"])
async def test_a_backup_serves_while_the_others_cannot(
    house: OpenHouse, origin: Origin, mirror: Origin, balance: str
) -> None:
    servers = [{"url": mirror.url, "priority": 1}, {"url": origin.url, "priority": 0}]
    values = play(origin, balance=balance, servers=servers)
    for one in (origin, mirror):
        one.serve("/f", FILE)
    running = await house(values)
    await fetched(running, 10)
    assert (origin.requests_of("/f"), mirror.requests_of("/f")) == (10, 0)
    await origin.refuse()
    origin.reset_all()
    await fetched(running, 10)
    assert mirror.requests_of("/f") == 10
    await origin.listen()
    label = f"files/{origin.authority}"
    await running.counts.wait_for(lambda: running.counts.of("mirror.shut_off", label) == 0, within=20.0)
    await fetched(running, 10)
    assert mirror.requests_of("/f") == 10
    values["upstreams"]["files"]["servers"] = [{"url": mirror.url}, {"url": origin.url, "priority": 1}]
    await running.house.apply(Settings.model_validate(values), 1)  # live: no connection is lost
    connections = running.counts["upstream.connections"]
    await fetched(running, 10)
    assert (mirror.requests_of("/f"), running.counts["upstream.connections"]) == (20, connections)


async def test_the_only_one_is_never_shut_off(house: OpenHouse, origin: Origin) -> None:
    """It fails for long enough to be shut off; whoever asks still reaches it, and the first success is seen."""
    origin.script("/f", *[FAILING] * 10, Reply(FILE))
    running = await house(play(origin, retry={"attempts": 1}), ManualClock())
    for _ in range(10):
        assert (await running.fetch("/f")).status == 503
    said = await upstream_of(running)
    assert (said["status"], said["health"], states(said)) == ("failing", "failing", ["open"])
    await fetched(running, 3)
    assert states(await upstream_of(running)) == ["closed"]


@pytest.mark.option("upstreams.circuit_breaker.half_open_max_calls")
async def test_a_crowd_does_not_fall_upon_it(house: OpenHouse, origin: Origin) -> None:
    """A few at a time try a failing origin, the others wait; once it is well everybody is served."""
    gate = Gate()
    origin.script("/f", *[FAILING] * 5, Reply(FILE, before_head=gate))
    running = await house(play(origin, retry={"attempts": 1}), ManualClock())
    for _ in range(5):
        assert (await running.fetch("/f")).status == 503
    crowd = [asyncio.create_task(running.fetch("/f")) for _ in range(20)]
    await origin.wait_for(lambda: origin.requests_of("/f") == 5 + 3)
    await running.counts.wait_for(lambda: running.counts.of("upstream.queued", "files") == 17)
    assert origin.requests_of("/f") == 5 + 3
    gate.open()
    assert [(await one).sha256 for one in crowd] == [FILE.sha256()] * 20


async def test_who_waits_too_long_for_a_failing_origin_is_told(house: OpenHouse, origin: Origin) -> None:
    gate = Gate()
    origin.script("/f", FAILING, Reply(FILE, before_head=gate))
    breaker = {"failure_threshold": 1, "half_open_max_calls": 1}
    running = await house(play(origin, circuit_breaker=breaker, retry={"attempts": 1, "within": "10ms"}))
    assert (await running.fetch("/f")).status == 503
    first = asyncio.create_task(running.fetch("/f"))
    await origin.wait_for(lambda: origin.requests_of("/f") == 2)
    late = await running.fetch("/f")
    assert (late.status, late.get("proxy-status") is not None) == (503, True)
    gate.open()
    assert (await first).sha256 == FILE.sha256()
    await running.quiet()
    assert running.counts.endings["upstream_shut_off"] == 1
    assert origin.requests_of("/f") == 2


@pytest.mark.option("upstreams.slow_start")
async def test_a_mirror_that_was_taken_back_starts_slowly(house: OpenHouse, origin: Origin, mirror: Origin) -> None:
    origin.script("/f", FAILING, Reply(FILE))
    mirror.serve("/f", FILE)
    clock = ManualClock()
    breaker = {"failure_threshold": 1, "half_open_max_calls": 1}
    running = await house(play(origin, mirror, circuit_breaker=breaker, slow_start="10s"), clock)
    await fetched(running, 2)
    clock.tick(60.0)
    await fetched(running, 2)
    assert states(await upstream_of(running)) == ["closed", "closed"]
    shares = []
    for _ in range(2):
        origin.requests.clear()
        await fetched(running, 22)
        shares.append(origin.requests_of("/f"))
        clock.tick(10.0)
    assert shares[0] <= 3
    assert shares[1] == 11


async def test_a_gradual_rollout_by_weights_keeps_every_connection(
    house: OpenHouse, origin: Origin, mirror: Origin
) -> None:
    """10, 50, 100 % and back at once; a download that runs meanwhile sees nothing of it."""
    gate = Gate()
    for one in (origin, mirror):
        one.serve("/f", FILE)
    mirror.script("/slow", Reply(FILE, before_body=gate))
    origin.script("/slow", Reply(FILE, before_body=gate))

    def weighted(old: int, new: int) -> dict[str, Any]:
        servers = [{"url": origin.url, "weight": old}, {"url": mirror.url, "weight": new}]
        play = settings(origin, mirror, upstream={"balance": "weighted_round_robin"})
        play["upstreams"]["files"]["servers"] = servers
        return play

    running = await house(weighted(9, 1))
    slow = asyncio.create_task(running.fetch("/slow"))
    await origin.wait_for(lambda: origin.requests_of("/slow") == 1)
    await fetched(running, 20)
    opened = running.counts["upstream.connections"]
    for number, (old, new) in enumerate([(1, 1), (1, 999), (999, 1)], 1):
        for one in (origin, mirror):
            one.requests.clear()
        await running.house.apply(Settings.model_validate(_relaying(weighted(old, new))), number)
        await fetched(running, 20)
        assert origin.requests_of("/f") == pytest.approx(20 * old / (old + new), abs=1)
    assert running.counts["upstream.connections"] == opened
    gate.open()
    assert (await slow).sha256 == FILE.sha256()


@pytest.mark.parametrize("balance", ["round_robin", "fastest_response"])
async def test_a_mirror_that_recovers_is_noticed_within_a_second_or_two(
    house: OpenHouse, origin: Origin, mirror: Origin, balance: str
) -> None:
    """By the real clock, nothing configured: it dies, answers 503, comes back and gets its part; no client sees it."""
    for one in (origin, mirror):
        one.serve("/f", FILE)
    running = await house(play(origin, mirror, balance=balance, circuit_breaker={"failure_threshold": 1}))
    label = f"files/{origin.authority}"
    await fetched(running, 1)
    assert origin.requests_of("/f") == 1
    await origin.refuse()
    origin.reset_all()
    mirror.script("/f", Reply(FILE, before_head=0.05))  # so that the other one is preferred, being well
    await fetched(running, 3)
    await running.counts.wait_for(lambda: running.counts.of("mirror.trips", label) == 1)
    origin.script("/f", *[FAILING] * 2, Reply(FILE))
    await origin.listen()
    await running.counts.wait_for(lambda: running.counts.of("mirror.shut_off", label) == 0, within=20.0)
    origin.requests.clear()
    await fetched(running, 10)
    assert origin.requests_of("/f") >= 5


@pytest.mark.option("upstreams.health_check")
async def test_health_checks_begin_with_the_service(house: OpenHouse, origin: Origin, mirror: Origin) -> None:
    origin.script("/well", FAILING)
    for one in (origin, mirror):
        one.serve("/f", FILE)
    mirror.serve("/well", b"")
    check = {"path": "/well", "interval": "10ms"}
    running = await house(play(origin, mirror, health_check=check, circuit_breaker={"failure_threshold": 2}))
    await running.counts.wait_for(lambda: running.counts.of("mirror.shut_off", f"files/{origin.authority}") == 1)
    await fetched(running, 4)
    assert origin.requests_of("/f") == 0
