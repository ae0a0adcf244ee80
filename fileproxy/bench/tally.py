"""Figures of a load: endings by kind, statuses, times. Pure; memory does not grow with the number of requests."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

_STEP = math.log(1.01)  # buckets are 1 % wide
_FLOOR_S = 1e-6


class Histogram:
    """Times in seconds; each percentile is right within 1 %, the maximum exactly."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.count = 0
        self.most = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        self._counts[math.ceil(math.log(max(seconds, _FLOOR_S) / _FLOOR_S) / _STEP)] += times
        self.count += times
        self.most = max(self.most, seconds)

    def percentile(self, percent: float) -> float | None:
        """The nearest rank's bucket; None where nothing was added."""
        rank, seen = max(1, math.ceil(self.count * percent / 100)), 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= rank:
                return min(_FLOOR_S * math.exp(bucket * _STEP), self.most)
        return None

    def summary(self) -> dict[str, float | None]:
        """Milliseconds."""
        figures = {f"p{percent}": self.percentile(percent) for percent in (50, 95, 99)}
        figures["max"] = self.most if self.count else None
        return {name: None if value is None else round(value * 1e3, 3) for name, value in figures.items()}


class Outcome(NamedTuple):
    """How one request ended. Times in seconds since it was due."""

    status: int | None
    first_byte_s: float | None
    whole_s: float
    error: str | None  # the kind, for people; None: complete, and a status under 400
    changed: bool = False


class Tally:
    """What a run comes to."""

    def __init__(self) -> None:
        self.requests = 0  # that ended
        self.errors: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.first_byte = Histogram()
        self.whole = Histogram()
        self.changed = 0
        self.bytes = 0
        self.connections = 0
        self.unfinished = 0  # under way when the run ended
        self.unsent = 0  # due, and not yet sent when the run ended
        self._in_time: tuple[int, int, int] | None = None

    def add(self, one: Outcome) -> None:
        self.requests += 1
        self.changed += one.changed
        if one.status is not None:
            self.statuses[one.status] += 1
        if one.error is not None:
            self.errors[one.error] += 1
        if one.first_byte_s is not None:
            self.first_byte.add(one.first_byte_s)
        if one.error is None:  # an error may be quick: it must not make the times look good
            self.whole.add(one.whole_s)

    def late(self, seconds: float, times: int = 1) -> None:
        """Requests of the open loop that had not ended: they took at least so long."""
        self.whole.add(seconds, times)

    def time_is_up(self) -> None:
        """Rates are of what ended before; what is still under way may end, and its times count."""
        self._in_time = self.requests, self.failed, self.bytes

    @property
    def failed(self) -> int:
        return sum(self.errors.values())

    def figures(self, seconds: float) -> dict[str, Any]:
        """For the report; ``seconds`` is what rates are taken over."""
        span = max(seconds, 1e-9)
        requests, failed, size = self._in_time or (self.requests, self.failed, self.bytes)
        return {
            "requests": self.requests,
            "errors": self.failed,
            "error_share": self.failed / self.requests if self.requests else 0.0,
            "requests_per_s": round(requests / span, 2),
            "good_per_s": round((requests - failed) / span, 2),
            "megabytes_per_s": round(size / span / 1e6, 3),
            "bytes": self.bytes,
            "first_byte_ms": self.first_byte.summary(),
            "whole_ms": self.whole.summary(),
            "errors_by_kind": dict(self.errors.most_common()),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "connections_opened": self.connections,
            "changed_while_loaded": self.changed,
            "unfinished": self.unfinished,
            "unsent": self.unsent,
        }


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What counters of ``/stats`` grew by; nested, only what moved. Other values are left out."""
    found: dict[str, Any] = {}
    for name, value in after.items():
        old = before.get(name)
        if isinstance(value, Mapping):
            if inner := difference(old if isinstance(old, Mapping) else {}, value):
                found[name] = inner
        elif isinstance(value, int) and not isinstance(value, bool):
            delta = value - (old if isinstance(old, int) else 0)
            if delta:
                found[name] = delta
    return found
