"""Segments: a share of what is left; who holds up the end is helped, within what may be asked twice."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from fileproxy.control.segments import (
    AIM_S,
    LARGEST,
    LEAST_S,
    SMALLEST,
    Late,
    Rest,
    hedge_budget,
    late,
    overdue,
    segment_length,
    takes,
)

MIB = 1024 * 1024
RATE = st.none() | st.floats(1, 1e9)

# --- how long ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 300 * MIB), st.integers(0, 64), RATE, st.sampled_from([0.0, LEAST_S]))
def test_a_length_is_within_its_bounds(left: int, connections: int, rate: float | None, least_s: float) -> None:
    length = segment_length(left, connections, rate, least_s)
    assert length % SMALLEST == 0
    assert SMALLEST <= length <= LARGEST
    assert length < left + SMALLEST or length == SMALLEST  # never more than there is, but for rounding up


@given(st.integers(1, 300 * MIB), st.integers(1, 64), RATE)
def test_segments_shrink_towards_the_end(size: int, connections: int, rate: float | None) -> None:
    lengths, left = list[int](), size
    while left > 0:
        lengths.append(segment_length(left, connections, rate))
        left -= lengths[-1]
    assert all(one >= two for one, two in itertools.pairwise(lengths))


def test_a_slow_connection_gets_short_segments_and_a_fast_one_those_that_are_worth_it() -> None:
    assert segment_length(1000 * MIB, 4, None) == LARGEST
    assert segment_length(1000 * MIB, 4, 100_000.0) == 49 * SMALLEST  # eight seconds' worth
    assert segment_length(8 * MIB, 16, 8.0 * MIB) == 2 * MIB  # a quarter of a second, not a 32nd of it
    assert segment_length(8 * MIB, 16, 8.0 * MIB, 0.0) == MIB // 4
    assert AIM_S > LEAST_S


def test_a_very_fast_connection_gets_no_more_than_is_left() -> None:
    """What is left is how much may be held before the reader takes it."""
    assert segment_length(MIB, 4, 1e9) == MIB
    assert segment_length(0, 4, 1e9) == SMALLEST
    assert segment_length(1000 * MIB, 64, 1e9) == LARGEST


# --- who is late ------------------------------------------------------------------------------------------------------


def test_nothing_is_done_about_connections_that_end_soon() -> None:
    rests = [Rest(0, 64 * 1024, 1e6, 0.0), Rest(MIB, MIB + 10_000, 1e6, 0.0)]
    assert late(rests, round_trip_s=0.1, rate=1e6, hedge_budget=MIB) is None


def test_the_second_half_of_a_long_rest_is_taken_over() -> None:
    rests = [Rest(0, 100_000, 1e6, 0.0), Rest(MIB, 3 * MIB, 100_000.0, 0.0)]
    found = late(rests, round_trip_s=0.1, rate=1e6, hedge_budget=MIB)
    assert found == Late(1, 2 * MIB, 3 * MIB, hedge=False)


def test_a_short_late_rest_is_asked_for_a_second_time_but_once() -> None:
    rests = [Rest(1000, 30_000, 1000.0, 0.0)]
    found = late(rests, round_trip_s=0.1, rate=1e6, hedge_budget=MIB)
    assert found == Late(0, 1000, 30_000, hedge=True)
    shared = [Rest(1000, 30_000, 1000.0, 0.0, shared=True)]
    assert late(shared, round_trip_s=0.1, rate=1e6, hedge_budget=MIB) is None


def test_a_short_rest_that_still_comes_is_asked_for_again_only_when_far_behind() -> None:
    """On a full path a second request takes from the first: with BBR a tenth of the link brought bytes twice."""
    anew_s = 0.1 + 30_000 / 1e5
    for times, helped in ((4.0, False), (9.0, True)):
        rests = [Rest(0, 30_000, 30_000 / (times * anew_s), 0.0)]
        assert (late(rests, round_trip_s=0.1, rate=1e5, hedge_budget=MIB) is not None) == helped


def test_the_end_of_what_would_hold_up_all_others_is_for_somebody_else() -> None:
    rests = [Rest(0, MIB, 1e6, 0.0), Rest(MIB, 2 * MIB, 50_000.0, 0.0), Rest(2 * MIB, 3 * MIB, None, 0.0)]
    found = overdue(rests, 4.0)
    assert found == Late(1, MIB + 200_000 // SMALLEST * SMALLEST, 2 * MIB, hedge=False)  # four seconds' worth is kept
    assert overdue([*rests[:1], Rest(MIB, 2 * MIB, 50_000.0, 0.0, shared=True)], 4.0) is None
    assert overdue(rests, 20.0) is None


@given(
    st.lists(st.tuples(st.integers(0, MIB), st.integers(0, 8 * MIB), st.none() | st.floats(0, 1e8)), max_size=6),
    st.floats(0, 100),
)
def test_who_is_overdue_keeps_something_and_gives_something(
    parts: list[tuple[int, int, float | None]], all_s: float
) -> None:
    rests = [Rest(at, at + length, rate, 0.0) for at, length, rate in parts]
    found = overdue(rests, all_s)
    if found is not None:
        behind = rests[found.index]
        assert behind.at + SMALLEST <= found.first
        assert found.first + SMALLEST <= found.end == behind.end


def test_a_silent_one_is_asked_for_again_within_the_budget_else_halved() -> None:
    rests = [Rest(0, MIB, 1e6, 5.0)]
    assert late(rests, round_trip_s=0.1, rate=1e6, hedge_budget=MIB) == Late(0, 0, MIB, hedge=True)
    assert late(rests, round_trip_s=0.1, rate=1e6, hedge_budget=MIB - 1) == Late(0, MIB // 2, MIB, hedge=False)


def test_what_was_just_asked_is_not_late() -> None:
    rests = [Rest(0, 64 * 1024, None, 0.1)]
    assert late(rests, round_trip_s=0.1, rate=1e6, hedge_budget=MIB) is None
    assert late([Rest(0, 64 * 1024, None, 2.0)], round_trip_s=0.1, rate=1e6, hedge_budget=MIB) is not None


def test_the_latest_is_helped_first() -> None:
    rests = [Rest(0, 30_000, 5000.0, 0.0), Rest(MIB, MIB + 30_000, 1000.0, 0.0), Rest(2 * MIB, 2 * MIB, 1.0, 0.0)]
    found = late(rests, round_trip_s=0.1, rate=1e6, hedge_budget=MIB)
    assert found is not None
    assert found.index == 1


@given(
    st.lists(
        st.tuples(st.integers(0, MIB), st.integers(0, 8 * MIB), st.none() | st.floats(1, 1e8), st.floats(0, 20)),
        max_size=6,
    ),
    st.floats(0.001, 1),
    st.floats(1, 1e8),
    st.integers(0, MIB),
)
def test_help_stays_inside_the_late_one_and_its_budget(
    flights: list[tuple[int, int, float | None, float]], round_trip_s: float, rate: float, budget: int
) -> None:
    rests = [Rest(at, at + length, speed, silent) for at, length, speed, silent in flights]
    found = late(rests, round_trip_s=round_trip_s, rate=rate, hedge_budget=budget)
    if found is not None:
        behind = rests[found.index]
        assert behind.at <= found.first < found.end == behind.end
        assert found.first > behind.at or found.hedge
        assert not found.hedge or found.end - found.first <= budget


def test_a_silent_one_is_expected_to_stay_so_as_long() -> None:
    assert takes(Rest(0, 1000, 1000.0, 0.0), 0.1, 1e6) == 1.0
    assert takes(Rest(0, 1000, 1000.0, 7.0), 0.1, 1e6) == 7.0
    assert takes(Rest(0, 1000, None, 0.05), 0.1, 1000.0) == 0.1 + 1.0
    assert takes(Rest(0, 1000, None, 2.1), 0.1, 1000.0) == 0.1 + 1.0 + 2.0


def test_the_budget_is_a_share_of_large_files_and_something_for_small_ones() -> None:
    assert hedge_budget(1000) == MIB
    assert hedge_budget(1000 * MIB) == 50 * MIB
