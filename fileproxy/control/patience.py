"""When one connection is too slow to be left alone with what is missing. Pure.

Three signs, looked at now and then while the reader waits for bytes (a reader that is itself the limit needs no help):

1. Silence: nothing came for a while that is long for this path.
2. A rate at which the rest would take long.
3. Slow start on a long path: the rate still doubles each round trip, and even so the rest would take long.
"""

from __future__ import annotations

import math

LONG_REST_S = 2.0  # a rest that takes longer is worth more connections (design.md, First contact 7)
LONG_START_S = 1.0  # the same while the rate doubles each round trip: more connections start sooner
SILENT_S = 0.75  # no byte for so long, or four round trips: somebody else is asked for what comes next
FIRST_LOOK_S = 0.05
NEXT_LOOK_S = 0.25
LATER_LOOK_S = 0.5  # after so many looks without a finding it is looked at less often
_EARLY_LOOKS = 12
_WAITED_SHARE = 0.5


class Patience:
    """What one connection brought, and whether it should be left alone.

    Args:
        round_trip_s: of its path; 0 = not known.
        stall_s: no byte for so long is too long; None: :data:`SILENT_S`, or four round trips.
    """

    __slots__ = (
        "_before", "_bytes", "_looks", "_since", "_waited_s", "_waiting_since", "rate", "rtt_s", "stall_s",
    )  # fmt: skip

    def __init__(self, now: float, round_trip_s: float = 0.0, stall_s: float | None = None) -> None:
        self.rtt_s = round_trip_s
        self.stall_s = max(SILENT_S, 4 * round_trip_s) if stall_s is None else stall_s
        self.rate: float | None = None  # bytes a second in the last window
        self._before: float | None = None  # in the last one before it that brought any
        self._bytes = 0
        self._since = now
        self._waited_s = 0.0
        self._waiting_since: float | None = None
        self._looks = 0

    def waits(self, now: float) -> None:
        """The reader has nothing to do but wait for bytes."""
        self._waiting_since = now

    def came(self, amount: int, now: float) -> None:
        """Bytes came, or the waiting was given up (0)."""
        if self._waiting_since is not None:
            self._waited_s += now - max(self._waiting_since, self._since)  # in this window
            self._waiting_since = None
        self._bytes += amount

    @property
    def next_look_s(self) -> float:
        """Seconds until it should be looked at again."""
        if self._looks == 0:
            return max(FIRST_LOOK_S, self.rtt_s)
        return NEXT_LOOK_S if self._looks < _EARLY_LOOKS else LATER_LOOK_S

    def silent_s(self, now: float) -> float:
        """For how long the reader has been waiting for the next byte."""
        return 0.0 if self._waiting_since is None else now - self._waiting_since

    def too_slow(self, left: int, now: float) -> bool:
        """Whether others should be asked for some of the ``left`` bytes; a new window begins."""
        self._looks += 1
        silent_s = self.silent_s(now)
        waited_s = self._waited_s
        if self._waiting_since is not None:
            waited_s += now - max(self._waiting_since, self._since)
        window_s = now - self._since
        if window_s <= 0:
            return False
        came, self._bytes = self._bytes, 0
        if self.rate:  # a window without bytes says nothing about what the path can do
            self._before = self.rate
        self.rate = came / window_s
        self._since, self._waited_s = now, 0.0
        if silent_s >= self.stall_s:
            return True
        if waited_s < window_s * _WAITED_SHARE or not came:
            return False
        if self._before is None or self.rate > 1.5 * self._before:  # it may still be in slow start
            windows = max(1.0, window_s / max(self.rtt_s, 0.001))
            return self.rtt_s * math.log2(1 + left * windows / came) > LONG_START_S
        return left / max(self.rate, self._before) > LONG_REST_S  # in two windows: a short pause means nothing
