"""Hundreds of downloads from an origin that lies, breaks and stalls at random: exact or visibly cut, never in between.

``benchmarks/torture.py`` does the same with 2,000 downloads and real workers.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import OpenHouse
from tests.origin import KIB, MIB
from tests.trips.fills import cached, idle
from tests.trips.torture_crowd import Crowd, downloads, problems, report
from tests.trips.torture_plays import Torturer, paths

pytestmark = pytest.mark.loops("asyncio", "uvloop")

# Nothing here is about waiting: who is silent is given up soon. The budget of retries is meant to spare an origin that
# fails; this one fails on purpose, three times of four.
UPSTREAM: dict[str, Any] = {
    "timeouts": {"connect": "2s", "first_byte": "600ms", "stall": "400ms", "idle": "400ms"},
    "retry": {"attempts": 12, "within": "60s", "base": "5ms", "cap": "200ms", "budget_floor": 100_000},
    "balance": "fastest_response",
}


@pytest.mark.parametrize(("seed", "mirrors", "block"), [(1, 1, "64KiB"), (2, 2, "64KiB"), (3, 2, "1MiB")])
async def test_what_ends_as_complete_is_exact(
    house: OpenHouse, tmp_path: Path, seed: int, mirrors: int, block: str
) -> None:
    files = paths(seed, 30, 100 * KIB, 2 * MIB)
    async with contextlib.AsyncExitStack() as stack:
        origins = [await stack.enter_async_context(Torturer(files, seed * 10 + number)) for number in range(mirrors)]
        play = cached(*origins, folder=tmp_path / "c", upstream=UPSTREAM, block=block, memory="4MiB")
        play["routes"].insert(0, {"path": "/revalidated/", "upstream": "files", "cache": "auto"})
        running = await house(play)
        crowd = Crowd(running.port, 60.0, downloads(seed, files, 67))
        await crowd.run(12)
        await idle(running)
        print(seed, report(crowd.done))
        if said := problems(crowd.done, *origins):
            pytest.fail("\n".join(said))
        assert len(crowd.done) == 67
