"""When a worker has too much to do to take more on. Pure: fed with what was measured."""

from __future__ import annotations

RECOVERY = 3  # wake-ups in time, one after the other, until the loop counts as caught up


class LagMeter:
    """Tells from wake-ups that come late whether the event loop is overloaded.

    One wake-up later than ``limit_s`` seconds starts it; :data:`RECOVERY` in a row that are late by no more than half
    of that end it, so that the verdict does not flap. ``limit_s`` None = never.
    """

    __slots__ = ("_in_time", "lagging", "last_s", "limit_s")

    def __init__(self, limit_s: float | None) -> None:
        self.limit_s = limit_s
        self.lagging = False
        self.last_s = 0.0
        self._in_time = 0

    def wake(self, scheduled: float, actual: float) -> bool:
        """Note one wake-up (both in seconds of the same clock). True when it came later than the limit."""
        self.last_s = max(0.0, actual - scheduled)
        if self.limit_s is None:
            self.lagging = False
            return False
        if self.last_s > self.limit_s:
            self.lagging, self._in_time = True, 0
            return True
        self._in_time = self._in_time + 1 if self.last_s <= self.limit_s / 2 else 0
        if self._in_time >= RECOVERY:
            self.lagging = False
        return False


def descriptors_low(used: int, limit: int) -> bool:
    """Whether fewer than 64 of the ``limit`` allowed descriptors (an eighth of a small limit) are left.

    A download needs three at most: client, upstream, file.
    """
    return limit - used < min(64, limit // 8)
