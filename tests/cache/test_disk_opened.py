"""Files kept open: handed out without a thread, and only while they are what was checked."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from fileproxy.cache import disk, disk_opened, extents
from fileproxy.cache.disk import DiskTier
from fileproxy.cache.disk_files import Files
from fileproxy.cache.memory import MemoryTier
from fileproxy.cache.store import Store
from fileproxy.clock import ManualClock
from fileproxy.model import Meta
from fileproxy.tasks import Tasks
from tests.cache.disk_kit import BLOCK, Gate, content, everything, fill, make_meta, open_tier, took
from tests.cache.test_store import Bans, Ladder
from tests.house import Watched

KIB = 1024
LARGE = make_meta("large", 70 * BLOCK + 5)
ONE = make_meta("one", 300 * KIB, 1024 * KIB)
SMALL = make_meta("small", 3 * BLOCK)


async def read_all(tier: DiskTier, meta: Meta) -> None:
    """Twice: the first read also sets the file's time, which makes it another one."""
    for _ in range(2):
        for index in range(meta.blocks):
            assert took(await tier.read(meta, index, 1)) == content(meta, index)


@pytest.mark.parametrize("meta", [LARGE, ONE])
async def test_what_was_checked_is_handed_out_at_once(tmp_path: Path, meta: Meta) -> None:
    async with open_tier(tmp_path) as kit:
        await fill(kit.tier, meta)
        assert kit.tier.slice_now(meta, 0, 9) is None
        assert not kit.tier.held_now(meta)
        await read_all(kit.tier, meta)
        assert kit.tier.held_now(meta)
        assert [took(kit.tier.slice_now(meta, index, 1)) for index in range(meta.blocks)] == everything(meta)
        most = min(9, meta.blocks)
        assert took(kit.tier.slice_now(meta, 0, 9)) == b"".join(everything(meta)[:most])
        assert len(kit.tier._opened) == -(-meta.blocks // extents.BLOCKS)


@pytest.mark.parametrize("meta", [LARGE, ONE])
async def test_without_descriptors_nothing_is_handed_out(
    tmp_path: Path, meta: Meta, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    async with open_tier(tmp_path) as kit:
        await fill(kit.tier, meta)
        await read_all(kit.tier, meta)
        with monkeypatch.context() as patch:
            patch.setattr(os, "dup", none_left)
            assert kit.tier.slice_now(meta, 0, 9) is None
        assert took(kit.tier.slice_now(meta, 0, 1)) == content(meta, 0)


async def test_only_what_was_checked(tmp_path: Path) -> None:
    async with open_tier(tmp_path) as kit:
        await fill(kit.tier, LARGE)
        for _ in range(2):
            took(await kit.tier.read(LARGE, 3, 2))
        piece = took(kit.tier.slice_now(LARGE, 3, 9))
        assert piece == content(LARGE, 3) + content(LARGE, 4)
        assert kit.tier.slice_now(LARGE, 2, 1) is None
        assert kit.tier.slice_now(LARGE, 5, 1) is None
        assert not kit.tier.held_now(LARGE)


async def test_small_files_belong_into_memory(tmp_path: Path) -> None:
    async with open_tier(tmp_path) as kit:
        await fill(kit.tier, SMALL)
        await read_all(kit.tier, SMALL)
        assert kit.tier.slice_now(SMALL, 0, 1) is None
        assert len(kit.tier._opened) == 0


@pytest.mark.parametrize("meta", [LARGE, ONE])
async def test_an_evicted_file_is_let_go(tmp_path: Path, meta: Meta) -> None:
    async with open_tier(tmp_path) as kit:
        await fill(kit.tier, meta)
        await read_all(kit.tier, meta)
        for file in tmp_path.glob("??/*"):
            file.unlink()
        assert kit.tier.slice_now(meta, 0, 1) is None
        assert not kit.tier.held_now(meta)
        assert kit.tier.slice_now(meta, meta.blocks - 1, 1) is None
        assert len(kit.tier._opened) == 0


async def test_a_block_that_a_scrubber_marked_absent_is_not_handed_out(tmp_path: Path) -> None:
    async with open_tier(tmp_path) as kit:
        await fill(kit.tier, LARGE)
        await read_all(kit.tier, LARGE)
        extents.quarantine(Files(), str(tmp_path), extents.extent_of(LARGE, 0).name, 1 << 7)
        assert kit.tier.slice_now(LARGE, 7, 1) is None
        assert await kit.tier.read(LARGE, 7, 1) is None
        assert took(await kit.tier.read(LARGE, 6, 2)) == content(LARGE, 6)


async def test_a_record_that_was_replaced_is_not_handed_out(tmp_path: Path) -> None:
    newer = make_meta("one", 290 * KIB, 1024 * KIB, received_at=9.0)
    async with open_tier(tmp_path) as kit:
        await fill(kit.tier, ONE)
        await read_all(kit.tier, ONE)
        await fill(kit.tier, newer)
        assert kit.tier.slice_now(ONE, 0, 1) is None
        assert kit.tier.slice_now(newer, 0, 1) is None
        await read_all(kit.tier, newer)
        assert took(kit.tier.slice_now(newer, 0, 1)) == content(newer, 0)


async def test_a_changed_record_is_checked_again(tmp_path: Path) -> None:
    async with open_tier(tmp_path) as kit:
        await fill(kit.tier, ONE)
        await read_all(kit.tier, ONE)
        (file,) = tmp_path.glob("??/*")
        with file.open("r+b") as raw:
            raw.seek(100 * KIB)
            raw.write(b"damage")
        assert kit.tier.slice_now(ONE, 0, 1) is None
        assert await kit.tier.read(ONE, 0, 1) is None


async def test_what_is_dropped_is_let_go(tmp_path: Path) -> None:
    async with open_tier(tmp_path) as kit:
        await fill(kit.tier, LARGE)
        await read_all(kit.tier, LARGE)
        await kit.tier.drop(LARGE)
        assert len(kit.tier._opened) == 0
        assert kit.tier.slice_now(LARGE, 0, 1) is None


async def test_what_nobody_uses_is_let_go(tmp_path: Path) -> None:
    """Also when it was evicted: its room on the disk is free then."""
    clock = ManualClock()
    async with open_tier(tmp_path, clock=clock) as kit:
        await fill(kit.tier, ONE)
        await read_all(kit.tier, ONE)
        assert len(kit.tier._opened) == 1
        async with asyncio.timeout(10):
            while len(kit.tier._opened):
                await clock.advance(1.0)
                await asyncio.sleep(0)
        assert clock.now() >= disk_opened.IDLE_S


async def test_how_many_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_opened, "MOST", 3)
    metas = [make_meta(f"n{n}", 300 * KIB, 1024 * KIB) for n in range(6)]
    async with open_tier(tmp_path) as kit:
        before = len(os.listdir("/proc/self/fd"))
        for meta in metas:
            await fill(kit.tier, meta)
            await read_all(kit.tier, meta)
        assert len(kit.tier._opened) == 3
        assert len(os.listdir("/proc/self/fd")) <= before + 3
        assert [took(kit.tier.slice_now(meta, 0, 1)) is not None for meta in metas] == [False] * 3 + [True] * 3


async def test_a_sick_disk_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    async with open_tier(tmp_path, files=gate, clock=ManualClock()) as kit:
        await fill(kit.tier, LARGE)
        await read_all(kit.tier, LARGE)
        monkeypatch.setattr(disk, "READ_PATIENCE_S", 0.02)
        gate.reads_too = True
        gate.open_gate.clear()
        assert await kit.tier.read(LARGE, 1, 1) is None
        assert kit.tier.slice_now(LARGE, 0, 1) is None
        gate.open_gate.set()


# --- in the store ----------------------------------------------------------------------------------------------------


async def test_large_blocks_are_the_page_caches(tmp_path: Path) -> None:
    """Where there is a disk tier, memory is for small files; a small one found on disk goes back into it."""
    tasks, counters = Tasks(lambda name, error: None), Watched()
    async with open_tier(tmp_path) as kit:
        store = Store(
            memory=MemoryTier(1 << 24, counters),
            disk=kit.tier,
            shared=None,
            bans=Bans(),
            counters=counters,
            tasks=tasks,
        )
        for meta in (ONE, small := make_meta("tiny", 100 * KIB, 1024 * KIB)):
            store.save(meta, disk=True)
            assert store.put(meta, 0, content(meta, 0), disk=True) == "below"
            assert store.read_now(meta, 0) == content(meta, 0)  # on its way
        await store.settle()
        assert store.read_now(ONE, 0) is None
        assert store.read_now(small, 0) == content(small, 0)
        store.memory.drop_now(small)
        store.memory.save_now(small)
        assert await store.read(small, 0, 1) == content(small, 0)
        assert store.read_now(small, 0) == content(small, 0)
        for _ in range(2):
            assert took(await store.read(ONE, 0, 1)) == content(ONE, 0)
        assert store.held_now(ONE) == {0}
        assert took(store.slice_now(ONE, 0, 1)) == content(ONE, 0)
        await store.settle()
        await tasks.close()


async def test_a_large_block_that_the_disk_does_not_take_stays_in_memory() -> None:
    async def refuse(*_: object) -> bool:
        return False

    one = Ladder(1 << 24)
    one.disk.write = refuse  # type: ignore[method-assign,assignment]
    one.store.put(ONE, 0, content(ONE, 0), disk=True)
    await one.store.settle()
    assert one.store.read_now(ONE, 0) == content(ONE, 0)
    await one.store.close()
    await one.tasks.close()
