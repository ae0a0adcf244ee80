"""A worker that died with a part of the estimate is noticed and the folder counted; a clean stop costs nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from fileproxy.cache import disk
from fileproxy.cache.disk_alive import Alive
from fileproxy.cache.disk_care import FIRST_SCAN_S
from fileproxy.clock import ManualClock
from tests.cache.disk_kit import BLOCK, Gate, HurriedClock, content, files_in, fill, make_meta, open_tier

pytestmark = pytest.mark.loops("asyncio", "uvloop")
LARGE = make_meta("large", 66 * BLOCK + 7)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def drifted(folder: Path) -> int:
    """A folder whose estimate is wrong and claims to be new. Returns what it should be."""
    async with open_tier(folder) as kit:
        await fill(kit.tier, LARGE)
        kit.tier._care.usage.add(LARGE.rid.hex(), 10**6)
        await kit.tier._care.chore(partial(kit.tier._care.usage.share, kit.tier._care._clock.time()))
    return sum(path.stat().st_blocks * 512 for path in files_in(folder))


def markers(folder: Path) -> list[Path]:
    return list(folder.glob("running.*"))


async def test_the_folder_is_counted_soon_after_a_worker_died(tmp_path: Path) -> None:
    expected = await drifted(tmp_path)
    assert not markers(tmp_path)
    (tmp_path / "running.0123456789ab").touch()  # nobody locks it
    before = time.time()
    async with open_tier(tmp_path, clock=HurriedClock()) as kit:
        assert kit.tier.statistics()["bytes"] == expected + 10**6  # not before serving
        await until(lambda: kit.tier.statistics()["bytes"] == expected)
        await until(lambda: kit.tier._care.usage.scanned_at > before)
        assert len(markers(tmp_path)) == 1  # its own
    assert not markers(tmp_path)


async def test_a_worker_that_stops_before_it_has_counted_leaves_that_to_the_next(tmp_path: Path) -> None:
    await drifted(tmp_path)
    (tmp_path / "running.0123456789ab").touch()
    clock = ManualClock()
    for begun in (False, True):
        async with open_tier(tmp_path, clock=clock) as kit:
            assert kit.tier._care._unclean
            if begun:
                await until(lambda: clock.sleeping >= 3)
                await clock.advance(FIRST_SCAN_S)
                await until(lambda: not kit.tier._care._unclean)  # it is at it, and the clock stands still
        assert len(markers(tmp_path)) == 1


async def test_after_a_clean_stop_and_beside_living_workers_nothing_is_counted(tmp_path: Path) -> None:
    expected = await drifted(tmp_path)
    clock = ManualClock(epoch=time.time())
    async with open_tier(tmp_path), open_tier(tmp_path, clock=clock) as kit:
        assert len(markers(tmp_path)) == 2
        await until(lambda: clock.sleeping >= 3)
        await clock.advance(60)
        assert not kit.tier._care._unclean
        assert kit.tier.statistics()["bytes"] == expected + 10**6


async def test_a_stop_that_could_not_write_everything_is_not_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "CLOSE_PATIENCE_S", 0.05)
    gate = Gate()
    async with open_tier(tmp_path, files=gate) as kit:
        gate.open_gate.clear()
        gate.waiting.clear()
        writing = asyncio.ensure_future(kit.tier.write(LARGE, 0, content(LARGE, 0)))
        await until(gate.waiting.is_set)
    assert len(markers(tmp_path)) == 1
    gate.open_gate.set()
    await writing


async def test_a_killed_process_is_noticed(tmp_path: Path) -> None:
    code = "import sys, time; from fileproxy.cache.disk_alive import Alive; a = Alive(sys.argv[1]); "
    code += "print(a.begin(), flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == b"False\n"
        alive = Alive(str(tmp_path))
        assert alive.begin() is False  # both live
        alive.end(clean=True)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    last = Alive(str(tmp_path))
    assert last.begin() is True
    last.end(clean=True)
    assert not last.known
    assert not list(tmp_path.iterdir())
