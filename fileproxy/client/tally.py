"""What a client counts."""

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
