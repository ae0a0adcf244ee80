"""How many connections a download has: add while goodput grows. Pure.

It starts with four, or eight where a round trip is long (each of them starts slowly there), and doubles after each
window in which goodput rose by a fifth or more. The first window without such a gain ends it, and the last step is
taken back when it had brought less than a twentieth (on a fast clean network more connections only cost). A mirror that
pushes back (429, 503, a refused or reset connection before any byte) takes it down to what works.
"""

from __future__ import annotations

LEAST, MOST = 4, 16
LONG_S = 0.05  # a long round trip
WINDOW_S = 0.3
_GROWN = 1.2
_WORTH_IT = 1.05


class Growth:
    """``target`` is how many connections there should be now.

    Args:
        fixed: exactly so many (``-x``); None: measured.
        round_trip_s: of the first answer.
    """

    def __init__(self, fixed: int | None, now: float, round_trip_s: float = 0.0) -> None:
        self.target = fixed or (LEAST if round_trip_s < LONG_S else 2 * LEAST)
        self._most = MOST if fixed is None else fixed
        self._growing = fixed is None
        self._before = self.target
        self._rate: float | None = None
        self._since = now
        self._bytes = 0

    @property
    def growing(self) -> bool:
        return self._growing

    def look(self, now: float, received: int, round_trip_s: float) -> None:
        """``received`` bytes have come altogether. Nothing is judged before two round trips have passed."""
        if not self._growing or now - self._since < max(WINDOW_S, 2 * round_trip_s):
            return
        rate = (received - self._bytes) / (now - self._since)
        self._since, self._bytes = now, received
        before, self._rate = self._rate, rate
        if rate <= 0:
            return
        if before is None or rate >= before * _GROWN:
            self._before, self.target = self.target, min(self._most, self.target * 2)
            self._growing = self._before < self._most
        else:
            self._growing = False
            if rate < before * _WORTH_IT:
                self.target = self._before

    def pushed_back(self, working: int) -> None:
        """A mirror refused one more while ``working`` connections delivered."""
        self._growing = False
        self.target = max(1, min(self.target, working))
