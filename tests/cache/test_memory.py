from __future__ import annotations

import gc
import os
import tracemalloc
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fileproxy.cache.memory import MemoryTier
from fileproxy.cache.records import decode, encode
from fileproxy.model import Meta, Tier, VaryRule
from tests.house import Watched

KIB = 1024
MIB = 1024**2


def make(size: int = 100, *, block: int = 64 * KIB, key: bytes | None = None, rid: bytes | None = None) -> Meta:
    return Meta(
        key=key or os.urandom(16),
        rid=rid or os.urandom(16),
        url="files/example.org/a",
        status=200,
        reason="OK",
        headers=(("ETag", '"a"'), ("Content-Type", "text/plain")),
        size=size,
        block=block,
        pinned=True,
        requested_at=1.0,
        received_at=2.0,
        age_s=0.0,
    )


def vary(key: bytes) -> VaryRule:
    return VaryRule(key=key, url="files/example.org/a", fields=("accept-encoding",))


def test_it_is_a_tier() -> None:
    tier: Tier = MemoryTier(MIB, Watched())
    assert tier.statistics()["budget"] == MIB


async def test_what_is_kept_is_found_again() -> None:
    tier = MemoryTier(MIB, Watched())
    meta = make(150 * KIB)
    blocks = [bytes([index]) * meta.length_of(index) for index in range(3)]
    assert await tier.find(meta.key) is None
    assert await tier.save(meta)
    for index, block in enumerate(blocks):
        assert await tier.read(meta, index, 8) is None
        assert await tier.write(meta, index, block)
        assert await tier.read(meta, index, 8) == block
    assert await tier.find(meta.key) is meta
    assert await tier.held(meta) == {0, 1, 2}
    await tier.drop(meta)
    assert await tier.find(meta.key) is None
    assert await tier.held(meta) == frozenset()
    assert tier.statistics()["bytes"] == 0
    await tier.close()


def test_the_counters_say_what_happened() -> None:
    counters = Watched()
    tier = MemoryTier(MIB, counters)
    meta = make(100)
    tier.find_now(meta.key)
    tier.save_now(meta)
    tier.write_now(meta, 0, bytes(100))
    tier.read_now(meta, 0)
    tier.write_now(make(2 * MIB, block=2 * MIB), 0, bytes(2 * MIB))
    stats = tier.statistics()
    names = ("hits", "misses", "admitted", "rejected", "evicted")
    assert [stats[name] for name in names] == [1, 1, 2, 1, 0]
    assert [counters[f"cache.memory_{name}"] for name in names] == [1, 1, 2, 1, 0]
    assert (stats["entries"], stats["blocks"]) == (1, 1)
    assert counters["cache.memory_bytes"] == stats["bytes"] > 100
    assert counters["cache.memory_budget"] == MIB
    tier.resize(0)
    assert tier.statistics()["evicted"] == counters["cache.memory_evicted"] == 2


@pytest.mark.parametrize("length", [0, 99, 101])
def test_a_piece_is_not_a_block(length: int) -> None:
    """Law 2: what was cut short is not stored."""
    tier = MemoryTier(MIB, Watched())
    meta = make(100)
    assert not tier.write_now(meta, 0, bytes(length))
    assert tier.held_now(meta) == frozenset()


@pytest.mark.parametrize("index", [-1, 1, 1 << 40])
def test_there_is_no_block_beyond_the_end(index: int) -> None:
    tier = MemoryTier(MIB, Watched())
    assert not tier.write_now(make(100), index, bytes(100))


def test_an_empty_file_has_a_record_and_no_block() -> None:
    tier = MemoryTier(MIB, Watched())
    meta = make(0)
    assert tier.save_now(meta)
    assert not tier.write_now(meta, 0, b"")
    assert tier.held_now(meta) == frozenset()


def test_a_view_of_a_large_buffer_does_not_keep_it() -> None:
    tier = MemoryTier(MIB, Watched())
    meta = make(100)
    buffer = bytearray(200)
    assert tier.write_now(meta, 0, memoryview(buffer)[:100])  # type: ignore[arg-type]
    buffer[0] = 1
    assert tier.read_now(meta, 0) == bytes(100)


def test_a_block_never_changes() -> None:
    tier = MemoryTier(MIB, Watched())
    meta = make(1)
    tier.write_now(meta, 0, b"a")
    assert tier.write_now(meta, 0, b"b")
    assert tier.read_now(meta, 0) == b"a"


def test_a_new_version_takes_the_record_and_the_old_blocks_stay_for_their_readers() -> None:
    tier = MemoryTier(MIB, Watched())
    old = make(3)
    new = make(3, key=old.key)
    tier.save_now(old)
    tier.write_now(old, 0, b"old")
    tier.save_now(new)
    tier.write_now(new, 0, b"new")
    assert tier.find_now(old.key) is new
    assert (tier.read_now(old, 0), tier.read_now(new, 0)) == (b"old", b"new")
    tier.drop_now(old)  # the record under the key is another one: it stays
    assert tier.find_now(old.key) is new
    assert (tier.read_now(old, 0), tier.read_now(new, 0)) == (None, b"new")


def test_blocks_stay_while_another_record_names_them() -> None:
    tier = MemoryTier(MIB, Watched())
    one = make(3)
    two = make(3, rid=one.rid)
    for meta in (one, two):
        tier.save_now(meta)
    tier.write_now(one, 0, b"abc")
    tier.drop_now(one)
    assert tier.find_now(one.key) is None
    assert tier.read_now(two, 0) == b"abc"
    tier.drop_now(two)
    assert tier.read_now(two, 0) is None
    assert tier.statistics()["bytes"] == 0


def test_a_rule_and_a_record_may_follow_each_other_under_one_key() -> None:
    tier = MemoryTier(MIB, Watched())
    meta = make()
    tier.save_now(vary(meta.key))
    tier.drop_now(meta)
    assert tier.find_now(meta.key) == vary(meta.key)
    tier.save_now(meta)
    tier.drop_now(vary(meta.key))
    assert tier.find_now(meta.key) is meta
    tier.save_now(vary(meta.key))
    tier.drop_now(vary(meta.key))
    assert tier.find_now(meta.key) is None
    assert tier.statistics()["bytes"] == 0


def test_the_record_of_a_long_file_that_is_read_does_not_fade_before_its_blocks() -> None:
    tier = MemoryTier(4 * MIB, Watched())
    meta = make(32 * 64 * KIB)
    tier.save_now(meta)
    for index in range(32):
        tier.write_now(meta, index, bytes(64 * KIB))
    for _ in range(4):
        for index in range(32):
            tier.read_now(meta, index)
        for _ in range(20):
            other = make(64 * KIB)
            for _ in range(2):
                tier.write_now(other, 0, bytes(64 * KIB))
    assert len(tier.held_now(meta)) > 24
    assert tier.find_now(meta.key) is meta


def test_nothing_is_left_of_what_has_gone() -> None:
    tier = MemoryTier(MIB, Watched())
    for _ in range(500):
        meta = make(150 * KIB)
        tier.save_now(meta)
        for index in range(3):
            tier.write_now(meta, index, bytes(meta.length_of(index)))
    stats = tier.statistics()
    assert sum(map(len, tier._held.values())) == stats["blocks"] > 0
    assert all(tier._held.values())
    assert len(tier._users) == stats["entries"]
    tier.resize(0)
    assert not tier._held
    assert not tier._users


def test_a_smaller_budget_holds_at_once() -> None:
    tier = MemoryTier(MIB, Watched())
    metas = [make(10 * KIB) for _ in range(90)]
    for meta in metas:
        tier.save_now(meta)
        tier.write_now(meta, 0, bytes(10 * KIB))
    assert tier.statistics()["bytes"] > 900 * KIB
    tier.resize(100 * KIB)
    stats = tier.statistics()
    assert 50 * KIB < stats["bytes"] <= stats["budget"] == 100 * KIB
    assert sum(tier.read_now(meta, 0) is not None for meta in metas) == stats["blocks"]
    tier.resize(MIB)
    assert tier.write_now(make(500 * KIB, block=MIB), 0, bytes(500 * KIB))


@pytest.mark.parametrize("kind", ["files", "blocks", "records"])
def test_the_budget_is_real_memory(kind: str) -> None:
    """What is charged for small things covers what Python takes for them."""
    gc.collect()
    tier = MemoryTier(8 * MIB, Watched())
    long = make(64 * KIB * 100_000)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(4000):
            if kind == "records":
                record = decode(encode(make()))  # strings of its own, as after a request
                assert record is not None
                tier.save_now(record)
            elif kind == "files":
                tier.write_now(make(10), 0, b"%010d" % number)
            else:
                tier.write_now(long, number, bytes(64 * KIB))
                if number == 100:
                    break
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.3 * tier.statistics()["bytes"] < taken < 1.1 * tier.statistics()["bytes"]


async def test_a_closed_tier_gives_everything_back() -> None:
    counters = Watched()
    tier = MemoryTier(MIB, counters)
    meta = make(3)
    tier.save_now(meta)
    tier.write_now(meta, 0, b"abc")
    await tier.close()
    await tier.close()
    assert tier.find_now(meta.key) is None
    assert not tier.save_now(meta)
    assert not tier.write_now(meta, 0, b"abc")
    assert counters["cache.memory_bytes"] == counters["cache.memory_budget"] == 0


METAS = [make(size, block=1000, key=bytes([number % 5]) * 16) for number, size in enumerate([1, 900, 1000, 4500] * 3)]
METAS += [make(METAS[3].size, block=1000, rid=METAS[3].rid)]


class Machine(RuleBasedStateMachine):
    """Whatever happens: within the budget, never a wrong byte, and the books agree."""

    def __init__(self) -> None:
        super().__init__()
        self.counters = Watched()
        self.tier = MemoryTier(40_000, self.counters)

    @rule(meta=st.sampled_from(METAS))
    def save(self, meta: Meta) -> None:
        saved = self.tier.save_now(meta)
        assert self.tier.find_now(meta.key) is (meta if saved else None)

    @rule(meta=st.sampled_from(METAS), index=st.integers(0, 4))
    def write(self, meta: Meta, index: int) -> None:
        if index < meta.blocks:
            written = self.tier.write_now(meta, index, content(meta, index))
            assert (index in self.tier.held_now(meta)) == written

    @rule(meta=st.sampled_from(METAS), index=st.integers(0, 4))
    def read(self, meta: Meta, index: int) -> None:
        there = index in self.tier.held_now(meta)
        assert self.tier.read_now(meta, index) == (content(meta, index) if there else None)

    @rule(meta=st.sampled_from(METAS))
    def drop(self, meta: Meta) -> None:
        self.tier.drop_now(meta)
        found = self.tier.find_now(meta.key)
        assert not isinstance(found, Meta) or found.rid != meta.rid
        named = any(isinstance(other := self.tier.find_now(one.key), Meta) and other.rid == meta.rid for one in METAS)
        assert named or not self.tier.held_now(meta)

    @rule(key=st.sampled_from([meta.key for meta in METAS]))
    def rule_saved(self, key: bytes) -> None:
        self.tier.save_now(vary(key))

    @rule(budget=st.sampled_from([0, 3000, 10_000, 40_000]))
    def resize(self, budget: int) -> None:
        self.tier.resize(budget)

    @invariant()
    def adds_up(self) -> None:
        stats: dict[str, Any] = self.tier.statistics()
        assert 0 <= stats["bytes"] <= stats["budget"]
        assert self.counters["cache.memory_bytes"] == stats["bytes"]
        assert self.counters["cache.memory_budget"] == stats["budget"]
        assert stats["blocks"] == sum(len(self.tier.held_now(meta)) for meta in METAS[:-1])
        assert stats["bytes"] > 0 or not stats["blocks"] + stats["entries"]


def content(meta: Meta, index: int) -> bytes:
    return bytes([meta.rid[0] ^ index]) * meta.length_of(index)


Machine.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestMachine = Machine.TestCase
