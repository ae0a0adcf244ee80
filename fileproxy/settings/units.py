"""Sizes and times as people write them. ``1 KiB = 1024 bytes``; ``1 kB = 1000 bytes``. Exact, without rounding."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

_SIZES = {
    "": 1, "b": 1,
    "k": 1024, "kib": 1024, "kb": 1000,
    "m": 1024**2, "mib": 1024**2, "mb": 1000**2,
    "g": 1024**3, "gib": 1024**3, "gb": 1000**3,
    "t": 1024**4, "tib": 1024**4, "tb": 1000**4,
}  # fmt: skip
_TIMES = {
    "": Decimal(1), "ms": Decimal("0.001"), "s": Decimal(1),
    "m": Decimal(60), "min": Decimal(60), "h": Decimal(3600), "d": Decimal(86400),
}  # fmt: skip
_NUMBER = re.compile(r"\s*(\d{1,20}(?:\.\d{1,400})?)\s*([A-Za-z]*)\s*", re.ASCII)
_A_SIZE = "a size; write for example 64KiB, 256MiB or 10GiB"
_A_TIME = "a time; write for example 50ms, 90s, 5m or 1h"


def parse_size(value: object) -> int:
    """Bytes from ``"256MiB"``, ``"64 k"`` or a plain whole number. ValueError says what is accepted."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{value!r} is not {_A_SIZE}")
    size = Decimal(value) if isinstance(value, int) else _quantity(value, _SIZES, _A_SIZE)
    if size != size.to_integral_value():
        raise ValueError(f"{value!r} is not a whole number of bytes")
    if not 0 <= size < 2**63:
        raise ValueError(f"{value!r} is not a size between 0 and 8388607TiB")
    return int(size)


def parse_duration(value: object) -> float:
    """Seconds from ``"90s"``, ``"50ms"``, ``"5m"`` or a plain number of seconds. ValueError says what is accepted."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is not {_A_TIME}")
    seconds = _quantity(value, _TIMES, _A_TIME) if isinstance(value, str) else value
    if not 0 <= seconds < 10**9:
        raise ValueError(f"{value!r} is not a time between 0 and 30 years")
    return float(seconds)


def format_size(size: int) -> str:
    """The shortest exact way to write a size: ``1048576`` → ``1MiB``."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        factor = _SIZES[unit.lower()]
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def format_duration(seconds: float) -> str:
    """The shortest exact way to write a time: ``0.05`` → ``50ms``, ``90.0`` → ``90s``."""
    exact = Decimal(repr(float(seconds)))
    if exact and exact < 1 and (milliseconds := exact * 1000) == milliseconds.to_integral_value():
        return f"{int(milliseconds)}ms"
    if exact == exact.to_integral_value():
        return f"{int(exact)}s"
    return f"{exact:f}s"


def _quantity(text: str, units: Mapping[str, Decimal | int], what: str) -> Decimal:
    match = _NUMBER.fullmatch(text)
    if match is None or match[2].lower() not in units:
        raise ValueError(f"{text!r} is not {what}")
    return Decimal(match[1]) * units[match[2].lower()]
