"""Turns of a crowd of downloads: in order, a few in each round, and none lost with those who leave."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from fileproxy.server.turnstile import CROWD, FEW, ROUND, TURN, Turnstile

pytestmark = pytest.mark.loops("asyncio", "uvloop")


async def test_each_round_of_the_loop_a_few_go_on_in_order() -> None:
    turnstile, went = Turnstile(), list[int]()

    async def download(number: int) -> None:
        for _ in range(2):
            await turnstile.next()
            went.append(number)

    many = 3 * ROUND
    tasks = [asyncio.create_task(download(number)) for number in range(many)]
    seen = [0]
    while len(went) < 2 * many:
        await asyncio.sleep(0)
        if len(went) > seen[-1]:
            seen.append(len(went))
    await asyncio.gather(*tasks)
    assert went == [*range(many)] * 2  # nobody twice before everybody once
    assert all(after - before <= ROUND for before, after in pairwise(seen))


async def test_one_download_waits_a_round() -> None:
    turnstile = Turnstile()
    rounds = 0

    async def count() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await asyncio.sleep(0)
    before = rounds
    await turnstile.next()
    assert 1 <= rounds - before <= 2
    counting.cancel()


async def test_who_leaves_takes_nobody_s_turn() -> None:
    turnstile = Turnstile()
    tasks = [asyncio.create_task(turnstile.next()) for _ in range(2 * ROUND)]
    await asyncio.sleep(0)
    for task in tasks[:ROUND]:
        task.cancel()
    await asyncio.wait(tasks[ROUND:])
    assert all(task.cancelled() for task in tasks[:ROUND])
    await turnstile.next()  # and it goes on turning


def test_a_crowd_is_more_than_can_go_on_at_once() -> None:
    turnstile = Turnstile()
    turnstile.downloads = CROWD
    assert not turnstile.crowded
    turnstile.downloads += 1
    assert turnstile.crowded


def test_a_turn_is_larger_where_few_take_turns() -> None:
    turnstile = Turnstile()
    turnstile.downloads = FEW
    assert turnstile.share == 4 * TURN
    turnstile.downloads = FEW + 1
    assert turnstile.share == TURN
