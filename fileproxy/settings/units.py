"""Sizes and times as people write them. ``1 KiB = 1024 bytes``; ``1 kB = 1000 bytes``."""

from __future__ import annotations

import re

_SIZES = {
    "": 1, "b": 1,
    "k": 1024, "kib": 1024, "kb": 1000,
    "m": 1024**2, "mib": 1024**2, "mb": 1000**2,
    "g": 1024**3, "gib": 1024**3, "gb": 1000**3,
    "t": 1024**4, "tib": 1024**4, "tb": 1000**4,
}  # fmt: skip
_TIMES = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", re.ASCII)


def parse_size(value: object) -> int:
    """Bytes from ``"256MiB"``, ``"64 k"`` or a plain whole number. ValueError says what is accepted."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{value!r} is not a size; write for example 64KiB, 256MiB or 10GiB")
    if isinstance(value, int):
        number, unit = float(value), ""
    else:
        number, unit = _split(value, _SIZES, "a size; write for example 64KiB, 256MiB or 10GiB")
    size = number * _SIZES[unit]
    if size < 0 or size != int(size):
        raise ValueError(f"{value!r} is not a whole number of bytes")
    return int(size)


def parse_duration(value: object) -> float:
    """Seconds from ``"90s"``, ``"50ms"``, ``"5m"`` or a plain number of seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is not a time; write for example 50ms, 90s, 5m or 1h")
    if isinstance(value, int | float):
        seconds = float(value)
    else:
        number, unit = _split(value, _TIMES, "a time; write for example 50ms, 90s, 5m or 1h")
        seconds = number * _TIMES[unit]
    if not 0 <= seconds < 1e9:
        raise ValueError(f"{value!r} is not a time between 0 and 30 years")
    return seconds


def format_size(size: int) -> str:
    """The shortest exact way to write a size: ``1048576`` → ``1MiB``."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        factor = _SIZES[unit.lower()]
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def format_duration(seconds: float) -> str:
    """The shortest exact way to write a time: ``0.05`` → ``50ms``."""
    if seconds and seconds < 1 and (milliseconds := seconds * 1000) == int(milliseconds):
        return f"{int(milliseconds)}ms"
    return f"{seconds:g}s"


def _split(text: str, units: dict[str, float] | dict[str, int], what: str) -> tuple[float, str]:
    match = _NUMBER.fullmatch(text)
    if match is None or match[2].lower() not in units:
        raise ValueError(f"{text!r} is not {what}")
    return float(match[1]), match[2].lower()
