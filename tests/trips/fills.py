"""What the trips through a fill have in common: a house with a cache on disk, and clients that look at every byte."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from fileproxy.clock import Clock
from tests.clients import Connection, Got
from tests.house import Running
from tests.origin import Content, Origin
from tests.trips.plays import settings

BLOCK = 64 * 1024


def cached(
    *origins: Origin,
    folder: Path | None,
    route: Mapping[str, Any] | None = None,
    upstream: Mapping[str, Any] | None = None,
    **cache: Any,
) -> dict[str, Any]:
    """Settings with blocks of 64 KiB, a disk tier in ``folder``, and a route that keeps everything.

    It keeps for years, because the origin's Date is fixed.
    """
    disk: Any = "off" if folder is None else {"path": str(folder), "min_free": 0}
    return settings(
        *origins,
        upstream=upstream,
        route={"cache": "3650d", **(route or {})},
        cache={"block": "64KiB", "window": "1MiB", "disk": disk, "redis": "off", **cache},
        redis={"url": "off"},
    )


@contextlib.asynccontextmanager
async def opened(settings: Mapping[str, Any], run_dir: Path, clock: Clock | None = None) -> AsyncIterator[Running]:
    """A house that the test closes itself, to open another one on what it leaves (its key is in ``run_dir``)."""
    running = Running(settings, run_dir, clock)
    await running.open()
    try:
        yield running
    finally:
        await running.close()


async def whole(running: Running, content: Content, target: str = "/f") -> Got:
    """A download that must be complete and right."""
    got = await running.fetch(target)
    assert got.complete
    assert got.sha256 == content.sha256()
    return got


async def part(running: Running, content: Content, first: int, last: int, target: str = "/f") -> Got:
    """A range that must be right."""
    got = await running.fetch(target, f"Range: bytes={first}-{last}")
    assert got.status == 206
    assert got.get("content-range") == f"bytes {first}-{last}/{content.size}"
    assert got.body == content.read(first, last - first + 1)
    return got


def spans(content: Content, count: int, seed: int = 1, longest: int = 300_000) -> list[tuple[int, int]]:
    """Random ranges (first, last) of a file."""
    dice = random.Random(seed)
    found = []
    for _ in range(count):
        first = dice.randrange(content.size)
        found.append((first, min(content.size - 1, first + dice.randrange(longest))))
    return found


async def read_exactly(connection: Connection, size: int) -> bytes:
    """The next ``size`` bytes of a body, and nothing beyond them."""
    async with asyncio.timeout(10):
        return await connection.reader.readexactly(size)


async def idle(running: Running) -> None:
    """No request is served, no flight runs, and what was given to the store is written."""
    await running.quiet()
    await running.counts.wait_for(lambda: running.counts["flight.running"] == 0)
    await running.house._caching.store.settle()
