"""How far ahead of its fastest reader a flight may run, and so what it holds at most (law 5). Pure."""

from __future__ import annotations

from dataclasses import dataclass

SMALLEST = 256 * 1024


@dataclass(slots=True)
class Windows:
    """The window of one flight when ``flights`` run: ``configured``, but all together at most ``total`` bytes.

    The memory manager lowers both under pressure.
    """

    configured: int
    total: int
    flights: int = 0

    @property
    def size(self) -> int:
        """Bytes for each flight now; never under :data:`SMALLEST`, so that none stands still."""
        return self.among(self.flights)

    def among(self, many: int) -> int:
        """The same for each of so many that hold bytes, whether they are flights or relays."""
        return max(SMALLEST, min(self.configured, self.total // max(1, many)))
