"""Durations in log-spaced buckets, so that the histograms of all workers add up (pure).

A bucket's upper bound is 1.1 times its lower one; a value is given back as the geometric middle, so it is at most
``sqrt(1.1) - 1`` = 4.9 % off between 10 µs and 1000 s. Below and above lie one bucket each. The sum and the longest are
kept exactly (in nanoseconds), so the mean is exact and no percentile is reported beyond the longest.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

GROWTH = 1.1
LOWEST_S = 1e-5
HIGHEST_S = 1e3

# Upper bounds in seconds, inclusive. Bucket 0 is everything up to 10 µs; after the last bound comes the overflow.
BOUNDS: tuple[float, ...] = tuple(
    LOWEST_S * GROWTH**n for n in range(math.ceil(math.log(HIGHEST_S / LOWEST_S, GROWTH)) + 1)
)
BUCKETS = len(BOUNDS) + 1
CELLS = BUCKETS + 2  # the buckets, then the sum and the longest in nanoseconds
SUM = BUCKETS
LONGEST = BUCKETS + 1


def bucket(seconds: float) -> int:
    """The number of the bucket a duration falls into."""
    return bisect_left(BOUNDS, seconds)


@dataclass(frozen=True, slots=True)
class Histogram:
    """A snapshot: how many fell into each bucket, the sum and the longest in nanoseconds."""

    counts: tuple[int, ...] = (0,) * BUCKETS
    sum_ns: int = 0
    longest_ns: int = 0

    @classmethod
    def of_cells(cls, cells: Sequence[int]) -> Histogram:
        """From ``CELLS`` numbers as they lie in a page."""
        return cls(tuple(cells[:BUCKETS]), cells[SUM], cells[LONGEST])

    @classmethod
    def of(cls, values: Iterable[float]) -> Histogram:
        """From durations in seconds."""
        cells = [0] * CELLS
        for seconds in values:
            cells[bucket(seconds)] += 1
            nanoseconds = round(seconds * 1e9)
            cells[SUM] += nanoseconds
            cells[LONGEST] = max(cells[LONGEST], nanoseconds)
        return cls.of_cells(cells)

    @property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def mean_s(self) -> float:
        """Arithmetic mean in seconds; 0 when nothing was counted."""
        count = self.count
        return self.sum_ns / 1e9 / count if count else 0.0

    @property
    def longest_s(self) -> float:
        return self.longest_ns / 1e9

    def percentile(self, percent: float) -> float:
        """The duration that ``percent`` of the values do not exceed (nearest rank), in seconds; 0 when empty."""
        if not 0 <= percent <= 100:
            raise ValueError(f"{percent} is not between 0 and 100")
        rank = max(1, math.ceil(self.count * percent / 100))
        seen = 0
        for number, count in enumerate(self.counts):
            seen += count
            if seen >= rank:
                return min(_middle(number), self.longest_s)
        return 0.0

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(
            tuple(map(int.__add__, self.counts, other.counts)),
            self.sum_ns + other.sum_ns,
            max(self.longest_ns, other.longest_ns),
        )


def _middle(number: int) -> float:
    if number == 0:
        return LOWEST_S
    if number == len(BOUNDS):
        return math.inf  # cut to the longest by the caller
    return math.sqrt(BOUNDS[number - 1] * BOUNDS[number])
