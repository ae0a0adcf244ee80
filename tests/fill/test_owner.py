"""Which worker owns a key, and how workers find each other."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.clock import ManualClock
from fileproxy.fill.owner import owner_of
from fileproxy.fill.owners import LOOK_EVERY_S, SHUN_S, WorkerOwners
from fileproxy.observe.slots import Slots

KEYS = [number.to_bytes(16, "big") for number in range(2000)]
slots = st.sets(st.integers(0, 1023), min_size=1, max_size=16)


def test_nobody_owns_where_there_is_nobody() -> None:
    assert owner_of(b"key", []) is None


@given(slots, st.binary(min_size=16, max_size=16), st.randoms())
def test_all_agree_whatever_the_order(held: set[int], key: bytes, dice: object) -> None:
    order = sorted(held)
    dice.shuffle(order)  # type: ignore[attr-defined]
    assert owner_of(key, order) == owner_of(key, held)
    assert owner_of(key, held) in held


@given(slots, st.data())
def test_only_a_leaver_s_keys_move(held: set[int], data: st.DataObject) -> None:
    leaver = data.draw(st.sampled_from(sorted(held)))
    for key in KEYS[:200]:
        before = owner_of(key, held)
        after = owner_of(key, held - {leaver})
        if before != leaver:
            assert after == before


def test_keys_are_spread_evenly() -> None:
    counts = Counter(owner_of(key, range(4)) for key in KEYS)
    assert min(counts.values()) > 400


# --- over processes' slots -------------------------------------------------------------------------------------------


async def _nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


class Pair:
    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.one, self.two = (WorkerOwners(folder, Slots(folder), self.clock) for _ in range(2))

    def owned(self, who: WorkerOwners) -> set[bytes]:
        return {key for key in KEYS if who.owner(key) is None}


@pytest.fixture
async def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path / ("deep" * 40))  # longer than a Unix address may be


async def test_each_key_has_one_owner(pair: Pair, tidy: None) -> None:
    await pair.one.open(_nothing)
    assert pair.owned(pair.one) == set(KEYS)
    await pair.two.open(_nothing)
    pair.clock.tick(LOOK_EVERY_S)
    mine, others = pair.owned(pair.one), pair.owned(pair.two)
    assert mine | others == set(KEYS)
    assert not mine & others
    assert mine
    assert others
    reader, writer = await pair.two.connect(pair.two.owner(next(iter(mine))) or 0)
    assert await reader.read() == b""
    writer.close()
    await pair.one.close()
    pair.clock.tick(LOOK_EVERY_S)
    assert pair.owned(pair.two) == set(KEYS)
    await pair.two.close()


async def test_who_drains_owns_nothing_and_asks_the_others(pair: Pair, tidy: None) -> None:
    await pair.one.open(_nothing)
    await pair.two.open(_nothing)
    pair.one.release()
    assert pair.owned(pair.one) == set()
    third = WorkerOwners(pair.one._folder, Slots(pair.one._folder), pair.clock)
    await third.open(_nothing)  # takes the number that was freed
    assert third.statistics()["slot"] == pair.one.statistics()["slot"]
    pair.clock.tick(LOOK_EVERY_S)
    assert pair.owned(pair.one) == set()  # and is not taken for the one that left
    for one in (pair.one, pair.two, third):
        await one.close()


async def test_who_hangs_owns_nothing_for_a_while(pair: Pair, tidy: None) -> None:
    await pair.one.open(_nothing)
    await pair.two.open(_nothing)
    theirs = set(KEYS) - pair.owned(pair.one)
    slot = pair.one.owner(next(iter(theirs)))
    assert slot is not None
    pair.one.lost(slot)
    assert pair.owned(pair.one) == set(KEYS) - theirs
    pair.one.lost(slot, hangs=True)
    assert pair.owned(pair.one) == set(KEYS)
    pair.clock.tick(SHUN_S)
    assert pair.owned(pair.one) == set(KEYS) - theirs
    await pair.one.close()
    await pair.two.close()


async def test_who_cannot_listen_holds_no_slot(pair: Pair, tidy: None) -> None:
    folder = pair.one._folder
    folder.mkdir(parents=True)
    (folder / "0.sock").mkdir()  # nothing that could be removed or bound
    with pytest.raises(OSError, match=r"0\.sock"):
        await pair.one.open(_nothing)
    assert Slots(folder).held() == frozenset()
    await pair.one.close()
