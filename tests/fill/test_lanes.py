"""What the downloads from one upstream share: connections, what was worth it, how fast which mirror was."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.control.growth import MOST
from fileproxy.fill.lanes import CROWD_SILENT_S, REMEMBERED_S, SLOW_S, Lanes

PARALLEL = st.sampled_from(["auto", "off"]) | st.integers(1, 64)
RATES = st.dictionaries(st.sampled_from("abcd"), st.tuples(st.floats(0, 1e9), st.floats(0, 2 * SLOW_S)), max_size=4)


@pytest.mark.parametrize(
    ("parallel", "cap", "most"), [("auto", 100, MOST), ("auto", 8, 8), ("off", 8, 1), (3, 8, 3), (64, 8, 8), (1, 8, 1)]
)
def test_the_most_a_download_may_have(parallel: int | Literal["auto", "off"], cap: int, most: int) -> None:
    assert Lanes(parallel=parallel, cap=cap).most == most


@given(parallel=PARALLEL, cap=st.integers(0, 64), extra=st.integers(0, 100), own=st.integers(0, 100))
def test_the_first_connection_is_always_to_be_had(
    parallel: int | Literal["auto", "off"], cap: int, extra: int, own: int
) -> None:
    lanes = Lanes(parallel=parallel, cap=cap, extra=extra)
    assert lanes.may_add(0)
    if own and lanes.may_add(own):
        assert own < lanes.most
        assert extra < cap


def test_others_use_up_what_may_be_had() -> None:
    lanes = Lanes(cap=4, extra=3)
    assert lanes.may_add(1)
    lanes.extra = 4
    assert not lanes.may_add(1)


def test_where_many_downloads_run_none_adds_to_its_first() -> None:
    lanes = Lanes(cap=4, extra=1, running=3)
    assert lanes.may_add(1)
    with lanes.ask():  # another one will run in a moment
        assert not lanes.may_add(1)
    assert lanes.may_add(1)
    lanes.running = 4
    assert not lanes.may_add(1)
    assert lanes.may_add(0)


# --- what was worth it ------------------------------------------------------------------------------------------------


def test_what_was_worth_it_is_remembered_for_a_while() -> None:
    lanes = Lanes()
    assert lanes.remembered(0.0) == 0
    lanes.learn(8, 10.0)
    assert lanes.remembered(10.0 + REMEMBERED_S - 1) == 8
    assert lanes.remembered(10.0 + REMEMBERED_S) == 0


def test_no_more_than_the_settings_allow_now() -> None:
    lanes = Lanes()
    lanes.learn(16, 0.0)
    lanes.cap = 4
    assert lanes.remembered(1.0) == 4
    lanes.parallel = "off"
    assert lanes.remembered(1.0) == 1


def test_what_is_taken_over_again_and_again_is_measured_anew_some_time() -> None:
    """Each download begins with what is remembered: that it ended so is no proof that it is needed still."""
    lanes = Lanes()
    for now in range(0, int(REMEMBERED_S), 10):
        lanes.learn(8, float(now))
    assert lanes.remembered(REMEMBERED_S) == 0
    lanes.learn(8, REMEMBERED_S)
    assert lanes.remembered(REMEMBERED_S + 1) == 8
    lanes.learn(4, 2 * REMEMBERED_S - 1)
    assert lanes.remembered(2 * REMEMBERED_S + 1) == 4


def test_a_number_of_the_settings_needs_no_memory() -> None:
    lanes = Lanes(parallel=6)
    assert (lanes.fixed, lanes.remembered(0.0)) == (True, 6)
    lanes.learn(2, 0.0)
    assert lanes.remembered(0.0) == 6
    assert not Lanes().fixed


# --- mirrors ----------------------------------------------------------------------------------------------------------


def test_a_mirror_that_is_far_slower_than_another_is_slow_for_a_while() -> None:
    lanes = Lanes()
    lanes.measured("a", 1e6, 0.0)
    assert lanes.slow(0.0) == frozenset()
    lanes.measured("b", 1e5, 1.0)
    lanes.measured("c", 3e5, 1.0)
    assert lanes.slow(1.0) == {"b"}
    assert lanes.slow(SLOW_S) == frozenset()  # what it was slower than is too long ago
    assert lanes.usual_rate(SLOW_S) == 1e6
    assert lanes.usual_rate(REMEMBERED_S) == 3e5
    assert lanes.usual_rate(REMEMBERED_S + 1) is None


def test_newer_measurements_count_by_their_share_and_long_ago_ones_not_at_all() -> None:
    lanes = Lanes()
    lanes.measured("a", 1e6, 0.0)
    lanes.measured("a", 2e6, 1.0)
    assert lanes.usual_rate(1.0) == pytest.approx(1.3e6)
    lanes.measured("a", 5e6, 1.0 + REMEMBERED_S)
    assert lanes.usual_rate(1.0 + REMEMBERED_S) == 5e6


@given(RATES)
def test_slow_never_names_all(rates: dict[str, tuple[float, float]]) -> None:
    lanes, now = Lanes(), 2 * SLOW_S
    for mirror, (rate, at) in rates.items():
        lanes.measured(mirror, rate, at)
    assert lanes.slow(now) < rates.keys() or not rates
    usual = lanes.usual_rate(now)
    assert usual == max((rate for rate, _ in rates.values()), default=None)


def test_on_a_full_path_only_a_download_alone_may_add() -> None:
    lanes = Lanes(running=1)
    for seconds in (0.1, 0.4, 0.4, 0.4):
        lanes.paths.felt("a", seconds, 0.0)
    assert lanes.may_add(1)
    lanes.running = 2
    assert not lanes.may_add(1)
    assert lanes.may_add(0)


def test_silence_is_borne_where_nobody_may_add_and_others_hear() -> None:
    lanes = Lanes(cap=4, running=9)
    assert lanes.silence_s(1, "a", 0.75, 10.0) == 0.75  # nobody ever heard from it
    lanes.heard("a", 10.0)
    assert lanes.silence_s(1, "a", 0.75, 10.7) == CROWD_SILENT_S
    assert lanes.silence_s(1, "a", 20.0, 10.7) == 20.0
    assert lanes.silence_s(1, "a", 0.75, 10.75) == 0.75  # it is silent to everybody: dead
    assert lanes.silence_s(1, "b", 0.75, 10.7) == 0.75
    lanes.running = 1
    assert lanes.silence_s(1, "a", 0.75, 10.7) == 0.75
    assert Lanes(cap=4, running=9, stall_s=0.5, _heard={"a": 10.0}).silence_s(1, "a", 0.5, 10.2) == 0.5  # as was said


def test_what_stats_show() -> None:
    lanes = Lanes(cap=8, extra=5, streams=2)
    lanes.measured("a", 1e6, 0.0)
    lanes.measured("b", 1e5 + 0.4, 0.0)
    lanes.learn(4, 0.0)
    for seconds in (0.1, 0.5, 0.5, 0.5):
        lanes.paths.felt("a", seconds, 0.0)
    assert lanes.describe(1.0) == {
        "parallel": "auto",
        "most": 8,
        "remembered": 4,
        "downloads": 2,
        "connections": 7,
        "paths": {"a": {"round_trip_s": 0.5, "shortest_s": 0.1, "full": True}},
        "rates": {"a": 1_000_000, "b": 100_000},
        "slow": ["b"],
    }
