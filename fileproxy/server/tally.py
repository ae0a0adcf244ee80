"""What the fast front answered, until it is counted and logged: alone, counting costs more than answering."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fileproxy.model import Counters
from fileproxy.server.proof import Memory
from fileproxy.server.rows import Answer, Block, Row

if TYPE_CHECKING:
    from fileproxy.server.service import Service

SETTLE_S = 0.01  # how long hits wait to be counted


@dataclass(slots=True)
class Sum:
    """Hits of one route. Counted like as many :class:`Trip`."""

    times: int = 0
    size: int = 0  # bytes of all
    seconds: float = 0.0  # of all

    def add_to(self, counters: Counters, label: str | None) -> None:
        mean = self.seconds / self.times
        for name in ("ending.completed", "requests"):
            counters.add(name, self.times)
        counters.traffic(self.size)
        counters.observe("response_time", mean, times=self.times)
        if label is not None:
            counters.add("cache.hit", self.times)
            counters.add("route.requests", self.times, label=label)
            counters.add("route.bytes", self.size, label=label)
            counters.observe("route.response_time", mean, label=label, times=self.times)


class Tally:
    """Hits stand at their rows (``Answer.hits``) until ``settle``, which the loop calls within ``SETTLE_S``."""

    def __init__(self, service: Service, memory: Memory) -> None:
        self.hits = 0
        self._service = service
        self._memory = memory
        self._loop = asyncio.get_running_loop()
        self._answered: list[Answer] = []  # those with hits that are not settled
        self._timer: asyncio.TimerHandle | None = None

    def first(self, answer: Answer, block: Block, request_id: bytes, began: float) -> None:
        """The first hit of a block since ``settle``. An answer's very first is the one that is timed: all are the same
        work.
        """
        if not answer.hits:
            answer.seconds = self._service.clock.now() - began
            self._answered.append(answer)
            if self._timer is None:
                self._timer = self._loop.call_later(SETTLE_S, self.settle)
        answer.hits[block] = [request_id]

    def settle(self) -> None:
        """Count and log what was answered since this was last done; also called before counts are told."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        answers, self._answered = self._answered, []
        start = self._service.logs.access_start()
        lines: list[bytes] = []
        sums: dict[str | None, Sum] = {}
        for answer in answers:
            hits, answer.hits = answer.hits, {}
            times = sum(map(len, hits.values()))
            total = sums.setdefault(answer.label, Sum())
            total.times += times
            total.size += times * answer.size
            total.seconds += times * answer.seconds
            if isinstance(answer, Row):
                answer.used += times
                self._memory.used_now(answer.record, 0 if answer.large else times)
            if start is not None:
                end = answer.line % (answer.seconds, answer.seconds)
                for block, ids in hits.items():
                    rest = block.line + end
                    ids[0] = start + ids[0]
                    ids[-1] += rest
                    lines.append((rest + start).join(ids))
        for label, total in sums.items():
            self.hits += total.times
            total.add_to(self._service.counters, label)
        if lines:
            self._service.logs.access_batch(b"".join(lines))
