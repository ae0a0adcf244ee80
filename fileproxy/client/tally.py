"""What a client counts. Its upstreams count here, too (``model.Counters``); most of their names are of no interest."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    """The numbers of ``Statistics``, while they grow. The names are explained there."""

    downloads: int = 0
    completed: int = 0
    failed: int = 0
    skipped: int = 0
    received: int = 0
    resumed: int = 0
    wasted: int = 0
    segments: int = 0
    hedges: int = 0
    splits: int = 0
    replaced: int = 0
    stalls: int = 0
    connections_opened: int = 0

    def add(self, name: str, amount: int = 1, label: str | None = None) -> None:
        """Of what upstreams count we keep bytes and connections."""
        if name == "bytes.from_upstreams":
            self.received += amount
        elif name == "upstream.connections":
            self.connections_opened += amount

    def observe(self, name: str, seconds: float, label: str | None = None) -> None:
        """Durations are kept by the engine."""

    def traffic(self, amount: int) -> None:
        """There are no clients."""
