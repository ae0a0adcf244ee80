"""Progress is the deadline: a peer that delivers under 1 KiB in an idle window has stalled. Pure.

Only the time spent waiting for the peer counts. While our reader is slow (backpressure) the peer is not to blame.
"""

from __future__ import annotations

PROGRESS_BYTES = 1024


class ProgressMeter:
    """How much longer a peer may be waited for.

    Args:
        idle_s: length of the window in seconds.
        floor: bytes that count as progress.
    """

    __slots__ = ("_arrived", "_floor", "_waited_s", "idle_s")

    def __init__(self, idle_s: float, floor: int = PROGRESS_BYTES) -> None:
        self.idle_s = idle_s  # may be set anew at any time
        self._floor = floor
        self._arrived = 0
        self._waited_s = 0.0

    @property
    def allowance_s(self) -> float:
        """Seconds of waiting left before the peer counts as stalled; 0 when it does."""
        return max(0.0, self.idle_s - self._waited_s)

    @property
    def arrived(self) -> int:
        """Bytes that came in the window so far."""
        return self._arrived

    def record(self, amount: int, waited_s: float) -> None:
        """``amount`` bytes came after ``waited_s`` seconds of waiting. Enough of them open a new window."""
        self._arrived += amount
        self._waited_s += waited_s
        if self._arrived >= self._floor:
            self._arrived = 0
            self._waited_s = 0.0
