"""What one mirror has to do and how quickly it answers, as this worker sees it. Pure: the time comes in."""

from __future__ import annotations

import math
import re

from fileproxy.upstream.balance import Seen

DECAY_S = 10.0  # an answer's weight falls to 1/e in this time, and so does a bad memory
FAILED_S = 1.0  # a failure counts as an answer that took at least this long: a quick refusal is not fast
REPORT_S = 30.0  # what a mirror said of its load holds this long
GUESS_BYTES = 1024**2  # of a body whose length is not known
_LOAD = re.compile(r"\s*(\d{1,3}(?:\.\d{1,9})?|\.\d{1,9})\s*(%?)\s*")


class Gauge:
    """Requests and bytes on their way; response time as a peak EWMA (Finagle's scheme: what is slower than the average
    counts at once, what is faster little by little; unasked, the average falls, so that a mirror which was slow is
    tried again).
    """

    def __init__(self) -> None:
        self.in_flight = 0
        self.bytes_in_flight = 0
        self._response_s: float | None = None
        self._stamp = 0.0
        self._load: float | None = None
        self._reported_at = 0.0

    def observe(self, seconds: float, good: bool, now: float) -> None:
        """An answer's first byte came after so long, or the try failed."""
        if not good:
            seconds = max(seconds, FAILED_S)
        known = self._response_s
        if known is None or seconds >= known:
            self._response_s = seconds
        else:
            share = math.exp(-max(0.0, now - self._stamp) / DECAY_S)
            self._response_s = known * share + seconds * (1.0 - share)
        self._stamp = now

    def forget(self) -> None:
        """How quickly it answers is to be found out anew."""
        self._response_s = None

    def response_s(self, now: float) -> float | None:
        """The average now; None before the first answer."""
        if self._response_s is None:
            return None
        return self._response_s * math.exp(-max(0.0, now - self._stamp) / DECAY_S)

    def report(self, text: str | None, now: float) -> None:
        """What a mirror says of its load in a header; None or nonsense changes nothing."""
        load = None if text is None else load_of(text)
        if load is not None:
            self._load, self._reported_at = load, now

    def load(self, now: float) -> float | None:
        return self._load if now < self._reported_at + REPORT_S else None

    def seen(self, weight: float, ramp: float, now: float) -> Seen:
        return Seen(weight, ramp, self.in_flight, self.bytes_in_flight, self.response_s(now), self.load(now))


def load_of(text: str) -> float | None:
    """``0.9``, ``90%`` → 0.9; more than all is all. None when it is neither."""
    match = _LOAD.fullmatch(text)
    if match is None:
        return None
    value = float(match[1]) / (100.0 if match[2] else 1.0)
    return min(1.0, value)
