"""Tells the limits of each upstream what is known of all workers: they are the machine's, not one process's.

The leading worker (the one with the lowest slot) judges what came of everybody's requests and says the rate in its
counter page; the others follow. Each takes its share, by the number of live workers. Reading the pages takes a
millisecond, and nothing here is on the way of a download.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fileproxy.clock import Clock
from fileproxy.observe.totals import Totals
from fileproxy.upstream.gate import Machine
from fileproxy.upstream.pool import Upstream

EVERY_S = 2.0


class Pacing:
    """See the module's docstring. ``slot``: this worker's."""

    def __init__(
        self,
        *,
        upstreams: Callable[[], Mapping[str, Upstream]],
        totals: Callable[[], Totals],
        slot: int,
        clock: Clock,
    ) -> None:
        self._upstreams = upstreams
        self._totals = totals
        self._slot = slot
        self._clock = clock

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
        live, labelled = totals.live, totals.labelled
        for name, upstream in self._upstreams().items():
            upstream.machine(
                Machine(
                    workers=max(1, len(live)),
                    leads=not live or live[0].slot == self._slot,
                    answers=labelled["upstream.answers"].get(name, 0),
                    errors=labelled["upstream.errors"].get(name, 0),
                    rate=labelled["upstream.rate_limit"].get(name, 0),
                )
            )
