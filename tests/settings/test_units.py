"""Sizes and times: exact, in the units people write, and refused with a hint when they are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.settings.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        (0, 0),
        (17, 17),
        ("17", 17),
        ("17b", 17),
        ("64KiB", 65536),
        ("64 k", 65536),
        ("64kb", 64000),
        ("1MB", 10**6),
        ("256MiB", 2**28),
        ("1.5GiB", 3 * 2**29),
        ("10gib", 10 * 2**30),
        ("1TB", 10**12),
        (" 2 m ", 2**21),
    ],
)
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "x", "-1", -1, True, None, 1.5, "1.5", "0.3KiB", "1QiB", "1e3", "٣k", 2**63, "1 2k"]
)
def test_no_sizes(text: object) -> None:
    with pytest.raises(ValueError, match=r"size|whole number of bytes"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (0, 0.0),
        (1.5, 1.5),
        ("90", 90.0),
        ("90s", 90.0),
        ("50ms", 0.05),
        ("5m", 300.0),
        ("5min", 300.0),
        ("1.5h", 5400.0),
        ("1d", 86400.0),
        (" 1 s ", 1.0),
        ("0.25S", 0.25),
    ],
)
def test_times(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "-1s", -0.1, True, None, "1w", "1:30", 1e9, "999999999999s", float("nan"), float("inf")]
)
def test_no_times(text: object) -> None:
    with pytest.raises(ValueError, match="time"):
        parse_duration(text)


@given(st.integers(0, 2**63 - 1))
def test_a_size_written_is_read_again(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.floats(0, 10**9, exclude_max=True))
def test_a_time_written_is_read_again(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0"), (1023, "1023"), (1024, "1KiB"), (2**20, "1MiB"), (2**40, "1TiB"), (2**20 + 1, "1048577")],
)
def test_sizes_are_written_short(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0s"), (0.05, "50ms"), (1.5, "1.5s"), (90.0, "90s"), (0.0001, "0.0001s")]
)
def test_times_are_written_short(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
