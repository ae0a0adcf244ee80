"""Asks become entries: who leads, who waits, who fetches for itself (a real store in memory, answers by hand)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from fileproxy.cache.freshness import CachePolicy
from fileproxy.cache.memory import MemoryTier
from fileproxy.cache.store import Store
from fileproxy.clock import ManualClock
from fileproxy.errors import BadAnswer, ConnectRefused, FileProxyError, UpstreamReset
from fileproxy.fill import insist
from fileproxy.fill.contact import MOST_REMEMBERED, Contact, Reached, Unshareable
from fileproxy.fill.early import MOST, join
from fileproxy.fill.entry import Shared
from fileproxy.fill.filler import Filler, Opened
from fileproxy.fill.flight import Flight
from fileproxy.fill.origin import OriginSource
from fileproxy.fill.values import Need
from fileproxy.fill.window import Windows
from fileproxy.http.ranges import RangeSpec, parse_ranges, resolve
from fileproxy.model import Answer, Headers, Meta, Target, Want, header
from fileproxy.tasks import Tasks
from tests.fill.kit import BLOCK, ETAG, FILE, Feed, MakeKit
from tests.house import Lines, Watched

HOUR = ("Cache-Control", "max-age=3600")


class Play:
    """A filler over memory alone. Its upstream's answers are futures that the test settles."""

    def __init__(self, memory: int = 2**24) -> None:
        self.clock = ManualClock()
        self.counts, self.lines = Watched(), Lines()
        self.failures: list[BaseException] = []
        self.tasks = Tasks(lambda name, error: None if name == "open" else self.failures.append(error))
        bans: Any = SimpleNamespace(seq=0)
        self.store = Store(
            memory=MemoryTier(memory, self.counts),
            disk=None,
            shared=None,
            bans=bans,
            counters=self.counts,
            tasks=self.tasks,
        )
        windows = Windows(2**20, 2**30)
        shared = Shared(self.store, self.clock, self.tasks, self.counts, windows, 0, BLOCK)
        self.filler = Filler(shared, self.lines)
        self.asked: list[Want] = []
        self.answers: list[asyncio.Future[Answer]] = []
        self.feeds: list[Feed] = []
        self.source = OriginSource(self, writes=True, block=BLOCK, clock=self.clock, ban=lambda: 0)

    async def fetch(self, want: Want) -> Answer:
        self.asked.append(want)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.answers.append(future)
        return await future

    def answer(self, *headers: tuple[str, str], status: int = 200, data: bytes = FILE, number: int = -1) -> Feed:
        """Settle one of the upstream's answers."""
        feed = Feed(data, end=True, length=len(data))
        self.feeds.append(feed)
        self.answers[number].set_result(Answer(status, "", headers, feed))
        return feed

    def part(self, number: int, *headers: tuple[str, str], size: int = len(FILE)) -> Feed:
        """Settle an answer with the part that was asked for."""
        spec = parse_ranges(header(self.asked[number].headers, "Range") or "")
        assert spec is not None
        ((at, length),) = resolve(spec, size)
        place = ("Content-Range", f"bytes {at}-{at + length - 1}/{size}")
        return self.answer(place, *headers, status=206, data=FILE[at : at + length], number=number)

    def ranged(self, first: int, last: int | None, *headers: tuple[str, str]) -> asyncio.Task[Opened]:
        return self.open(*headers, ranges=(RangeSpec(first, last),))

    def fail(self, error: FileProxyError) -> None:
        self.answers[-1].set_exception(error)

    def need(self, *headers: tuple[str, str], key: bytes = b"k", **values: Any) -> Need:
        want = Want("GET", Target("/f"), ())
        policy = CachePolicy(negative_ttl_s=0)
        return Need(key * 16, key * 16, "files//f", headers, want, policy, self.source, **values)

    def open(self, *headers: tuple[str, str], **values: Any) -> asyncio.Task[Opened]:
        return self.tasks.start(self.filler.open(self.need(*headers, **values)), "open")

    async def asked_for(self, count: int) -> None:
        for _ in range(1000):
            if len(self.answers) == count:
                return
            await asyncio.sleep(0)
        raise AssertionError(f"{len(self.answers)} asks instead of {count}")

    async def turns(self, count: int = 50) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    async def stored(self, *headers: tuple[str, str]) -> None:
        task = self.open()
        await self.asked_for(len(self.answers) + 1)
        self.answer(*headers)
        assert await read(await task) == FILE


async def read(opened: Opened) -> bytes:
    body = opened.body or (opened.answer.body if opened.answer is not None else None)
    assert body is not None
    try:
        return b"".join([piece async for piece in body if isinstance(piece, bytes)])
    finally:
        await body.aclose()


async def read_part(opened: Opened, first: int, last: int) -> bytes:
    assert opened.body is not None
    try:
        pieces = opened.body.pieces(first, last + 1 - first)
        return b"".join([piece async for piece in pieces if isinstance(piece, bytes)])
    finally:
        await opened.body.aclose()


@pytest.fixture
async def play() -> AsyncIterator[Play]:
    one = Play()
    yield one
    await one.tasks.close()
    assert not one.failures
    assert not one.filler._contacts
    assert one.counts["flight.running"] == 0
    for feed in one.feeds:
        assert feed.closed


@pytest.mark.parametrize("memory", [2**24, 0])
async def test_asks_collapse_into_one(play: Play, memory: int) -> None:
    play.store.memory.resize(memory)
    tasks = [play.open() for _ in range(5)]
    await play.asked_for(1)
    play.answer(ETAG, HOUR, data=FILE[:1000])  # it has landed before anybody comes to read
    opened = [await task for task in tasks]
    assert [await read(one) for one in opened] == [FILE[:1000]] * 5
    assert [one.how for one in opened] == ["MISS"] * 5
    assert [one.status.collapsed for one in opened].count(True) == 4
    assert play.counts["cache.collapsed"] == 4
    assert len(play.asked) == 1


async def test_memory_answers_at_once(play: Play) -> None:
    assert play.filler.open_now(play.need()) is None
    await play.stored(ETAG, HOUR)
    opened = play.filler.open_now(play.need())
    assert opened is not None
    assert (opened.how, await read(opened)) == ("HIT", FILE)


async def test_an_unsized_fill_is_not_counted_block_by_block(play: Play) -> None:
    """Regression: the second ask for a running chunked body made a set of four million million numbers."""
    task = play.open()
    await play.asked_for(1)
    feed = Feed(FILE[:100])
    play.feeds.append(feed)
    play.answers[0].set_result(Answer(200, "OK", (HOUR,), feed))
    first = await task
    assert play.filler.open_now(play.need()) is None
    second = await play.open()
    feed.give(FILE[100:])
    feed.end()
    assert [*await asyncio.gather(read(first), read(second))] == [FILE, FILE]
    assert len(play.asked) == 1


async def test_what_may_not_be_shared_goes_to_the_leader_alone(play: Play) -> None:
    leader, follower = play.open(), play.open()
    await play.asked_for(1)
    play.answer(ETAG, ("Cache-Control", "private"))
    assert await read(await leader) == FILE
    opened = await follower
    assert (opened.how, opened.answer, opened.body) == ("BYPASS", None, None)
    # It is remembered for a while, so that nobody queues for nothing.
    assert (await play.open()).status.detail == "hit-for-miss"
    assert play.counts["cache.hit_for_miss"] == 1
    assert len(play.asked) == 1
    play.clock.tick(61)
    task = play.open()
    await play.asked_for(2)
    play.answer(ETAG, HOUR)
    assert (await task).entry is not None


async def test_a_leader_who_leaves_is_not_missed(play: Play) -> None:
    leader, follower = play.open(), play.open()
    await play.asked_for(1)
    leader.cancel()
    await play.turns()
    play.answer(ETAG, HOUR)
    assert await read(await follower) == FILE


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5])
async def test_an_answer_for_a_leader_who_left_is_closed(play: Play, turns: int) -> None:
    leader, follower = play.open(), play.open()
    await play.asked_for(1)
    if turns == 0:
        leader.cancel()
        await play.turns(1)
    feed = play.answer(ETAG, ("Cache-Control", "private"))
    await play.turns(turns)
    if not leader.done():
        leader.cancel()
    await play.turns()
    if not leader.cancelled():
        await read(leader.result())
    assert feed.closed
    assert (await follower).how == "BYPASS"


@pytest.mark.parametrize("turns", [0, 1, 2, 10])
async def test_a_contact_nobody_waits_for_is_given_up(play: Play, turns: int) -> None:
    tasks = [play.open(), play.open()]
    await play.asked_for(1)
    for task in tasks:
        task.cancel()
    await play.turns(turns)
    again = play.open()
    await play.asked_for(2)
    await play.turns()
    late = play.open()
    await play.turns()
    play.answer(ETAG, HOUR)
    assert [await read(await again), await read(await late)] == [FILE, FILE]
    assert play.answers[0].cancelled()
    assert len(play.asked) == 2


async def test_failure_reaches_all_who_wait(play: Play) -> None:
    tasks = [play.open() for _ in range(3)]
    await play.asked_for(1)
    play.fail(ConnectRefused("nobody there"))
    assert {type(error) for error in await asyncio.gather(*tasks, return_exceptions=True)} == {ConnectRefused}
    task = play.open()
    await play.asked_for(2)
    play.answer(ETAG, HOUR)
    assert await read(await task) == FILE


async def test_each_variant_has_one_fetch(play: Play) -> None:
    def ask(language: str) -> asyncio.Task[Opened]:
        return play.open(("Accept-Language", language))

    tasks = [ask("en"), ask("en"), ask("de"), ask("de")]
    await play.asked_for(1)
    vary = ("Vary", "Accept-Language")
    play.answer(ETAG, HOUR, vary, data=b"english")
    await play.asked_for(2)  # of both who want another one, one asks
    play.answer(("ETag", '"de"'), HOUR, vary, data=b"german")
    assert [await read(await task) for task in tasks] == [b"english"] * 2 + [b"german"] * 2
    assert len(play.asked) == 2
    for language, data in (("en", b"english"), ("de", b"german")):
        opened = play.filler.open_now(play.need(("Accept-Language", language)))
        assert opened is not None
        assert await read(opened) == data


async def test_one_revalidation_for_all_whatever_part_they_want(play: Play) -> None:
    await play.stored(ETAG, ("Cache-Control", "max-age=1"))
    play.clock.tick(10)
    tasks = [play.open() for _ in range(3)]
    await play.asked_for(2)
    assert header(play.asked[1].headers, "If-None-Match") == ETAG[1]
    assert header(play.asked[1].headers, "Range") is None
    play.answer(ETAG, HOUR, status=304, data=b"")
    opened = [await task for task in tasks]
    assert [one.how for one in opened] == ["REVALIDATED"] * 3
    assert [await read(one) for one in opened] == [FILE] * 3
    assert play.filler.open_now(play.need()) is not None


async def test_a_confirmed_file_whose_bytes_are_gone_is_fetched(play: Play) -> None:
    await play.stored(("Cache-Control", "max-age=1"), ("ETag", 'W/"weak"'))
    play.clock.tick(10)
    task = play.open()
    await play.asked_for(2)
    play.store.memory.resize(0)
    play.answer(("ETag", 'W/"weak"'), HOUR, status=304, data=b"")
    opened = await task
    assert (opened.how, opened.body, opened.answer) == ("BYPASS", None, None)


async def test_stale_while_revalidate(play: Play) -> None:
    await play.stored(ETAG, ("Cache-Control", "max-age=1, stale-while-revalidate=60"))
    play.clock.tick(10)
    opened = await play.open()
    assert (opened.how, await read(opened)) == ("STALE", FILE)
    await play.asked_for(2)
    again = await play.open()  # nobody asks twice
    assert await read(again) == FILE
    assert play.counts["cache.refreshed_behind"] == 1
    play.answer(ETAG, HOUR, status=304, data=b"")
    await play.turns()
    assert play.filler.open_now(play.need()) is not None


async def test_a_refresh_that_fails_is_told(play: Play) -> None:
    await play.stored(ETAG, ("Cache-Control", "max-age=1, stale-while-revalidate=60"))
    play.clock.tick(10)
    await read(await play.open())
    await play.asked_for(2)
    play.fail(UpstreamReset("gone"))
    await play.turns()
    assert [event["event"] for event in play.lines.events] == ["refresh_failed"]


async def test_stale_if_error(play: Play) -> None:
    await play.stored(ETAG, ("Cache-Control", "max-age=1, stale-if-error=60"))
    play.clock.tick(10)
    tasks = [play.open(), play.open()]
    await play.asked_for(2)
    feed = play.answer(status=503, data=b"sorry")
    assert [await read(await task) for task in tasks] == [FILE, FILE]
    assert feed.closed
    play.clock.tick(60)
    task = play.open()
    await play.asked_for(3)
    play.answer(status=503, data=b"sorry")
    assert await read(await task) == b"sorry"


@pytest.mark.parametrize("headers", [(("Content-Range", "bytes 5-9/10"),), (("Content-Range", "bytes 0-9/10"),)])
async def test_a_part_nobody_asked_for_is_refused(play: Play, headers: Headers) -> None:
    """After it was asked for again a few times: it may have been a moment's mistake."""
    task = play.open()
    for tries in range(1, insist.MOST + 1):
        await play.asked_for(tries)
        play.answer(ETAG, HOUR, *headers, status=206, data=FILE[:10])
        await play.turns()
        await play.clock.advance(insist.LONGEST_PAUSE_S)
    with pytest.raises(BadAnswer):
        await task
    assert len(play.asked) == insist.MOST


async def test_a_fill_s_own_requests_carry_none_of_the_client_s_conditions(play: Play) -> None:
    task = play.open(("Range", "bytes=0-9"), ("If-Range", '"x"'))
    await play.asked_for(1)
    assert play.asked[0].headers == ()
    play.answer(ETAG, HOUR)
    await read(await task)


async def test_who_wants_nothing_shared_waits_for_nobody(play: Play) -> None:
    for need in (
        play.need(("Cache-Control", "no-store")),
        replace(play.need(), method="HEAD"),
        replace(play.need(), conditional=True),
        replace(play.need(), for_origin=True),
    ):
        assert (await play.filler.open(need)).how == "BYPASS"
    assert (await play.filler.open(play.need(("Cache-Control", "only-if-cached")))).how == "TIMEOUT"
    assert not play.asked


USELESS, WEAK = ("Cache-Control", "max-age=0"), ("ETag", 'W/"weak"')


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize(
    ("headers", "size", "kept"),
    [
        ((), BLOCK, False),
        ((USELESS,), 0, False),
        ((USELESS,), 1, False),
        ((("Cache-Control", "no-cache, max-age=60"),), 1, False),
        ((USELESS,), BLOCK + 1, True),  # who comes while it streams reads its beginning there
        ((USELESS, WEAK), 1, True),
        ((USELESS, ("Last-Modified", "Thu, 01 Jan 2015 00:00:00 GMT")), 1, True),
        ((HOUR,), 1, True),
        ((("Cache-Control", "max-age=0, stale-if-error=60"),), 1, True),
        ((("Cache-Control", "max-age=0, stale-while-revalidate=60"),), 1, True),
    ],
)
async def test_what_is_of_no_use_later_is_not_put_on_disk(
    play: Play, monkeypatch: pytest.MonkeyPatch, framing: str, headers: Headers, size: int, kept: bool
) -> None:
    disk: list[bool] = []
    put, save = play.store.put, play.store.save

    def spy_put(*args: Any, disk: bool, to: list[bool] = disk, **others: Any) -> Any:
        to.append(disk)
        return put(*args, disk=disk, **others)

    def spy_save(*args: Any, disk: bool, to: list[bool] = disk) -> None:
        to.append(disk)
        save(*args, disk=disk)

    other_machines: list[Meta] = []
    monkeypatch.setattr(play.store, "finished", other_machines.append)
    monkeypatch.setattr(play.store, "put", spy_put)
    monkeypatch.setattr(play.store, "save", spy_save)
    for number in (1, 2):  # also when it takes the place of the same kind
        task = play.open()
        await play.asked_for(number)
        feed = Feed(FILE[:size], end=True, length=size if framing == "length" else None)
        play.feeds.append(feed)
        play.answers[-1].set_result(Answer(200, "OK", headers, feed))
        assert await read(await task) == FILE[:size]
        if kept:
            break
    assert disk
    assert set(disk) == {kept}
    assert bool(other_machines) is kept


async def test_what_takes_the_place_of_something_on_disk_goes_there(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the older answer would come to light again when memory has forgotten the newer one."""
    await play.stored(ETAG, ("Cache-Control", "max-age=1"))
    play.clock.tick(10)
    disk: list[bool] = []
    save = play.store.save

    def spy(record: Any, *, disk: bool, to: list[bool] = disk) -> None:
        to.append(disk)
        save(record, disk=disk)

    monkeypatch.setattr(play.store, "save", spy)
    task = play.open()
    await play.asked_for(2)
    play.answer(USELESS, data=b"new")
    assert await read(await task) == b"new"
    assert disk == [True]


# --- parts asked for beside a first contact --------------------------------------------------------------------------


async def test_who_wants_another_part_does_not_wait_for_two_answers(play: Play) -> None:
    tasks = [play.ranged(10, 20), play.ranged(3 * BLOCK + 5, 5 * BLOCK), play.ranged(4 * BLOCK, 4 * BLOCK + 9)]
    await play.asked_for(2)
    await play.turns()
    assert [header(want.headers, "Range") for want in play.asked] == [
        f"bytes=0-{BLOCK - 1}",
        f"bytes={3 * BLOCK}-{6 * BLOCK - 1}",
    ]
    assert play.counts["flight.early"] == 1
    play.part(1, ETAG, HOUR)  # the early answer may come first
    await play.turns()
    assert not any(task.done() for task in tasks)
    play.part(0, ETAG, HOUR)
    one, two, three = [await task for task in tasks]
    assert await read_part(two, 3 * BLOCK + 5, 5 * BLOCK) == FILE[3 * BLOCK + 5 : 5 * BLOCK + 1]
    assert await read_part(three, 4 * BLOCK, 4 * BLOCK + 9) == FILE[4 * BLOCK : 4 * BLOCK + 10]
    assert await read_part(one, 10, 20) == FILE[10:21]
    assert len(play.asked) == 2


async def test_an_early_answer_may_come_late(play: Play) -> None:
    """The flight that takes it over waits for it, and whoever comes meanwhile waits for the flight."""
    tasks = [play.ranged(10, 20), play.ranged(3 * BLOCK, 4 * BLOCK - 1)]
    await play.asked_for(2)
    play.part(0, ETAG, HOUR)
    one, two = [await task for task in tasks]
    assert await read_part(one, 10, 20) == FILE[10:21]
    late = await play.ranged(3 * BLOCK + 7, 3 * BLOCK + 8)
    reading = [
        play.tasks.start(read_part(two, 3 * BLOCK, 4 * BLOCK - 1), "open"),
        play.tasks.start(read_part(late, 3 * BLOCK + 7, 3 * BLOCK + 8), "open"),
    ]
    await play.turns()
    assert len(play.asked) == 2
    play.part(1, ETAG, HOUR)
    assert await asyncio.gather(*reading) == [FILE[3 * BLOCK : 4 * BLOCK], FILE[3 * BLOCK + 7 : 3 * BLOCK + 9]]


VARY = ("Vary", "Accept-Language")
JOINS_NOT: dict[str, Any] = {
    "another version": lambda play: play.part(1, ("ETag", '"two"'), HOUR),
    "another size": lambda play: play.part(1, ETAG, HOUR, size=len(FILE) - 1),
    "another coding": lambda play: play.part(1, ETAG, HOUR, ("Content-Encoding", "gzip")),
    "no validator": lambda play: play.part(1, HOUR),
    "weak": lambda play: play.part(1, ("ETag", 'W/"one"'), HOUR),
    "whole": lambda play: play.answer(ETAG, HOUR, number=1),
    "not to be stored": lambda play: play.part(1, ETAG, ("Cache-Control", "private")),
    "an error": lambda play: play.answer(status=503, data=b"sorry", number=1),
    "beyond": lambda play: play.answer(("Content-Range", "bytes */7"), status=416, data=b"", number=1),
    "a break": lambda play: play.answers[1].set_exception(UpstreamReset("gone")),
}


@pytest.mark.parametrize("first", [True, False], ids=["early-first", "early-last"])
@pytest.mark.parametrize("what", JOINS_NOT)
async def test_what_does_not_join_is_closed_and_asked_for_under_law_1(play: Play, what: str, first: bool) -> None:
    tasks = [play.ranged(10, 20), play.ranged(3 * BLOCK, 4 * BLOCK - 1)]
    await play.asked_for(2)
    if first:
        JOINS_NOT[what](play)
        await play.turns()
    play.part(0, ETAG, HOUR)
    one, two = [await task for task in tasks]
    reading = play.tasks.start(read_part(two, 3 * BLOCK, 4 * BLOCK - 1), "open")
    if not first:
        await play.turns()
        assert len(play.asked) == 2
        JOINS_NOT[what](play)
    await play.asked_for(3)
    assert header(play.asked[2].headers, "If-Range") == ETAG[1]
    play.part(2, ETAG, HOUR)
    assert await reading == FILE[3 * BLOCK : 4 * BLOCK]
    assert await read_part(one, 10, 20) == FILE[10:21]


async def test_an_early_answer_of_another_variant_does_not_join(play: Play) -> None:
    """Whatever its tag: two variants of one URL may be told apart by nothing else."""
    tasks = [play.ranged(10, 20, VARY), play.ranged(3 * BLOCK, 4 * BLOCK - 1, ("Accept-Language", "de"))]
    await play.asked_for(2)
    play.part(1, ETAG, HOUR, VARY)
    play.part(0, ETAG, HOUR, VARY)
    assert await read_part(await tasks[0], 10, 20) == FILE[10:21]
    await play.asked_for(3)  # a first contact for the variant
    play.part(2, ETAG, HOUR, VARY)
    assert await read_part(await tasks[1], 3 * BLOCK, 4 * BLOCK - 1) == FILE[3 * BLOCK : 4 * BLOCK]
    again = await play.ranged(3 * BLOCK, 3 * BLOCK, VARY)  # the other one did not get that part
    reading = play.tasks.start(read_part(again, 3 * BLOCK, 3 * BLOCK), "open")
    await play.asked_for(4)
    play.part(3, ETAG, HOUR, VARY)
    assert await reading == FILE[3 * BLOCK : 3 * BLOCK + 1]


ENDS_OTHERWISE: dict[str, Any] = {
    "private": lambda play: play.part(0, ETAG, ("Cache-Control", "private")),
    "no-cache": lambda play: play.part(0, ETAG, ("Cache-Control", "no-cache")),
    "whole": lambda play: play.answer(ETAG, HOUR, number=0),
    "not pinned": lambda play: play.answer(HOUR, number=0),
    "short": lambda play: play.answer(ETAG, HOUR, data=FILE[:BLOCK], number=0),
}


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("how", ENDS_OTHERWISE)
async def test_early_answers_are_closed_when_the_contact_ends_otherwise(play: Play, how: str, answered: bool) -> None:
    tasks = [play.ranged(10, 20), play.ranged(3 * BLOCK, 4 * BLOCK - 1)]
    await play.asked_for(2)
    early = play.part(1, ETAG, HOUR) if answered else None
    await play.turns()
    ENDS_OTHERWISE[how](play)
    opened = [await task for task in tasks]
    await play.turns()
    assert early.closed if early is not None else play.answers[1].cancelled()
    assert play.counts["flight.started"] <= 1
    for one in opened:
        if one.answer is not None:
            await one.answer.body.aclose()
        if one.body is not None:
            await one.body.aclose()


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("fails", [True, False])
async def test_a_contact_that_brings_nothing_leaves_no_early_answer_open(
    play: Play, answered: bool, fails: bool
) -> None:
    tasks = [play.ranged(10, 20), play.ranged(3 * BLOCK, 4 * BLOCK - 1)]
    await play.asked_for(2)
    early = play.part(1, ETAG, HOUR) if answered else None
    await play.turns()
    if fails:
        play.answers[0].set_exception(ConnectRefused("nobody there"))
    else:
        for task in tasks:
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await play.turns()
    assert early.closed if early is not None else play.answers[1].cancelled()


async def test_early_asks_are_bounded_and_only_for_one_part_of_what_is_not_stored(play: Play) -> None:
    tasks = [play.ranged(0, 0)]
    await play.asked_for(1)
    tasks += [play.ranged(2 * number * BLOCK, 2 * number * BLOCK) for number in range(1, MOST + 5)]
    tasks.append(play.open(ranges=(RangeSpec(3, 4), RangeSpec(10**7, 10**7 + 1))))
    tasks.append(play.open(ranges=(RangeSpec(None, 5),)))
    tasks.append(play.open())
    await play.turns()
    assert len(play.asked) == 1 + MOST == 1 + play.counts["flight.early"]
    play.answers[0].set_exception(ConnectRefused("nobody there"))
    await asyncio.gather(*tasks, return_exceptions=True)
    await play.stored(ETAG, ("Cache-Control", "max-age=1"))
    play.clock.tick(10)
    asked = len(play.asked)
    tasks = [play.ranged(0, 0), play.ranged(3 * BLOCK, 3 * BLOCK)]  # one revalidation for the whole file
    await play.asked_for(asked + 1)
    play.answer(ETAG, HOUR, status=304, data=b"")
    assert [await read_part(await task, 0, 9) for task in tasks] == [FILE[:10]] * 2


# --- contacts --------------------------------------------------------------------------------------------------------


async def test_a_contact_tells_everybody(play: Play) -> None:
    contact = Contact(b"k", (0, 1))
    waiting = [play.tasks.start(contact.wait(), "wait") for _ in range(3)]
    await play.turns()
    assert contact.waiters == 3
    reached = Reached(reason="why")
    contact.reach(reached)
    assert [await task for task in waiting] == [reached] * 3
    assert contact.waiters == 0
    assert await contact.wait() is reached


async def test_nobody_asks_beside_a_contact_that_is_over(play: Play) -> None:
    contact = Contact(b"k", (0, BLOCK))
    contact.reach(Reached())
    contact.ask_beside(play.filler._shared, play.need(ranges=(RangeSpec(5 * BLOCK, 6 * BLOCK),)))
    await play.turns()
    assert not play.asked


async def test_a_flight_that_never_began_closes_the_answer_it_was_made_for(kit: MakeKit) -> None:
    one = kit()
    closed: list[bool] = []
    early: Any = SimpleNamespace(close=lambda: closed.append(True))
    flight = Flight(one.entry, one.need, 0, BLOCK)
    one.entry.early[flight] = early
    task = one.entry.launch(flight).task
    assert task is not None
    task.cancel()
    await one.turns()
    assert closed == [True]


@pytest.mark.parametrize("pinned", [True, False])
async def test_only_what_is_pinned_can_be_joined(kit: MakeKit, pinned: bool) -> None:
    one = kit(pinned=pinned)

    async def joined(_meta: Any) -> None:
        return None

    early: Any = SimpleNamespace(need=one.need, first=BLOCK, end=2 * BLOCK, joined=joined)
    assert join([early], one.entry, ()) == ([] if pinned else [early])
    assert len(one.entry.flights) == pinned


async def test_unshareable_keys_are_forgotten_in_time_and_number() -> None:
    clock = ManualClock()
    keys = Unshareable(clock)
    keys.add(b"a", 10)
    assert b"a" in keys
    clock.tick(10)
    assert b"a" not in keys
    for number in range(MOST_REMEMBERED + 1):
        keys.add(b"%d" % number, 10)
    assert b"0" not in keys
    assert b"1" in keys
