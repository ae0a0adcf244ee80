"""A table that keeps within its bytes: what came first goes first."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

K = TypeVar("K")


class Weighed(Protocol):
    @property
    def weight(self) -> int:
        """Bytes it takes, its key included."""
        ...

    def gone(self) -> None:
        """It is no longer in the table."""
        ...


V = TypeVar("V", bound=Weighed)


class Bounded(Generic[K, V]):
    """Rows of at most ``most_bytes`` altogether.

    ``get`` is a dictionary's and changes nothing, because it is called for every hit: a row that goes although it is in
    use comes back by one request that is served the long way. ``refresh`` makes a row the newest.
    """

    __slots__ = ("_rows", "bytes", "get", "most_bytes")

    def __init__(self, most_bytes: int) -> None:
        self._rows: OrderedDict[K, V] = OrderedDict()
        self.get = self._rows.get
        self.most_bytes = most_bytes
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, key: K, row: V) -> None:
        """Keep a row, instead of an older one of this key; the oldest make room."""
        self.drop(key)
        if row.weight > self.most_bytes:
            row.gone()
            return
        self._rows[key] = row
        self.bytes += row.weight
        while self.bytes > self.most_bytes:
            _, oldest = self._rows.popitem(last=False)
            self.bytes -= oldest.weight
            oldest.gone()

    def refresh(self, key: K) -> None:
        """It is in use: let it outlive what came after it."""
        if key in self._rows:
            self._rows.move_to_end(key)

    def drop(self, key: K) -> None:
        if (row := self._rows.pop(key, None)) is not None:
            self.bytes -= row.weight
            row.gone()

    def clear(self) -> None:
        rows = tuple(self._rows.values())
        self._rows.clear()
        self.bytes = 0
        for row in rows:
            row.gone()
