"""HTTP dates (RFC 9110 §5.6.7)."""

from __future__ import annotations

import calendar
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.http.dates import format_date, last_modified_is_strong, parse_date

NOW = calendar.timegm((2026, 11, 22, 12, 0, 0))
EXAMPLE = 784111777  # the example of the RFC


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", EXAMPLE),
        ("Sunday, 06-Nov-94 08:49:37 GMT", EXAMPLE),
        ("Sun Nov  6 08:49:37 1994", EXAMPLE),
        (" Sun, 06 Nov 1994 08:49:37 GMT ", EXAMPLE),
        ("Mon, 06 Nov 1994 08:49:37 GMT", EXAMPLE),  # the wrong weekday
        ("Sat, 31 Dec 2016 23:59:60 GMT", calendar.timegm((2017, 1, 1, 0, 0, 0))),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Thu, 29 Feb 2024 00:00:00 GMT", calendar.timegm((2024, 2, 29, 0, 0, 0))),
    ],
)
def test_three_formats(value: str, seconds: int) -> None:
    assert parse_date(value, NOW) == seconds


@pytest.mark.parametrize(
    "value",
    [
        None, "", "0", "-1", "784111777", "Sun, 6 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC", "Sun, 06 Nov 1994 08:49:37 +0000", "sun, 06 nov 1994 08:49:37 gmt",
        "Sun, 06 Nov 94 08:49:37 GMT", "Sun, 31 Nov 1994 08:49:37 GMT", "Wed, 29 Feb 2023 00:00:00 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 24:49:37 GMT", "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT", "Sun, 06 Nov 0000 08:49:37 GMT", "Sun, 06 Nov ¹⁹⁹⁴ 08:49:37 GMT",
        "1994-11-06T08:49:37Z", "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
    ],
)  # fmt: skip
def test_everything_else_is_none(value: str | None) -> None:
    assert parse_date(value, NOW) is None


@pytest.mark.parametrize(
    ("digits", "year"), [("26", 2026), ("27", 2027), ("75", 2075), ("77", 1977), ("99", 1999), ("00", 2000)]
)
def test_two_digit_years_are_never_more_than_fifty_years_ahead(digits: str, year: int) -> None:
    expected = calendar.timegm((year, 1, 2, 0, 0, 0))
    assert parse_date(f"Sunday, 02-Jan-{digits} 00:00:00 GMT", NOW) == expected


@given(st.integers(0, 250_000_000_000))
def test_what_is_written_is_read_back(seconds: int) -> None:
    assert parse_date(format_date(seconds), NOW) == seconds


@given(st.integers(0, 4_000_000_000), st.floats(0, 0.999))
def test_it_is_written_as_the_library_does_without_a_locale(seconds: int, fraction: float) -> None:
    assert format_date(seconds) == formatdate(seconds, usegmt=True)
    assert format_date(seconds + fraction) == format_date(seconds)


@given(st.text(st.sampled_from("SunModay, 06-Nov19:GT"), max_size=32))
def test_reading_never_fails(text: str) -> None:
    parse_date(text, NOW)


def test_last_modified_pins_bytes_only_when_older_than_date() -> None:
    assert last_modified_is_strong(100, 101)
    assert not last_modified_is_strong(100, 100)
    assert not last_modified_is_strong(101, 100)
    assert not last_modified_is_strong(None, 100)
    assert not last_modified_is_strong(100, None)
