"""What all downloads from one upstream know and share about asking it several times at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from fileproxy.control.growth import MOST

REMEMBERED_S = 600.0
SLOW_S = 30.0  # how long a mirror that was far slower than another is rather not asked for parts
FAR_SLOWER = 0.25
RATE_WEIGHT = 0.3  # of a newer measurement


@dataclass(slots=True)
class Lanes:
    """Connections that downloads hold beside their first, and what was learnt.

    Attributes:
        parallel: ``upstreams.NAME.segments.parallel``.
        cap: connections one download may have, and all downloads together before none may add to its first: half of
            what the mirrors may get, so that first bytes always find one. Where so many run side by side, more
            connections only take from the small ones (measured: benchmarks/results, crowds on a poor network).
        stall_s: no byte for so long = somebody else is asked; None: by what is known of the path.
    """

    parallel: int | Literal["auto", "off"] = "auto"
    cap: int = MOST
    stall_s: float | None = None
    extra: int = 0  # connections of running downloads beside each one's first
    running: int = 0  # downloads
    streams: int = 0  # downloads that have more than one
    _target: int = 0
    _learnt_at: float = float("-inf")
    _rates: dict[str, tuple[float, float]] = field(default_factory=dict)  # mirror → (bytes a second, when)

    @property
    def most(self) -> int:
        """Connections one download may have; 1 = nothing is asked for in parallel."""
        if self.parallel == "off":
            return 1
        return max(1, min(self.cap, MOST if self.parallel == "auto" else self.parallel))

    @property
    def fixed(self) -> bool:
        """So many as the settings say, whatever it brings."""
        return isinstance(self.parallel, int)

    def remembered(self, now: float) -> int:
        """Connections that were worth it the last time; 0 when nothing is remembered."""
        if self.fixed:
            return self.most
        return min(self._target, self.most) if now - self._learnt_at < REMEMBERED_S else 0

    def learn(self, target: int, now: float) -> None:
        """What a download ended with. What it only took over grows old, so that it is measured anew some time."""
        if target != self._target or now - self._learnt_at >= REMEMBERED_S:
            self._target, self._learnt_at = target, now

    def may_add(self, own: int) -> bool:
        """Whether a download that holds ``own`` connections may open one more."""
        return own == 0 or (own < self.most and self.extra + max(0, self.running - 1) < self.cap)

    def measured(self, mirror: str, rate: float, now: float) -> None:
        """What one connection to a mirror brought."""
        known = self._rates.get(mirror)
        if known is not None and now - known[1] < REMEMBERED_S:
            rate = known[0] + RATE_WEIGHT * (rate - known[0])
        self._rates[mirror] = (rate, now)

    def usual_rate(self, now: float) -> float | None:
        """Bytes a second of a connection to the best mirror."""
        return max((rate for rate, at in self._rates.values() if now - at < REMEMBERED_S), default=None)

    def slow(self, now: float) -> frozenset[str]:
        """Mirrors that were far slower than another a short while ago; never all."""
        fresh = {mirror: rate for mirror, (rate, at) in self._rates.items() if now - at < SLOW_S}
        best = max(fresh.values(), default=0.0)
        return frozenset(mirror for mirror, rate in fresh.items() if rate < best * FAR_SLOWER)

    def describe(self, now: float) -> dict[str, Any]:
        """For ``/stats``."""
        return {
            "parallel": self.parallel,
            "most": self.most,
            "remembered": self.remembered(now),
            "downloads": self.streams,
            "connections": self.extra + self.streams,
            "rates": {mirror: round(rate) for mirror, (rate, _) in self._rates.items()},
            "slow": sorted(self.slow(now)),
        }
