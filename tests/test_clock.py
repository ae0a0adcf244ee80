from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.clock import ManualClock, SystemClock

pytestmark = pytest.mark.loops("asyncio", "uvloop")


async def test_the_systems_clock_sleeps_and_tells_both_times() -> None:
    clock = SystemClock()
    before = clock.now()
    await clock.sleep(0.01)
    assert clock.now() - before >= 0.01
    assert abs(clock.time() - time.time()) < 1


@pytest.mark.parametrize("seconds", [0, -1])
async def test_no_time_is_no_wait_but_lets_others_run(seconds: float) -> None:
    for clock in (SystemClock(), ManualClock()):
        ran: list[int] = []
        asyncio.get_running_loop().call_soon(ran.append, 1)
        await clock.sleep(seconds)
        assert ran == [1]


async def test_a_manual_clock_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(start=5.0, epoch=1000.0)
    assert (clock.now(), clock.time()) == (5.0, 1000.0)
    async with asyncio.TaskGroup() as group:
        sleeper = group.create_task(clock.sleep(10))
        await clock.advance(9.5)
        assert (sleeper.done(), clock.sleeping) == (False, 1)
        await clock.advance(0.5)
        assert (sleeper.done(), clock.sleeping) == (True, 0)
    assert (clock.now(), clock.time()) == (15.0, 1010.0)


async def test_sleepers_wake_in_the_order_of_their_deadlines_and_see_their_time() -> None:
    clock = ManualClock(start=0.0)
    woke: list[tuple[str, float]] = []

    async def sleeper(name: str, *naps: float) -> None:
        for nap in naps:
            await clock.sleep(nap)
            woke.append((name, clock.now()))

    async with asyncio.TaskGroup() as group:
        group.create_task(sleeper("late", 3))
        group.create_task(sleeper("twice", 1, 1))
        group.create_task(sleeper("same", 1))
        await clock.advance(10)
    assert woke == [("twice", 1.0), ("same", 1.0), ("twice", 2.0), ("late", 3.0)]
    assert clock.now() == 10.0


async def test_a_cancelled_sleeper_does_not_count() -> None:
    clock = ManualClock()
    async with asyncio.TaskGroup() as group:
        sleeper = group.create_task(clock.sleep(1))
        await clock.advance(0)
        sleeper.cancel()
        await clock.advance(0)
        assert clock.sleeping == 0
        await clock.advance(2)


@given(st.lists(st.floats(0, 1e6)))
def test_ticks_add_up(steps: list[float]) -> None:
    clock = ManualClock(start=0.0, epoch=1e9)
    for step in steps:
        clock.tick(step)
    assert clock.now() == pytest.approx(sum(steps))
    assert clock.time() - clock.now() == pytest.approx(1e9)
