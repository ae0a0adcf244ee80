"""What a load asks for. Pure: the dice are handed in."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

MOST_CLIENTS, MOST_SECONDS, MOST_RATE, MOST_URLS = 20_000, 3_600.0, 200_000.0, 100_000
SPOTS = 8  # places of a file that ranges are asked at, so that they repeat and can be compared


@dataclass(frozen=True)
class Plan:
    """A load. Times in seconds, sizes in bytes, shares from 0 to 1. Raises ValueError when it is out of bounds."""

    clients: int = 16
    seconds: float = 10.0
    rate: float | None = None  # requests a second over all clients (open loop); None: each asks again when it has got
    zipf: float | None = None  # exponent of the popularity, first URL first; None: one after the other
    ranges: float = 0.0  # share of requests for a part
    range_size: int = 64 * 1024
    keep_alive: bool = True
    slow: float = 0.0  # share of clients that read slowly
    slow_rate: float = 100 * 1024.0  # bytes a second of each
    timeout: float = 10.0  # without a byte
    verify: bool = True  # compare SHA-256, not only lengths
    seed: int = 1

    def __post_init__(self) -> None:
        for name, low, high in (
            ("clients", 1, MOST_CLIENTS),
            ("seconds", 0.1, MOST_SECONDS),
            ("rate", 0.01, MOST_RATE),
            ("zipf", 0.0, 10.0),
            ("ranges", 0.0, 1.0),
            ("range_size", 1, 1 << 40),
            ("slow", 0.0, 1.0),
            ("slow_rate", 1.0, 1e12),
            ("timeout", 0.1, MOST_SECONDS),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name.replace('_', ' ')} must lie between {low:,} and {high:,}")

    def is_slow(self, number: int) -> bool:
        """Whether client ``number`` reads slowly: the first ones, rounded up."""
        return number < -(-self.slow * self.clients // 1)


class Want(NamedTuple):
    """One request to come: which URL, and at which of its places (None: the whole file)."""

    url: int
    spot: int | None


class Draw:
    """Which file comes next."""

    def __init__(self, plan: Plan, urls: int, dice: random.Random | None = None) -> None:
        self._plan = plan
        self._urls = urls
        self._dice = dice or random.Random(plan.seed)  # noqa: S311 - a workload, no secret
        self._next = 0
        weights = [] if plan.zipf is None else [1.0 / (rank + 1) ** plan.zipf for rank in range(urls)]
        self._sums: Sequence[float] = list(accumulate(weights))

    def __call__(self) -> Want:
        if self._sums:
            url = min(bisect_left(self._sums, self._dice.random() * self._sums[-1]), self._urls - 1)
        else:
            url, self._next = self._next, (self._next + 1) % self._urls
        ranged = self._plan.ranges > 0 and self._dice.random() < self._plan.ranges
        return Want(url, self._dice.randrange(SPOTS) if ranged else None)


def span(spot: int, length: int, size: int | None) -> tuple[int, int]:
    """First and last byte of a place in a file of ``size`` bytes; where that is not known yet, of its beginning."""
    if size is None or size <= length:
        return 0, length - 1 if size is None else max(0, size - 1)
    first = (size - length) * spot // (SPOTS - 1)
    return first, first + length - 1
