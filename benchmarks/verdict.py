"""Better, the same, or worse? Pure: figures of rounds in, a verdict with its interval out.

What is compared is the ratio of two medians (less is better). How far it can be trusted is asked of the rounds
themselves: a percentile bootstrap (Efron 1979) draws them again and again, with replacement; paired rounds are drawn
together, so that a noisy moment, which both had, does not count. A change counts when even the near end of the interval
lies beyond the margin.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import median
from typing import Literal, NamedTuple

DRAWS = 2_000
CONFIDENCE = 0.95
MARGIN = 0.03
FEWEST = 5  # rounds; with fewer the interval says nothing
Verdict = Literal["better", "same", "worse", "unclear"]


class Interval(NamedTuple):
    """The ratio of the medians, new to old, and between what it lies with ``CONFIDENCE``."""

    ratio: float
    low: float
    high: float


def interval(
    new: Sequence[float], old: Sequence[float], *, paired: bool, seed: int = 1, draws: int = DRAWS
) -> Interval:
    """Raises ValueError for figures that are none: no rounds, not positive, or pairs of which one is missing."""
    if not new or not old or min(*new, *old) <= 0:
        raise ValueError("there must be rounds, and their figures positive")
    if paired and len(new) != len(old):
        raise ValueError("paired rounds have two figures each")
    dice = random.Random(seed)
    ratios = []
    for _ in range(draws):
        first = dice.choices(range(len(new)), k=len(new))
        second = first if paired else dice.choices(range(len(old)), k=len(old))
        ratios.append(median(new[one] for one in first) / median(old[one] for one in second))
    ratios.sort()
    edge = int((1 - CONFIDENCE) / 2 * draws)
    return Interval(median(new) / median(old), ratios[edge], ratios[-1 - edge])


def verdict(found: Interval, rounds: int, margin: float = MARGIN) -> Verdict:
    """``unclear``: too few rounds, or an interval so wide that it holds both better and worse."""
    if rounds < FEWEST:
        return "unclear"
    if found.low > 1 + margin:
        return "worse"
    if found.high < 1 - margin:
        return "better"
    return "unclear" if found.low < 1 - 2 * margin and found.high > 1 + 2 * margin else "same"
