"""The first answer for a key, shared by all who ask for it meanwhile.

It is an owned task: the client that caused it may leave. Whoever waits gets the entry, or learns that this answer is
not for sharing and asks for itself; only the leader may take an answer that is for one client.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from fileproxy.clock import Clock
from fileproxy.errors import FileProxyError
from fileproxy.fill import early
from fileproxy.fill.entry import NEAR, Entry, Shared
from fileproxy.fill.flight import Flight
from fileproxy.fill.plan import early_ranges
from fileproxy.fill.values import Need
from fileproxy.model import Answer

MOST_REMEMBERED = 10_000  # keys that are known not to be shareable


@dataclass(frozen=True, slots=True)
class Reached:
    """How a contact ended: with an entry, or with an answer for the leader alone (or none at all: ask for yourself)."""

    entry: Entry | None = None
    flight: Flight | None = None  # that brings it, or brought it just now
    vary: tuple[str, ...] = ()  # the request fields that choose it
    answer: Answer | None = None
    confirmed: bool = False  # the origin confirmed what was stored
    shared: bool = True  # those who waited may have the entry as it comes
    reason: str = ""
    status: int | None = None  # what the origin answered


class Contact:
    """One such answer on its way. ``wait`` is for everybody, ``abandon`` for a leader who leaves.

    ``key``: what is asked for. ``behind``: it is made behind an answer, and goes on when nobody waits for it.
    ``claim``: the bytes it asks for (first, end exclusive), as far as can be said.
    """

    def __init__(self, key: bytes, claim: tuple[int, int], *, behind: bool = False) -> None:
        self.key = key
        self.behind = behind
        self.claim = claim
        self._early: list[early.Early] = []  # what was asked for beside it
        self.task: asyncio.Task[None] | None = None
        self._done = asyncio.Event()
        self._reached: Reached | None = None
        self._error: FileProxyError | None = None
        self._orphan = False
        self.waiters = 0

    async def wait(self) -> Reached:
        """How it ended. Raises what it ended with."""
        self.waiters += 1
        try:
            await self._done.wait()
        finally:
            self.waiters -= 1
        if self._error is not None:
            raise self._error
        assert self._reached is not None
        return self._reached

    @property
    def done(self) -> bool:
        return self._done.is_set()

    @property
    def unclaimed(self) -> Answer | None:
        """An answer whose leader has left: to be closed."""
        return self._reached.answer if self._orphan and self._reached is not None else None

    def abandon(self) -> Answer | None:
        """The leader leaves. Returns the answer that it has to close, if it is here already."""
        self._orphan = True
        return None if self._reached is None else self._reached.answer

    def ask_beside(self, shared: Shared, need: Need) -> None:
        """Who wants another part than this contact brings asks for it at once, unless somebody has done so."""
        if self.done or need.ranges is None or len(need.ranges) > 1:
            return
        claims = [self.claim, *((one.first, one.end) for one in self._early)]
        for wanted in early_ranges(need.ranges[0], shared.block, claims, NEAR):
            if len(self._early) < early.MOST:
                shared.counters.add("flight.early")
                self._early.append(early.Early(shared, need, *wanted))

    def reach(self, reached: Reached, *, ranges: bool = True) -> None:
        """``ranges``: the origin sends parts of the file, as far as is known."""
        if reached.entry is not None and reached.shared and ranges:
            self._early = early.join(self._early, reached.entry, reached.vary)
        self._reached = reached
        self._done.set()

    def close_beside(self) -> None:
        """It is over: what was asked for beside it and joins nothing is closed."""
        for one in self._early:
            one.close()
        self._early = []

    def fail(self, error: FileProxyError) -> None:
        self._error = error
        self._done.set()


class Unshareable:
    """The keys whose answers cannot be shared, each for a while: asks for them do not queue (hit-for-miss)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def add(self, key: bytes, seconds: float) -> None:
        self._until[key] = self._clock.now() + seconds
        self._until.move_to_end(key)
        while len(self._until) > MOST_REMEMBERED:
            self._until.popitem(last=False)

    def __contains__(self, key: bytes) -> bool:
        until = self._until.get(key)
        if until is None:
            return False
        if self._clock.now() < until:
            return True
        del self._until[key]
        return False
