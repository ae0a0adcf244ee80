"""Connections: added while goodput grows, taken back when the last step brought nothing."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from fileproxy.client.growth import LEAST, MOST, WINDOW_S, Growth


def play(goodput: Callable[[int], float], windows: int = 10, fixed: int | None = None) -> list[int]:
    """The targets, window by window, where ``goodput(connections)`` bytes a second come."""
    growth, now, received = Growth(fixed, 0.0), 0.0, 0.0
    targets = [growth.target]
    for _ in range(windows):
        now += WINDOW_S
        received += goodput(growth.target) * WINDOW_S
        growth.look(now, int(received), 0.01)
        targets.append(growth.target)
    return targets


def test_each_connection_brings_its_share() -> None:
    assert play(lambda connections: 1e5 * connections)[-1] == MOST


def test_a_full_link_takes_the_step_back() -> None:
    assert play(lambda connections: 1e6)[-1] == LEAST


def test_a_link_that_eight_fill_stays_there() -> None:
    assert play(lambda connections: 1e5 * min(connections, 7))[-1] == 16 / 2


def test_a_fixed_number_is_kept() -> None:
    assert set(play(lambda connections: 1e5 * connections, fixed=3)) == {3}


def test_two_round_trips_are_waited_for() -> None:
    growth = Growth(None, 0.0)
    growth.look(0.9, 10**6, 0.5)
    assert growth.target == LEAST
    growth.look(1.0, 10**6, 0.5)
    assert growth.target == 2 * LEAST


def test_a_mirror_that_refuses_more_keeps_those_that_work() -> None:
    growth = Growth(None, 0.0)
    growth.pushed_back(3)
    assert growth.target == 3
    growth.look(5.0, 10**7, 0.01)
    assert growth.target == 3
    growth.pushed_back(0)
    assert growth.target == 1


@given(st.lists(st.integers(0, 10**7), max_size=30))
def test_it_stays_within_its_bounds(amounts: list[int]) -> None:
    growth, received = Growth(None, 0.0), 0
    for number, amount in enumerate(amounts, 1):
        received += amount
        growth.look(number * WINDOW_S, received, 0.0)
        assert LEAST <= growth.target <= MOST


def test_a_long_round_trip_begins_with_more() -> None:
    assert Growth(None, 0.0, 0.2).target == 2 * LEAST
    assert Growth(None, 0.0, 0.01).target == LEAST
    assert Growth(3, 0.0, 0.2).target == 3
