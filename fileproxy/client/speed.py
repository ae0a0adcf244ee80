"""How fast it goes, lately."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

WINDOW_S = 3.0


class Speed:
    """Bytes a second over the last three seconds, or since the start. Pure but for its memory."""

    def __init__(self, now: float) -> None:
        self._points: deque[tuple[float, int]] = deque([(now, 0)])

    def start(self, now: float, received: int) -> None:
        """What was here before came at no speed."""
        self._points = deque([(now, received)])

    def look(self, now: float, received: int) -> float:
        points = self._points
        if now - points[-1][0] >= 0.05:
            points.append((now, received))
        while len(points) > 2 and now - points[1][0] >= WINDOW_S:
            points.popleft()
        since, before = points[0]
        return max(0.0, (received - before) / (now - since)) if now > since else 0.0


def median(values: Sequence[float]) -> float:
    """As ``statistics.median``, which takes long to import. There is one value at least."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
