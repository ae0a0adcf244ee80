"""The scrubber finds what was damaged since it was written, whoever has read it before."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from fileproxy.cache.disk_care import SCRUB_PAUSE_S
from fileproxy.cache.disk_files import Files, extent_name, path_of, record_name
from fileproxy.clock import ManualClock
from tests.cache.disk_kit import BLOCK, HurriedClock, content, everything, files_in, fill, make_meta, open_tier, whole

SMALL = make_meta("small", 1000)
LARGE = make_meta("large", 66 * BLOCK + 7)
BYTES = LARGE.size + SMALL.size


def flip(path: str, offset: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


async def test_nothing_is_found_where_nothing_is_wrong(tmp_path: Path) -> None:
    async with open_tier(tmp_path, scrub=1 << 20, clock=ManualClock()) as kit:
        await fill(kit.tier, LARGE)
        await fill(kit.tier, SMALL)
        assert await kit.tier.scrub_once() == 0
        progress = kit.tier.statistics()["scrub"]
        assert progress["passes"] == 1
        assert progress["progress"] == 1.0
        assert progress["read"] >= BYTES
        assert kit.counters["cache.scrub_damaged"] == 0
        assert await whole(kit.tier, LARGE) == everything(LARGE)


async def test_damage_under_a_running_tier_is_found_in_one_pass(tmp_path: Path) -> None:
    async with open_tier(tmp_path, clock=ManualClock()) as kit:
        await fill(kit.tier, LARGE)
        await fill(kit.tier, SMALL)
        assert await whole(kit.tier, LARGE) == everything(LARGE)  # checked once, and trusted from now on
        first, second = (path_of(str(tmp_path), extent_name(LARGE.rid, n)) for n in (0, 1))
        flip(first, 4096 + 7 * BLOCK + 3)  # a block
        flip(first, 64 + 9 * 16 + 5)  # a slot
        flip(second, 4096 + 2 * BLOCK)
        flip(path_of(str(tmp_path), record_name(SMALL.key)), 300)
        assert await kit.tier.scrub_once() == 4
        assert kit.counters["cache.scrub_damaged"] == 4
        assert await kit.tier.held(LARGE) == frozenset(range(67)) - {7, 9, 66}
        assert await kit.tier.read(LARGE, 7, 1) is None
        assert await kit.tier.find(SMALL.key) is None
        assert kit.counters["cache.damaged"] == 0  # it was marked before anybody wanted it
        await fill(kit.tier, LARGE)
        await fill(kit.tier, SMALL)
        assert await kit.tier.scrub_once() == 0
        assert await whole(kit.tier, LARGE) == everything(LARGE)


async def test_an_extent_without_its_head_is_removed_but_not_while_it_is_made(tmp_path: Path) -> None:
    clock = ManualClock()
    async with open_tier(tmp_path, clock=clock) as kit:
        await fill(kit.tier, LARGE)
        path = path_of(str(tmp_path), extent_name(LARGE.rid, 0))
        flip(path, 20)
        made = path_of(str(tmp_path), extent_name(LARGE.rid, 7))
        os.close(os.open(made, os.O_CREAT | os.O_WRONLY))
        os.utime(made, (clock.time(), clock.time()))
        assert await kit.tier.scrub_once() == 1
        assert not os.path.exists(path)
        assert os.path.exists(made)
        clock.tick(61)
        assert await kit.tier.scrub_once() == 1
        assert not os.path.exists(made)


async def test_it_keeps_its_pace_and_says_how_far_it_is(tmp_path: Path) -> None:
    clock = ManualClock()
    async with open_tier(tmp_path, scrub=BLOCK, clock=clock) as kit:
        await fill(kit.tier, LARGE)
        began = clock.now()
        async with asyncio.timeout(30):
            while not kit.tier.statistics()["scrub"]["passes"]:
                await clock.advance(1.0)
                await asyncio.sleep(0.001)
                progress = kit.tier.statistics()["scrub"]
                # One block a second at most, after the pause before the pass.
                assert progress["read"] <= max(0.0, clock.now() - began - SCRUB_PAUSE_S + 2) * BLOCK
        assert progress["last_pass_s"] >= 66


async def test_it_finds_damage_by_itself(tmp_path: Path) -> None:
    async with open_tier(tmp_path, scrub=1 << 30, clock=HurriedClock()) as kit:
        await fill(kit.tier, LARGE)
        flip(path_of(str(tmp_path), extent_name(LARGE.rid, 0)), 4096 + 7 * BLOCK + 3)
        await kit.counters.wait_for(lambda: kit.counters["cache.scrub_damaged"] == 1)
        assert await kit.tier.write(LARGE, 7, content(LARGE, 7))
        assert await whole(kit.tier, LARGE) == everything(LARGE)


@pytest.mark.parametrize("scrub", [0, BLOCK])
async def test_one_worker_scrubs_and_none_when_it_is_off(tmp_path: Path, scrub: int) -> None:
    clock = ManualClock()
    async with (
        open_tier(tmp_path, scrub=scrub, clock=clock) as one,
        open_tier(tmp_path, scrub=scrub, clock=clock) as two,
    ):
        await fill(one.tier, LARGE)
        for _ in range(123):  # both try twice; a pass takes over a minute
            await clock.advance(1.0)
            await asyncio.sleep(0.002)
        read = [kit.tier.statistics()["scrub"]["read"] for kit in (one, two)]
        assert (max(read) > 0) == bool(scrub)
        assert min(read) == 0


async def test_a_bad_sector_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = os.pread

    def broken(descriptor: int, length: int, offset: int) -> bytes:
        if offset == 4096 + 3 * BLOCK:
            raise OSError(5, "Input/output error")
        return right(descriptor, length, offset)

    async with open_tier(tmp_path) as kit:
        await fill(kit.tier, LARGE)
        monkeypatch.setattr(os, "pread", broken)
        assert await kit.tier.read(LARGE, 3, 1) is None
        assert kit.counters["cache.damaged"] == 1
        monkeypatch.setattr(os, "pread", right)
        assert 3 not in await kit.tier.held(LARGE)
        assert kit.tier.statistics()["status"] == "ok"


async def test_a_disk_that_cannot_be_marked_does_not_end_the_pass(tmp_path: Path) -> None:
    class ReadOnly(Files):
        refuse = False

        def open(self, path: str, flags: int) -> int:
            if self.refuse and flags & (os.O_WRONLY | os.O_RDWR):
                raise OSError(30, "Read-only file system")
            return super().open(path, flags)

    files = ReadOnly()
    async with open_tier(tmp_path, files=files, clock=ManualClock()) as kit:
        await fill(kit.tier, LARGE)
        flip(path_of(str(tmp_path), extent_name(LARGE.rid, 0)), 4096 + 7 * BLOCK + 3)
        files.refuse = True
        await kit.tier.scrub_once()
        assert kit.tier.statistics()["scrub"]["passes"] == 1
        assert kit.tier.statistics()["status"] == "degraded"
        files.refuse = False
    assert len(files_in(tmp_path)) == 3
