"""Mirrors named by SRV records: asked by their weights and priorities, and others when the records change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fileproxy.cli import doctor
from fileproxy.clock import ManualClock
from fileproxy.settings import Settings
from tests.conftest import OpenHouse
from tests.house import Running
from tests.origin import KIB, Content, Gate, Origin, Reply, stall
from tests.trips.plays import settings
from tests.upstream.dns import NameServer

pytestmark = pytest.mark.loops("asyncio", "uvloop")
FILE = Content(3, 64 * KIB)
NAME = "_http._tcp.localhost"


@pytest.fixture
async def names(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NameServer]:
    """The system's only name server."""
    async with NameServer().open() as one:
        monkeypatch.setattr("fileproxy.upstream.srv.name_servers", lambda: [one.address])
        yield one


# Whose requests can be counted.
STEADY: dict[str, Any] = {"balance": "weighted_round_robin", "slow_start": 0, "segments": {"parallel": "off"}}


def play(**upstream: Any) -> dict[str, Any]:
    return settings(f"srv+http://{NAME}", upstream={**STEADY, **upstream})


def mirrors(running: Running) -> list[tuple[str, int]]:
    return [(one["url"], one["weight"]) for one in running.house._upstreams["files"].describe()["mirrors"]]


def url(one: Origin) -> str:
    return f"http://localhost:{one.port}"


async def until(running: Running, expected: list[tuple[str, int]]) -> None:
    async with asyncio.timeout(10):
        while mirrors(running) != expected:
            await asyncio.sleep(0.001)


async def fetched(running: Running, times: int) -> None:
    for _ in range(times):
        assert (await running.fetch("/f")).sha256 == FILE.sha256()


async def test_the_mirrors_follow_the_records_while_downloads_run(
    house: OpenHouse, origin: Origin, mirror: Origin, names: NameServer
) -> None:
    gate, clock = Gate(), ManualClock()
    names.known[NAME] = [(0, 1, origin.port, "localhost")]
    origin.script("/f", Reply(FILE, breaks=stall(at=KIB, lasts=gate)))
    mirror.serve("/f", FILE)
    running = await house(play(), clock)
    assert mirrors(running) == [(url(origin), 1)]
    first = asyncio.create_task(fetched(running, 1))
    await origin.wait_for(lambda: origin.sent["/f"] == KIB)
    names.known[NAME] = [(0, 1, mirror.port, "localhost")]
    await clock.advance(59.0)
    assert len(names.asked) == 1
    await clock.advance(1.0)
    await until(running, [(url(mirror), 1)])
    await fetched(running, 4)
    gate.open()
    await first
    assert (origin.requests_of("/f"), mirror.requests_of("/f")) == (1, 4)


async def test_weights_change_without_a_new_connection_and_backups_wait(
    house: OpenHouse, origin: Origin, mirror: Origin, names: NameServer
) -> None:
    clock = ManualClock()
    ports = sorted([origin.port, mirror.port])
    light, heavy = sorted([origin, mirror], key=lambda one: one.port)
    for one in (origin, mirror):
        one.serve("/f", FILE)
    names.known[NAME] = [(0, 3, ports[1], "localhost"), (0, 1, ports[0], "localhost")]
    running = await house(play(), clock)
    await fetched(running, 8)
    assert (light.requests_of("/f"), heavy.requests_of("/f")) == (2, 6)
    connections = running.counts["upstream.connections"]
    names.known[NAME] = [(0, 1, ports[1], "localhost"), (0, 1, ports[0], "localhost")]
    await clock.advance(60.0)
    await until(running, [(url(light), 1), (url(heavy), 1)])
    await fetched(running, 8)
    assert (light.requests_of("/f"), heavy.requests_of("/f")) == (6, 10)
    assert running.counts["upstream.connections"] == connections
    names.known[NAME] = [(0, 1, ports[1], "localhost"), (9, 1, ports[0], "localhost")]
    await clock.advance(60.0)
    await until(running, [(url(heavy), 1), (url(light), 1)])
    await fetched(running, 8)
    assert (light.requests_of("/f"), heavy.requests_of("/f")) == (6, 18)


@pytest.mark.option("upstreams.pool.dns_cache")
async def test_records_are_looked_up_again_when_the_pool_says_so(
    house: OpenHouse, origin: Origin, names: NameServer
) -> None:
    clock = ManualClock()
    names.ttl = 86400
    names.known[NAME] = [(0, 1, origin.port, "localhost")]
    await house(play(pool={"dns_cache": "30s"}), clock)
    await clock.advance(29.0)
    assert len(names.asked) == 1
    await clock.advance(1.0)
    async with asyncio.timeout(10):
        while len(names.asked) == 1:
            await asyncio.sleep(0.001)


async def test_name_servers_that_are_silent(
    house: OpenHouse, origin: Origin, names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the start the name behind the service is asked; later what was known holds on."""
    for constant in ("FIRST_S", "TIMEOUT_S"):
        monkeypatch.setattr(f"fileproxy.upstream.services.{constant}", 0.05)
    clock = ManualClock()
    names.twist = lambda message: []
    origin.serve("/f", FILE)
    names.known[NAME] = [(0, 1, origin.port, "localhost")]
    running = await house(play(), clock)
    assert mirrors(running) == [("http://localhost", 1)]
    async with asyncio.timeout(10):
        while not [one for one in running.lines.events if one["event"] == "service not looked up"]:
            await asyncio.sleep(0.001)
    names.twist = lambda message: [message]
    await clock.advance(5.0)
    await until(running, [(url(origin), 1)])
    names.twist = lambda message: []
    before = len(names.asked)
    await clock.advance(60.0)
    async with asyncio.timeout(10):
        while len(names.asked) < before + 2:
            await asyncio.sleep(0.001)
    await fetched(running, 1)
    assert mirrors(running) == [(url(origin), 1)]


async def test_a_reload_brings_services_and_takes_them_away(
    house: OpenHouse, origin: Origin, names: NameServer
) -> None:
    clock = ManualClock()
    origin.serve("/f", FILE)
    names.known[NAME] = [(0, 1, origin.port, "localhost")]
    running = await house(settings("http://127.0.0.1:1"), clock)
    await running.house.apply(Settings.model_validate(play()), 1)
    assert mirrors(running) == [(url(origin), 1)]
    await fetched(running, 1)
    await running.house.apply(Settings.model_validate(settings(origin)), 2)
    await clock.advance(120.0)
    await fetched(running, 1)
    assert len(names.asked) == 1


async def test_the_doctor_asks_the_servers_behind_a_service(origin: Origin, names: NameServer) -> None:
    names.known[NAME] = [(0, 1, origin.port, "localhost")]
    some = Settings.model_validate(play()).upstreams["files"]
    assert [one.url for one in await asyncio.to_thread(doctor._mirrors, some)] == [url(origin)]
