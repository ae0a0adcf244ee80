"""The plan: every byte once, in segments that shrink; late ones are helped."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from fileproxy.client.plan import (
    FAR,
    LARGEST,
    SMALLEST,
    Late,
    Rest,
    Spans,
    hedge_budget,
    late,
    next_segment,
    outpaced,
    unasked,
)

MIB = 1024 * 1024
SPAN = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: (min(pair), max(pair)))


@given(st.lists(SPAN, max_size=20))
def test_spans_are_the_set_of_their_bytes(spans: list[tuple[int, int]]) -> None:
    made, model = Spans(), set[int]()
    for first, end in spans:
        new = set(range(first, end)) - model
        assert made.add(first, end) == len(new)
        model |= new
    found = list(made)
    assert {byte for first, end in found for byte in range(first, end)} == model
    assert made.total == len(model)
    # Disjoint, ascending, and joined where they touch.
    assert all(one[1] < two[0] for one, two in itertools.pairwise(found))
    assert {byte for first, end in made.gaps(60) for byte in range(first, end)} == set(range(60)) - model


@given(st.lists(SPAN, max_size=8), st.lists(SPAN, max_size=8))
def test_unasked_is_neither_here_nor_on_its_way(here: list[tuple[int, int]], asked: list[tuple[int, int]]) -> None:
    free = {byte for first, end in unasked(Spans(here), 60, asked) for byte in range(first, end)}
    taken = {byte for first, end in [*here, *asked] for byte in range(first, end)}
    assert free == set(range(60)) - taken


@given(st.integers(1, 300 * MIB), st.integers(1, 64), st.none() | st.floats(1, 1e9))
def test_segments_cover_a_file_once_and_shrink_at_most_to_the_smallest(
    size: int, connections: int, rate: float | None
) -> None:
    at, lengths = 0, []
    while at < size:
        segment = next_segment([(at, size)], connections, rate)
        assert segment is not None
        assert segment[0] == at
        lengths.append(segment[1] - at)
        at = segment[1]
    assert at == size
    assert max(lengths) < LARGEST + 2 * SMALLEST
    assert all(length >= SMALLEST for length in lengths[:-1])
    assert all(one >= two for one, two in itertools.pairwise(lengths[:-1]))
    assert next_segment([], connections, rate) is None


def test_a_slow_mirror_gets_short_segments() -> None:
    free = [(0, 1000 * MIB)]
    assert next_segment(free, 4, None) == (0, LARGEST)
    assert next_segment(free, 4, 100_000.0) == (0, 13 * SMALLEST)  # eight seconds' worth


def test_nothing_is_done_about_flights_that_end_soon() -> None:
    rests = [Rest(0, 64 * 1024, 1e6, 0.0), Rest(MIB, MIB + 10_000, 1e6, 0.0)]
    assert late(rests, round_trip_s=0.1, rate=1e6, hedge_budget=MIB) is None


def test_the_second_half_of_a_long_rest_is_taken_over() -> None:
    rests = [Rest(0, 100_000, 1e6, 0.0), Rest(MIB, 3 * MIB, 100_000.0, 0.0)]
    found = late(rests, round_trip_s=0.1, rate=1e6, hedge_budget=MIB)
    assert found == Late(1, 2 * MIB, 3 * MIB, hedge=False)


def test_a_short_late_rest_is_asked_for_a_second_time_but_once() -> None:
    rests = [Rest(1000, 60_000, 1000.0, 0.0)]
    found = late(rests, round_trip_s=0.1, rate=1e6, hedge_budget=MIB)
    assert found == Late(0, 1000, 60_000, hedge=True)
    shared = [Rest(1000, 60_000, 1000.0, 0.0, shared=True)]
    assert late(shared, round_trip_s=0.1, rate=1e6, hedge_budget=MIB) is None


def test_a_silent_flight_is_asked_for_again_within_the_budget_else_halved() -> None:
    rests = [Rest(0, MIB, 1e6, 5.0)]
    assert late(rests, round_trip_s=0.1, rate=1e6, hedge_budget=MIB) == Late(0, 0, MIB, hedge=True)
    assert late(rests, round_trip_s=0.1, rate=1e6, hedge_budget=MIB - 1) == Late(0, MIB // 2, MIB, hedge=False)


def test_what_was_just_asked_is_not_late() -> None:
    rests = [Rest(0, 64 * 1024, None, 0.1)]
    assert late(rests, round_trip_s=0.1, rate=1e6, hedge_budget=MIB) is None
    assert late([Rest(0, 64 * 1024, None, 2.0)], round_trip_s=0.1, rate=1e6, hedge_budget=MIB) is not None


@given(
    st.lists(
        st.tuples(st.integers(0, MIB), st.integers(1, 8 * MIB), st.none() | st.floats(1, 1e8), st.floats(0, 20)),
        min_size=1,
        max_size=6,
    ),
    st.floats(0.001, 1),
    st.floats(1, 1e8),
    st.integers(0, MIB),
)
def test_help_stays_inside_the_late_flight_and_its_budget(
    flights: list[tuple[int, int, float | None, float]], round_trip_s: float, rate: float, budget: int
) -> None:
    rests = [Rest(at, at + length, speed, silent) for at, length, speed, silent in flights]
    found = late(rests, round_trip_s=round_trip_s, rate=rate, hedge_budget=budget)
    if found is not None:
        behind = rests[found.index]
        assert behind.at <= found.first < found.end == behind.end
        assert found.first > behind.at or found.hedge
        assert not found.hedge or found.end - found.first <= budget


def test_the_budget_is_a_share_of_large_files_and_something_for_small_ones() -> None:
    assert hedge_budget(1000) == MIB
    assert hedge_budget(1000 * MIB) == 50 * MIB


# --- who loses its connection ----------------------------------------------------------------------------------------


def slow(left: int, rate: float | None, *, silent_s: float = 0.0, shared: bool = False) -> Rest:
    return Rest(0, left, rate, silent_s, shared)


def test_the_latest_flight_of_a_far_slower_mirror_gives_way() -> None:
    rests = [(slow(64 * 1024, 8192), 1e6), (slow(64 * 1024, 4096), 1e6), (slow(64 * 1024, 5e5), 1e6)]
    assert outpaced(rests, round_trip_s=0.05, end_s=0.5) == 1


def test_one_that_ends_before_the_file_could_is_welcome() -> None:
    rests = [(slow(64 * 1024, 16384), 1e6)]  # four seconds
    assert outpaced(rests, round_trip_s=0.05, end_s=2.0) is None
    assert outpaced(rests, round_trip_s=0.05, end_s=0.5) == 0


def test_a_silent_one_gives_way_and_a_shared_one_does_not() -> None:
    assert outpaced([(slow(64 * 1024, None, silent_s=3.0), 1e6)], round_trip_s=0.05, end_s=0.1) == 0
    assert outpaced([(slow(64 * 1024, 4096, shared=True), 1e6)], round_trip_s=0.05, end_s=0.1) is None


@given(
    left=st.integers(1, 64 * MIB),
    own=st.floats(1.0, 1e9),
    other=st.floats(1.0, 1e9),
    round_trip_s=st.floats(0.0, 2.0),
    end_s=st.floats(0.0, 1e4),
)
def test_nobody_gives_way_to_what_is_not_far_faster(
    left: int, own: float, other: float, round_trip_s: float, end_s: float
) -> None:
    found = outpaced([(slow(left, own), other)], round_trip_s=round_trip_s, end_s=end_s)
    assert found is None or (other > FAR * own and left / own > FAR * end_s)
