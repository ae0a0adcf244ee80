"""The bytes of a flight that are in memory: pieces as they came, taken by any number of readers."""

from __future__ import annotations

from bisect import bisect_right


class Cursor:
    """Where one reader of a flight stands."""

    __slots__ = ("position",)

    def __init__(self, position: int) -> None:
        self.position = position


class Landed:
    """Bytes ``base`` to ``position`` of a file; readers see those before ``shown``."""

    def __init__(self, first: int) -> None:
        self.base = self.position = self.shown = first
        self._offsets: list[int] = []
        self._chunks: list[bytes] = []

    def append(self, piece: bytes) -> None:
        self._offsets.append(self.position)
        self._chunks.append(piece)
        self.position += len(piece)

    @property
    def held(self) -> int:
        """Bytes in memory."""
        return self.position - self.base

    @property
    def before_last(self) -> int:
        """Where the last piece begins."""
        return self._offsets[-1]

    def has(self, position: int) -> bool:
        """Whether a reader can take the byte now."""
        return self.base <= position < self.shown

    def at(self, position: int, stop: int | None) -> bytes | None:
        """What is shown from ``position`` on: the rest of one piece, cut at ``stop``; None when nothing is."""
        if not self.has(position):
            return None
        number = bisect_right(self._offsets, position) - 1
        chunk, start = self._chunks[number], self._offsets[number]
        upto = self.shown if stop is None else min(stop, self.shown)
        if position > start or start + len(chunk) > upto:
            chunk = chunk[position - start : upto - start]
        return chunk

    def trim(self, keep_from: int) -> None:
        """Let go of the pieces that end at or before ``keep_from``."""
        count = bisect_right(self._offsets, keep_from) - 1
        if count > 0:
            del self._offsets[:count], self._chunks[:count]
            self.base = self._offsets[0]

    def clear(self, first: int) -> None:
        """Begin again."""
        self.base = self.position = self.shown = first
        self._offsets, self._chunks = [], []
