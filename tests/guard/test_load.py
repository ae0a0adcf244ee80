"""When a worker sheds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.guard.load import RECOVERY, LagMeter, descriptors_low


def test_one_late_wake_up_starts_it_and_three_in_time_end_it() -> None:
    meter = LagMeter(1.0)
    late = [1.0, 1.01, *[0.5] * (RECOVERY - 1), 0.0]  # the first is just in time
    noted = [(meter.wake(0.0, seconds), meter.lagging) for seconds in late]
    assert noted == [(False, False), (True, True), *[(False, True)] * (RECOVERY - 1), (False, False)]


def test_a_half_late_wake_up_starts_the_recovery_anew() -> None:
    meter = LagMeter(1.0)
    meter.wake(0.0, 2.0)
    for late in (0.1, 0.1, 0.51, 0.1, 0.1):
        meter.wake(0.0, late)
        assert meter.lagging
    meter.wake(0.0, 0.1)
    assert not meter.lagging


def test_without_a_limit_nothing_is_late() -> None:
    meter = LagMeter(1.0)
    meter.wake(0.0, 5.0)
    meter.limit_s = None
    assert not meter.wake(0.0, 100.0)
    assert not meter.lagging
    assert meter.last_s == 100.0


@given(st.lists(st.floats(-1, 10, allow_nan=False)))
def test_it_lags_exactly_while_no_recovery_followed_the_last_late_one(lags: list[float]) -> None:
    meter = LagMeter(1.0)
    expected, in_time = False, 0
    for lag in lags:
        meter.wake(100.0, 100.0 + lag)
        in_time = in_time + 1 if meter.last_s <= 0.5 else 0
        expected = meter.last_s > 1.0 or (expected and in_time < RECOVERY)
        assert meter.lagging == expected
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
