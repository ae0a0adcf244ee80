"""The plan: every byte once, in segments that shrink; who is far slower makes room."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from fileproxy.client.plan import FAR, Spans, next_segment, outpaced, unasked
from fileproxy.control.segments import LARGEST, SMALLEST, Rest

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
    assert next_segment(free, 4, 100_000.0) == (0, 49 * SMALLEST)  # eight seconds' worth


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
