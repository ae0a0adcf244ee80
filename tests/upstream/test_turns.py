"""Who is asked now, and who waits."""

from __future__ import annotations

import asyncio

import pytest

from fileproxy.clock import ManualClock
from fileproxy.errors import ShutOff
from fileproxy.settings.schema import CircuitBreaker
from fileproxy.upstream.breaker import Breaker
from fileproxy.upstream.turns import Trip, Turn, Turns
from tests.house import Watched


def turns(counts: Watched, clock: ManualClock, mirrors: int = 2, most: int = 1) -> Turns:
    settings = CircuitBreaker(failure_threshold=1, half_open_max_calls=most, timeout=60.0)
    labels = [f"files/{number}" for number in range(mirrors)]
    return Turns("files", [Breaker(settings) for _ in labels], labels, counts, clock)


def trip(*order: int, hopeless: tuple[int, ...] = ()) -> Trip:
    return Trip(0.0, list(order), hopeless=set(hopeless))


async def shut(some: Turns, *indexes: int) -> None:
    for index in indexes:
        some.end(await some.take(trip(index), 1.0), False)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def test_one_that_is_shut_off_is_passed_over(counts: Watched, clock: ManualClock) -> None:
    some = turns(counts, clock)
    await shut(some, 0)
    asked = trip(0, 1)
    assert (await some.take(asked, 1.0)).index == 1
    assert (asked.order, some.untried(asked)) == ([1, 0], [])
    assert (counts.of("mirror.shut_off", "files/0"), counts.of("mirror.trips", "files/0")) == (1, 1)


async def test_the_last_one_is_not(counts: Watched, clock: ManualClock) -> None:
    some = turns(counts, clock)
    await shut(some, 0, 1)
    assert (await some.take(trip(0, 1), 1.0)).index == 0
    assert (await some.take(trip(0, 1), 1.0)).index == 1  # the other one is busy with a trial
    lonely = turns(counts, clock, mirrors=1)
    await shut(lonely, 0)
    assert (await lonely.take(trip(0), 1.0)).index == 0


async def test_nor_is_the_last_one_for_a_request(counts: Watched, clock: ManualClock) -> None:
    some = turns(counts, clock)
    await shut(some, 1)
    asked = trip(0, 1, hopeless=(0,))
    assert some.usable(asked) == [1]
    assert (await some.take(asked, 1.0)).index == 1


async def waiting(some: Turns, *trips: Trip) -> list[asyncio.Task[Turn]]:
    tasks = [asyncio.create_task(some.take(one, 60.0)) for one in trips]
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    return tasks


async def test_places_are_given_in_the_order_they_were_asked_for(counts: Watched, clock: ManualClock) -> None:
    some = turns(counts, clock, mirrors=1)
    await shut(some, 0)
    running = await some.take(trip(0), 1.0)
    first, second, third = await waiting(some, trip(0), trip(0), trip(0))
    assert counts.of("upstream.queued", "files") == 3
    some.end(running, False)
    turn = await first
    await asyncio.sleep(0)
    assert not second.done()
    some.end(turn, True)  # half_open_max_calls is 1: it is well again, everybody may come
    assert [(await one).index for one in (second, third)] == [0, 0]
    assert counts.of("mirror.shut_off", "files/0") == 0


async def test_who_could_not_use_the_place_keeps_nobody_from_it(counts: Watched, clock: ManualClock) -> None:
    some = turns(counts, clock)
    await shut(some, 0, 1)
    running = [await some.take(trip(0), 1.0), await some.take(trip(1), 1.0)]
    picky, other = await waiting(some, trip(0, 1, hopeless=(0,)), trip(0, 1))
    some.end(running[0], False)
    assert (await other).index == 0
    some.end(running[1], False)
    assert (await picky).index == 1


async def test_nobody_waits_longer_than_is_left(counts: Watched, clock: ManualClock) -> None:
    some = turns(counts, clock, mirrors=1)
    await shut(some, 0)
    running = await some.take(trip(0), 1.0)
    for seconds in (0.0, -1.0, 0.01):
        with pytest.raises(ShutOff, match="files"):
            await some.take(trip(0), seconds)
    some.end(running, None)
    assert (await some.take(trip(0), 1.0)).index == 0


@pytest.mark.parametrize("moment", ["before", "when it is called"])
async def test_who_leaves_the_queue_takes_no_place_along(counts: Watched, clock: ManualClock, moment: str) -> None:
    some = turns(counts, clock, mirrors=1)
    await shut(some, 0)
    running = await some.take(trip(0), 1.0)
    first, second = await waiting(some, trip(0), trip(0))
    if moment == "before":
        first.cancel()
        await asyncio.wait([first])
        some.end(running, False)
    else:
        some.end(running, False)
        first.cancel()
    assert (await second).index == 0
    assert first.cancelled()


async def test_a_good_probe_lets_them_in(counts: Watched, clock: ManualClock) -> None:
    some = turns(counts, clock, mirrors=1)
    await shut(some, 0)
    await some.take(trip(0), 1.0)
    tasks = await waiting(some, trip(0), trip(0))
    some.probed(0, True)
    assert [(await one).index for one in tasks] == [0, 0]


async def test_closed_nothing_counts_as_shut_off(counts: Watched, clock: ManualClock) -> None:
    some = turns(counts, clock)
    await shut(some, 0, 1)
    some.close()
    assert [counts.of("mirror.shut_off", f"files/{number}") for number in (0, 1)] == [0, 0]
