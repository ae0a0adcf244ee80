"""Byte ranges: Range and Content-Range (RFC 9110 §14).

* A Range that is malformed, of another unit than bytes, or sent in several lines is ignored: the whole file is served.
  (Stacked Range headers were merged by some servers into bytes nobody asked for.)
* Several ranges are sorted, and joined where they overlap or less than :data:`GAP` bytes lie between, which is what the
  head of a part costs (§15.3.7.2 allows it). More than :data:`MOST_SPANS` after that, or more than :data:`MOST_SPECS`
  in the header, is ignored too (§14.2 allows it; each part costs a seek).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MOST_SPECS = 200
MOST_SPANS = 16
GAP = 80
_LARGEST = 2**63 - 1  # no file is larger; longer numbers mean this much
_DIGITS = 20  # int() is not shown more digits than this

_UNIT = re.compile(r"bytes=(.*)", re.IGNORECASE)
_SPEC = re.compile(r"([0-9]*)-([0-9]*)")
_CONTENT_RANGE = re.compile(r"bytes +([0-9]+)-([0-9]+)/([0-9]+|\*)", re.IGNORECASE)
_UNSATISFIED = re.compile(r"bytes +\*/([0-9]+)", re.IGNORECASE)

Span = tuple[int, int]
"""(offset, length), length at least 1."""


@dataclass(frozen=True, slots=True)
class RangeSpec:
    """``first-last``, ``first-`` (last None), or ``-last`` (first None: the last ``last`` bytes)."""

    first: int | None
    last: int | None

    def __str__(self) -> str:
        return f"{'' if self.first is None else self.first}-{'' if self.last is None else self.last}"


@dataclass(frozen=True, slots=True)
class ContentRange:
    """What a 206 or a part holds: bytes ``first`` to ``last`` inclusive of ``size`` (None = not said)."""

    first: int
    last: int
    size: int | None

    @property
    def length(self) -> int:
        return self.last - self.first + 1


def parse_ranges(value: str) -> tuple[RangeSpec, ...] | None:
    """The ranges of a Range header in the order asked, at least one; None when it is to be ignored."""
    unit = _UNIT.fullmatch(value.strip(" \t"))
    if unit is None:
        return None
    parts = [part for text in unit[1].split(",") if (part := text.strip(" \t"))]
    if not 0 < len(parts) <= MOST_SPECS:
        return None
    specs: list[RangeSpec] = []
    for part in parts:
        match = _SPEC.fullmatch(part)
        if match is None:
            return None
        first, last = _number(match[1]), _number(match[2])
        if (first is None and last is None) or (first is not None and last is not None and last < first):
            return None
        specs.append(RangeSpec(first, last))
    return tuple(specs)


def ranges_of(values: Sequence[str]) -> tuple[RangeSpec, ...] | None:
    """The ranges of a request, from all its Range lines; None when there is none or it is to be ignored."""
    return parse_ranges(values[0]) if len(values) == 1 else None


def resolve(specs: Iterable[RangeSpec], size: int) -> tuple[Span, ...]:
    """The asked bytes of a file of ``size`` bytes: ascending, disjoint, joined. Empty = unsatisfiable."""
    spans = [span for spec in specs if (span := _span(spec, size)) is not None]
    return coalesce(spans) if len(spans) > 1 else tuple(spans)


def _span(spec: RangeSpec, size: int) -> Span | None:
    if spec.first is None:
        length = min(spec.last or 0, size)
        return (size - length, length) if length else None
    if spec.first >= size:
        return None
    end = size if spec.last is None else min(spec.last + 1, size)
    return spec.first, end - spec.first


def coalesce(spans: Iterable[Span], gap: int = GAP) -> tuple[Span, ...]:
    """The spans in ascending order; those that overlap or lie less than ``gap`` bytes apart become one."""
    joined: list[Span] = []
    for offset, length in sorted(spans):
        if joined:
            start, before = joined[-1]
            if offset < start + before + max(gap, 1):  # also those that touch
                joined[-1] = start, max(start + before, offset + length) - start
                continue
        joined.append((offset, length))
    return tuple(joined)


def forwardable_range(values: Sequence[str]) -> str | None:
    """A request's Range lines as the one Range to send upstream, joined as far as that can be done without the size.

    None when there is none or it is to be ignored. A single range passes with the same meaning.
    """
    specs = ranges_of(values)
    if specs is None:
        return None
    if len(specs) > 1:
        specs = _joined(specs)
    return format_ranges(specs) if len(specs) <= MOST_SPANS else None


def _joined(specs: tuple[RangeSpec, ...]) -> tuple[RangeSpec, ...]:
    """What :func:`resolve` joins, as far as that can be known before the size is."""
    end = _LARGEST + 1
    spans = [
        (spec.first, (end if spec.last is None else spec.last + 1) - spec.first)
        for spec in specs
        if spec.first is not None
    ]
    joined = [
        RangeSpec(offset, None if offset + length == end else offset + length - 1) for offset, length in coalesce(spans)
    ]
    suffix = max((spec.last or 0 for spec in specs if spec.first is None), default=0)
    if suffix or not joined:
        joined.append(RangeSpec(None, suffix))
    return tuple(joined)


def format_ranges(specs: Iterable[RangeSpec]) -> str:
    """A Range header's value."""
    return "bytes=" + ",".join(str(spec) for spec in specs)


def format_range(spec: RangeSpec) -> str:
    """A Range header's value for one range."""
    return format_ranges((spec,))


def parse_content_range(value: str) -> ContentRange | None:
    """A Content-Range that names bytes; None when it is malformed, contradicts itself or is ``bytes */size``."""
    match = _CONTENT_RANGE.fullmatch(value.strip(" \t"))
    if match is None:
        return None
    first, last = _number(match[1]), _number(match[2])
    size = None if match[3] == "*" else _number(match[3])
    if first is None or last is None or last < first or (size is not None and last >= size) or last >= _LARGEST:
        return None
    return ContentRange(first, last, size)


def parse_unsatisfied(value: str) -> int | None:
    """The size that ``bytes */size`` of a 416 tells; None when it is something else."""
    match = _UNSATISFIED.fullmatch(value.strip(" \t"))
    return None if match is None else _number(match[1])


def format_content_range(offset: int, length: int, size: int | None) -> str:
    """Content-Range of ``length`` bytes (at least 1) from ``offset``."""
    return f"bytes {offset}-{offset + length - 1}/{'*' if size is None else size}"


def format_unsatisfied(size: int) -> str:
    """Content-Range of a 416."""
    return f"bytes */{size}"


def _number(digits: str) -> int | None:
    if not digits:
        return None
    digits = digits.lstrip("0") or "0"
    return min(int(digits), _LARGEST) if len(digits) <= _DIGITS else _LARGEST
