from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.observe.histogram import BOUNDS, BUCKETS, HIGHEST_S, LOWEST_S, Histogram, bucket

durations = st.floats(min_value=0, max_value=5_000, allow_nan=False)
within = st.floats(min_value=LOWEST_S, max_value=HIGHEST_S, allow_nan=False)


@given(st.lists(durations), st.lists(durations))
def test_merging_is_counting_together(first: list[float], second: list[float]) -> None:
    assert Histogram.of(first) + Histogram.of(second) == Histogram.of(first + second)


@given(st.lists(within, min_size=1, max_size=200), st.floats(min_value=0, max_value=100))
def test_a_percentile_is_within_five_percent_of_the_value_at_that_rank(values: list[float], percent: float) -> None:
    exact = sorted(values)[max(1, math.ceil(len(values) * percent / 100)) - 1]
    assert Histogram.of(values).percentile(percent) == pytest.approx(exact, rel=0.05)


@given(st.lists(durations, min_size=1, max_size=100))
def test_mean_and_longest_are_kept_exactly_and_nothing_is_reported_beyond_the_longest(values: list[float]) -> None:
    histogram = Histogram.of(values)
    assert histogram.mean_s == pytest.approx(sum(values) / len(values), abs=1e-9)
    assert histogram.longest_s == pytest.approx(max(values), abs=1e-9)
    assert histogram.percentile(100) <= histogram.longest_s
    assert histogram.count == len(values)


@given(durations)
def test_every_duration_has_the_one_bucket_whose_bounds_hold_it(seconds: float) -> None:
    number = bucket(seconds)
    assert number == BUCKETS - 1 or seconds <= BOUNDS[number]
    assert number == 0 or seconds > BOUNDS[number - 1]


def test_the_buckets_reach_from_ten_microseconds_to_a_thousand_seconds_in_steps_of_a_tenth() -> None:
    assert BOUNDS[0] == 1e-5
    assert BOUNDS[-1] >= 1000
    assert all(b / a == pytest.approx(1.1) for a, b in itertools.pairwise(BOUNDS))


def test_nothing_counted_gives_zeros() -> None:
    empty = Histogram()
    assert (empty.count, empty.mean_s, empty.percentile(95), empty.longest_s) == (0, 0.0, 0.0, 0.0)


def test_values_beyond_the_last_bucket_are_reported_as_the_longest() -> None:
    assert Histogram.of([5_000.0]).percentile(50) == pytest.approx(5_000)


def test_a_percentile_outside_0_to_100_is_refused() -> None:
    with pytest.raises(ValueError, match="101"):
        Histogram().percentile(101)
