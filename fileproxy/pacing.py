"""Tells the limits of each upstream what is known of all workers: they are the machine's, not one process's.

One worker leads: it judges what came of everybody's requests and says the rate in its counter page; the others follow.
Each takes its share, by the number of live workers. Who leads holds a lock that the kernel frees at its death. A worker
that has just begun does not reach for it: those that have followed for a while know more, and go on where the rate was.

Reading the pages takes a millisecond, and nothing here is on the way of a download.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from fileproxy.clock import Clock
from fileproxy.observe.totals import Totals
from fileproxy.upstream.gate import Machine
from fileproxy.upstream.pool import Upstream

EVERY_S = 2.0
NOVICE_S = 1.5 * EVERY_S  # after a leader's death every other one had its chance


class Pacing:
    """See the module's docstring. ``slot``: this worker's; ``lock``: file of the lock."""

    def __init__(
        self,
        *,
        upstreams: Callable[[], Mapping[str, Upstream]],
        totals: Callable[[], Totals],
        slot: int,
        lock: Path,
        clock: Clock,
    ) -> None:
        self._upstreams = upstreams
        self._totals = totals
        self._slot = slot
        self._path = lock
        self._lock: int | None = None
        self._draining = False
        self._clock = clock
        self._began = clock.now()

    async def run(self) -> None:
        while True:
            await self._clock.sleep(EVERY_S)
            self.tell()

    def tell(self) -> None:
        """Tell all of them what is known now."""
        try:
            totals = self._totals()
        except OSError:
            return  # no descriptor to read with: they go on by what they know
        slots, labelled = [one.slot for one in totals.live] or [self._slot], totals.labelled
        leads = self._leads(alone=len(slots) == 1)
        for name, upstream in self._upstreams().items():
            upstream.machine(
                Machine(
                    workers=len(slots),
                    rank=slots.index(self._slot) if self._slot in slots else 0,
                    leads=leads,
                    answers=labelled["upstream.answers"].get(name, 0),
                    errors=labelled["upstream.errors"].get(name, 0),
                    rate=labelled["upstream.rate_led"].get(name, 0),
                )
            )

    def _leads(self, *, alone: bool) -> bool:
        if self._lock is None and not self._draining and (alone or self._clock.now() - self._began >= NOVICE_S):
            self._lock = _locked(self._path)
        return self._lock is not None

    def drain(self) -> None:
        """This worker leaves: it leads no more, and what it says counts only for the others that leave."""
        self.close()

    def close(self) -> None:
        self._draining = True  # a look that comes after this must not take the lock again
        if self._lock is not None:
            lock, self._lock = self._lock, None
            os.close(lock)


def _locked(path: Path) -> int | None:
    """The descriptor of the locked file; None while another process has it, or where it cannot be had."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
