"""Which blocks a fill asks for: what is missing, once, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.fill.plan import segment_end, widened
from fileproxy.http.ranges import RangeSpec

BLOCKS = 40
Pair = tuple[int | None, int | None]
blocks = st.integers(0, BLOCKS - 1)


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ((0, 0), (0, 99)),
        ((99, 100), (0, 199)),
        ((100, 199), (100, 199)),
        ((150, None), (100, None)),
        ((None, 5), (None, 5)),
    ],
)
def test_ranges_are_widened_to_blocks(asked: Pair, sent: Pair) -> None:
    assert widened([RangeSpec(*asked), RangeSpec(7, 8)], 100) == RangeSpec(*sent)


def test_a_segment_ends_where_something_is_held_or_on_its_way() -> None:
    assert segment_end(2, 10, set(), []) == 10
    assert segment_end(2, 10, {7}, []) == 7
    assert segment_end(2, 10, {7}, [(5, 8)]) == 5
    assert segment_end(2, 10, {1, 2}, [(0, 2)]) == 10  # what lies before it does not matter
    assert segment_end(2, 10, set(), [], most=3) == 5


def test_a_segment_takes_its_own_block_whatever_is_on_its_way() -> None:
    """A reader that asks for it could not follow the flight that brought it."""
    assert segment_end(2, 10, set(), [(2, 6)]) == 3
    assert segment_end(2, 3, {3}, []) == 3


@given(
    start=blocks,
    length=st.integers(1, BLOCKS),
    held=st.sets(blocks),
    flights=st.lists(st.tuples(blocks, st.integers(1, BLOCKS)).map(lambda pair: (pair[0], pair[0] + pair[1]))),
    most=st.none() | st.integers(1, BLOCKS),
)
def test_segments_overlap_nothing(
    start: int, length: int, held: set[int], flights: list[tuple[int, int]], most: int | None
) -> None:
    stop = start + length
    end = segment_end(start, stop, held, flights, most)
    taken = set(range(start + 1, end))
    assert start < end <= stop
    assert not taken & held
    for at, until in flights:
        if at >= start:
            assert not taken & set(range(at, until))
    assert most is None or end - start <= most


@given(held=st.sets(blocks), stop=st.integers(1, BLOCKS))
def test_segments_one_after_the_other_cover_what_is_missing_once(held: set[int], stop: int) -> None:
    fetched: list[int] = []
    at = 0
    while at < stop:
        if at in held:
            at += 1
            continue
        end = segment_end(at, stop, held, [])
        fetched += range(at, end)
        at = end
    assert fetched == [index for index in range(stop) if index not in held]
