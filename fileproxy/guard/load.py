"""When a worker has too much to do to take more on. Pure: fed with what was measured."""

from __future__ import annotations

SUSTAINED = 2  # late wake-ups, one after the other, until the loop counts as overloaded
SMOOTHING = 0.2  # weight of the newest share of BusyMeter
RECOVERY = 3  # wake-ups in time, one after the other, until it counts as caught up


class LagMeter:
    """Tells from wake-ups that come late whether the event loop is overloaded.

    :data:`SUSTAINED` wake-ups in a row later than ``limit_s`` seconds start it: a single one is what a busy machine
    does to a process now and then. :data:`RECOVERY` in a row that are late by no more than half of the limit end it, so
    that the verdict does not flap. ``limit_s`` None = never.
    """

    __slots__ = ("_in_time", "lagging", "last_s", "late", "limit_s")

    def __init__(self, limit_s: float | None) -> None:
        self.limit_s = limit_s
        self.lagging = False
        self.last_s = 0.0
        self.late = 0  # in a row
        self._in_time = 0

    def wake(self, scheduled: float, actual: float) -> bool:
        """Note one wake-up (both in seconds of the same clock). True when it is one of those that make it lag."""
        self.last_s = max(0.0, actual - scheduled)
        if self.limit_s is None:
            self.lagging, self.late = False, 0
            return False
        if self.last_s > self.limit_s:
            self.late, self._in_time = self.late + 1, 0
            self.lagging = self.lagging or self.late >= SUSTAINED
            return self.lagging
        self.late = 0
        self._in_time = self._in_time + 1 if self.last_s <= self.limit_s / 2 else 0
        if self._in_time >= RECOVERY:
            self.lagging = False
        return False


class BusyMeter:
    """The share of its time that a thread was at work: it ran, or waited for a processor to run on.

    ``share`` is 0 to 1, smoothed over about a second when it is fed ten times a second.
    """

    __slots__ = ("_last", "share")

    def __init__(self) -> None:
        self.share = 0.0
        self._last: tuple[float, float] | None = None

    def note(self, now: float, worked_s: float) -> None:
        """``worked_s``: seconds at work since whenever; ``now``: seconds of a clock that goes on while it is not."""
        if self._last is not None and now > self._last[0]:
            share = (worked_s - self._last[1]) / (now - self._last[0])
            self.share += SMOOTHING * (min(1.0, max(0.0, share)) - self.share)
        self._last = (now, worked_s)


def descriptors_low(used: int, limit: int) -> bool:
    """Whether fewer than 64 of the ``limit`` allowed descriptors (an eighth of a small limit) are left.

    A download needs three at most: client, upstream, file.
    """
    return limit - used < min(64, limit // 8)
