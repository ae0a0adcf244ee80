"""An origin that goes away for a while: downloads that run go on when it is back, soon, and without falling upon it.

Time is simulated: half a minute goes by in moments. ``benchmarks/torture.py outage`` measures the same by the clock.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fileproxy.clock import ManualClock
from tests.conftest import OpenHouse
from tests.house import Running
from tests.origin import KIB, MIB, Content, Gate, Origin, Reply, stall
from tests.trips.fills import cached, idle
from tests.trips.plays import settings

pytestmark = pytest.mark.loops("asyncio", "uvloop")
AWAY_S = 30.0
BACK_WITHIN_S = 3.0
FILES = [Content(50 + number, 2 * MIB + number) for number in range(12)]
DEFAULTS = {"retry": {"base": "100ms", "cap": "60s"}, "balance": "fastest_response"}  # as people run it


async def goes_by(clock: ManualClock, seconds: float, step: float = 0.1) -> None:
    """Time passes step by step, and whoever is woken gets to talk over the network."""
    for _ in range(round(seconds / step)):
        await clock.advance(step)
        for _ in range(20):
            await asyncio.sleep(0)


async def begun(running: Running, origin: Origin, at: int) -> list[asyncio.Task[Any]]:
    """A download of each file, and each has come so far."""
    asking = [asyncio.create_task(running.fetch(f"/{number}")) for number in range(len(FILES))]
    await origin.wait_for(lambda: sum(origin.sent.values()) == at * len(FILES))
    await running.counts.wait_for(lambda: running.counts["bytes.from_upstreams"] == at * len(FILES))
    return asking


@pytest.mark.parametrize("kept", [True, False], ids=["cached", "relayed"])
async def test_downloads_outlast_half_a_minute_without_their_origin(
    house: OpenHouse, origin: Origin, tmp_path: Path, kept: bool
) -> None:
    at, never, clock = 300 * KIB, Gate(), ManualClock()
    for number, file in enumerate(FILES):
        origin.script(f"/{number}", Reply(file, breaks=stall(at, lasts=never)), Reply(file))
    play = cached(origin, folder=tmp_path / "c", upstream=DEFAULTS) if kept else settings(origin, upstream=DEFAULTS)
    running = await house(play, clock)
    asking = await begun(running, origin, at)
    label = f"files/{origin.authority}"

    await origin.refuse()
    origin.reset_all()
    await goes_by(clock, AWAY_S)
    assert not any(one.done() for one in asking)  # nobody was told of it
    tried = running.counts.of("mirror.tries", label) - len(FILES)
    assert tried <= len(FILES) * 20  # and few tries were made

    origin.requests.clear()
    accepted = origin.accepted
    await origin.listen()
    back = clock.now()
    while not all(one.done() for one in asking) and clock.now() < back + BACK_WITHIN_S:
        await goes_by(clock, 0.1)
        await origin.wait_for(lambda: origin.idle == origin.open)
    late = [one for one in asking if not one.done()]
    assert not late
    for one, file in zip(asking, FILES, strict=True):
        got = await one
        assert (got.complete, got.sha256) == (True, file.sha256())
    await running.quiet()
    if kept:
        await idle(running)
    gets = [request for request in origin.requests if request.method == "GET"]
    assert len(gets) == len(FILES)  # each asked once for its rest
    assert all(request.get("range") for request in gets)
    assert origin.accepted - accepted <= len(FILES) + 1
    assert len(origin.requests) <= len(FILES) + BACK_WITHIN_S + 1  # and a probe each second


@pytest.mark.parametrize("kept", [True, False], ids=["cached", "relayed"])
async def test_a_mirror_that_dies_in_mid_download_is_not_missed(
    house: OpenHouse, origin: Origin, mirror: Origin, tmp_path: Path, kept: bool
) -> None:
    """Nothing is waited for (the clock stands still): the other one is asked at once for the rest."""
    file, at = FILES[0], 300 * KIB
    origin.script("/f", Reply(file, breaks=stall(at, lasts=Gate())))
    mirror.serve("/f", file)
    play = cached(origin, mirror, folder=tmp_path / "c") if kept else settings(origin, mirror)
    running = await house(play, ManualClock())
    asking = asyncio.create_task(running.fetch("/f"))
    await origin.wait_for(lambda: origin.sent["/f"] == at)
    await running.counts.wait_for(lambda: running.counts["bytes.from_upstreams"] == at)
    await origin.refuse()
    origin.reset_all()
    got = await asking
    assert (got.complete, got.sha256) == (True, file.sha256())
    (rest,) = mirror.requests
    assert (rest.get("range"), rest.get("if-range")) == (f"bytes={at}-{file.size - 1}", file.etag)
