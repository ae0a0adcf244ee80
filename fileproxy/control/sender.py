"""What a connection's sender makes of loss, as far as its receiver sees, and whether it is left alone for that. Pure.

On a long path with losses one CUBIC sender gets a fraction of the link, and several together get it all; one BBR sender
gets it all alone, and others only take from it. They look the same until packets are lost, with one exception: who only
has a window sends it at once, a burst each round trip, and who reckons with a rate spreads it (pacing; Cardwell et al.,
"BBR: Congestion-Based Congestion Control", 2016). So:

1. A second flight that comes as a burst: nothing is waited for.
2. One that is spread is watched. Before a gap: as long as it grows. After one: a sender that minds it sends less a
   round trip later; one that still brings what it brought before is left alone.
3. Left alone, it has to go on like that.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

LOOKS_BURST, LOOKS = 12, 4  # in a round trip
QUIET = 1 / 6  # of a round trip without a packet: the flight is over
SPREAD = 0.35  # of a round trip: a flight that takes longer is no burst
FEWEST = 12  # segments of a flight that says something; where one had losses, the next one is small
SMALL_ONES = 2  # that are let pass
GROWN = 1.2  # times what came in the two round trips before: it grows
HELD = 0.85  # of the best before the sender knew of the gap
# Segments in a round trip. One that minds loss gets 1.2 by the root of its share (Mathis and others, 1997): 12 at 1 %.
MANY, STILL_MANY = 20, 15
SETTLED, PATIENT = 3, 5  # round trips after the first gap: when it is judged, and for the last time
LONG_S, FELL = 2.0, 0.5  # what came in such a time against the best such time; BBR is silent for 0.5 s now and then
_KEPT = 256


class Verdict(Enum):
    """WATCH: not known yet, nothing is done meanwhile. ALONE: others would not help. HELP: by the usual rules."""

    WATCH = "watch"
    ALONE = "alone"
    HELP = "help"


class Sender:
    """Looked at every :attr:`next_look_s` seconds, from the first answer's head on.

    Args:
        round_trip_s: of the path, as it was when nothing was sent yet, as far as is known.
        segments, out_of_order: that had come by ``now``; the latter behind a gap.
        alone: it is known not to mind loss (remembered from another download).
    """

    __slots__ = (
        "_alone_since", "_before", "_began", "_best", "_best_long", "_flight_at", "_gap_at", "_heard", "_out_of_order",
        "_readings", "_rtt_s", "_small_ones", "verdict",
    )  # fmt: skip

    def __init__(
        self, now: float, round_trip_s: float, segments: int = 0, out_of_order: int = 0, *, alone: bool = False
    ) -> None:
        self.verdict = Verdict.ALONE if alone else Verdict.WATCH
        self._rtt_s = round_trip_s
        self._began = now
        self._heard = now
        self._readings: deque[tuple[float, int]] = deque([(now, segments)], maxlen=_KEPT)
        self._before: int | None = None  # segments before the flight that is looked at
        self._small_ones = 0  # flights that told nothing
        self._flight_at: float | None = None  # when it began
        self._out_of_order = out_of_order
        self._gap_at: float | None = None
        self._best = 0.0
        self._best_long = 0.0
        self._alone_since = now

    @property
    def next_look_s(self) -> float:
        """Seconds until the next look."""
        if self.verdict is not Verdict.WATCH:
            return LONG_S / 8
        if self._before is None:
            return self._rtt_s / 2
        spread = self._flight_at is not None and self._heard - self._flight_at >= self._rtt_s * SPREAD
        return self._rtt_s / (LOOKS if spread else LOOKS_BURST)

    def silent_s(self, now: float) -> float:
        """Since the last packet, in order or not."""
        return now - self._heard

    def rate(self, over_s: float) -> float:
        """Segments a second in the last ``over_s`` seconds."""
        now, came = self._readings[-1]
        since, before = self._readings[0]
        for at, segments in reversed(self._readings):
            since, before = at, segments
            if now - at >= over_s * 0.999:
                break
        return (came - before) / (now - since) if now > since else 0.0

    def look(self, now: float, segments: int, out_of_order: int, round_trip_s: float = 0.0) -> Verdict:
        """``segments`` came altogether, ``out_of_order`` of them behind a gap; ``round_trip_s`` now, 0: not known."""
        if round_trip_s:  # where a packet of the handshake was lost, what was measured then is many times too long
            self._rtt_s = min(self._rtt_s, round_trip_s)
        if segments > self._readings[-1][1]:
            self._heard = now
        self._readings.append((now, segments))
        if self._gap_at is None and out_of_order > self._out_of_order:
            self._gap_at = now
        if self.verdict is Verdict.WATCH:
            self.verdict = self._watched(now, segments)
            self._alone_since = now
        elif self.verdict is Verdict.ALONE and not self._goes_on(now):
            self.verdict = Verdict.HELP
        return self.verdict

    def _goes_on(self, now: float) -> bool:
        if now - self._alone_since < LONG_S:
            return True
        rate = self.rate(LONG_S)
        self._best_long = max(self._best_long, rate)
        return rate >= max(FELL * self._best_long, STILL_MANY / self._rtt_s)

    def _watched(self, now: float, segments: int) -> Verdict:
        if self._before is None:
            self._before = segments
        elif self._flight_at is None:
            if segments > self._before:
                self._flight_at = now
            elif now - self._heard > PATIENT * self._rtt_s:
                return Verdict.HELP  # it has nothing to send
        elif self._heard - self._flight_at < self._rtt_s * SPREAD:
            if now - self._heard >= self._rtt_s * QUIET:
                if segments - self._before >= FEWEST or self._small_ones == SMALL_ONES:
                    return Verdict.HELP  # a burst
                self._small_ones, self._before, self._flight_at = self._small_ones + 1, segments, None
        else:
            return self._spread(now)
        return Verdict.WATCH

    def _spread(self, now: float) -> Verdict:
        rtt_s, gap_at = self._rtt_s, self._gap_at
        if gap_at is None or now < gap_at + rtt_s:
            self._best = max(self._best, self.rate(rtt_s))
        if gap_at is None:
            if now - self._began < 4 * rtt_s:
                return Verdict.WATCH
            lately, both = self.rate(2 * rtt_s), self.rate(4 * rtt_s)
            return Verdict.WATCH if lately >= GROWN * (2 * both - lately) else Verdict.HELP
        if now < gap_at + SETTLED * rtt_s:
            return Verdict.WATCH
        if self.rate(2 * rtt_s) >= max(HELD * self._best, MANY / rtt_s):
            return Verdict.ALONE
        return Verdict.WATCH if now < gap_at + PATIENT * rtt_s else Verdict.HELP
