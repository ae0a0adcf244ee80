"""The shared tier against a real server."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.cache.bans import Bans
from fileproxy.cache.redis import OBJECTS, RedisTier
from fileproxy.cache.sealed import HEAD, Sealed, compressible, seal, unseal
from fileproxy.clock import ManualClock
from fileproxy.model import Headers, Meta, Record, Tier, VaryRule
from fileproxy.shared import SharedStore
from tests.cache.valkey import Valkey
from tests.house import Watched

SECRET = b"s" * 32
TEXT: Headers = (("Content-Type", "text/plain"),)


def meta(number: int = 1, *, size: int = 100, rid: int = 7, headers: Headers = TEXT, ban: int = 0, **more: Any) -> Meta:
    return Meta(
        key=number.to_bytes(16, "big"), rid=bytes([rid]) * 16, url=f"files/a.test/{number}", status=200, reason="OK",
        headers=headers, size=size, block=64 * 1024, pinned=True, requested_at=1.0, received_at=2.0, age_s=0.0, ban=ban,
        **more,
    )  # fmt: skip


def body(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


class Machine:
    """One machine's tier with its list of bans."""

    def __init__(self, store: SharedStore, folder: Path, counts: Watched, **options: Any) -> None:
        self.clock = ManualClock()
        self.counts = counts
        self.bans = Bans(folder, self.clock)
        values = {"secret": SECRET, "max_object": 32 * 1024, "max_entries": 1000, **options}
        self.tier = RedisTier(store, self.bans, counters=counts, clock=self.clock, **values)

    def meta(self, number: int = 1, **more: Any) -> Meta:
        return meta(number, ban=self.bans.seq, **more)

    async def keep(self, one: Meta, data: bytes) -> bool:
        return await self.tier.save(one) and await self.tier.write(one, 0, data)


@pytest.fixture
async def valkey(short_path: Path) -> AsyncIterator[Valkey]:
    server = Valkey(short_path)
    await server.start()
    yield server
    await server.close()


@pytest.fixture
def counts() -> Watched:
    return Watched()


@pytest.fixture
async def machine(valkey: Valkey, counts: Watched, tmp_path: Path) -> Machine:
    return Machine(await valkey.store(counts), tmp_path / "a", counts)


# --- values (pure) ----------------------------------------------------------------------------------------------------

_RECORDS: st.SearchStrategy[Record] = st.one_of(
    st.builds(meta, st.integers(0, 9), rid=st.integers(0, 255), size=st.just(5)),
    st.builds(VaryRule, key=st.just(bytes(16)), url=st.just("u"), fields=st.just(("accept",))),
)


@given(_RECORDS, st.integers(0), st.integers(0, 7), st.booleans())
def test_no_flipped_bit_and_no_cut_is_believed(record: Record, place: int, bit: int, cut: bool) -> None:
    data = b"12345" if isinstance(record, Meta) else b""
    sealed = Sealed(record, data, "m", (1, 2))
    value = seal(sealed, SECRET)
    assert unseal(record.key, value, SECRET, 100) == sealed
    damaged = bytearray(value)
    place %= len(value)
    if cut:
        del damaged[place:]
    else:
        damaged[place] ^= 1 << bit
    assert unseal(record.key, bytes(damaged), SECRET, 100) is None
    assert unseal(b"k" * 16, value, SECRET, 100) is None, "moved under another key"
    assert unseal(record.key, value, b"x" * 32, 100) is None, "written with another secret"


def test_a_genuine_value_of_the_wrong_size_is_not_believed() -> None:
    assert unseal(meta().key, seal(Sealed(meta(size=4), b"12345", "m", (0, 0)), SECRET), SECRET, 100) is None


def test_what_unpacks_to_more_than_is_allowed_is_not_unpacked() -> None:
    one = meta(size=2_000_000)
    value = seal(Sealed(one, bytes(2_000_000), "m", (0, 0)), SECRET)
    assert len(value) < 20_000
    assert unseal(one.key, value, SECRET, 1_000) is None
    assert unseal(one.key, value, SECRET, 2_000_000) is not None


def test_compression_where_it_pays() -> None:
    def packing(headers: Headers, data: bytes) -> int:
        return seal(Sealed(meta(size=len(data), headers=headers), data, "m", (0, 0)), SECRET)[HEAD - 1]

    assert packing(TEXT, b"a" * 5000) == 1
    assert packing(TEXT, b"a" * 500) == 0, "too short"
    assert packing(TEXT, body(5000)) == 0, "does not shrink"
    assert packing((("content-type", "image/png"),), b"a" * 5000) == 0
    assert packing((*TEXT, ("Content-Encoding", "gzip")), b"a" * 5000) == 0
    assert compressible(meta(headers=(("Content-Type", "image/svg+xml; charset=utf-8"),)))


# --- the tier ---------------------------------------------------------------------------------------------------------


async def test_an_object_is_found_with_its_bytes_by_another_worker(
    machine: Machine, valkey: Valkey, counts: Watched, tmp_path: Path
) -> None:
    tier: Tier = machine.tier
    one, data = machine.meta(size=3000), body(3000)
    assert await tier.find(one.key) is None
    assert await machine.keep(one, data)
    other = Machine(await valkey.store(counts), tmp_path / "a", counts)
    before = (await valkey.redis.info("stats"))["total_commands_processed"]
    assert await other.tier.find(one.key) == one
    assert await other.tier.held(one) == {0}
    assert await other.tier.read(one, 0, 1) == data
    after = (await valkey.redis.info("stats"))["total_commands_processed"]
    assert after - before == 2, "one look-up (and INFO): the bytes were at hand"
    assert counts["cache.redis_hits"] == 1
    assert counts["cache.redis_misses"] == 2
    assert await tier.read(one, 1, 1) is None
    assert 0 < await valkey.redis.ttl(f"fileproxy:o:{one.key.hex()}") <= 7 * 24 * 3600


async def test_only_whole_small_objects_are_kept(machine: Machine, valkey: Valkey) -> None:
    big = machine.meta(size=32 * 1024 + 1)
    assert not await machine.keep(big, body(big.size))
    assert not await machine.tier.write(machine.meta(size=100), 0, b"short")
    assert not await machine.tier.write(machine.meta(size=100), 1, body(100))
    assert await machine.tier.held(big) == frozenset()
    assert await machine.tier.read(big, 0, 1) is None
    blocks = machine.meta(2, size=200)
    assert not await machine.tier.write(msgspec.structs.replace(blocks, block=100), 0, body(200))
    assert await valkey.redis.dbsize() == 0


async def test_empty_objects_and_rules_of_vary(machine: Machine) -> None:
    empty = machine.meta(size=0)
    rule = VaryRule(key=b"v" * 16, url="files/a.test/v", fields=("accept-encoding",), ban=machine.bans.seq)
    assert await machine.tier.save(empty)
    assert await machine.tier.save(rule)
    assert await machine.tier.find(empty.key) == empty
    assert await machine.tier.held(empty) == frozenset()
    assert await machine.tier.find(rule.key) == rule
    await machine.tier.drop(rule)
    assert await machine.tier.find(rule.key) is None


async def test_a_newer_head_keeps_the_bytes_and_a_newer_version_hides_the_old(machine: Machine) -> None:
    one, data = machine.meta(size=50), body(50)
    await machine.keep(one, data)
    fresher = msgspec.structs.replace(one, received_at=99.0)
    assert await machine.tier.save(fresher)
    assert await machine.tier.find(one.key) == fresher
    assert await machine.tier.read(fresher, 0, 1) == data
    newer = machine.meta(size=60, rid=8)
    assert await machine.tier.save(newer)
    assert await machine.tier.find(one.key) is None, "its bytes are not here yet, the old ones are not it"
    assert await machine.tier.write(newer, 0, body(60))
    await machine.tier.drop(one)
    assert await machine.tier.find(one.key) == newer, "what was stored later stays"
    await machine.tier.drop(newer)
    assert await machine.tier.find(one.key) is None
    assert await machine.tier.read(newer, 0, 1) is None


async def test_flipped_bits_are_never_served_and_removed_and_counted(
    machine: Machine, valkey: Valkey, counts: Watched
) -> None:
    one, data = machine.meta(size=600), body(600)
    name = f"fileproxy:o:{one.key.hex()}"
    for seed in range(30):
        await machine.keep(one, data)
        stored = await valkey.redis.get(name)
        assert isinstance(stored, bytes)
        value = bytearray(stored)
        place = random.Random(seed).randrange(len(value) * 8)
        value[place // 8] ^= 1 << place % 8
        await valkey.redis.set(name, bytes(value))
        assert await machine.tier.find(one.key) is None
        assert await machine.tier.read(one, 0, 1) is None
        assert not await valkey.redis.exists(name)
        assert counts["cache.redis_damaged"] == seed + 1
    assert await valkey.redis.zcard(OBJECTS) == 0


async def test_the_number_is_capped_and_the_least_recently_used_go(
    valkey: Valkey, counts: Watched, tmp_path: Path
) -> None:
    machine = Machine(await valkey.store(counts), tmp_path / "a", counts, max_entries=5)
    for number in range(5):
        machine.clock.tick(1.0)
        await machine.keep(machine.meta(number, rid=number), body(100))
    machine.clock.tick(1.0)
    assert await machine.tier.find(meta(0).key) is not None  # used: told to the store with the next look-up
    for number in range(5, 8):
        machine.clock.tick(1.0)
        await machine.tier.find(meta(99).key)
        await machine.keep(machine.meta(number, rid=number), body(100))
    left = [number for number in range(8) if await machine.tier.find(meta(number).key) is not None]
    assert left == [0, 4, 5, 6, 7]
    assert await valkey.redis.zcard(OBJECTS) == 5
    assert machine.tier.statistics()["trimmed"] == 3


async def test_when_memory_is_short_the_server_gives_up_objects_but_nothing_else(
    machine: Machine, valkey: Valkey
) -> None:
    assert (await valkey.redis.config_get("maxmemory-policy"))["maxmemory-policy"] == "volatile-lru"
    await valkey.redis.xadd("fileproxy:bans", {"b": b"x"})
    await valkey.redis.incr("fileproxy:counter")
    await valkey.redis.config_set("maxmemory", str(4 * 1024**2))
    for number in range(400):
        await machine.tier.write(machine.meta(number, size=32_000, rid=number % 256), 0, body(32_000))
    assert int((await valkey.redis.info("stats"))["evicted_keys"]) > 0
    assert await valkey.redis.xlen("fileproxy:bans") == 1
    assert await valkey.redis.get("fileproxy:counter") == b"1"
    assert await machine.tier.find(meta(399).key) is not None


async def test_a_server_that_hangs_dies_and_returns_costs_no_error(
    valkey: Valkey, counts: Watched, tmp_path: Path
) -> None:
    store = await valkey.store(counts, timeout_s=0.5)
    machine = Machine(store, tmp_path / "a", counts)
    one, data = machine.meta(size=100), body(100)
    assert await machine.keep(one, data)
    valkey.freeze()
    began = time.monotonic()
    assert await machine.tier.find(one.key) is None
    for _ in range(100):
        assert await machine.tier.find(one.key) is None
        assert not await machine.keep(one, data)
        assert await machine.tier.read(one, 0, 1) is None
        await machine.tier.drop(one)
    assert time.monotonic() - began < 5.0, "only the first of 401 calls waited for it"
    assert machine.tier.statistics()["status"] == "down"
    valkey.thaw()
    await valkey.until(lambda: store.state == "ok")
    assert await machine.tier.find(one.key) == one
    await valkey.stop()
    assert await machine.tier.find(meta(5).key) is None
    await valkey.start()
    await valkey.until(lambda: store.state == "ok")
    assert await machine.tier.find(one.key) is None
    assert await machine.keep(one, data)
    assert await machine.tier.find(one.key) == one


async def test_what_stays_at_hand_is_bounded(machine: Machine) -> None:
    for number in range(40):
        await machine.keep(machine.meta(number, size=20_000, rid=number), body(20_000))
        await machine.tier.find(meta(number).key)
    assert len(machine.tier._at_hand) == 16
    assert machine.tier._at_hand_bytes == 16 * 20_000


# --- machines and their bans ------------------------------------------------------------------------------------------


async def test_numbers_of_another_machine_are_not_taken_for_ours(
    machine: Machine, valkey: Valkey, counts: Watched, tmp_path: Path
) -> None:
    far = Machine(await valkey.store(counts), tmp_path / "b", counts)
    one = machine.meta(size=100)
    await machine.keep(one, body(100))
    machine.bans.add("tag", "x")
    found = await far.tier.find(one.key)
    assert found == msgspec.structs.replace(one, ban=far.bans.seq)
    far.bans.add("key", one.url)  # of which the other machine does not know yet
    assert await far.tier.find(one.key) is None
    assert not await valkey.redis.exists(f"fileproxy:o:{one.key.hex()}")
