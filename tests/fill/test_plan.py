"""Which blocks a fill asks for: what is missing, once, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.fill.plan import claimed, early_ranges, segment_end, widened
from fileproxy.http.ranges import RangeSpec
from fileproxy.model import UNKNOWN_SIZE

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
        ((150, 5000), (100, 899)),  # what comes then may be others'
        ((None, 5), (None, 5)),
    ],
)
def test_ranges_are_widened_to_blocks(asked: Pair, sent: Pair) -> None:
    assert widened([RangeSpec(*asked), RangeSpec(7, 8)], 100, near=850) == RangeSpec(*sent)


def test_a_block_is_asked_for_whole_however_large() -> None:
    assert widened([RangeSpec(150, 5000)], 100, near=10) == RangeSpec(100, 199)


@pytest.mark.parametrize(
    ("asked", "claim"),
    [
        (None, (0, UNKNOWN_SIZE)),
        ([(150, 250), (900, 901)], (100, 300)),
        ([(150, None)], (100, UNKNOWN_SIZE)),
        ([(150, 5000)], (100, 900)),
        ([(None, 5)], (0, 0)),
    ],
)
def test_what_a_first_contact_claims(asked: list[Pair] | None, claim: tuple[int, int]) -> None:
    assert claimed([RangeSpec(*one) for one in asked] if asked else None, 100, near=800) == claim


@pytest.mark.parametrize(
    ("asked", "claims", "wanted"),
    [
        ((50, 60), [(0, UNKNOWN_SIZE)], []),  # the first ask brings it soon
        ((1050, 1060), [(0, UNKNOWN_SIZE)], [(1000, 1100)]),  # too far on
        ((800, None), [(0, UNKNOWN_SIZE)], []),
        ((900, None), [(0, UNKNOWN_SIZE)], [(900, 1700)]),  # never more than what is near
        ((150, 160), [(0, 100)], [(100, 200)]),
        ((150, 450), [(0, 100), (400, 500)], [(100, 400)]),  # from there on it is others'
        ((150, 5000), [(0, 100), (400, 500)], [(100, 400), (500, 900)]),
        ((450, 5000), [(0, 100), (400, 500), (700, 900)], [(500, 700), (900, 1200)]),  # nobody brings these
        ((450, None), [(0, 100), (400, 500), (700, 900)], []),  # it may leave before
        ((150, None), [(400, 500)], [(100, 400)]),
        ((None, 5), [(0, 100)], []),
        ((0, 5), [(0, 0)], [(0, 100)]),
    ],
)
def test_what_is_asked_for_beside_a_first_contact(
    asked: Pair, claims: list[tuple[int, int]], wanted: list[tuple[int, int]]
) -> None:
    assert early_ranges(RangeSpec(*asked), 100, claims, 800) == wanted


@given(
    crowd=st.lists(st.tuples(st.integers(0, 9_999), st.none() | st.integers(0, 9_999)), min_size=1, max_size=40),
    near=st.integers(1, 20).map(lambda blocks: blocks * 100),
)
def test_no_two_early_asks_overlap_and_all_that_is_near_and_asked_for_is_claimed(crowd: list[Pair], near: int) -> None:
    claims: list[tuple[int, int]] = []
    for at, length in crowd:
        assert at is not None
        spec = RangeSpec(at, None if length is None else at + length)
        start = at // 100 * 100
        for first, end in early_ranges(spec, 100, claims, near):
            assert start <= first < end <= start + near
            assert first % 100 == end % 100 == 0
            assert spec.last is None or end <= spec.last // 100 * 100 + 100
            assert not any(one < end and first < until for one, until in claims)
            claims.append((first, end))
        assert any(first <= at < end and at - first < near + 100 for first, end in claims)
        if spec.last is not None:
            for block in range(start, min(spec.last + 1, start + near), 100):
                assert any(first <= block < end for first, end in claims)


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
