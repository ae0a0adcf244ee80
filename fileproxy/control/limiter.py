"""How much one upstream is asked for: requests a second, and requests at a time. Pure: the time comes in.

Rules:

1. Rate: over windows of 10 s with at least 20 answers, errors above 10 % lower it by a fifth, below 2 % raise it by a
   fifth; between 10 and 1,000 a second, which is where it begins. It is one number for the whole machine.
2. A worker takes its share of the rate (:class:`Bucket`), and may use a second's worth of it at once; on a machine with
   many workers at least as much as one parallel download starts with, as long as the rate is not lowered.
3. Concurrency (:class:`Gradient`): when the first byte takes longer than it used to, there is a queue at the origin,
   and fewer at a time serve everybody sooner. The idea is Gradient2 of Netflix' concurrency-limits (a long-term average
   against a short-term one, plus the root of the limit as an allowance for queues).
4. Only a limit that is nearly used up is judged: how long answers take says nothing of a limit that nobody meets.
"""

from __future__ import annotations

import math
from typing import Literal

LOWEST, HIGHEST = 10.0, 1000.0  # requests a second
WINDOW_S = 10.0
FEWEST = 20  # answers in a window before their errors mean anything
MANY_ERRORS, FEW_ERRORS = 0.10, 0.02
DOWN, UP = 0.8, 1.2

BURST_S = 1.0  # what may be used at once, in seconds of the rate
LONE = 64  # requests that one parallel download may begin with

FLOOR_SHARE = 3  # the limit never falls under a third of the connections there may be
USED = 0.8  # of the limit, before it is judged
TOLERANCE = 1.5  # times the long-term average: no queue yet
GRACE_S = 0.1  # nor is what costs nobody a tenth of a second
STEEPEST = 0.5
SMOOTHING = 0.2
SHORT_S, LONG_S, FORGET_S = 1.0, 300.0, 10.0  # what averages reach back; the long one falls faster than it rises
WARM_UP = 10  # samples whose plain mean the long-term average begins with

Moved = Literal["lowered", "raised"]


class Rate:
    """The request rate of the whole machine, by what came of its requests."""

    def __init__(self) -> None:
        self.per_s = HIGHEST
        self._since: float | None = None
        self._answers = 0  # when the window began
        self._errors = 0

    def tally(self, answers: int, errors: int, now: float) -> Moved | None:
        """How many answers there were altogether until now, and how many of them were errors. Says what it changed."""
        if self._since is None or answers < self._answers or errors < self._errors:
            self._begin(answers, errors, now)  # the first time, or the counters began anew
            return None
        if now < self._since + WINDOW_S - 1e-6:
            return None
        answered, failed = answers - self._answers, errors - self._errors
        self._begin(answers, errors, now)
        if answered < FEWEST:
            return None
        before, share = self.per_s, failed / answered
        if share > MANY_ERRORS:
            self.follow(before * DOWN)
        elif share < FEW_ERRORS:
            self.follow(before * UP)
        if self.per_s == before:
            return None
        return "lowered" if self.per_s < before else "raised"

    def follow(self, per_s: float) -> None:
        """Go by this rate, as far as it is one."""
        self.per_s = min(HIGHEST, max(LOWEST, per_s))

    def _begin(self, answers: int, errors: int, now: float) -> None:
        self._since, self._answers, self._errors = now, answers, errors


class Bucket:
    """Permits that come at a rate; what is not used is kept up to a burst. ``per_s`` is of the whole machine."""

    def __init__(self, per_s: float, workers: int, now: float) -> None:
        self._at = now
        self._share = self._burst = self._permits = 0.0
        self.turn(per_s, workers, now)
        self._permits = self._burst

    def turn(self, per_s: float, workers: int, now: float) -> None:
        """Another rate, or another number of workers that share it."""
        self._refill(now)
        self._share = per_s / max(1, workers)
        self._burst = max(1.0, self._share * BURST_S, LONE * min(1.0, per_s / HIGHEST))
        self._permits = min(self._permits, self._burst)

    def take(self, now: float) -> bool:
        """A permit, if there is one."""
        self._refill(now)
        if self._permits < 1.0:
            return False
        self._permits -= 1.0
        return True

    def give_back(self) -> None:
        """One that was not used."""
        self._permits = min(self._burst, self._permits + 1.0)

    def wait_s(self, now: float, count: int = 1) -> float:
        """Seconds until so many permits will have come; 0 when they are here."""
        self._refill(now)
        return max(0.0, (count - self._permits) / self._share)

    def _refill(self, now: float) -> None:
        if now > self._at:
            permits = self._permits + (now - self._at) * self._share
            # A timer may ring a moment early, and sums of small times fall short by a rounding error.
            self._permits = min(self._burst, math.ceil(permits) if math.ceil(permits) - permits < 1e-6 else permits)
            self._at = now


class Gradient:
    """How many requests may be on their way at a time: at most ``ceiling``, which is where it begins."""

    def __init__(self, ceiling: int) -> None:
        self.ceiling = max(1, ceiling)
        self.floor = max(1, self.ceiling // FLOOR_SHARE)
        self._limit = float(self.ceiling)
        self._short_s = 0.0
        self._long_s = 0.0
        self._samples = 0
        self._at = 0.0  # of the last sample
        self._moved_at = 0.0

    @property
    def limit(self) -> int:
        return int(self._limit)

    def sample(self, first_byte_s: float, in_flight: int, now: float, *, judge: bool = True) -> None:
        """A first byte came after so long, while so many were on their way. ``judge`` False: only learn from it."""
        self._learn(max(0.0, first_byte_s), now)
        if not judge or in_flight < USED * self._limit or now < self._moved_at + self._short_s:
            return  # not before what the last change did can be seen
        self._moved_at = now
        expected_s = TOLERANCE * self._long_s + GRACE_S
        gradient = max(STEEPEST, min(1.0, expected_s / self._short_s)) if self._short_s > 0 else 1.0
        aim = self._limit * gradient + math.sqrt(self._limit)
        self._limit = max(self.floor, min(self.ceiling, self._limit + (aim - self._limit) * SMOOTHING))

    def _learn(self, first_byte_s: float, now: float) -> None:
        past_s = max(0.0, now - self._at)
        self._at = now
        self._samples += 1
        if self._samples <= WARM_UP:
            self._long_s += (first_byte_s - self._long_s) / self._samples
            self._short_s = self._long_s
            return
        # Of many samples within a second each counts little, of few each counts much.
        self._short_s += (first_byte_s - self._short_s) * max(1 / WARM_UP, 1.0 - math.exp(-past_s / SHORT_S))
        reach_s = LONG_S if self._short_s >= self._long_s else FORGET_S
        self._long_s += (self._short_s - self._long_s) * (1.0 - math.exp(-past_s / reach_s))
