"""Whether the paths to an upstream's mirrors are full: round trips are far longer than they can be. Pure.

A full path has a queue, and everybody stands in it. The shortest round trip of the last minutes is what the path takes
without one; the median of the latest is what it takes now. It is the idea of delay-based congestion control (TCP Vegas,
Brakmo and Peterson, 1995), here over all connections to a mirror. Jitter and a lost packet move no median far.
"""

from __future__ import annotations

from collections import deque
from statistics import median

LATEST, FEWEST = 16, 4  # round trips that say what it takes now
LONGER, LONGER_S = 1.6, 0.05  # times the shortest, and so much more
REMEMBERED_S = 600.0  # the shortest is forgotten then: routes change
RECENT_S = 30.0  # a mirror that was not heard of for so long does not count
MOST_MIRRORS = 256


class Paths:
    """The paths to all mirrors of one upstream. ``full``: every path that is in use has a queue that costs time."""

    __slots__ = ("_by_mirror", "full")

    def __init__(self) -> None:
        self._by_mirror: dict[str, RoundTrips] = {}
        self.full = False

    def felt(self, mirror: str, seconds: float, now: float) -> None:
        """A connection's round trip now."""
        trips = self._by_mirror.get(mirror)
        if trips is None:
            if len(self._by_mirror) >= MOST_MIRRORS:  # names come and go: the oldest goes
                del self._by_mirror[next(iter(self._by_mirror))]
            trips = self._by_mirror[mirror] = RoundTrips()
        trips.felt(seconds, now)
        self.full = all(one.full for one in self._by_mirror.values() if now - one.felt_at < RECENT_S)

    def describe(self) -> dict[str, dict[str, float | bool | None]]:
        """For ``/stats``, by mirror."""
        return {
            mirror: {"round_trip_s": one.usual_s, "shortest_s": one.shortest_s, "full": one.full}
            for mirror, one in self._by_mirror.items()
        }


class RoundTrips:
    """Round trips to one mirror, in seconds, as its connections felt them.

    ``felt_at``: when the last one was; ``full``: there is a queue that costs time.
    """

    __slots__ = ("_latest", "_shortest", "_shortest_at", "felt_at", "full")

    def __init__(self) -> None:
        self.felt_at = float("-inf")
        self._latest: deque[float] = deque(maxlen=LATEST)
        self._shortest = float("inf")
        self._shortest_at = float("-inf")
        self.full = False

    def felt(self, seconds: float, now: float) -> None:
        """A connection's round trip now."""
        self.felt_at = now
        self._latest.append(seconds)
        if seconds <= self._shortest or now - self._shortest_at >= REMEMBERED_S:
            self._shortest, self._shortest_at = seconds, now
        usual = self.usual_s
        self.full = usual is not None and len(self._latest) >= FEWEST and usual > LONGER * self._shortest + LONGER_S

    @property
    def usual_s(self) -> float | None:
        """What it takes now."""
        return median(self._latest) if self._latest else None

    @property
    def shortest_s(self) -> float | None:
        """What it takes without a queue, as far as was seen."""
        return self._shortest if self._latest else None
