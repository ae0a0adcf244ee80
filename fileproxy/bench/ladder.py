"""Stress: which load comes next, where the knee is, whether the service came back. Pure.

The load doubles until a limit is met: too many errors, too slow, no more throughput for more clients, or the generator
itself is busy. The *knee* is the smallest load that gives (nearly) the most the service gave within the limits: beyond
it, more clients only wait longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Reason = Literal["errors", "p99", "throughput", "generator", "clients"]
SENTENCES: dict[Reason, str] = {
    "errors": "too many errors",
    "p99": "the slowest percent took too long",
    "throughput": "more clients brought no more throughput",
    "generator": "the generator's processor was busy: a faster service would look the same",
    "clients": "the most clients allowed were reached, and no limit was met",
}
_NEARLY = 0.95
_SLOWER, _SLACK_MS, _FEWER = 2.0, 20.0, 0.7  # what still counts as recovered: machines are noisy


@dataclass(frozen=True)
class Limits:
    """When to stop. Raises ValueError when one is out of bounds."""

    errors: float = 0.01  # share of requests
    p99_ms: float = 1_000.0
    growth: float = 0.05  # throughput must grow by this share, or twice in a row it did not
    first: int = 1  # clients
    most: int = 512

    def __post_init__(self) -> None:
        if not (0 <= self.errors <= 1 and self.p99_ms > 0 and self.growth >= 0 and 1 <= self.first <= self.most):
            raise ValueError("limits: errors between 0 and 1, times and growth positive, first clients up to the most")


class Step(NamedTuple):
    """What one load came to."""

    clients: int
    per_s: float  # good answers
    error_share: float
    p99_ms: float | None  # None: nothing was answered
    generator_cpu: float = 0.0

    def meets(self, limits: Limits) -> Reason | None:
        """The limit that it is over."""
        if self.error_share > limits.errors or self.p99_ms is None:
            return "errors"
        return "p99" if self.p99_ms > limits.p99_ms else None


class Next(NamedTuple):
    """``clients`` of the next step; None: stop, for that reason."""

    clients: int | None
    reason: Reason | None


def following(steps: Sequence[Step], limits: Limits, busy: float = 0.9) -> Next:
    """What comes after these steps."""
    if not steps:
        return Next(limits.first, None)
    last = steps[-1]
    if (over := last.meets(limits)) is not None:
        return Next(None, over)
    if last.generator_cpu > busy:
        return Next(None, "generator")
    best, flat = 0.0, 0
    for step in steps:
        flat = flat + 1 if best and step.per_s < best * (1 + limits.growth) else 0
        best = max(best, step.per_s)
    if flat >= 2:
        return Next(None, "throughput")
    if last.clients >= limits.most:
        return Next(None, "clients")
    return Next(max(limits.first, min(last.clients * 2, limits.most)), None)


def knee(steps: Sequence[Step], limits: Limits) -> Step | None:
    """The smallest load with nearly the best throughput within the limits; None: no step was within them."""
    good = [step for step in steps if step.meets(limits) is None]
    if not good:
        return None
    best = max(step.per_s for step in good)
    return min((step for step in good if step.per_s >= best * _NEARLY), key=lambda step: step.clients)


def recovered(first: Step, again: Step, limits: Limits) -> bool:
    """Whether the first load is served as at the beginning, noise allowed."""
    if again.meets(limits) is not None or again.p99_ms is None:
        return False
    if first.p99_ms is None:
        return True
    return again.p99_ms <= first.p99_ms * _SLOWER + _SLACK_MS and again.per_s >= first.per_s * _FEWER
