"""What one worker remembers of files in the disk tier: what it has checked, what is bad, when it was last used.

It is bounded, and everything here may be forgotten at any time: it saves work and decides nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

from fileproxy.cache.extents import Known

T = TypeVar("T")

FILES = 16384  # remembered at most, of each kind; a terabyte in full extents
BAD_FOR_S = 60.0  # a bad block that could not be marked is looked at again after this
TOUCH_EVERY_S = 600.0  # how often a used file's time is set on disk, for every worker's eviction to see


class Seen:
    """By file name. Times are ``clock.now()``, but ``used`` is since the epoch as files' times are."""

    def __init__(self, files: int = FILES) -> None:
        self._files = files
        self._verified: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._bad: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._used: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def known(self, name: str, now: float) -> Known:
        """What was checked and what is bad."""
        identity, slots = self._verified.get(name, (-1, 0))
        return Known(identity, slots, self.bad(name, now))

    def verify(self, name: str, identity: int, slots: int) -> None:
        """Add what a read has checked; another file begins anew."""
        known, before = self._verified.get(name, (-1, 0))
        self._put(self._verified, name, (identity, slots | before if known == identity else slots))

    def unverify(self, name: str, slots: int) -> None:
        """These were written or damaged since."""
        if name in self._verified:
            identity, before = self._verified[name]
            self._verified[name] = (identity, before & ~slots)

    def bad(self, name: str, now: float) -> int:
        """The slots known to be damaged and impossible to mark."""
        slots, until = self._bad.get(name, (0, 0.0))
        return slots if now < until else 0

    def condemn(self, name: str, slots: int, now: float) -> None:
        """Remember damage for a while."""
        self._put(self._bad, name, (self.bad(name, now) | slots, now + BAD_FOR_S))

    def due(self, name: str, now: float) -> bool:
        """If this file is used now, should its time on disk be set, too?"""
        return now - self._used.get(name, (-TOUCH_EVERY_S, 0.0))[0] >= TOUCH_EVERY_S

    def use(self, name: str, now: float, epoch: float) -> None:
        """A file was used, and its time on disk set if that was due."""
        touched = now if self.due(name, now) else self._used[name][0]
        self._put(self._used, name, (touched, epoch))

    def used(self, name: str) -> float:
        """When this worker last used the file; 0 when it does not know."""
        return self._used.get(name, (0.0, 0.0))[1]

    def _put(self, where: OrderedDict[str, T], name: str, value: T) -> None:
        where[name] = value
        where.move_to_end(name)
        if len(where) > self._files:
            where.popitem(last=False)
