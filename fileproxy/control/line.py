"""Who of those that wait is next: one of each client in turn, so that nobody waits behind another one's hundred. Pure.

A client that comes anew stands behind the clients that wait already; those of one client keep their order.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class FairLine(Generic[T]):
    """A line of items, each of a client. What is done in a turn costs the same however many wait."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, dict[T, None]] = OrderedDict()  # the next client first
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, client: str, item: T) -> None:
        self._lines.setdefault(client, {})[item] = None
        self._count += 1

    def remove(self, client: str, item: T) -> None:
        """It waits no more; nothing happens when it is not here."""
        line = self._lines.get(client)
        if line is not None and item in line:
            del line[item]
            self._count -= 1
            if not line:
                del self._lines[client]

    def first(self) -> T | None:
        """Who is next; it stays."""
        for line in self._lines.values():
            return next(iter(line))
        return None

    def take(self) -> T | None:
        """Who is next; it leaves, and its client's turn is over."""
        for client, line in self._lines.items():
            item = next(iter(line))
            self.remove(client, item)
            if client in self._lines:
                self._lines.move_to_end(client)
            return item
        return None

    def ahead(self, client: str) -> int:
        """How many would be served before one more of this client."""
        own = len(self._lines.get(client, ()))
        ahead, seen = own, False
        for other, line in self._lines.items():
            if other == client:
                seen = True
            else:
                # Whose turn comes before ours in a round has had one turn more when ours comes.
                ahead += min(len(line), own if seen else own + 1)
        return ahead

    def crowd_out(self, client: str) -> T | None:
        """Make room for one more of this client: the last of the longest line leaves. None: that would be its own."""
        longest = max(self._lines, key=lambda one: len(self._lines[one]), default=client)
        if len(self._lines.get(longest, ())) <= len(self._lines.get(client, ())) + 1:
            return None
        last = next(reversed(self._lines[longest]))
        self.remove(longest, last)
        return last
