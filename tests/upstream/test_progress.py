"""Under 1 KiB in an idle window is a stall; only waiting counts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fileproxy.upstream.progress import PROGRESS_BYTES, ProgressMeter


def test_a_silent_peer_gets_the_window_and_no_more() -> None:
    meter = ProgressMeter(10.0)
    assert meter.allowance_s == 10.0
    meter.record(0, 4.0)
    assert meter.allowance_s == 6.0
    meter.record(0, 7.0)
    assert meter.allowance_s == 0.0


def test_a_drip_is_no_progress() -> None:
    meter = ProgressMeter(10.0)
    for _ in range(9):
        meter.record(1, 1.0)
    assert (meter.allowance_s, meter.arrived) == (1.0, 9)
    meter.record(1, 1.0)
    assert meter.allowance_s == 0.0


def test_enough_bytes_open_a_new_window() -> None:
    meter = ProgressMeter(10.0)
    meter.record(PROGRESS_BYTES - 1, 9.0)
    assert meter.allowance_s == 1.0
    meter.record(1, 0.5)
    assert (meter.allowance_s, meter.arrived) == (10.0, 0)


def test_a_slow_reader_is_not_the_peers_fault() -> None:
    meter = ProgressMeter(10.0)
    for _ in range(100):  # what is already here costs no waiting, however late it is fetched
        meter.record(10, 0.0)
    assert meter.allowance_s == 10.0


@given(
    st.floats(0.1, 100),
    st.lists(st.tuples(st.integers(0, 3000), st.floats(0, 30)), max_size=100),
)
def test_no_stall_that_is_none_and_none_missed(idle_s: float, arrivals: list[tuple[int, float]]) -> None:
    """Against the plain words: bytes and waiting since the last progress."""
    meter = ProgressMeter(idle_s)
    came, waited = 0, 0.0
    for amount, waited_s in arrivals:
        meter.record(amount, waited_s)
        came, waited = came + amount, waited + waited_s
        if came >= PROGRESS_BYTES:
            came, waited = 0, 0.0
        assert (meter.allowance_s == 0.0) == (waited >= idle_s)
        assert 0.0 <= meter.allowance_s <= idle_s
