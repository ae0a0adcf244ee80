"""Who may be sent to an upstream now, who waits, who is told that waiting is hopeless."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fileproxy.clock import ManualClock
from fileproxy.errors import Shed
from fileproxy.model import Target, Want
from fileproxy.upstream import gate as module
from fileproxy.upstream.gate import Gate, Machine, Pass
from tests.house import Watched

NAME = "files"


def ask(client: str = "a", of: str = "") -> Want:
    return Want("GET", Target("/f"), (), id=of, client=client)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def gate(counts: Watched, clock: ManualClock, **options: Any) -> Gate:
    return Gate(NAME, counters=counts, clock=clock, **{"ceiling": 50, "rate": "off", "concurrency": "off", **options})


def entered(one: Gate, wanted: Want) -> Pass:
    taken = one.enter(wanted)
    assert taken is not None
    return taken


async def waiting(one: Gate, *asks: Want, within_s: float = 60.0) -> list[asyncio.Task[Pass]]:
    tasks = []
    for wanted in asks:
        assert one.enter(wanted) is None
        tasks.append(asyncio.create_task(one.wait(wanted, within_s)))
        await asyncio.sleep(0)
    return tasks


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


# --- concurrency ------------------------------------------------------------------------------------------------------


async def test_so_many_at_a_time(counts: Watched, clock: ManualClock) -> None:
    one = gate(counts, clock, concurrency=2)
    first, second = entered(one, ask()), entered(one, ask())
    third, fourth = await waiting(one, ask(), ask())
    assert counts.of("upstream.waiting", NAME) == counts.of("upstream.waited", NAME) == 2
    one.leave(first)
    one.leave(first)  # said twice, it counts once
    await third
    await turns()
    assert not fourth.done()
    one.leave(second)
    await fourth
    assert one.describe()["in_flight"] == 2
    assert counts.of("upstream.waiting", NAME) == 0


async def test_clients_take_turns(counts: Watched, clock: ManualClock) -> None:
    one = gate(counts, clock, concurrency=1)
    running = entered(one, ask("greedy"))
    greedy = await waiting(one, *(ask("greedy") for _ in range(100)))
    (modest,) = await waiting(one, ask("modest"))
    one.leave(running)
    one.leave(await greedy[0])
    one.leave(await modest)
    assert not any(task.done() for task in greedy[2:])
    for task in greedy[1:]:
        one.leave(await task)


async def test_nobody_overtakes(counts: Watched, clock: ManualClock) -> None:
    one = gate(counts, clock, concurrency=1)
    running = entered(one, ask("a"))
    (task,) = await waiting(one, ask("b"))
    one.leave(running)
    assert one.enter(ask("c")) is None  # b was called, and has not come yet
    one.leave(await task)
    entered(one, ask("c"))


@pytest.mark.parametrize("moment", ["before", "when it is called"])
async def test_who_leaves_the_line_takes_no_place_along(counts: Watched, clock: ManualClock, moment: str) -> None:
    one = gate(counts, clock, concurrency=1, rate=1)
    running = entered(one, ask())
    clock.tick(1.0)
    first, second = await waiting(one, ask(), ask())
    if moment == "before":
        first.cancel()
        await asyncio.wait([first])
        one.leave(running)
    else:
        one.leave(running)
        first.cancel()
    await second  # with the permit, too, that the first one had
    assert first.cancelled()
    assert one.describe()["in_flight"] == 1
    assert one.describe()["waiting"] == 0


async def test_nobody_waits_longer_than_is_left(counts: Watched, clock: ManualClock) -> None:
    one = gate(counts, clock, concurrency=1)
    running = entered(one, ask())
    for seconds in (0.0, -1.0, 0.01):
        with pytest.raises(Shed, match="files"):
            await one.wait(ask(), seconds)
    assert counts.of("upstream.shed", NAME) == 3
    one.leave(running)
    entered(one, ask())


async def test_a_lone_download_is_held_up_by_the_connections_only(counts: Watched, clock: ManualClock) -> None:
    one = gate(counts, clock, concurrency="auto", ceiling=64)
    other = entered(one, ask("b", "other"))
    for number in range(500):  # answers begin to take long, while others ask, too
        clock.tick(0.1)
        segments = [entered(one, ask("a", "big")) for _ in range((one.concurrency or 0) - 1)]
        one.answered(True, 0.05 if number < 100 else 3.0)
        for segment in segments:
            one.leave(segment)
    assert one.concurrency is not None
    assert 64 // 3 <= one.concurrency < 40
    assert counts.of("upstream.concurrency_limit", NAME) == one.concurrency
    one.leave(other)
    segments = [entered(one, ask("a", "big")) for _ in range(64)]
    held = await waiting(one, ask("a", "big"), ask("b", "other"))
    for segment in segments[:40]:
        one.leave(segment)
    await turns()
    assert [task.done() for task in held] == [True, False]  # others come when the limit lets them
    for segment in [*segments[40:], await held[0]]:
        one.leave(segment)
    one.leave(await held[1])


async def test_a_lone_download_does_not_lower_the_limit(counts: Watched, clock: ManualClock) -> None:
    one = gate(counts, clock, concurrency="auto", ceiling=64)
    for number in range(300):
        clock.tick(0.1)
        segments = [entered(one, ask("a", "big")) for _ in range(64)]
        one.answered(True, 0.05 if number < 100 else 3.0)
        for segment in segments:
            one.leave(segment)
    assert one.concurrency == 64


# --- rate -------------------------------------------------------------------------------------------------------------


async def test_so_many_a_second(counts: Watched, clock: ManualClock) -> None:
    one = gate(counts, clock, rate=10)
    for _ in range(10):
        one.leave(entered(one, ask()))
    tasks = await waiting(one, ask(), ask())
    await clock.advance(0.09)
    assert not tasks[0].done()
    await clock.advance(0.011)
    assert [task.done() for task in tasks] == [True, False]
    await clock.advance(0.1)
    assert tasks[1].done()
    assert clock.sleeping == 0


async def test_nobody_overtakes_who_waits_for_a_permit(counts: Watched, clock: ManualClock) -> None:
    one = gate(counts, clock, rate=1)
    entered(one, ask())
    (task,) = await waiting(one, ask())
    clock.tick(1.0)  # it has come, and the one that waits for it was not called yet
    assert one.enter(ask("b")) is None
    await clock.advance(0.01)
    await task


async def test_a_higher_rate_lets_those_that_wait_go_at_once(counts: Watched, clock: ManualClock) -> None:
    one = gate(counts, clock, rate=1)
    entered(one, ask())
    tasks = await waiting(one, *(ask() for _ in range(5)))
    one.apply("off", "off")
    await asyncio.gather(*tasks)
    entered(one, ask())
    await one.close()


async def test_hopeless_waiting_is_told_at_once_and_for_how_long(counts: Watched, clock: ManualClock) -> None:
    one = gate(counts, clock, rate=1)
    entered(one, ask())
    tasks = await waiting(one, *(ask() for _ in range(10)), within_s=10.0)
    with pytest.raises(Shed) as caught:
        await one.wait(ask(), 10.0)
    assert caught.value.retry_after_s == 11
    assert caught.value.status == 503
    (modest,) = await waiting(one, ask("modest"), within_s=10.0)  # whose turn comes sooner
    await clock.advance(2.0)
    assert modest.done()
    await clock.advance(10.0)
    assert all(task.done() for task in tasks)


async def test_how_long_places_are_held_tells_what_is_hopeless(counts: Watched, clock: ManualClock) -> None:
    one = gate(counts, clock, concurrency=2)
    for _ in range(2):
        taken = entered(one, ask())
        clock.tick(30.0)
        one.leave(taken)
    running = [entered(one, ask()) for _ in range(2)]
    held = await waiting(one, ask(), ask(), within_s=30.0)
    with pytest.raises(Shed) as caught:
        await one.wait(ask(), 30.0)
    assert caught.value.retry_after_s == 45
    for task in held:
        task.cancel()
    await asyncio.wait(held)
    one.leave(running[0])
    entered(one, ask())  # where there is room nothing is hopeless


async def test_of_a_full_line_the_greediest_is_turned_away(
    counts: Watched, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 5)
    one = gate(counts, clock, concurrency=1)
    running = entered(one, ask("greedy"))
    greedy = await waiting(one, *(ask("greedy") for _ in range(5)))
    with pytest.raises(Shed, match="too many"):
        await one.wait(ask("greedy"), 60.0)
    (modest,) = await waiting(one, ask("modest"))
    with pytest.raises(Shed, match="too many"):
        await greedy[-1]
    assert counts.of("upstream.shed", NAME) == 2
    one.leave(running)
    one.leave(await greedy[0])
    one.leave(await modest)
    for task in greedy[1:-1]:
        one.leave(await task)


# --- the machine ------------------------------------------------------------------------------------------------------


def told(leads: bool, answers: int = 0, errors: int = 0, *, rate: int = 0, workers: int = 1, rank: int = 0) -> Machine:
    return Machine(workers, rank, leads, answers, errors, rate)


def burst(one: Gate) -> int:
    count = 0
    while one.enter(ask()) is not None:
        count += 1
    return count


async def test_the_leading_worker_judges_and_says_the_rate(counts: Watched, clock: ManualClock) -> None:
    one = gate(counts, clock, rate="auto")
    assert counts.of("upstream.rate_limit", NAME) == 0  # not before it is known how many share it
    one.machine(told(True, workers=2))
    assert counts.of("upstream.rate_limit", NAME) == 500
    assert counts.of("upstream.rate_led", NAME) == 1000
    clock.tick(10.0)
    one.machine(told(True, 40, 20, workers=2))
    assert (one.rate, counts.of("upstream.rate_led", NAME)) == (800, 800)
    assert counts.of("upstream.rate_lowered", NAME) == 1
    clock.tick(10.0)
    one.machine(told(True, 80, 20))
    assert (one.rate, counts.of("upstream.rate_raised", NAME)) == (960, 1)
    assert counts.of("upstream.rate_limit", NAME) == 960
    one.machine(told(False, 80, 20))
    assert counts.of("upstream.rate_led", NAME) == 0  # another one says it now
    await one.close()
    assert counts.of("upstream.rate_limit", NAME) == 0


async def test_the_others_follow_and_each_takes_its_share(counts: Watched, clock: ManualClock) -> None:
    one = gate(counts, clock, rate="auto")
    one.machine(told(False, 40, 40, rate=512, workers=2))
    assert (one.rate, counts.of("upstream.rate_led", NAME)) == (512, 0)
    assert burst(one) == 256
    one.machine(told(False, 40, 40, rate=512, workers=4))
    clock.tick(1.0)
    assert burst(one) == 128
    one.machine(told(False, 80, 80))  # nobody leads for a moment: on as before
    assert one.rate == 512


@pytest.mark.parametrize("rate", [10, 77, 1000])
@pytest.mark.parametrize("workers", [1, 2, 3, 16])
async def test_the_shares_add_up_to_the_rate(counts: Watched, clock: ManualClock, rate: int, workers: int) -> None:
    for rank in range(workers):
        gate(counts, clock, rate=rate).machine(told(rank == 0, workers=workers, rank=rank))
    assert counts.of("upstream.rate_limit", NAME) == rate


async def test_without_a_machine_it_judges_its_own_answers(counts: Watched, clock: ManualClock) -> None:
    one = gate(counts, clock, rate="auto")
    for number in range(41):
        one.answered(number % 2 == 0)
        clock.tick(0.5)
    assert one.rate == 800 * 0.8
    assert (counts.of("upstream.answers", NAME), counts.of("upstream.errors", NAME)) == (41, 20)


async def test_a_body_that_breaks_is_an_error(counts: Watched, clock: ManualClock) -> None:
    one = gate(counts, clock, rate="auto")
    for number in range(30):
        one.answered(True)
        if number % 5 == 0:
            one.broke()
    clock.tick(10.0)
    one.answered(True)
    assert one.rate == 800


async def test_what_is_configured_stays(counts: Watched, clock: ManualClock) -> None:
    one = gate(counts, clock, rate=70, concurrency=7)
    one.machine(told(True, 0, 0))
    clock.tick(10.0)
    one.machine(told(True, 100, 100))
    assert (one.rate, one.concurrency) == (70, 7)
    assert counts.of("upstream.rate_limit", NAME) == 70
    assert counts.of("upstream.concurrency_limit", NAME) == 7


async def test_one_that_is_replaced_says_nothing_any_more(counts: Watched, clock: ManualClock) -> None:
    one = gate(counts, clock, rate="auto", concurrency=1)
    one.machine(told(True))
    entered(one, ask())
    tasks = await waiting(one, ask(), ask())
    one.retire(free=False)
    assert counts.of("upstream.rate_limit", NAME) == counts.of("upstream.concurrency_limit", NAME) == 0
    await turns()
    assert not any(task.done() for task in tasks)
    one.retire(free=True)
    await asyncio.gather(*tasks)


@pytest.mark.parametrize(("limit", "begins"), [("auto", 800), (77, 1000), ("off", 1000)])
async def test_one_that_takes_its_place_begins_at_its_rate(
    counts: Watched, clock: ManualClock, limit: Any, begins: int
) -> None:
    old, new = gate(counts, clock, rate=limit), gate(counts, clock, rate="auto")
    old.machine(told(True))
    clock.tick(10.0)
    old.machine(told(True, 20, 20))
    new.inherit(old.retire(free=False))
    assert new.rate == begins


async def test_a_folder_has_no_limits(counts: Watched, clock: ManualClock) -> None:
    one = gate(counts, clock, ceiling=None, rate=1, concurrency=1)
    assert all(one.enter(ask()) is not None for _ in range(100))
    assert (one.rate, one.concurrency) == (None, None)
