"""HTTP dates (RFC 9110 §5.6.7): three formats are read, one is written. All are whole seconds since the epoch, UTC."""

from __future__ import annotations

import calendar
import re
import time
from functools import lru_cache

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_CLOCK = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_DAY = "|".join(_DAYS)
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)})"
_FIXED = 29  # characters of an IMF-fixdate
_FORMATS = (
    re.compile(rf"(?:{_DAY}), (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_CLOCK} GMT"),  # IMF-fixdate
    re.compile(  # RFC 850
        rf"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_CLOCK} GMT"
    ),
    re.compile(rf"(?:{_DAY}) {_MONTH} (?P<day>[0-9 ][0-9]) {_CLOCK} (?P<year>[0-9]{{4}})"),  # asctime
)


def parse_date(value: str | None, now: float) -> int | None:
    """The time an HTTP-date names; None when there is none or it is not valid.

    ``now`` (seconds since the epoch) settles the century of a two-digit year: one that would lie more than 50 years
    ahead is the last past year with these digits. A wrong day of the week is overlooked; second 60 is a leap second.
    """
    if value is None:
        return None
    if len(value) == _FIXED and (seconds := _fixdate(value)) is not None:
        return seconds
    for pattern in _FORMATS:
        if (match := pattern.fullmatch(value.strip(" \t"))) is not None:
            return _seconds(match, now)
    return None


@lru_cache(maxsize=1024)  # the same ones are read again and again
def _fixdate(value: str) -> int | None:
    match = _FORMATS[0].fullmatch(value)
    return None if match is None else _seconds(match, 0.0)


def _seconds(match: re.Match[str], now: float) -> int | None:
    year, month, day = int(match["year"]), _MONTHS.index(match["month"]) + 1, int(match["day"])
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"])
    if len(match["year"]) == 2:
        year = _full_year(year, (month, day, hour, minute, second), now)
    if year == 0 or not 1 <= day <= calendar.monthrange(year, month)[1] or hour > 23 or minute > 59 or second > 60:
        return None
    return calendar.timegm((year, month, day, hour, minute, second))


def _full_year(two_digits: int, rest: tuple[int, ...], now: float) -> int:
    today = time.gmtime(now)
    year = today.tm_year - today.tm_year % 100 + 100 + two_digits
    while (year - 50, *rest) > tuple(today[:6]):
        year -= 100
    return year


def format_date(epoch: float) -> str:
    """IMF-fixdate, whatever the locale; fractions of a second are cut off."""
    return _formatted(int(epoch // 1))


@lru_cache(maxsize=16)  # what is written is mostly now
def _formatted(epoch: int) -> str:
    year, month, day, hour, minute, second, weekday, *_ = time.gmtime(epoch)
    return f"{_DAYS[weekday]}, {day:02} {_MONTHS[month - 1]} {year:04} {hour:02}:{minute:02}:{second:02} GMT"


def last_modified_is_strong(last_modified: int | None, date: int | None) -> bool:
    """Whether Last-Modified pins the bytes (RFC 9110 §8.8.2.2): the answer's Date is at least one second later.

    Within that second the file may have changed twice. False when either is missing.
    """
    return last_modified is not None and date is not None and date - last_modified >= 1
