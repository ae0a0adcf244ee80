"""The class of a path: delay, loss, first byte, goodput and errors, each by itself and against flutter."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.control.quality import (
    BACK,
    BOUNDS_S,
    KEEP_S,
    PathQuality,
    Quality,
    Sample,
    between,
)
from fileproxy.tcpinfo import TcpInfo, parse

GOOD, MEDIUM, POOR, VERY_POOR = Quality
EMPTY = parse(b"\0" * 232)
assert EMPTY is not None
NONE: TcpInfo = EMPTY


def fed(*samples: Sample, every_s: float = 1.0) -> PathQuality:
    path = PathQuality()
    for number, sample in enumerate(samples):
        path.take(sample, number * every_s)
    return path


@pytest.mark.parametrize(
    ("rtt_s", "expected"),
    [(0.0001, GOOD), (0.049, GOOD), (0.05, MEDIUM), (0.149, MEDIUM), (0.15, POOR), (0.3, VERY_POOR), (2.0, VERY_POOR)],
)
def test_classes_by_round_trip(rtt_s: float, expected: Quality) -> None:
    assert fed(Sample(rtt_s=rtt_s)).quality is expected


def test_nothing_seen_is_no_class() -> None:
    assert PathQuality().quality is None
    assert fed(Sample()).quality is None
    assert fed(Sample()).report()["quality"] is None


def test_loss_at_constant_response_time_changes_the_class() -> None:
    """The response time stays at 20 ms throughout; only what is lost differs."""
    path = PathQuality()
    for now in range(10):
        path.take(Sample(rtt_s=0.02, first_byte_s=0.02, segments=500), now)
    assert path.quality is GOOD
    for now in range(10, 20):
        path.take(Sample(rtt_s=0.02, first_byte_s=0.02, segments=500, lost=2), now)
    assert path.quality is MEDIUM  # 0.4 %
    for now in range(20, 30):
        path.take(Sample(rtt_s=0.02, first_byte_s=0.02, segments=500, lost=8), now)
    assert path.quality is VERY_POOR  # 1.6 %
    assert path.rtt_s == pytest.approx(0.02)
    for now in range(30, 60):
        path.take(Sample(rtt_s=0.02, first_byte_s=0.02, segments=500), now)
    assert path.quality is GOOD


def test_a_single_loss_in_a_short_exchange_is_no_verdict() -> None:
    assert fed(Sample(rtt_s=0.001, segments=10, lost=1)).quality is not VERY_POOR


def test_loss_is_forgotten_in_time() -> None:
    path = fed(Sample(rtt_s=0.001, segments=1000, lost=30))
    assert path.quality is VERY_POOR
    path.take(Sample(rtt_s=0.001), 10 * KEEP_S)
    assert path.quality is GOOD


def test_where_there_is_no_round_trip_the_first_byte_stands_in() -> None:
    assert fed(Sample(first_byte_s=0.2)).quality is POOR
    assert fed(Sample(rtt_s=0.001, first_byte_s=0.1)).quality is GOOD
    assert fed(Sample(rtt_s=0.001, first_byte_s=1.3)).quality is VERY_POOR


def test_errors_and_slow_bodies_cost_classes() -> None:
    assert fed(*[Sample(rtt_s=0.001, failed=True)] * 5).quality is MEDIUM
    assert fed(*[Sample(rtt_s=0.001, failed=False)] * 50).quality is GOOD
    assert fed(Sample(rtt_s=0.001, goodput=10_000.0)).quality is POOR


@given(st.sampled_from(BOUNDS_S), st.lists(st.floats(min_value=BACK + 0.001, max_value=1.2), min_size=3, max_size=40))
def test_around_a_bound_the_class_changes_at_most_once(bound_s: float, parts: list[float]) -> None:
    """Over it, and never back: the way back begins a fifth below."""
    path, seen = PathQuality(), []
    for now, part in enumerate(parts):
        path.take(Sample(rtt_s=bound_s * part), now)
        seen.append(path.quality)
    assert sum(one is not other for one, other in itertools.pairwise(seen)) <= 1


@given(
    st.lists(
        st.builds(
            Sample,
            rtt_s=st.none() | st.floats(0, 100),
            first_byte_s=st.none() | st.floats(0, 100),
            goodput=st.none() | st.floats(0, 1e10),
            segments=st.integers(0, 10**7),
            lost=st.floats(0, 1e7),
            failed=st.none() | st.booleans(),
        ),
        max_size=30,
    )
)
def test_any_samples_give_sound_values(samples: list[Sample]) -> None:
    path = fed(*samples)
    assert 0 <= path.loss <= 1
    assert 0 <= path.errors <= 1
    for value in (path.rtt_s, path.goodput):
        assert value is None or (math.isfinite(value) and value >= 0)


@given(st.floats(0.0001, 2), st.floats(0.0001, 2), st.floats(0, 0.05), st.floats(0, 0.05))
def test_worse_values_never_give_a_better_class(one_s: float, other_s: float, one: float, other: float) -> None:
    better = Sample(rtt_s=min(one_s, other_s), segments=10_000, lost=10_000 * min(one, other))
    worse = Sample(rtt_s=max(one_s, other_s), segments=10_000, lost=10_000 * max(one, other))
    first, second = fed(better).quality, fed(worse).quality
    assert first is not None
    assert second is not None
    assert first <= second


def test_what_was_sent_again_is_lost_but_for_a_probe() -> None:
    before = NONE._replace(data_segs_out=100, retransmitted=5)
    now = NONE._replace(data_segs_out=600, retransmitted=16, rtt_s=0.1)
    assert between(before, now) == Sample(rtt_s=0.1, segments=500, lost=10)
    assert between(before, before._replace(retransmitted=6)).lost == 0
    assert between(before, now._replace(duplicates=7)).lost == 3  # those were there already


def test_a_gap_is_one_loss_however_much_comes_behind_it() -> None:
    """1.25 MB/s at 160 ms: 138 segments of 1,448 bytes a round trip come behind each gap."""
    now = NONE._replace(data_segs_in=8000, out_of_order=1381, rtt_s=0.16, mss=1448)
    sample = between(None, now, goodput=1.25e6)
    assert sample.segments == 8000
    assert sample.lost == pytest.approx(10, rel=0.01)
