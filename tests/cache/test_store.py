"""The ladder of tiers: what is found where, what is kept where, and in what order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
import pytest

from fileproxy.cache import writers
from fileproxy.cache.ban import Judged
from fileproxy.cache.memory import MemoryTier
from fileproxy.cache.store import MOST_PENDING, SMALL, Store
from fileproxy.model import UNKNOWN_SIZE, Meta, Piece, Record, VaryRule
from fileproxy.tasks import Tasks
from tests.house import Watched

BLOCK = 1024


def meta(rid: bytes = b"r", *, key: bytes = b"k", size: int = 3 * BLOCK, ban: int = 0) -> Meta:
    return Meta(
        key=key * 16,
        rid=rid * 16,
        url="files//f",
        status=200,
        reason="OK",
        headers=(),
        size=size,
        block=BLOCK,
        pinned=True,
        requested_at=0.0,
        received_at=0.0,
        age_s=0.0,
        ban=ban,
    )


class SlowTier:
    """A tier whose every job waits until ``open`` is set, and that notes their order."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.records: dict[bytes, Record] = {}
        self.blocks: dict[tuple[bytes, int], bytes] = {}
        self.did: list[tuple[Any, ...]] = []
        self.fails: set[str] = set()
        self.full = False

    async def _turn(self, *what: Any) -> None:
        await asyncio.sleep(0)
        await self.open.wait()
        self.did.append(what)
        if what[0] in self.fails:
            raise ZeroDivisionError

    async def find(self, key: bytes) -> Record | None:
        found = self.records.get(key)
        await self._turn("find")
        return found

    async def save(self, record: Record) -> bool:
        await self._turn("save", record)
        self.records[record.key] = record
        return True

    async def held(self, meta: Meta) -> frozenset[int]:
        await self._turn("held")
        return frozenset(index for rid, index in self.blocks if rid == meta.rid)

    async def read(self, meta: Meta, index: int, most: int) -> Piece | None:
        await self._turn("read", index)
        return self.blocks.get((meta.rid, index))

    async def write(self, meta: Meta, index: int, data: bytes) -> bool:
        await self._turn("write", index)
        if self.full:
            return False
        self.blocks[meta.rid, index] = data
        return True

    async def drop(self, record: Record) -> None:
        await self._turn("drop", record)
        if self.records.get(record.key) == record:
            del self.records[record.key]

    def statistics(self) -> dict[str, Any]:
        return {}

    async def close(self) -> None:
        self.did.append(("close",))


class Bans:
    def __init__(self) -> None:
        self.seq = 0
        self.gone: set[bytes] = set()

    def judge(self, record: Record) -> Judged:
        if getattr(record, "rid", b"") in self.gone:
            return Judged("gone", None)
        return Judged("keep", msgspec.structs.replace(record, ban=self.seq))


class Ladder:
    def __init__(self, memory: int, *, shared: bool = False) -> None:
        self.counts = Watched()
        self.failures: list[BaseException] = []
        self.tasks = Tasks(lambda name, error: self.failures.append(error))
        self.disk, self.bans = SlowTier(), Bans()
        self.shared = SlowTier() if shared else None
        self.store = Store(
            memory=MemoryTier(memory, self.counts),
            disk=self.disk,
            shared=self.shared,
            bans=self.bans,
            counters=self.counts,
            tasks=self.tasks,
        )


@pytest.fixture
async def ladder() -> AsyncIterator[Callable[..., Ladder]]:
    made: list[Ladder] = []

    def make(memory: int = 2**20, **values: Any) -> Ladder:
        made.append(Ladder(memory, **values))
        return made[-1]

    yield make
    for one in made:
        one.disk.open.set()
        await one.store.close()
        await one.tasks.close()
        assert one.store.statistics()["pending_bytes"] == 0
        assert not one.failures


async def test_what_is_found_below_is_remembered_in_memory(ladder: Callable[..., Ladder]) -> None:
    one = ladder()
    one.disk.records[meta().key] = meta()
    assert one.store.find_now(meta().key) is None
    assert await one.store.find(meta().key) == meta()
    assert one.store.find_now(meta().key) == meta()
    one.disk.blocks[meta().rid, 1] = bytes(BLOCK)
    assert await one.store.read(meta(), 1, 8) == bytes(BLOCK)
    assert one.store.read_now(meta(), 1) == bytes(BLOCK)


async def test_what_is_under_way_is_found(ladder: Callable[..., Ladder]) -> None:
    one = ladder(memory=0)
    one.disk.open.clear()
    one.store.save(meta(), disk=True)
    assert one.store.put(meta(), 0, bytes(BLOCK), disk=True) == "below"
    assert one.store.find_now(meta().key) == meta()
    assert one.store.read_now(meta(), 0) == bytes(BLOCK)
    one.disk.open.set()
    await one.store.settle()
    assert one.store.find_now(meta().key) is None
    assert one.store.read_now(meta(), 0) is None
    assert await one.store.held(meta()) == {0}


async def test_where_a_block_is_kept_is_said(ladder: Callable[..., Ladder]) -> None:
    one = ladder()
    assert one.store.put(meta(), 0, bytes(BLOCK), disk=False) == "memory"
    none = ladder(memory=0)
    assert none.store.put(meta(), 0, bytes(BLOCK), disk=False) == ""
    none.store.disk = None
    assert none.store.put(meta(), 0, bytes(BLOCK), disk=True) == ""


async def test_jobs_of_a_key_keep_their_order(ladder: Callable[..., Ladder]) -> None:
    one = ladder()
    newer = meta(b"n")
    one.store.save(meta(), disk=True)
    one.store.put(meta(), 0, bytes(BLOCK), disk=True)
    one.store.drop(meta())
    one.store.save(newer, disk=True)
    await one.store.settle()
    assert [what[0] for what in one.disk.did] == ["save", "write", "drop", "save"]
    assert one.disk.records == {newer.key: newer}


async def test_a_late_disk_is_skipped_not_waited_for(ladder: Callable[..., Ladder]) -> None:
    one = ladder(memory=0)
    big = msgspec.structs.replace(meta(), block=MOST_PENDING // 2, size=2 * MOST_PENDING)
    data = bytes(big.block)
    one.disk.open.clear()
    kept = [one.store.put(big, index, data, disk=True) for index in range(4)]
    assert kept == ["below", "below", "", ""]
    assert one.counts["cache.disk_skipped"] == 2


async def test_what_waits_for_the_disk_may_take_what_memory_has_room_for(ladder: Callable[..., Ladder]) -> None:
    one = ladder(memory=MOST_PENDING)
    big = msgspec.structs.replace(meta(), block=MOST_PENDING // 4, size=4 * MOST_PENDING)
    data = bytes(big.block)
    one.disk.open.clear()
    kept = [one.store.put(big, index, data, disk=True) for index in range(8)]
    assert kept == ["below"] * 8
    one.store.memory.resize(0)
    assert one.store.put(big, 8, data, disk=True) == ""


@pytest.mark.parametrize("size", [BLOCK, SMALL + 1], ids=["small", "large"])
@pytest.mark.parametrize("memory", [0, 4 * SMALL], ids=["no-memory", "memory"])
async def test_what_the_disk_refuses_is_told_unless_memory_has_it(
    ladder: Callable[..., Ladder], size: int, memory: int
) -> None:
    one = ladder(memory=memory)
    one.disk.full = True
    file = msgspec.structs.replace(meta(), block=size, size=2 * size)
    lost: list[int] = []
    one.store.put(file, 1, bytes(size), disk=True, lost=lost.append)
    assert lost == []
    await one.store.settle()
    assert lost == ([] if memory else [1])
    assert (one.store.read_now(file, 1) is None) == bool(lost)


async def test_what_is_being_dropped_is_not_found_again(ladder: Callable[..., Ladder]) -> None:
    """Regression: the tier still had the record, and memory took it in once more."""
    one = ladder()
    one.store.save(meta(), disk=True)
    await one.store.settle()
    one.disk.open.clear()
    one.store.drop(meta())
    looking = asyncio.create_task(one.store.find(meta().key))
    await asyncio.sleep(0)
    one.disk.open.set()
    assert await looking is None
    await one.store.settle()
    assert await one.store.find(meta().key) is None
    one.store.save(meta(b"n"), disk=True)
    assert await one.store.find(meta().key) == meta(b"n")


async def test_what_is_saved_while_a_tier_is_asked_wins(ladder: Callable[..., Ladder]) -> None:
    """Regression: the older record took its place in memory."""
    one = ladder()
    one.disk.records[meta().key] = meta()
    looking = asyncio.create_task(one.store.find(meta().key))
    await asyncio.sleep(0)
    one.store.save(meta(b"n"), disk=False)
    assert await looking == meta(b"n")
    assert one.store.find_now(meta().key) == meta(b"n")


async def test_dropping_an_old_record_leaves_a_newer_one(ladder: Callable[..., Ladder]) -> None:
    one = ladder(memory=0)
    one.disk.open.clear()
    one.store.save(meta(b"n"), disk=True)
    one.store.drop(meta())
    assert one.store.find_now(meta().key) == meta(b"n")


async def test_a_purged_record_is_dropped_when_it_is_found(ladder: Callable[..., Ladder]) -> None:
    one = ladder()
    one.store.save(meta(), disk=True)
    await one.store.settle()
    one.bans.seq, one.bans.gone = 1, {meta().rid}
    assert one.store.find_now(meta().key) is None
    assert await one.store.find(meta().key) is None
    await one.store.settle()
    assert one.disk.records == {}
    assert one.counts["cache.purged"] == 1


async def test_judging_an_old_record_does_not_replace_a_newer_one(ladder: Callable[..., Ladder]) -> None:
    one = ladder()
    one.store.save(meta(b"n"), disk=False)
    one.bans.seq = 5
    judged = one.store.judged(meta())
    assert judged is not None
    assert judged.ban == 5
    found = one.store.find_now(meta().key)
    assert isinstance(found, Meta)
    assert found.rid == meta(b"n").rid


async def test_sizes_nobody_knows_are_never_looped_over(ladder: Callable[..., Ladder]) -> None:
    one = ladder()
    unsized = meta(size=UNKNOWN_SIZE)
    one.store.put(unsized, 0, bytes(BLOCK), disk=True)
    assert await one.store.held(unsized) == {0}
    one.store.drop(unsized)
    await one.store.settle()
    assert [what[0] for what in one.disk.did] == ["write"]


@pytest.mark.parametrize("size", [10, 3 * BLOCK])
async def test_small_objects_go_to_the_shared_store(ladder: Callable[..., Ladder], size: int) -> None:
    one = ladder(shared=True)
    small = meta(size=size)
    for index in range(small.blocks):
        one.store.put(small, index, bytes(small.length_of(index)), disk=True)
    one.store.finished(small)
    await one.store.settle()
    assert one.shared is not None
    assert [what[0] for what in one.shared.did] == (["save", "write"] if size == 10 else [])


async def test_rules_of_vary_go_to_the_shared_store(ladder: Callable[..., Ladder]) -> None:
    one = ladder(shared=True)
    rule = VaryRule(key=b"k" * 16, url="files//f", fields=("accept",))
    one.store.save(rule, disk=True)
    await one.store.settle()
    assert one.shared is not None
    assert one.shared.records == one.disk.records == {rule.key: rule}


async def test_a_mistake_of_a_tier_does_not_stop_its_lane(ladder: Callable[..., Ladder]) -> None:
    one = ladder(memory=0)
    one.disk.fails.add("write")
    one.store.put(meta(), 0, bytes(BLOCK), disk=True)
    one.store.save(meta(), disk=True)
    await one.store.settle()
    assert one.disk.records == {meta().key: meta()}
    assert one.store.statistics()["pending_bytes"] == 0
    assert [type(error) for error in one.failures] == [ZeroDivisionError]
    one.failures.clear()


async def test_closing_writes_what_is_under_way(ladder: Callable[..., Ladder]) -> None:
    one = ladder()
    for number in range(20):
        one.store.save(meta(key=bytes([number])), disk=True)
    await one.store.close()
    assert len(one.disk.records) == 20
    assert one.disk.did[-1] == ("close",)


class RunTier(SlowTier):
    """It writes runs, and refuses the blocks in ``refuses``."""

    refuses: frozenset[int] = frozenset()
    under_way = most_under_way = 0

    async def write_run(self, meta: Meta, first: int, blocks: Sequence[bytes]) -> list[bool]:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await self._turn("run", first, len(blocks))
        self.under_way -= 1
        return [index not in self.refuses for index in range(first, first + len(blocks))]

    async def write(self, meta: Meta, index: int, data: bytes) -> bool:
        return (await self.write_run(meta, index, (data,)))[0]

    async def save(self, record: Record) -> bool:
        assert not self.under_way, "what is no block waits for the blocks before it"
        return await super().save(record)


async def _rounds() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


async def test_blocks_that_wait_behind_each_other_are_written_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came while one was written goes at once, as far as it is a run and not too long; two runs at a time."""
    size = 512 * 1024
    monkeypatch.setattr(writers, "MOST_TOGETHER", 3 * size)
    counts, failures = Watched(), list[BaseException]()
    tasks = Tasks(lambda name, error: failures.append(error))
    disk = RunTier()
    disk.refuses = frozenset({2})
    store = Store(memory=MemoryTier(2**20, counts), disk=disk, shared=None, bans=Bans(), counters=counts, tasks=tasks)
    large = msgspec.structs.replace(meta(size=20 * size), block=size)
    disk.open.clear()
    for index in (0, 1, 2, 3, 4, 9):
        assert store.put(large, index, bytes(size), disk=True) == "below"
    await _rounds()
    assert disk.under_way == 1, "so few are not worth a second run"
    assert store.put(large, 10, memoryview(bytes(3 * size))[:size], disk=True) == "below"  # a part of a longer piece
    assert store.read_now(large, 10) == bytes(size)
    assert store.read_now(large, 10) is store.read_now(large, 10), "not a copy for each reader"
    await _rounds()
    assert disk.under_way == 2
    store.save(large, disk=True)
    for index in (11, 12, 13, 14, 15):
        assert store.put(large, index, bytes(size), disk=True) == "below"
    await _rounds()
    disk.open.set()
    await store.settle()
    runs = [("run", 0, 3), ("run", 3, 2), ("run", 9, 2), ("save", large), ("run", 11, 3), ("run", 14, 2)]
    assert disk.did == runs
    assert disk.most_under_way == 2
    assert store.read_now(large, 2) == bytes(size)  # memory had room for what the disk did not take
    assert store.read_now(large, 1) is None
    assert store.statistics()["pending_bytes"] == 0
    assert failures == []
    await tasks.close()
