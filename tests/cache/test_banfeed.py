"""Bans between machines, over a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fileproxy.cache.banfeed import STREAM, BanFeed
from fileproxy.cache.bans import Bans
from fileproxy.clock import ManualClock
from fileproxy.shared import SharedStore
from fileproxy.tasks import Tasks
from tests.cache.test_redis import Machine, body
from tests.cache.valkey import Valkey
from tests.house import Watched

SECRET = b"s" * 32


class Site:
    """One machine: its list of bans and its feed."""

    def __init__(self, store: SharedStore, folder: Path, counts: Watched, secret: bytes = SECRET) -> None:
        self.clock = ManualClock()
        self.bans = Bans(folder, self.clock)
        self.feed = BanFeed(self.bans, store, secret=secret, leads=lambda: True, counters=counts, clock=self.clock)

    def values(self) -> list[str]:
        self.bans.catch_up()
        return [ban.value for ban in self.bans.kept]


@pytest.fixture
async def valkey(short_path: Path) -> AsyncIterator[Valkey]:
    server = Valkey(short_path)
    await server.start()
    yield server
    await server.close()


@pytest.fixture
def counts() -> Watched:
    return Watched()


async def sites(valkey: Valkey, counts: Watched, folder: Path, *names: str) -> list[Site]:
    return [Site(await valkey.store(counts), folder / name, counts) for name in names]


async def test_each_machine_gets_the_others_bans_once(valkey: Valkey, counts: Watched, tmp_path: Path) -> None:
    a, b = await sites(valkey, counts, tmp_path, "a", "b")
    a.bans.add("key", "from a")
    b.bans.add("tag", "from b", soft=True)
    for _ in range(3):
        assert await a.feed.turn()
        assert await b.feed.turn()
    assert a.values() == ["from a", "from b"]
    assert b.values() == ["from b", "from a"]
    received = a.bans.kept[1]
    assert (received.kind, received.soft, received.own) == ("tag", True, False)
    assert await valkey.redis.xlen(STREAM) == 2
    assert counts["bans.received"] == 2


async def test_a_restart_remembers_what_it_has(valkey: Valkey, counts: Watched, tmp_path: Path) -> None:
    a, b = await sites(valkey, counts, tmp_path, "a", "b")
    a.bans.add("key", "one")
    assert await a.feed.turn()
    assert await b.feed.turn()
    b.bans.close()
    a.bans.add("key", "two")
    assert await a.feed.turn()
    (again,) = await sites(valkey, counts, tmp_path, "b")
    assert await again.feed.turn()
    assert again.values() == ["one", "two"]
    assert await valkey.redis.xlen(STREAM) == 2


async def test_two_workers_that_both_think_they_lead_do_no_harm(
    valkey: Valkey, counts: Watched, tmp_path: Path
) -> None:
    a, b, b2 = await sites(valkey, counts, tmp_path, "a", "b", "b")
    a.bans.add("key", "one")
    b.bans.add("key", "two")
    assert await a.feed.turn()
    for _ in range(2):
        assert await b.feed.turn()
        assert await b2.feed.turn()
    assert await a.feed.turn()
    assert sorted(b.values()) == sorted(b2.values()) == ["one", "two"]
    assert sorted(a.values()) == ["one", "two"]


async def test_the_store_may_be_away_and_return_empty(valkey: Valkey, counts: Watched, tmp_path: Path) -> None:
    store_a = await valkey.store(counts)
    a, b = Site(store_a, tmp_path / "a", counts), Site(await valkey.store(counts), tmp_path / "b", counts)
    a.bans.add("key", "before")
    assert await a.feed.turn()  # b was away, and the stream is lost before it looks
    await valkey.stop()
    a.bans.add("key", "meanwhile")
    assert not await a.feed.turn()
    await valkey.start()
    await valkey.until(lambda: store_a.state == "ok")
    assert await a.feed.turn()
    later = Site(await valkey.store(counts), tmp_path / "b", counts)
    for _ in range(3):
        assert await later.feed.turn()
        assert await a.feed.turn()
    assert later.values() == ["before", "meanwhile"]
    assert a.values() == ["before", "meanwhile"]
    assert await valkey.redis.xlen(STREAM) == 2
    assert b.values() == ["before", "meanwhile"], "another worker of that machine"


async def test_who_was_away_too_long_drops_everything(
    valkey: Valkey, counts: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fileproxy.cache.banfeed.LONGEST_STREAM", 10)
    a, b = await sites(valkey, counts, tmp_path, "a", "b")
    a.bans.add("key", "first")
    assert await a.feed.turn()
    assert await b.feed.turn()
    a.bans.add_all([("key", str(number), False) for number in range(20)])
    assert await a.feed.turn()
    await valkey.redis.xtrim(STREAM, maxlen=10, approximate=False)
    assert await b.feed.turn()
    assert [ban.kind for ban in b.bans.kept].count("all") == 1
    assert b.values()[-1] == "19"
    assert await a.feed.turn()
    assert [ban.kind for ban in a.bans.kept].count("all") == 0, "that is its own affair"


async def test_forged_bans_are_refused_and_said(valkey: Valkey, counts: Watched, tmp_path: Path) -> None:
    (a,) = await sites(valkey, counts, tmp_path, "a")
    stranger = Site(await valkey.store(counts), tmp_path / "c", counts, secret=b"x" * 32)
    await valkey.redis.xadd(STREAM, {"b": b"\x01nonsense"})
    await valkey.redis.xadd(STREAM, {"other": b""})
    stranger.bans.add("all", "")
    assert await stranger.feed.turn()
    for _ in range(2):
        assert await a.feed.turn()
    assert a.values() == []
    assert counts["bans.refused"] >= 3
    assert "redis.secret" in a.feed.statistics()["detail"]


async def test_run_looks_each_second_while_it_leads(valkey: Valkey, counts: Watched, tmp_path: Path) -> None:
    leads = [False]
    store = await valkey.store(counts)
    clock, bans = ManualClock(), Bans(tmp_path / "a", ManualClock())
    feed = BanFeed(bans, store, secret=SECRET, leads=lambda: leads[0], counters=counts, clock=clock)
    bans.add("all", "")
    failures: list[BaseException] = []
    tasks = Tasks(lambda name, error: failures.append(error))
    tasks.start(feed.run(), "feed")
    await valkey.until(lambda: clock.sleeping)
    assert not await valkey.redis.exists(STREAM)
    leads[0] = True
    await clock.advance(1.0)
    await counts_until(valkey, 1)
    await tasks.close()
    assert not failures


async def counts_until(valkey: Valkey, length: int) -> None:
    async with asyncio.timeout(10):
        while await valkey.redis.xlen(STREAM) != length:
            await asyncio.sleep(0.005)


async def test_a_record_written_before_a_ban_was_read_is_banned_on_the_other_machine(
    valkey: Valkey, counts: Watched, tmp_path: Path
) -> None:
    """Machine a is behind: it stores what b has purged already. b must not serve it."""
    a, b = [Machine(await valkey.store(counts), tmp_path / name, counts) for name in "ab"]
    feed_a, feed_b = [
        BanFeed(
            one.bans, await valkey.store(counts), secret=SECRET, leads=lambda: True, counters=counts, clock=one.clock
        )
        for one in (a, b)
    ]
    old = a.meta(size=50)
    b.bans.add("key", old.url)
    assert await feed_b.turn()
    await a.keep(old, body(50))
    assert await b.tier.find(old.key) is None
    await a.keep(old, body(50))
    assert await feed_a.turn()
    assert a.bans.judge(old).record is None
    await a.keep(old, body(50))  # a fill that began before the purge ends after it was read
    assert await b.tier.find(old.key) is None
    fresh = a.meta(size=50, rid=9)
    await a.keep(fresh, body(50, 2))
    found = await b.tier.find(fresh.key)
    assert found is not None, "fetched after the purge"
    assert found.ban == b.bans.seq
