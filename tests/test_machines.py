"""Machines tell each other what they do; one that falls silent is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from redis.asyncio import Redis

from fileproxy.clock import ManualClock
from fileproxy.machines import LARGEST_REPORT_BYTES, REPORT_EVERY_S, REPORT_LIVES_S, MachineReport, Machines
from fileproxy.shared import PREFIX, SharedStore, encode
from fileproxy.tasks import Tasks
from tests.house import Watched, settled
from tests.valkey import Valkey, valkey

pytestmark = pytest.mark.usefixtures("tidy")
REPORT = MachineReport("id-a", "host-a", "1.0", 1.0, 2.0, 4, 100, 3, 5000, 7, 12.5)


@dataclass
class Cast:
    """One machine's side: what it reports can be changed, and whether it leads."""

    store: SharedStore
    clock: ManualClock
    tasks: Tasks
    report: MachineReport = REPORT
    leads: bool = True
    made: int = 0

    @property
    def machines(self) -> Machines:
        return Machines(self.store, self._report, lambda: self.leads, self.clock)

    def _report(self) -> MachineReport:
        self.made += 1
        return self.report

    def as_(self, identity: str, host: str) -> Machines:
        report = msgspec.structs.replace(self.report, identity=identity, host=host)
        return Machines(self.store, lambda: report, lambda: True, self.clock)


@pytest.fixture
def server(short_path: Path) -> Iterator[Valkey]:
    with valkey(short_path) as running:
        yield running


async def cast_of(url: str) -> AsyncIterator[Cast]:
    failed: list[str] = []
    clock, tasks = ManualClock(), Tasks(lambda name, error: failed.append(name))
    store = SharedStore(url, pool=4, timeout_s=5.0, counters=Watched(), clock=clock, tasks=tasks)
    await store.open()
    yield Cast(store, clock, tasks)
    await store.close()
    await tasks.close()
    assert not failed


@pytest.fixture
async def cast(server: Valkey) -> AsyncIterator[Cast]:
    async for one in cast_of(server.url):
        yield one


@pytest.fixture
async def alone() -> AsyncIterator[Cast]:
    async for one in cast_of("off"):
        yield one


async def test_all_machines_are_listed_by_host(cast: Cast) -> None:
    assert await cast.machines.all() == []
    for identity, host in (("2", "b"), ("3", "a"), ("1", "b")):
        assert await cast.as_(identity, host).publish()
    found = await cast.machines.all()
    assert found is not None
    assert [(one.host, one.identity) for one in found] == [("a", "3"), ("b", "1"), ("b", "2")]
    assert found[0] == msgspec.structs.replace(REPORT, identity="3", host="a")


async def test_a_newer_report_takes_the_place_of_the_older(cast: Cast) -> None:
    await cast.machines.publish()
    cast.report = msgspec.structs.replace(REPORT, requests=200)
    await cast.machines.publish()
    assert await cast.machines.all() == [cast.report]


async def test_who_falls_silent_is_gone(cast: Cast) -> None:
    await cast.machines.publish()

    async def left_ms(redis: Redis) -> int:
        return int(await redis.pttl(f"{PREFIX}machine:id-a"))

    left = await cast.store.call(left_ms)
    assert left is not None
    assert 0 < left <= REPORT_LIVES_S * 1000
    assert await cast.store.call(lambda redis: redis.pexpire(f"{PREFIX}machine:id-a", 0)) is not None  # time is up
    assert await cast.machines.all() == []
    assert await cast.store.call(lambda redis: redis.smembers(f"{PREFIX}machines")) == set()


@pytest.mark.parametrize(
    "value",
    [b"", b"\x01", b"\x02" + encode(REPORT)[1:], encode({"identity": 1}), b"\x01" + b"x" * LARGEST_REPORT_BYTES],
)
async def test_what_is_no_report_is_left_out(cast: Cast, value: bytes) -> None:
    await cast.machines.publish()

    async def damage(redis: Redis) -> bool:
        await redis.sadd(f"{PREFIX}machines", b"bad\xff", b"other")
        return bool(await redis.set(f"{PREFIX}machine:other", value))

    assert await cast.store.call(damage)
    assert await cast.machines.all() == [REPORT]


async def test_a_report_too_large_to_be_one(cast: Cast) -> None:
    cast.report = msgspec.structs.replace(REPORT, host="h" * LARGEST_REPORT_BYTES)
    await cast.machines.publish()
    assert await cast.machines.all() == []


async def test_without_a_store(alone: Cast) -> None:
    assert await alone.machines.all() is None
    assert await alone.machines.publish() is False


async def test_it_reports_again_and_again(cast: Cast) -> None:
    running = cast.tasks.start(cast.machines.run(), "machine-report")
    await settled(lambda: cast.made < 1)
    for count in (2, 3):
        await settled(lambda: cast.clock.sleeping == 0)
        await cast.clock.advance(REPORT_EVERY_S - 0.1)
        assert cast.made == count - 1
        await cast.clock.advance(0.1)
        assert cast.made == count
    running.cancel()
    await asyncio.wait([running])


async def test_only_one_worker_speaks_for_its_machine(cast: Cast) -> None:
    cast.leads = False
    cast.tasks.start(cast.machines.run(), "machine-report")
    for _ in range(3):
        await cast.clock.advance(REPORT_EVERY_S)
    assert cast.made == 0
    cast.leads = True  # the one with the lowest slot has ended
    await cast.clock.advance(REPORT_EVERY_S)
    assert cast.made == 1


async def test_it_goes_on_when_the_store_is_back(cast: Cast, server: Valkey) -> None:
    server.kill()
    assert await cast.machines.publish() is False
    assert cast.store.state == "down"
    assert await cast.machines.all() is None
    cast.tasks.start(cast.machines.run(), "machine-report")
    made = cast.made
    server.start()
    await cast.clock.advance(0.1)  # the store's first ping
    await settled(lambda: cast.store.state != "ok")
    await cast.clock.advance(REPORT_EVERY_S)
    await settled(lambda: cast.made == made)
    assert cast.made > made
    reports: list[MachineReport] = []

    async def listed() -> None:
        async with asyncio.timeout(5):
            while not reports:
                reports.extend(await cast.machines.all() or [])

    await listed()
    assert reports == [REPORT]
