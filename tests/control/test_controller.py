"""The table that quality is looked up in, and what goes beyond it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fileproxy.control.controller import UNLIMITED, UNSENT_S, idle_s, unsent_bytes, wants_bbr, write_bytes
from fileproxy.control.quality import PathQuality, Quality, Sample
from tests.control.test_quality import NONE

KIB = 1024


def test_idle_timeouts_are_the_old_ones() -> None:
    assert [idle_s(one, 60.0) for one in Quality] == [45.0, 60.0, 90.0, 120.0]
    assert idle_s(None, 61.0) == 61.0


def test_writes_are_small_only_where_the_clients_network_is_the_limit() -> None:
    assert [write_bytes(one) for one in Quality] == [None, None, 32 * KIB, 64 * KIB]
    assert write_bytes(None) is None


@given(st.sampled_from(list(Quality)), st.floats(0, 1e10))
def test_no_path_runs_dry(quality: Quality, rate: float) -> None:
    unsent = unsent_bytes(quality, rate)
    assert unsent == UNLIMITED or unsent >= max(128 * KIB, rate * UNSENT_S)


def test_good_and_fast_paths_hold_back_nothing() -> None:
    assert unsent_bytes(None, 0) == unsent_bytes(Quality.GOOD, 0) == unsent_bytes(Quality.POOR, 1e8) == UNLIMITED
    assert unsent_bytes(Quality.VERY_POOR, 1.25e6) == 512 * KIB


def test_far_or_lossy_paths_want_bbr() -> None:
    near = NONE._replace(rtt_s=0.03, min_rtt_s=0.03)
    assert not wants_bbr(near, PathQuality())
    assert wants_bbr(NONE._replace(rtt_s=0.15), PathQuality())
    assert not wants_bbr(NONE._replace(rtt_s=0.5, min_rtt_s=0.01), PathQuality())  # its own queue, not its distance
    lossy = PathQuality()
    lossy.take(Sample(rtt_s=0.03, segments=2000, lost=10), 0.0)
    assert wants_bbr(near, lossy)
