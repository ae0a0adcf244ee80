"""When a path counts as full."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.control.roundtrips import (
    FEWEST,
    LATEST,
    LONGER,
    LONGER_S,
    MOST_MIRRORS,
    RECENT_S,
    REMEMBERED_S,
    Paths,
    RoundTrips,
)


def felt(*seconds: float, now: float = 0.0, trips: RoundTrips | None = None) -> RoundTrips:
    trips = RoundTrips() if trips is None else trips
    for one in seconds:
        trips.felt(one, now)
    return trips


def test_nothing_is_known_at_first() -> None:
    trips = RoundTrips()
    assert (trips.full, trips.usual_s, trips.shortest_s) == (False, None, None)


@given(st.lists(st.floats(0.1, 0.2), min_size=1, max_size=50))
def test_jitter_of_twice_the_shortest_is_no_queue(seconds: list[float]) -> None:
    """Round trips of 100 to 200 ms at random, around 150: their median seldom reaches 210 ms, and here never can."""
    assert not felt(*seconds).full


@pytest.mark.parametrize("shortest", [0.0001, 0.01, 0.1, 0.5])
def test_a_queue_is_seen_when_most_of_the_latest_stand_in_it(shortest: float) -> None:
    longer = LONGER * shortest + LONGER_S + 0.001
    assert not felt(shortest, longer, longer).full  # too few to tell
    assert felt(shortest, *[longer] * (FEWEST - 1)).full
    assert not felt(*[shortest] * LATEST, *[longer] * (LATEST // 2)).full
    assert felt(*[shortest] * LATEST, *[longer] * (LATEST // 2 + 1)).full


def test_it_ends_when_the_queue_does() -> None:
    trips = felt(0.1, *[0.5] * LATEST)
    assert trips.full
    assert not felt(*[0.15] * LATEST, trips=trips).full


def test_the_shortest_is_forgotten_some_time() -> None:
    trips = felt(0.1, *[0.5] * LATEST)
    felt(0.5, now=REMEMBERED_S, trips=trips)
    assert trips.shortest_s == 0.5
    assert not trips.full


def test_mirrors_are_compared_with_themselves_and_all_in_use_must_be_full() -> None:
    paths = Paths()
    for mirror, seconds in [("near", 0.005), ("far", 0.3)] * 8:
        paths.felt(mirror, seconds, 0.0)
    assert not paths.full
    for _ in range(LATEST):
        paths.felt("near", 0.5, 1.0)
    assert not paths.full  # there is room to the other
    assert paths.describe() == {
        "near": {"round_trip_s": 0.5, "shortest_s": 0.005, "full": True},
        "far": {"round_trip_s": 0.3, "shortest_s": 0.3, "full": False},
    }
    paths.felt("near", 0.5, RECENT_S)
    assert paths.full  # the other is not in use any more


def test_no_more_mirrors_are_known_than_there_can_be() -> None:
    paths = Paths()
    for number in range(MOST_MIRRORS + 9):
        paths.felt(str(number), 0.1, 0.0)
    assert len(paths.describe()) == MOST_MIRRORS
