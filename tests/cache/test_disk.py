"""The disk tier as its callers see it."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from pathlib import Path
from typing import Any

import pytest

from fileproxy.cache import disk, disk_care, disk_seen, extents
from fileproxy.cache.disk_evict import Candidate, oldest, scan
from fileproxy.cache.disk_files import SUBFOLDERS, Files, Name, extent_name, parse, path_of, record_name
from fileproxy.cache.disk_usage import DiskFolder, Usage
from fileproxy.clock import ManualClock
from fileproxy.model import FileSlice, Meta, Tier, VaryRule
from tests.cache.disk_kit import (
    BLOCK,
    Gate,
    HurriedClock,
    content,
    everything,
    files_in,
    fill,
    identity,
    make_meta,
    open_tier,
    took,
    whole,
)

pytestmark = pytest.mark.loops("asyncio", "uvloop")
SMALL = make_meta("small", 1000)
LARGE = make_meta("large", 66 * BLOCK + 7)


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def record_path(folder: Path, meta: Meta) -> Path:
    return Path(path_of(str(folder), record_name(meta.key)))


def extent_path(folder: Path, meta: Meta, number: int = 0) -> Path:
    return Path(path_of(str(folder), extent_name(meta.rid, number)))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def until(condition: Any) -> None:
    """Wait for something that a thread or a task does."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


# --- what is kept comes back ---


@pytest.mark.parametrize("meta", [SMALL, LARGE, make_meta("empty", 0), make_meta("exact", BLOCK)])
async def test_what_was_kept_is_there_after_a_restart(tmp_path: Path, meta: Meta) -> None:
    async with open_tier(tmp_path / "new" / "folder") as kit:
        tier: Tier = kit.tier
        assert await tier.find(meta.key) is None
        assert await tier.held(meta) == frozenset()
        await fill(kit.tier, meta)
    async with open_tier(tmp_path / "new" / "folder") as kit:
        assert await kit.tier.find(meta.key) == meta
        assert await kit.tier.held(meta) == frozenset(range(meta.blocks))
        assert await whole(kit.tier, meta) == everything(meta)
        assert kit.tier.statistics()["status"] == "ok"
        assert kit.counters["cache.disk_reads"] == meta.blocks


async def test_a_run_of_blocks_is_one_slice(tmp_path: Path) -> None:
    async with open_tier(tmp_path) as kit:
        await fill(kit.tier, LARGE)
        assert took(await kit.tier.read(LARGE, 3, 4)) == b"".join(everything(LARGE)[3:7])
        assert took(await kit.tier.read(LARGE, 60, 99)) == b"".join(everything(LARGE)[60:64])
        assert await kit.tier.read(LARGE, LARGE.blocks, 1) is None
        assert await kit.tier.read(LARGE, -1, 1) is None
        piece = await kit.tier.read(LARGE, 0, 1)
        assert isinstance(piece, FileSlice)
        assert piece.stamp is None
        took(piece)


async def test_a_partial_object_is_completed_later(tmp_path: Path) -> None:
    async with open_tier(tmp_path) as kit:
        assert await kit.tier.save(LARGE)
        assert await kit.tier.write(LARGE, 2, content(LARGE, 2))
        assert await kit.tier.write(LARGE, 65, content(LARGE, 65))
    async with open_tier(tmp_path) as kit:
        assert await kit.tier.held(LARGE) == {2, 65}
        await fill(kit.tier, LARGE)
        assert await whole(kit.tier, LARGE) == everything(LARGE)


async def test_a_block_of_the_wrong_length_is_refused_loudly(tmp_path: Path) -> None:
    async with open_tier(tmp_path) as kit:
        for index, length in ((0, BLOCK - 1), (66, BLOCK), (67, 7), (-1, BLOCK)):
            with pytest.raises(ValueError, match="block"):
                await kit.tier.write(LARGE, index, bytes(length))
        assert files_in(tmp_path) == []


async def test_workers_share_a_folder(tmp_path: Path) -> None:
    async with open_tier(tmp_path) as owner, open_tier(tmp_path) as other:
        await fill(owner.tier, LARGE)
        await fill(owner.tier, SMALL)
        assert await other.tier.find(LARGE.key) == LARGE
        assert await whole(other.tier, LARGE) == everything(LARGE)
        assert await whole(other.tier, SMALL) == everything(SMALL)


async def test_who_may_not_write_changes_nothing(tmp_path: Path) -> None:
    async with open_tier(tmp_path) as kit:
        await fill(kit.tier, LARGE)
        await fill(kit.tier, SMALL)
    flip(extent_path(tmp_path, LARGE), 4096 + 9)
    flip(record_path(tmp_path, SMALL), 300)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in tmp_path.rglob("*")}
    async with open_tier(tmp_path, writable=False, scrub=1) as kit:
        assert kit.tier.statistics()["status"] == "ok"
        assert not await kit.tier.save(SMALL)
        assert not await kit.tier.write(LARGE, 1, content(LARGE, 1))
        await kit.tier.drop(LARGE)
        assert await whole(kit.tier, LARGE) == [None, *everything(LARGE)[1:]]
        assert await kit.tier.read(SMALL, 0, 1) is None
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in tmp_path.rglob("*")} == before


# --- versions, purges ---


async def test_a_new_version_leaves_the_old_one_to_those_who_still_read_it(tmp_path: Path) -> None:
    new = make_meta("large", LARGE.size, rid=identity("new version"), received_at=5.0)
    async with open_tier(tmp_path) as kit:
        await fill(kit.tier, LARGE)
        await fill(kit.tier, new)
        assert await kit.tier.find(LARGE.key) == new
        assert await whole(kit.tier, LARGE) == everything(LARGE)
        assert await whole(kit.tier, new) == everything(new)
        await kit.tier.drop(LARGE)
        assert await kit.tier.find(LARGE.key) == new
        assert await kit.tier.held(LARGE) == frozenset()
        assert await whole(kit.tier, new) == everything(new)


@pytest.mark.parametrize("meta", [SMALL, LARGE])
async def test_what_is_dropped_is_gone_but_not_for_an_open_descriptor(tmp_path: Path, meta: Meta) -> None:
    async with open_tier(tmp_path) as kit:
        await fill(kit.tier, meta)
        piece = await kit.tier.read(meta, 0, 1)
        await kit.tier.drop(meta)
        assert took(piece) == content(meta, 0)
        assert await kit.tier.find(meta.key) is None
        assert await kit.tier.held(meta) == frozenset()
        assert files_in(tmp_path) == []
        await kit.tier.drop(meta)


async def test_a_vary_rule_is_found_and_dropped(tmp_path: Path) -> None:
    rule = VaryRule(key=identity("rule"), url="u", fields=("accept",))
    async with open_tier(tmp_path) as kit:
        assert await kit.tier.save(rule)
        assert await kit.tier.find(rule.key) == rule
        await kit.tier.drop(make_meta("x", key=rule.key))  # not what is there
        assert await kit.tier.find(rule.key) == rule
        await kit.tier.drop(rule)
        assert await kit.tier.find(rule.key) is None


# --- damage ---


async def test_a_damaged_block_is_quarantined_and_repaired(tmp_path: Path) -> None:
    async with open_tier(tmp_path) as kit:
        await fill(kit.tier, LARGE)
        flip(extent_path(tmp_path, LARGE), 4096 + 2 * BLOCK + 9)
        assert took(await kit.tier.read(LARGE, 1, 9)) == content(LARGE, 1)  # up to the damage
        assert kit.counters["cache.damaged"] == 1
        assert await kit.tier.read(LARGE, 2, 1) is None
        assert kit.counters["cache.damaged"] == 1  # marked on disk by now
        assert 2 not in await kit.tier.held(LARGE)
        assert await kit.tier.write(LARGE, 2, content(LARGE, 2))
        assert await whole(kit.tier, LARGE) == everything(LARGE)


async def test_a_damaged_small_object_is_repaired(tmp_path: Path) -> None:
    async with open_tier(tmp_path) as kit:
        await fill(kit.tier, SMALL)
        flip(record_path(tmp_path, SMALL), record_path(tmp_path, SMALL).stat().st_size - 1)
        assert await kit.tier.read(SMALL, 0, 1) is None
        assert kit.counters["cache.damaged"] == 1
        assert await kit.tier.held(SMALL) == frozenset()
        assert await kit.tier.find(SMALL.key) == SMALL  # so that the owner of the key knows what to repair
        await fill(kit.tier, SMALL)
        flip(record_path(tmp_path, SMALL), 60)  # in its record
        assert await kit.tier.find(SMALL.key) is None
        assert kit.counters["cache.damaged"] == 2
        await fill(kit.tier, SMALL)
        assert await whole(kit.tier, SMALL) == everything(SMALL)


async def test_damage_that_cannot_be_marked_is_remembered_for_a_while(tmp_path: Path) -> None:
    clock = ManualClock()
    async with open_tier(tmp_path) as owner, open_tier(tmp_path, writable=False, clock=clock) as reader:
        await fill(owner.tier, LARGE)
        path = extent_path(tmp_path, LARGE)
        flip(path, 4096 + 9)
        assert await reader.tier.read(LARGE, 0, 1) is None
        assert await reader.tier.read(LARGE, 0, 1) is None
        assert reader.counters["cache.damaged"] == 1
        assert 0 not in await reader.tier.held(LARGE)
        assert took(await reader.tier.read(LARGE, 1, 1)) == content(LARGE, 1)
        assert await owner.tier.write(LARGE, 0, content(LARGE, 0))
        clock.tick(disk_seen.BAD_FOR_S + 1)
        assert took(await reader.tier.read(LARGE, 0, 1)) == content(LARGE, 0)


async def test_random_flips_while_stopped_are_never_served(tmp_path: Path) -> None:
    metas = [make_meta(f"small {n}", 300 + n) for n in range(20)] + [
        make_meta(f"large {n}", 9 * BLOCK) for n in range(4)
    ]
    async with open_tier(tmp_path) as kit:
        for meta in metas:
            await fill(kit.tier, meta)
    rng = random.Random(7)
    for path in files_in(tmp_path):
        for _ in range(3 if path.stat().st_size > BLOCK else rng.randrange(2)):
            flip(path, rng.randrange(path.stat().st_size))
    async with open_tier(tmp_path) as kit:
        for meta in metas:
            for index, got in enumerate(await whole(kit.tier, meta)):
                assert got in (None, content(meta, index))
            assert await kit.tier.find(meta.key) in (None, meta)
        assert kit.counters["cache.damaged"] > 10
        for meta in metas:
            await fill(kit.tier, meta)
            assert await whole(kit.tier, meta) == everything(meta)


async def test_a_block_is_checked_once_in_a_workers_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[int] = []
    right = extents.Extent.crc_on_disk

    def spy(extent: extents.Extent, descriptor: int, slot: int) -> int:
        checked.append(slot)
        return right(extent, descriptor, slot)

    async with open_tier(tmp_path) as kit:
        await fill(kit.tier, LARGE)
        monkeypatch.setattr(extents.Extent, "crc_on_disk", spy)
        took(await kit.tier.read(LARGE, 0, 3))
        took(await kit.tier.read(LARGE, 1, 3))
        took(await kit.tier.read(LARGE, 0, 4))
        assert checked == [0, 1, 2, 3]


# --- a slow disk ---


async def test_a_disk_that_lags_refuses_writes_at_once_and_hinders_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "QUEUE_BYTES", 3 * BLOCK)
    gate = Gate()
    async with open_tier(tmp_path, files=gate) as kit:
        await fill(kit.tier, SMALL)
        gate.open_gate.clear()
        gate.waiting.clear()
        writes = [asyncio.ensure_future(kit.tier.write(LARGE, n, content(LARGE, n))) for n in range(3)]
        await until(gate.waiting.is_set)
        assert kit.tier.statistics()["queued"] == 3 * BLOCK
        assert not await kit.tier.write(LARGE, 3, content(LARGE, 3))
        assert kit.counters["cache.disk_skipped"] == 1
        assert took(await kit.tier.read(SMALL, 0, 1)) == content(SMALL, 0)  # reading has its own threads
        assert not any(write.done() for write in writes)
        gate.open_gate.set()
        assert await asyncio.gather(*writes) == [True, True, True]
        assert kit.tier.statistics()["queued"] == 0
        assert await kit.tier.write(LARGE, 3, content(LARGE, 3))
        assert kit.tier.statistics()["status"] == "ok"


async def test_a_disk_that_hangs_is_not_waited_for_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    async with open_tier(tmp_path, files=gate, clock=HurriedClock()) as kit:
        await fill(kit.tier, LARGE)
        monkeypatch.setattr(disk, "READ_PATIENCE_S", 0.05)
        monkeypatch.setattr(disk_care, "CHORE_PATIENCE_S", 0.05)
        before = descriptors()
        gate.reads_too = True
        gate.open_gate.clear()
        assert await kit.tier.read(LARGE, 0, 1) is None
        assert kit.tier.statistics()["status"] == "degraded"
        assert "answer" in kit.tier.statistics()["detail"]
        gate.waiting.clear()
        assert await kit.tier.find(LARGE.key) is None  # not even asked
        assert not await kit.tier.write(LARGE, 0, content(LARGE, 0))
        monkeypatch.setattr(disk, "READ_PATIENCE_S", 5.0)
        monkeypatch.setattr(disk_care, "CHORE_PATIENCE_S", 5.0)
        gate.open_gate.set()
        await kit.told.wait_for(lambda told: told[-1] == "")
        assert took(await kit.tier.read(LARGE, 0, 1)) == content(LARGE, 0)
        assert kit.tier.statistics()["status"] == "ok"
        await until(lambda: descriptors() <= before + len(kit.tier._opened))  # of the slice nobody waited for


async def test_a_cancelled_read_leaks_no_descriptor(tmp_path: Path) -> None:
    gate = Gate()
    async with open_tier(tmp_path, files=gate, clock=ManualClock()) as kit:
        await fill(kit.tier, LARGE)
        before = descriptors()
        gate.reads_too = True
        gate.open_gate.clear()
        gate.waiting.clear()
        reads = [asyncio.ensure_future(kit.tier.read(LARGE, n, 1)) for n in range(6)]
        await until(gate.waiting.is_set)
        for read in reads:
            read.cancel()
        await asyncio.wait(reads)
        gate.open_gate.set()
        gate.reads_too = False
        assert took(await kit.tier.read(LARGE, 9, 1)) == content(LARGE, 9)
        await until(lambda: descriptors() <= before + len(kit.tier._opened))


async def test_a_cancelled_write_is_still_done_and_counted(tmp_path: Path) -> None:
    gate = Gate()
    async with open_tier(tmp_path, files=gate) as kit:
        gate.open_gate.clear()
        gate.waiting.clear()
        write = asyncio.ensure_future(kit.tier.write(LARGE, 0, content(LARGE, 0)))
        await until(gate.waiting.is_set)
        write.cancel()
        await asyncio.wait([write])
        assert kit.tier.statistics()["queued"] == BLOCK
        gate.open_gate.set()
        await until(lambda: kit.tier.statistics()["queued"] == 0)
        assert await kit.tier.held(LARGE) == {0}
        assert kit.tier.statistics()["bytes"] == BLOCK + 4096


async def test_closing_writes_what_is_queued_and_syncs_it(tmp_path: Path) -> None:
    class Noting(Gate):
        synced: list[str]

        def sync(self, descriptor: int) -> None:
            self.synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
            super().sync(descriptor)

    gate = Noting()
    gate.synced = []
    async with open_tier(tmp_path, files=gate) as kit:
        await fill(kit.tier, SMALL)
        gate.open_gate.clear()
        gate.waiting.clear()
        write = asyncio.ensure_future(kit.tier.write(LARGE, 0, content(LARGE, 0)))
        await until(gate.waiting.is_set)
        closing = asyncio.ensure_future(kit.tier.close())
        await asyncio.sleep(0)
        gate.open_gate.set()
        await closing
        assert await write
        assert not await kit.tier.write(LARGE, 1, content(LARGE, 1))
        assert await kit.tier.find(SMALL.key) is None
    assert sorted(gate.synced) == sorted([record_name(SMALL.key), extent_name(LARGE.rid, 0)])


async def test_what_was_written_is_synced_every_ten_seconds(tmp_path: Path) -> None:
    clock = ManualClock()
    async with open_tier(tmp_path, clock=clock) as kit:
        await fill(kit.tier, SMALL)
        synced: list[str] = []
        Files_sync = Files.sync_folder  # noqa: N806

        def note(self: Files, path: str) -> None:
            synced.append(path)
            Files_sync(self, path)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Files, "sync_folder", note)
            async with asyncio.timeout(10):
                while not synced:
                    await clock.advance(disk_care.TICK_S)
                    await asyncio.sleep(0.005)
        assert f"{tmp_path}/{SMALL.key.hex()[:2]}" in synced


# --- room ---


async def test_the_least_recently_used_goes_and_the_budget_holds(tmp_path: Path) -> None:
    size = 40 * BLOCK
    async with open_tier(tmp_path, size=size) as kit:
        for n in range(30):
            meta = make_meta(f"object {n}", 4 * BLOCK)
            while not await kit.tier.save(meta):
                await asyncio.sleep(0.005)
            for index in range(4):
                while not await kit.tier.write(meta, index, content(meta, index)):
                    await asyncio.sleep(0.005)
            for path in (record_path(tmp_path, meta), extent_path(tmp_path, meta)):
                os.utime(path, (1e9 + n, 1e9 + n))
            used = sum(path.stat().st_blocks * 512 for path in files_in(tmp_path))
            assert used <= size
            if n == 5:  # the first one is used again
                assert took(await kit.tier.read(make_meta("object 0", 4 * BLOCK), 0, 1)) is not None
        assert kit.counters["cache.evicted"] > 20
        assert kit.counters["cache.evicted_bytes"] > 60 * BLOCK
        assert await kit.tier.find(meta.key) == meta
        assert await whole(kit.tier, meta) == everything(meta)
        assert await kit.tier.held(make_meta("object 0", 4 * BLOCK)) != frozenset()
        for n in range(1, 15):
            old = make_meta(f"object {n}", 4 * BLOCK)
            assert await kit.tier.find(old.key) is None
            assert await kit.tier.held(old) == frozenset()


async def test_what_would_exceed_the_budget_is_refused(tmp_path: Path) -> None:
    async with open_tier(tmp_path, size=3 * BLOCK, clock=ManualClock()) as kit:
        await kit.tier.save(LARGE)
        assert await kit.tier.write(LARGE, 0, content(LARGE, 0))
        assert await kit.tier.write(LARGE, 1, content(LARGE, 1))
        assert not await kit.tier.write(LARGE, 2, content(LARGE, 2))
        assert kit.counters["cache.disk_skipped"] == 1
        while not await kit.tier.write(LARGE, 3, content(LARGE, 3)):  # room is made for the next ones
            await asyncio.sleep(0.005)
        assert kit.counters["cache.evicted"] > 0


async def test_the_free_space_floor_is_kept(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    async with open_tier(tmp_path, min_free=free * 2) as kit:
        assert kit.tier.statistics()["status"] == "degraded"
        assert "free" in kit.tier.statistics()["detail"]
        assert not await kit.tier.write(LARGE, 0, content(LARGE, 0))
        assert not await kit.tier.save(LARGE)
        assert files_in(tmp_path) == []
    async with open_tier(tmp_path, min_free=free // 2) as kit:
        await fill(kit.tier, LARGE)


async def test_eviction_for_the_floor_takes_the_oldest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    floor = 1 << 30
    room = [2 << 30]

    def free(folder: str) -> int:
        return room[0] - sum(path.stat().st_blocks * 512 for path in files_in(Path(folder)))

    monkeypatch.setattr(disk_care, "_free", free)
    old, new = make_meta("old", 4 * BLOCK), make_meta("new", 4 * BLOCK)
    async with open_tier(tmp_path, min_free=floor, clock=HurriedClock()) as kit:
        for when, meta in ((1e9, old), (2e9, new)):
            await fill(kit.tier, meta)
            for path in (record_path(tmp_path, meta), extent_path(tmp_path, meta)):
                os.utime(path, (when, when))
        # What must be freed is one block: the older object is enough.
        room[0] = floor + min(floor // 2, 128 << 20) + room[0] - free(str(tmp_path)) - BLOCK
        await kit.tier._care.evict()
        assert await kit.tier.held(old) == frozenset()
        assert await whole(kit.tier, new) == everything(new)


async def test_what_is_not_ours_is_left_alone_and_leftovers_are_not(tmp_path: Path) -> None:
    async with open_tier(tmp_path) as kit:
        await fill(kit.tier, SMALL)
        home = record_path(tmp_path, SMALL).parent
        foreign = [home / "README", home / f"{SMALL.key.hex()}.r~", tmp_path / "notes", tmp_path / "zz" / "x"]
        leftover = home / f"{SMALL.key.hex()}.r.0123456789ab.tmp"
        young = home / f"{SMALL.key.hex()}.r.0123456789ac.tmp"
        (tmp_path / "zz").mkdir()
        for path in (*foreign, leftover, young):
            path.write_text("x")
            if path != young:
                os.utime(path, (1e9, 1e9))
        kit.tier._care._size = 0
        await kit.tier._care.evict()
        assert not record_path(tmp_path, SMALL).exists()
        assert not leftover.exists()
        assert young.exists()
        assert all(path.read_text() == "x" for path in foreign)


def test_of_a_sample_the_oldest_go_no_more_than_needed() -> None:
    name = Name("extent", bytes(16), 0)
    some = [Candidate(str(n), name, float(n % 7 * 100 + n), 10) for n in range(80)]
    chosen = oldest(some, 35)
    assert [one.used_at for one in chosen] == sorted(one.used_at for one in some)[:4]
    assert len(oldest(some, 10**9)) == 10
    assert len(oldest(some[:3], 10**9)) == 1
    assert oldest(some, 0) == []
    assert oldest([], 5) == []


async def test_changed_settings_act_at_once(tmp_path: Path) -> None:
    async with open_tier(tmp_path, size=1 << 30, clock=HurriedClock()) as kit:
        await fill(kit.tier, LARGE)
        kit.tier.apply(size=20 * BLOCK, min_free=0, scrub=1 << 30)
        assert kit.tier.statistics()["size"] == 20 * BLOCK
        await until(lambda: kit.tier.statistics()["bytes"] <= 20 * BLOCK)
        await until(lambda: kit.tier.statistics()["scrub"]["passes"] > 0)
        kit.tier.apply(size=1 << 30, min_free=1 << 60, scrub=0)
        assert not await kit.tier.write(LARGE, 0, content(LARGE, 0))


# --- how full it is ---


async def test_the_estimate_is_shared_and_survives(tmp_path: Path) -> None:
    async with open_tier(tmp_path) as one:
        async with open_tier(tmp_path) as two:
            await fill(one.tier, LARGE)
            await fill(two.tier, SMALL)
        expected = sum(path.stat().st_blocks * 512 for path in files_in(tmp_path))
    async with open_tier(tmp_path) as kit:
        assert kit.tier.statistics()["bytes"] == expected
        before = (tmp_path / "usage").stat().st_mtime_ns
        await kit.tier._care.chore(kit.tier._care.usage.share)  # an idle tier writes nothing
        assert (tmp_path / "usage").stat().st_mtime_ns == before


async def test_much_that_was_written_is_in_the_estimate_at_once(tmp_path: Path) -> None:
    """A worker that is killed takes little of it with it, and the next one keeps the budget."""
    clock = ManualClock()  # no timer runs
    async with open_tier(tmp_path, size=256 * BLOCK, clock=clock) as kit:
        await fill(kit.tier, LARGE)
        there = Usage(str(tmp_path), writable=False)
        there.share()
        now = kit.tier._care.usage
        assert now.total > 20 * BLOCK
        assert now.total - there.total == now.unshared <= 5 * BLOCK


async def test_a_lost_estimate_is_counted_again_in_the_background(tmp_path: Path) -> None:
    async with open_tier(tmp_path) as kit:
        await fill(kit.tier, LARGE)
        await fill(kit.tier, SMALL)
    expected = sum(path.stat().st_blocks * 512 for path in files_in(tmp_path))
    (tmp_path / "usage").write_bytes(b"rubbish" * 400)
    async with open_tier(tmp_path, clock=HurriedClock()) as kit:
        await until(lambda: kit.tier._care.usage.scanned_at > 0)
        assert kit.tier.statistics()["bytes"] == expected
    usage = Usage(str(tmp_path), writable=False)
    usage.share()
    assert usage.total == expected
    assert usage.scanned_at > 0


@pytest.mark.parametrize(("seconds", "turns"), [(0.0, len(SUBFOLDERS)), (3600.0, 1)])
def test_a_scan_takes_turns(tmp_path: Path, seconds: float, turns: int) -> None:
    usage = Usage(str(tmp_path), writable=False)
    seen: list[str] = []
    usage.correct = lambda subfolder, counted: seen.append(subfolder)  # type: ignore[method-assign]
    folder, left, taken = DiskFolder(str(tmp_path), Files(), usage), SUBFOLDERS, 0
    while left:
        left, taken = tuple(scan(folder, left, 0.0, seconds)), taken + 1
    assert (taken, seen) == (turns, list(SUBFOLDERS))


@pytest.mark.loops("asyncio")
async def test_a_scan_leaves_out_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right, looked = os.listdir, list[str]()

    def listdir(path: Any) -> list[str]:
        looked.append(str(path))
        if str(path) == f"{tmp_path}/80":
            raise OSError(errno.EIO, "Input/output error")
        return right(path)

    async with open_tier(tmp_path) as kit:
        monkeypatch.setattr(disk_care, "SCAN_STEP_S", 0.0)
        monkeypatch.setattr(disk_care, "SCAN_TURN_S", 3600.0)
        monkeypatch.setattr(os, "listdir", listdir)
        await kit.tier._care.scan()
        monkeypatch.undo()
        assert sorted(set(looked)) == [f"{tmp_path}/{subfolder}" for subfolder in SUBFOLDERS]
        assert len(looked) == len(SUBFOLDERS) + 1  # the bad one ends a turn, and then is the first of one
        assert kit.told == [f"{tmp_path}: Input/output error"]


@pytest.mark.loops("asyncio")
async def test_opening_looks_at_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(256):
        (tmp_path / f"{number:02x}").mkdir()
    for number in range(4_000):
        name = identity(str(number)).hex()
        os.close(os.open(tmp_path / name[:2] / f"{name}.r", os.O_CREAT | os.O_WRONLY))
    looked: list[str] = []

    def spy(name: str) -> None:
        right = getattr(os, name)

        def call(path: Any, *args: Any, **more: Any) -> Any:
            looked.append(f"{name} {path}")
            return right(path, *args, **more)

        monkeypatch.setattr(os, name, call)

    for name in ("open", "stat", "scandir", "listdir", "statvfs", "unlink"):
        spy(name)
    async with open_tier(tmp_path, clock=ManualClock()):
        calls = [call for call in looked if str(tmp_path) in call]
        monkeypatch.undo()
    assert len(calls) < 12
    assert not [call for call in calls if "dir " in call and not call.endswith(str(tmp_path))]
    assert not [call for call in calls if parse(call.split("/")[-2], call.split("/")[-1])]


# --- all at once ---


async def test_many_at_once_with_eviction_and_damage_never_get_a_wrong_byte(tmp_path: Path) -> None:
    rng = random.Random(11)
    metas = [make_meta(f"object {n}", rng.choice((500, BLOCK, 3 * BLOCK + 1, 9 * BLOCK))) for n in range(24)]
    reads = 0
    async with open_tier(tmp_path, size=30 * BLOCK) as one, open_tier(tmp_path, size=30 * BLOCK) as two:

        async def work(seed: int) -> None:
            nonlocal reads
            rng = random.Random(seed)
            for _ in range(150):
                meta = rng.choice(metas)
                owner = (one, two)[meta.key[0] & 1].tier
                index = rng.randrange(meta.blocks)
                what = rng.random()
                if what < 0.25:
                    await owner.write(meta, index, content(meta, index))
                elif what < 0.35:
                    await owner.save(meta)
                elif what < 0.37:
                    await owner.drop(meta)
                elif what < 0.40:
                    await asyncio.to_thread(damage, rng)
                else:
                    most = rng.randrange(1, 5)
                    got = took(await rng.choice((one, two)).tier.read(meta, index, most))
                    if got is not None:
                        reads += 1
                        length = len(got)
                        right = b"".join(content(meta, n) for n in range(index, min(index + most, meta.blocks)))
                        assert right[:length] == got

        def damage(rng: random.Random) -> None:
            """Of a file nobody has verified yet: fresh data is what is checked before its first use."""
            for path in files_in(tmp_path):
                if path.suffix == ".r" and rng.random() < 0.1:
                    fresh = path.with_name(f"{path.name}~")
                    try:
                        fresh.write_bytes(path.read_bytes()[:-1] + b"?")
                        fresh.rename(path)
                    except FileNotFoundError:
                        continue

        await asyncio.gather(*(work(seed) for seed in range(12)))
        assert reads > 20
        assert one.counters["cache.evicted"] + two.counters["cache.evicted"] > 0
        assert one.tier.statistics()["status"] == two.tier.statistics()["status"] == "ok"


async def test_a_run_over_two_files_is_told_block_by_block(tmp_path: Path) -> None:
    meta = make_meta("run", 70 * 512 + 9, 512)
    blocks = [content(meta, index) for index in range(60, 68)]
    async with open_tier(tmp_path) as kit:
        assert await kit.tier.write(meta, 62, content(meta, 62))
        stored = await kit.tier.write_run(meta, 60, [*blocks[:2], bytes(512), *blocks[3:]])
        assert stored == [True, True, False, True, True, True, True, True]
        assert await kit.tier.held(meta) == set(range(60, 68))
        assert (kit.counters["cache.disk_writes"], kit.counters["cache.disk_skipped"]) == (8, 1)
        with pytest.raises(ValueError, match="are not block 70"):
            await kit.tier.write_run(meta, 69, [content(meta, 69), bytes(512)])


async def test_what_a_run_wrote_before_the_disk_was_full_is_kept_and_counted(tmp_path: Path) -> None:
    meta = make_meta("run", 8 * BLOCK)

    class Full(Files):
        def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
            if offset == extents.DATA + 3 * BLOCK:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().write(descriptor, data, offset)

    async with open_tier(tmp_path, files=Full()) as kit:
        stored = await kit.tier.write_run(meta, 0, [content(meta, index) for index in range(5)])
        assert stored == [True, True, True, False, False]
        assert (kit.counters["cache.disk_writes"], kit.counters["cache.disk_skipped"]) == (3, 2)
        assert kit.tier.statistics()["status"] == "degraded"
        assert kit.tier._care.usage.total == sum(path.stat().st_blocks * 512 for path in files_in(tmp_path))
    async with open_tier(tmp_path) as kit:
        assert await kit.tier.held(meta) == {0, 1, 2}
