"""How many connections one download has: add while goodput grows. Pure.

It doubles after each window in which goodput rose by a fifth or more. The first window without such a gain ends it, and
the last step is taken back when it had brought less than a twentieth (on a fast clean network more connections only
cost). A mirror that pushes back (429, 503, a refused or reset connection before any byte) takes it down to what works.
"""

from __future__ import annotations

LEAST, MOST = 4, 16
LONG_S = 0.05  # a long round trip: each connection starts slowly there, so it begins with more of them
WINDOW_S = 0.3
AGAIN_S = 3.0  # after this long without growing it is tried again: the path may have changed
_GROWN = 1.2
_WORTH_IT = 1.05


class Growth:
    """``target`` is how many connections there should be now.

    Args:
        start: connections to begin with.
        most: never more.
        rate: bytes a second that one connection brought, when that was measured; None: the first window measures.
        fixed: ``start`` is what was asked for (or remembered): nothing is tried.
        again_s: after how long without growing it is tried again; infinite: never.
    """

    def __init__(
        self,
        start: int,
        most: int,
        now: float,
        rate: float | None = None,
        *,
        fixed: bool = False,
        again_s: float = AGAIN_S,
    ) -> None:
        self.target = min(start, most)
        self._most = most
        self._growing = not fixed and (self.target < most or rate is not None)
        self._fixed = fixed
        self._again_s = again_s
        self._before = 1 if rate is not None else self.target
        self._rate = rate
        self._since = now
        self._bytes = 0

    @property
    def growing(self) -> bool:
        return self._growing

    def look(self, now: float, received: int, round_trip_s: float) -> None:
        """``received`` bytes have come altogether. Nothing is judged before two round trips have passed."""
        if self._fixed or now - self._since < max(WINDOW_S, 2 * round_trip_s):
            return
        if not self._growing:
            if now - self._since >= self._again_s and self.target < self._most:
                self._begin_again(now, received)
            return
        rate = (received - self._bytes) / (now - self._since)
        self._since, self._bytes = now, received
        if rate <= 0:
            return  # a silence is nothing to compare with: what comes after it would look like a gain
        before, self._rate = self._rate, rate
        if before is None or rate >= before * _GROWN:
            self._before, self.target = self.target, min(self._most, self.target * 2)
            self._growing = self._before < self._most
        else:
            self._growing = False
            if rate < before * _WORTH_IT:
                self.target = self._before

    def _begin_again(self, now: float, received: int) -> None:
        """What it brought since it stopped growing is what one step more has to beat."""
        rate = (received - self._bytes) / (now - self._since)
        self._since, self._bytes = now, received
        if rate <= 0:
            return
        self._rate, self._growing = rate, True
        self._before, self.target = self.target, min(self._most, self.target * 2)

    def pushed_back(self, working: int) -> None:
        """A mirror refused one more while ``working`` connections delivered."""
        self._growing, self._fixed = False, True
        self.target = max(1, min(self.target, working))


def start_for(round_trip_s: float) -> int:
    """Connections to begin with where one connection was seen to be too slow to wait for."""
    return LEAST if round_trip_s < LONG_S else 2 * LEAST
