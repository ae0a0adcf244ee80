"""Connections: added while goodput grows, taken back when the last step brought nothing, tried again after a while."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.control.growth import AGAIN_S, LEAST, LONG_S, MOST, WINDOW_S, Growth, start_for

RTT_S = 0.01
STEP_S = WINDOW_S + 0.001  # a window is over
Goodput = Callable[[int], float]


def play(growth: Growth, goodput: Goodput, windows: int = 10) -> list[int]:
    """The targets, window by window, where ``goodput(connections)`` bytes a second come."""
    targets, received = [growth.target], 0.0
    for number in range(1, windows + 1):
        received += goodput(growth.target) * STEP_S
        growth.look(number * STEP_S, int(received), RTT_S)
        targets.append(growth.target)
    return targets


def each_brings_its_share(connections: int) -> float:
    return 1e5 * connections


def the_link_is_full(connections: int) -> float:
    return 1e6


# --- the first window measures ---------------------------------------------------------------------------------------


def test_each_connection_brings_its_share() -> None:
    assert play(Growth(LEAST, MOST, 0.0), each_brings_its_share)[:4] == [4, 8, 16, 16]


def test_a_full_link_takes_the_step_back() -> None:
    growth = Growth(LEAST, MOST, 0.0)
    assert play(growth, the_link_is_full, 3) == [4, 8, 4, 4]
    assert not growth.growing


def test_a_link_that_seven_fill_stays_at_eight() -> None:
    assert play(Growth(LEAST, MOST, 0.0), lambda connections: 1e5 * min(connections, 7), 5)[-1] == 8


def test_a_small_gain_is_kept_and_ends_it() -> None:
    growth = Growth(LEAST, MOST, 0.0)
    assert play(growth, lambda connections: 1e6 if connections == 4 else 1.1e6, 4) == [4, 8, 8, 8, 8]
    assert not growth.growing


# --- the rate of one connection is known -----------------------------------------------------------------------------


def test_a_second_connection_is_compared_with_the_first() -> None:
    assert play(Growth(2, MOST, 0.0, 1e5), each_brings_its_share, 4) == [2, 4, 8, 16, 16]


def test_a_second_connection_that_brings_nothing_goes_again() -> None:
    assert play(Growth(2, MOST, 0.0, 1e6), the_link_is_full, 2) == [2, 1, 1]


def test_it_goes_also_where_two_are_the_most() -> None:
    assert play(Growth(2, 2, 0.0, 1e6), the_link_is_full, 2) == [2, 1, 1]


# --- silence ---------------------------------------------------------------------------------------------------------


def test_what_comes_after_a_silence_is_no_gain() -> None:
    growth, received = Growth(LEAST, MOST, 0.0), 0
    for number, amount in enumerate((300_000, 0, 300_000, 0, 300_000), 1):
        received += amount
        growth.look(number * STEP_S, received, RTT_S)
    assert growth.target == LEAST


def test_the_first_window_with_bytes_measures() -> None:
    growth = Growth(LEAST, MOST, 0.0)
    growth.look(STEP_S, 0, RTT_S)
    assert growth.target == LEAST
    growth.look(2 * STEP_S, 1000, RTT_S)
    assert growth.target == 2 * LEAST


def test_two_round_trips_are_waited_for() -> None:
    growth = Growth(LEAST, MOST, 0.0)
    growth.look(0.9, 10**6, 0.5)
    assert growth.target == LEAST
    growth.look(1.0, 10**6, 0.5)
    assert growth.target == 2 * LEAST


# --- again -----------------------------------------------------------------------------------------------------------


def settled(again_s: float = AGAIN_S) -> tuple[Growth, float, float]:
    """At 4, a megabyte a second; and when, and how much came until then."""
    growth = Growth(LEAST, MOST, 0.0, again_s=again_s)
    play(growth, the_link_is_full, 2)
    assert (growth.target, growth.growing) == (LEAST, False)
    return growth, 2 * STEP_S, 1e6 * 2 * STEP_S


def test_after_a_while_it_is_tried_again() -> None:
    growth, now, received = settled()
    growth.look(now + AGAIN_S - 0.1, int(received + 1e6 * (AGAIN_S - 0.1)), RTT_S)
    assert growth.target == LEAST
    now, received = now + AGAIN_S, received + 1e6 * AGAIN_S
    growth.look(now, int(received), RTT_S)
    assert growth.target == 2 * LEAST
    growth.look(now + STEP_S, int(received + 2e6 * STEP_S), RTT_S)  # the path is another one now
    assert growth.target == 4 * LEAST


def test_what_again_brings_nothing_is_taken_back_again() -> None:
    growth, now, received = settled()
    now, received = now + AGAIN_S, received + 1e6 * AGAIN_S
    growth.look(now, int(received), RTT_S)
    growth.look(now + STEP_S, int(received + 1e6 * STEP_S), RTT_S)
    assert (growth.target, growth.growing) == (LEAST, False)


def test_a_silence_is_not_what_it_is_tried_again_for() -> None:
    growth, now, received = settled()
    growth.look(now + AGAIN_S, int(received), RTT_S)
    assert (growth.target, growth.growing) == (LEAST, False)


def test_it_may_be_told_never_to_try_again() -> None:
    growth, now, received = settled(again_s=float("inf"))
    growth.look(now + 1000.0, int(received + 1e9), RTT_S)
    assert growth.target == LEAST


# --- what ends it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [None, 1e3])
def test_a_fixed_number_is_kept(rate: float | None) -> None:
    growth = Growth(3, MOST, 0.0, rate, fixed=True)
    assert set(play(growth, each_brings_its_share, 30)) == {3}
    assert not growth.growing


def test_a_mirror_that_refuses_more_keeps_those_that_work() -> None:
    growth = Growth(LEAST, MOST, 0.0)
    growth.pushed_back(3)
    assert growth.target == 3
    growth.look(5.0, 10**7, RTT_S)
    growth.look(5.0 + AGAIN_S, 10**9, RTT_S)
    assert growth.target == 3
    growth.pushed_back(7)
    assert growth.target == 3
    growth.pushed_back(0)
    assert growth.target == 1


def test_it_begins_with_more_where_a_round_trip_is_long() -> None:
    assert start_for(0.0) == LEAST
    assert start_for(LONG_S) == 2 * LEAST


@given(
    start=st.integers(1, MOST),
    most=st.integers(1, MOST),
    rate=st.none() | st.floats(0.1, 1e9),
    steps=st.lists(st.tuples(st.floats(0.01, 5.0), st.integers(0, 10**8), st.floats(0, 1)), max_size=40),
    refusals=st.dictionaries(st.integers(0, 39), st.integers(0, MOST), max_size=2),
)
def test_it_stays_within_its_bounds(
    start: int,
    most: int,
    rate: float | None,
    steps: list[tuple[float, int, float]],
    refusals: dict[int, int],
) -> None:
    growth, now, received = Growth(start, most, 0.0, rate), 0.0, 0
    for number, (seconds, amount, round_trip_s) in enumerate(steps):
        now, received = now + seconds, received + amount
        before = growth.target
        growth.look(now, received, round_trip_s)
        assert 1 <= growth.target <= min(most, 2 * before)
        if number in refusals:
            growth.pushed_back(refusals[number])
            assert growth.target <= max(1, refusals[number])
            most = growth.target
