"""cache.*: each test fails when its option is ignored. (Blocks, windows and leaving: tests/trips/test_fill.py.)"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from fileproxy.clock import ManualClock
from fileproxy.http.dates import parse_date
from fileproxy.settings import Settings
from tests.conftest import OpenHouse
from tests.house import Running, settled
from tests.origin import KIB, MIB, Content, Origin
from tests.origin.play import DATE
from tests.trips.fills import cached, idle, opened, whole
from tests.valkey import Valkey, valkey

FILE = Content(3, MIB)
SMALL = Content(4, 20 * KIB)
ONE = {"workers": 1}


async def again(running: Running, content: Content = FILE) -> str | None:
    """How the second of two downloads was answered."""
    await whole(running, content)
    await idle(running)
    return (await whole(running, content)).get("x-cache")


@pytest.mark.option("cache.memory")
@pytest.mark.parametrize(("memory", "hit"), [(0, False), ("512KiB", False), ("64MiB", True)])
async def test_memory(house: OpenHouse, origin: Origin, memory: Any, hit: bool) -> None:
    origin.serve("/f", FILE)
    running = await house({**cached(origin, folder=None, memory=memory), "server": ONE})
    assert (await again(running) == "HIT") is hit
    assert running.counts["cache.memory_budget"] <= 64 * MIB


@pytest.mark.option("cache.memory_check")
@pytest.mark.parametrize(("every", "checks"), [("2s", 5), ("5s", 2), ("1h", 0)])
async def test_memory_check(house: OpenHouse, origin: Origin, every: str, checks: int) -> None:
    clock = ManualClock()
    running = await house(cached(origin, folder=None, memory_check=every), clock)

    def looked() -> int:
        return int(running.house._caching.describe()["memory_manager"]["checks"])

    await clock.advance(0)
    before = looked()
    for _ in range(100):
        await clock.advance(0.1)
    assert looked() - before == pytest.approx(checks, abs=1 if checks else 0)


# --- disk ------------------------------------------------------------------------------------------------------------


@pytest.mark.option("cache.disk")
@pytest.mark.parametrize("disk", [True, False])
async def test_disk(house: OpenHouse, origin: Origin, tmp_path: Path, disk: bool) -> None:
    origin.serve("/f", FILE)
    running = await house(cached(origin, folder=tmp_path / "c" if disk else None, memory=0))
    assert (await again(running) == "HIT") is disk
    assert (running.counts["cache.disk_writes"] > 0) is disk


@pytest.mark.option("cache.disk.size")
@pytest.mark.parametrize(("size", "kept"), [("512KiB", False), ("1GiB", True)])
async def test_disk_size(house: OpenHouse, origin: Origin, tmp_path: Path, size: str, kept: bool) -> None:
    origin.serve("/f", FILE)
    disk = {"path": str(tmp_path / "c"), "min_free": 0, "size": size}
    running = await house(_with(origin, disk))
    await whole(running, FILE)
    await idle(running)
    assert (running.counts["cache.disk_skipped"] == 0) is kept
    found = sum(path.stat().st_blocks * 512 for path in (tmp_path / "c").rglob("*") if path.is_file())
    assert (found > 512 * KIB + 64 * KIB) is kept


@pytest.mark.option("cache.disk.min_free")
@pytest.mark.parametrize(("floor", "kept"), [(0, True), (2**60, False)])
async def test_disk_min_free(house: OpenHouse, origin: Origin, tmp_path: Path, floor: int, kept: bool) -> None:
    origin.serve("/f", FILE)
    running = await house(_with(origin, {"path": str(tmp_path / "c"), "min_free": floor}))
    await whole(running, FILE)
    await idle(running)
    assert (running.counts["cache.disk_writes"] > 0) is kept


@pytest.mark.option("cache.disk.scrub")
@pytest.mark.parametrize(("rate", "found"), [("64MiB", 1), (0, 0)])
async def test_disk_scrub(origin: Origin, tmp_path: Path, tidy: None, rate: Any, found: int) -> None:
    origin.serve("/f", FILE)
    disk = {"path": str(tmp_path / "c"), "min_free": 0, "scrub": rate}
    async with opened(_with(origin, disk), tmp_path / "run") as running:
        await whole(running, FILE)
        await idle(running)
    extent = max((path for path in (tmp_path / "c").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    with extent.open("r+b") as file:
        file.seek(4096 + 100_000)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    clock = ManualClock(epoch=parse_date(DATE, 0.0) or 0)
    async with opened(_with(origin, disk), tmp_path / "run", clock) as running:
        scrubber = running.house._caching.disk._care.scrubber  # type: ignore[union-attr]
        for _ in range(3000):
            await clock.advance(1)
            await asyncio.sleep(0.001)  # its threads read
            if scrubber.statistics()["passes"] or (not found and scrubber.statistics()["read"]):
                break
        assert running.counts["cache.scrub_damaged"] == found
        assert bool(scrubber.statistics()["passes"]) is bool(found)


@pytest.mark.option("cache.disk.size", "cache.disk.min_free", "cache.disk.scrub")
async def test_the_disk_tier_takes_over_a_reload(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    plain = {"path": str(folder), "min_free": 0, "scrub": 0}
    origin.serve("/f", FILE)
    running = await house(_with(origin, plain))

    async def reload(number: int, **changes: Any) -> None:
        await running.house.apply(Settings.model_validate(_with(origin, plain | changes)), number)

    async def writes(path: str) -> bool:
        """Whether a file is put on disk."""
        before = running.counts["cache.disk_writes"]
        origin.serve(path, FILE)
        await whole(running, FILE, path)
        await idle(running)
        await running.house._caching.store.settle()
        return running.counts["cache.disk_writes"] > before

    def taken() -> int:
        total = 0
        for path in folder.glob("??/*"):
            with contextlib.suppress(FileNotFoundError):  # evicted meanwhile
                total += path.stat().st_blocks * 512
        return total

    assert await writes("/f")
    assert taken() > 512 * KIB
    await reload(1, size="512KiB")
    await settled(lambda: taken() > 512 * KIB)
    assert taken() <= 512 * KIB  # what was too much is evicted at once
    await reload(2, min_free=2**60)
    assert not await writes("/two")
    await reload(3, scrub="1MiB")
    report = running.house._caching.disk.statistics()  # type: ignore[union-attr]
    assert (report["size"], report["min_free"], report["scrub"]["rate"]) == (10 * 2**30, 0, 2**20)
    disk = running.house._caching.disk
    await reload(4, path=str(tmp_path / "elsewhere"))  # a folder takes new workers
    assert running.house._caching.disk is disk


def _with(origin: Origin, disk: dict[str, Any]) -> dict[str, Any]:
    values = cached(origin, folder=None, memory=0)
    values["cache"]["disk"] = disk
    return values


# --- the shared store ------------------------------------------------------------------------------------------------


@pytest.fixture
def server(short_path: Path) -> Iterator[Valkey]:
    with valkey(short_path) as running:
        yield running


def machine(origin: Origin, server: Valkey, redis: Any, **values: Any) -> dict[str, Any]:
    """The settings of one of several machines: nothing of its own keeps anything."""
    settings = cached(origin, folder=None, memory=0)
    settings["cache"]["redis"] = redis
    return {**settings, "redis": {"url": server.url, "secret": "s" * 32, "timeout": "5s", **values}}


async def stored(running: Running) -> None:
    await idle(running)
    await running.house._caching.store.settle()


@pytest.mark.option("cache.redis", "redis.secret")
@pytest.mark.parametrize("redis", ["on", "off"])
async def test_machines_share_small_objects(house: OpenHouse, origin: Origin, server: Valkey, redis: str) -> None:
    origin.serve("/f", SMALL)
    tier: Any = {} if redis == "on" else "off"
    one = await house(machine(origin, server, tier))
    two = await house(machine(origin, server, tier))
    other = await house(machine(origin, server, tier, secret="o" * 32))
    await whole(one, SMALL)
    await stored(one)
    got = await whole(two, SMALL)
    assert (got.get("x-cache") == "HIT") is (redis == "on")
    assert len(origin.requests) == (1 if redis == "on" else 2)
    assert (await whole(other, SMALL)).get("x-cache") == "MISS"  # what it cannot prove genuine is not there


@pytest.mark.option("cache.redis.max_object")
@pytest.mark.parametrize(("most", "how"), [("10KiB", "MISS"), ("1MiB", "HIT")])
async def test_redis_max_object(house: OpenHouse, origin: Origin, server: Valkey, most: str, how: str) -> None:
    origin.serve("/f", SMALL)
    one = await house(machine(origin, server, {"max_object": most}))
    two = await house(machine(origin, server, {"max_object": most}))
    await whole(one, SMALL)
    await stored(one)
    assert (await whole(two, SMALL)).get("x-cache") == how


@pytest.mark.option("cache.redis.max_entries")
@pytest.mark.parametrize(("most", "kept"), [(2, 2), (100, 5)])
async def test_redis_max_entries(house: OpenHouse, origin: Origin, server: Valkey, most: int, kept: int) -> None:
    running = await house(machine(origin, server, {"max_entries": most}))
    for number in range(5):
        origin.serve(f"/{number}", SMALL)
        await whole(running, SMALL, f"/{number}")
        await stored(running)
    redis = Redis(unix_socket_path=str(server.socket))
    found = await redis.zcard("fileproxy:objects")
    await redis.aclose()
    assert found == kept
