"""The parts of a file that several connections bring, and the requests that bring them."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from fileproxy.control.segments import Rest
from fileproxy.model import Body


@dataclass(slots=True, eq=False)
class Pump:
    """One request for the rest of a part. ``position``: of its next byte in the file."""

    part: Part
    position: int
    began: float
    heard: float  # when its last bytes came, or it began
    came: int = 0
    mirror: str = ""
    body: Body | None = None
    task: asyncio.Task[None] | None = None

    def rate(self, now: float) -> float | None:
        return self.came / max(now - self.began, 1e-3) if self.came else None


@dataclass(slots=True, eq=False)
class Part:
    """Bytes ``at`` to ``end`` are missing; those before that the reader has not taken yet are in ``chunks``."""

    at: int
    end: int
    chunks: deque[bytes] = field(default_factory=deque)
    pumps: list[Pump] = field(default_factory=list)
    tries: int = 0  # that brought nothing, in a row
    not_before: float = 0.0

    def rest(self, now: float, young_s: float = 0.0) -> Rest:
        """What is still to come. A pump that began less than ``young_s`` ago has no rate yet."""
        grown = [pump for pump in self.pumps if now - pump.began >= young_s]
        rates = [rate for pump in grown if (rate := pump.rate(now)) is not None]
        heard = max((pump.heard for pump in self.pumps), default=now)
        return Rest(self.at, self.end, max(rates, default=None), now - heard, shared=len(self.pumps) > 1)
