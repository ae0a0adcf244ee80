"""Many clients for a while.

Closed loop: each client asks again when it has got. Open loop (``Plan.rate``): requests are due at even intervals,
whether or not a client is free; their time begins then.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fileproxy.bench.client import Client, Shared
from fileproxy.bench.hosts import Target
from fileproxy.bench.plan import Draw, Plan
from fileproxy.bench.tally import Tally
from fileproxy.clock import Clock, SystemClock
from fileproxy.tasks import Tasks

GRACE_S = 5.0  # for what is under way when the time is up
BUSY = 0.9  # share of a processor above which the generator itself is the limit
_LOOK_S = 0.25
_START_PER_S = 2_000.0  # clients that begin, so that a thousand do not knock at one moment
_AFTER_ERROR_S = 0.05  # a client that was refused does not ask again at once
_SAMPLES = 100_000


@dataclass(frozen=True)
class Seen:
    """How far a run is."""

    elapsed_s: float
    seconds: float
    requests: int
    errors: int
    bytes: int
    p99_s: float | None


@dataclass(frozen=True)
class Result:
    """What a run came to. ``seconds`` is what it lasted, without the grace."""

    plan: Plan
    tally: Tally
    seconds: float
    generator_cpu: float  # share of one processor
    interrupted: bool

    @property
    def figures(self) -> dict[str, Any]:
        return {
            **self.tally.figures(self.seconds),
            "seconds": round(self.seconds, 3),
            "generator_cpu": round(self.generator_cpu, 3),
            "generator_was_the_limit": self.generator_cpu > BUSY,
            "interrupted": self.interrupted,
        }


Watch = Callable[[Seen], None]


async def run(
    plan: Plan,
    targets: list[Target],
    *,
    headers: list[str] | None = None,
    tls: ssl.SSLContext | None = None,
    stop: asyncio.Event | None = None,
    watch: Watch | None = None,
    clock: Clock | None = None,
) -> Result:
    """Load the targets as planned. ``stop`` ends it early, ``watch`` is told four times a second."""
    broken: list[BaseException] = []
    tasks = Tasks(lambda _name, error: broken.append(error))
    shared = Shared(plan, targets, headers or [], tls, clock or SystemClock(), tasks)
    one = _Run(shared, stop or asyncio.Event(), watch)
    try:
        result = await one.run()
    finally:
        one.close()
        await tasks.close()
    if broken:
        raise broken[0]
    return result


class _Run:
    def __init__(self, shared: Shared, stop: asyncio.Event, watch: Watch | None) -> None:
        self._shared = shared
        self._stop = stop
        self._watch = watch
        self._draw = Draw(shared.plan, len(shared.targets))
        self._clients = [Client(number, shared, self._ended) for number in range(shared.plan.clients)]
        self._free: list[Client] = []
        self._sent = 0  # requests of the open loop: how many were handed to a client
        self._busy = 0
        self._begin = 0.0
        self._open = True
        self._quiet = asyncio.Event()  # nothing is under way

    async def run(self) -> Result:
        shared, plan = self._shared, self._shared.plan
        cpu, self._begin = time.process_time(), shared.now()
        if plan.rate is None:
            for number, client in enumerate(self._clients):
                shared.loop.call_later(number / _START_PER_S, self._next, client)
        else:
            self._free = list(reversed(self._clients))
            shared.tasks.start(self._pace(), "bench-pace")
        await self._until(self._begin + plan.seconds, self._stop)
        interrupted, lasted = self._stop.is_set(), shared.now() - self._begin
        cpu = time.process_time() - cpu
        self._open = False
        shared.tally.time_is_up()
        if self._busy and not interrupted:
            await self._until(shared.now() + min(GRACE_S, plan.seconds), self._quiet)
        self._count_the_rest(self._begin + lasted)
        return Result(plan, shared.tally, lasted, cpu / max(lasted, 1e-9), interrupted)

    async def _until(self, deadline: float, event: asyncio.Event) -> None:
        """Wait for the deadline or the event; look after the clients meanwhile."""
        shared = self._shared
        while not event.is_set() and (now := shared.now()) < deadline:
            for client in self._clients:
                client.look(now)
            if self._watch is not None:
                tally, elapsed = shared.tally, now - self._begin
                p99 = tally.whole.percentile(99)
                self._watch(Seen(elapsed, shared.plan.seconds, tally.requests, tally.failed, tally.bytes, p99))
            try:
                async with asyncio.timeout(min(_LOOK_S, deadline - now)):
                    await event.wait()
            except TimeoutError:
                continue

    # --- who asks when ------------------------------------------------------------------------------------------------

    def _next(self, client: Client) -> None:
        if self._open:
            self._ask(client, self._shared.now())

    def _ask(self, client: Client, due: float) -> None:
        self._busy += 1
        client.ask(self._draw(), due)

    def _ended(self, client: Client) -> None:
        self._busy -= 1
        if not self._open:
            if not self._busy:
                self._quiet.set()
        elif self._shared.plan.rate is not None:
            self._free.append(client)
            self._catch_up()
        elif client.failed:
            self._shared.loop.call_later(_AFTER_ERROR_S, self._next, client)
        else:
            self._next(client)

    def _due(self, number: int) -> float:
        assert self._shared.plan.rate is not None
        return self._begin + number / self._shared.plan.rate

    def _catch_up(self) -> None:
        """Send what is due, as far as clients are free."""
        now = self._shared.now()
        while self._free and self._open and (due := self._due(self._sent)) <= now:
            self._sent += 1
            self._ask(self._free.pop(), due)

    async def _pace(self) -> None:
        while self._open:
            self._catch_up()
            # Where no client is free, whoever becomes free goes on; this only sleeps a little.
            await asyncio.sleep(max(0.0005, min(_LOOK_S, self._due(self._sent) - self._shared.now())))

    # --- the end ------------------------------------------------------------------------------------------------------

    def _count_the_rest(self, end: float) -> None:
        """What was due before ``end`` and has not ended took at least so long (open loop)."""
        tally, now = self._shared.tally, self._shared.now()
        for client in self._clients:
            due = client.due
            if client.stop():
                tally.unfinished += 1
                if self._shared.plan.rate is not None and due is not None:
                    tally.late(now - due)
        if self._shared.plan.rate is None:
            return
        tally.unsent = max(0, int((end - self._begin) * self._shared.plan.rate) - self._sent)
        stride = tally.unsent // _SAMPLES + 1
        for number in range(self._sent, self._sent + tally.unsent, stride):
            tally.late(max(0.0, now - self._due(number)), stride)

    def close(self) -> None:
        self._open = False
        for client in self._clients:
            client.stop()
