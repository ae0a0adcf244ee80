"""When one connection is not left alone: a path in simulated time, and a reader that takes its time or does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.control.patience import LONG_REST_S, NEXT_LOOK_S, SILENT_S, Patience

KIB, MIB = 1024, 1024 * 1024
PIECE_S = 0.005  # bytes come so often
Path = Callable[[float], float]  # bytes a second, by the time


@dataclass
class Seen:
    """When it was too much, and what was left then; None: never, and the file is here."""

    at: float | None
    left: int


def watch(
    path: Path,
    size: int,
    *,
    rtt_s: float = 0.0,
    stall_s: float | None = None,
    works_s: float = 0.0,
    lasts_s: float = 60.0,
) -> Seen:
    """A reader takes what comes, and has to do ``works_s`` with each piece before it waits for the next."""
    patience = Patience(0.0, rtt_s, stall_s)
    now, left, ready, free_at, waiting = 0.0, size, 0.0, 0.0, False
    look = patience.next_look_s
    while left > 0 and now < lasts_s:
        now += PIECE_S
        if ready < 4 * MIB:  # what the kernel holds for a reader that is slow
            ready += path(now) * PIECE_S
        if not waiting and now >= free_at:
            patience.waits(free_at)
            waiting = True
        if waiting and ready >= 1:
            taken = min(left, int(ready))
            patience.came(taken, now)
            left, ready, waiting, free_at = left - taken, ready - taken, False, now + works_s
            if not works_s:
                patience.waits(now)
                waiting = True
        if now >= look and left > 0:
            if patience.too_slow(left, now):
                return Seen(now, left)
            look = now + patience.next_look_s
    return Seen(None, left)


def steady(rate: float) -> Path:
    return lambda now: rate


# --- a rate at which the rest takes long ------------------------------------------------------------------------------


def test_a_fast_path_is_left_alone() -> None:
    assert watch(steady(50e6), 90 * MIB) == Seen(None, 0)


def test_a_slow_path_is_seen_after_two_windows() -> None:
    seen = watch(steady(1e6), 10 * MIB)
    assert seen.at is not None
    assert seen.at < 3 * NEXT_LOOK_S


def test_a_small_rest_is_waited_for_however_slow() -> None:
    assert watch(steady(100 * KIB), 150 * KIB) == Seen(None, 0)


def test_a_path_that_turns_slow_is_seen() -> None:
    seen = watch(lambda now: 5e6 if now < 1.0 else 2e5, 8 * MIB)
    assert seen.at is not None
    assert 1.0 < seen.at < 1.0 + 4 * NEXT_LOOK_S


@given(rate=st.floats(1e5, 1e8), seconds=st.floats(0.05, 0.9 * LONG_REST_S))
def test_what_is_here_soon_needs_no_help(rate: float, seconds: float) -> None:
    assert watch(steady(rate), int(rate * seconds) + 1).at is None


# --- slow start -------------------------------------------------------------------------------------------------------


def slow_start(rtt_s: float, most: float = 1e9) -> Path:
    """Ten segments in the first round trip, twice as many in each further one."""
    return lambda now: min(most, 14_600 / rtt_s * 2.0 ** int(now / rtt_s))


def test_a_slow_start_on_a_long_path_is_not_waited_for() -> None:
    seen = watch(slow_start(0.3), 30 * MIB, rtt_s=0.3)
    assert seen.at is not None
    assert seen.at <= 0.31  # one round trip, the first look


def test_a_slow_start_on_a_short_path_is() -> None:
    assert watch(slow_start(0.02), 30 * MIB, rtt_s=0.02) == Seen(None, 0)


def test_a_small_file_on_a_long_path_is_waited_for() -> None:
    assert watch(slow_start(0.2), 200 * KIB, rtt_s=0.2) == Seen(None, 0)


# --- silence ----------------------------------------------------------------------------------------------------------


def gap(rate: float, begins: float, seconds: float) -> Path:
    return lambda now: 0.0 if begins <= now < begins + seconds else rate


def test_silence_is_seen() -> None:
    seen = watch(gap(5e6, 0.4, 60.0), 6 * MIB)
    assert seen.at is not None
    assert 0.4 + SILENT_S <= seen.at < 0.4 + SILENT_S + 2 * NEXT_LOOK_S


@pytest.mark.parametrize(("rtt_s", "stall_s", "least_s"), [(0.5, None, 2.0), (0.0, 3.0, 3.0), (0.5, 0.4, 0.4)])
def test_how_long_is_silent_depends_on_the_path_unless_it_is_said(
    rtt_s: float, stall_s: float | None, least_s: float
) -> None:
    seen = watch(gap(5e6, 0.7, 60.0), 6 * MIB, rtt_s=rtt_s, stall_s=stall_s)
    assert seen.at is not None
    assert 0.7 + least_s <= seen.at < 0.7 + least_s + 2 * NEXT_LOOK_S


def test_a_first_byte_that_never_comes_is_silence() -> None:
    seen = watch(steady(0.0), MIB)
    assert seen.at is not None
    assert SILENT_S <= seen.at < SILENT_S + 2 * NEXT_LOOK_S


@given(begins=st.floats(0.0, 1.0), seconds=st.floats(0.0, 0.55 * NEXT_LOOK_S), rtt_s=st.sampled_from([0.0, 0.02, 0.1]))
def test_a_short_pause_means_nothing(begins: float, seconds: float, rtt_s: float) -> None:
    size = int(10e6 * 0.9)  # not a second's worth
    assert watch(gap(10e6, begins, seconds), size, rtt_s=rtt_s).at is None


def test_what_comes_after_a_pause_is_no_slow_start() -> None:
    """A window without a byte, then one with few: that says nothing of a connection that is as fast as before."""
    patience = Patience(0.0, 0.2)
    for now, amount in ((0.2, 2 * MIB), (0.45, 2 * MIB), (0.7, 0), (0.95, 100 * KIB)):
        patience.waits(now - 0.19)
        patience.came(amount, now)
        assert not patience.too_slow(10 * MIB, now)


# --- the reader is the limit ------------------------------------------------------------------------------------------


@given(works_s=st.floats(0.05, 1.0), size=st.integers(MIB, 200 * MIB), rtt_s=st.sampled_from([0.0, 0.05, 0.3]))
def test_a_reader_that_is_the_limit_needs_no_help(works_s: float, size: int, rtt_s: float) -> None:
    assert watch(steady(50e6), size, rtt_s=rtt_s, works_s=works_s, lasts_s=10.0).at is None


def test_only_what_was_waited_in_the_window_counts() -> None:
    """It waited through one look, then worked: the waiting from before that look is not this window's."""
    patience = Patience(0.0)
    patience.waits(0.0)
    patience.came(MIB, 0.1)
    patience.waits(0.1)
    assert not patience.too_slow(100 * MIB, 0.5)  # all of it waited, but it may be slow start
    patience.came(10 * KIB, 0.51)  # and from now on it works
    assert not patience.too_slow(100 * MIB, 0.75)


def test_it_is_looked_at_less_often_later() -> None:
    patience, looks = Patience(0.0, 0.1), list[float]()
    for number in range(1, 21):
        looks.append(patience.next_look_s)
        patience.too_slow(0, float(number))
    assert looks[:2] == [0.1, NEXT_LOOK_S]
    assert looks[-1] > NEXT_LOOK_S
    assert looks[1:] == sorted(looks[1:])
