"""When a worker sheds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.guard.load import RECOVERY, SUSTAINED, BusyMeter, LagMeter, descriptors_low


def test_two_late_wake_ups_in_a_row_start_it_and_three_in_time_end_it() -> None:
    meter = LagMeter(1.0)
    late = [1.0, *[1.01] * SUSTAINED, *[0.5] * (RECOVERY - 1), 0.0]  # the first is just in time
    noted = [(meter.wake(0.0, seconds), meter.lagging) for seconds in late]
    calm = [(False, False)] * SUSTAINED
    assert noted == [*calm, (True, True), *[(False, True)] * (RECOVERY - 1), (False, False)]


@pytest.mark.parametrize("between", [0.0, 0.7, 1.0])
def test_a_single_late_wake_up_is_forgiven_however_late(between: float) -> None:
    """Regression: a crowd on a busy machine got 503 because the process once was not scheduled for a second."""
    meter = LagMeter(1.0)
    for seconds in (30.0, between, 30.0, between):
        assert not meter.wake(0.0, seconds)
        assert not meter.lagging


def test_a_half_late_wake_up_starts_the_recovery_anew_and_a_late_one_goes_on() -> None:
    meter = LagMeter(1.0)
    for seconds in (2.0, 2.0, 0.1, 0.1, 2.0):
        meter.wake(0.0, seconds)
    assert meter.wake(0.0, 2.0)
    for late in (0.1, 0.1, 0.51, 0.1, 0.1):
        meter.wake(0.0, late)
        assert meter.lagging
    meter.wake(0.0, 0.1)
    assert not meter.lagging


def test_without_a_limit_nothing_is_late() -> None:
    meter = LagMeter(1.0)
    meter.wake(0.0, 5.0)
    assert meter.wake(0.0, 5.0)
    meter.limit_s = None
    assert not meter.wake(0.0, 100.0)
    assert not meter.lagging
    assert meter.last_s == 100.0
    meter.limit_s = 1.0
    assert not meter.wake(0.0, 100.0)  # what was late without a limit does not count


@given(st.lists(st.floats(-1, 10, allow_nan=False)))
def test_it_lags_exactly_while_no_recovery_followed_the_last_sustained_lag(lags: list[float]) -> None:
    meter = LagMeter(1.0)
    seen: list[float] = []
    expected = False
    for lag in lags:
        counted = meter.wake(100.0, 100.0 + lag)
        seen.append(meter.last_s)
        if len(seen) >= SUSTAINED and min(seen[-SUSTAINED:]) > 1.0:
            expected = True
        elif len(seen) >= RECOVERY and max(seen[-RECOVERY:]) <= 0.5:
            expected = False
        assert meter.lagging == expected
        assert counted == (expected and meter.last_s > 1.0)
        assert meter.last_s >= 0


@pytest.mark.parametrize(
    ("used", "limit", "low"),
    [
        (0, 1024, False),
        (960, 1024, False),
        (961, 1024, True),
        (1024, 1024, True),
        (224, 256, False),
        (225, 256, True),
        (20_000 - 64, 20_000, False),
        (20_000 - 63, 20_000, True),
    ],
)
def test_descriptors(used: int, limit: int, low: bool) -> None:
    assert descriptors_low(used, limit) is low


def test_a_thread_that_is_always_at_work_becomes_busy_in_about_a_second_and_calm_again() -> None:
    meter = BusyMeter()
    shares = []
    for tick in range(40):
        meter.note(tick * 0.1, min(tick, 20) * 0.1)
        shares.append(meter.share)
    assert shares[0] == 0.0
    assert shares[5] < 0.7 < 0.85 < shares[10] < shares[20] < 1.0
    assert shares[39] < 0.05


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1e6, 1e6))))
def test_the_share_is_one(notes: list[tuple[float, float]]) -> None:
    meter = BusyMeter()
    for now, worked_s in notes:
        meter.note(now, worked_s)
        assert 0.0 <= meter.share <= 1.0
