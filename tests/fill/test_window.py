"""How far ahead a flight may run."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fileproxy.fill.window import SMALLEST, Windows

MIB = 1024 * 1024


def test_one_flight_has_the_configured_window() -> None:
    assert Windows(8 * MIB, 64 * MIB).size == 8 * MIB
    assert Windows(8 * MIB, 64 * MIB, 8).size == 8 * MIB


def test_many_share_the_total() -> None:
    assert Windows(8 * MIB, 64 * MIB, 16).size == 4 * MIB


@given(st.integers(SMALLEST, 2**30), st.integers(0, 2**34), st.integers(0, 10_000))
def test_it_is_within_both_but_none_stands_still(configured: int, total: int, flights: int) -> None:
    size = Windows(configured, total, flights).size
    assert SMALLEST <= size <= configured
    assert size * flights <= total or size == SMALLEST


def test_relays_that_read_ahead_share_it_as_well() -> None:
    windows = Windows(configured=8 * MIB, total=64 * MIB, flights=2)
    assert windows.size == windows.among(2) == 8 * MIB
    assert windows.among(64) == MIB
    assert windows.among(10_000) == SMALLEST
