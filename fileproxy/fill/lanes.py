"""What all downloads from one upstream know and share about asking it several times at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from fileproxy.control.growth import MOST
from fileproxy.control.roundtrips import Paths
from fileproxy.tcpinfo import NetPath

REMEMBERED_S = 600.0
SLOW_S = 30.0  # how long a mirror that was far slower than another is rather not asked for parts
FAR_SLOWER = 0.25
RATE_WEIGHT = 0.3  # of a newer measurement
CROWD_SILENT_S = 20.0  # on a path that many share, long silences are what everybody gets


@dataclass(slots=True)
class Lanes:
    """Connections that downloads hold beside their first, and what was learnt.

    Attributes:
        parallel: ``upstreams.NAME.segments.parallel``.
        cap: connections one download may have, and all downloads together before none may add to its first: half of
            what the mirrors may get, so that first bytes always find one.
        stall_s: no byte for so long = somebody else is asked; None: by what is known of the path.
    """

    parallel: int | Literal["auto", "off"] = "auto"
    cap: int = MOST
    stall_s: float | None = None
    paths: Paths = field(default_factory=Paths)
    extra: int = 0  # connections of running downloads beside each one's first
    running: int = 0  # downloads
    asking: int = 0  # those whose first answer is still waited for
    streams: int = 0  # downloads that have more than one
    _target: int = 0
    _learnt_at: float = float("-inf")
    _rates: dict[str, tuple[float, float]] = field(default_factory=dict)  # mirror → (bytes a second, when)
    _heard: dict[str, float] = field(default_factory=dict)  # mirror → when it last sent anybody anything

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
        """Whether a download that holds ``own`` connections may open one more.

        Where many run side by side, or several on a path that is full, more connections only take from the small ones
        (measured: benchmarks/results, crowds on bad networks).
        """
        if own == 0:
            return True
        others = max(0, self.running + self.asking - 1)
        if own >= self.most or self.extra + others >= self.cap:
            return False
        return not (others and self.paths.full)

    @contextlib.contextmanager
    def ask(self) -> Iterator[None]:
        """While a download waits for its first answer, or for another one after a break."""
        self.asking += 1
        try:
            yield
        finally:
            self.asking -= 1

    def heard(self, mirror: str, now: float) -> None:
        """The mirror sent somebody something."""
        self._heard[mirror] = now

    def landed(self, path: NetPath, now: float) -> None:
        """An answer was here at once: what it tells of the path to its mirror."""
        self.heard(path.mirror, now)
        if path.rtt_s:
            self.paths.felt(path.mirror, path.rtt_s, now)

    def silence_s(self, own: int, mirror: str, usual_s: float, now: float) -> float:
        """How long a connection may be silent before another is tried: so long as usual, but longer where no download
        may add one and others hear from the mirror. ``own``: connections the download holds.
        """
        alive = now - self._heard.get(mirror, float("-inf")) < usual_s
        if self.stall_s is not None or not alive or self.may_add(own):
            return usual_s
        return max(usual_s, CROWD_SILENT_S)

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
            "paths": self.paths.describe(),
            "rates": {mirror: round(rate) for mirror, (rate, _) in self._rates.items()},
            "slow": sorted(self.slow(now)),
        }
