"""What the machines of one service tell each other through the shared store, so that ``/stats`` can list them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from redis.asyncio import Redis

from fileproxy.clock import Clock
from fileproxy.shared import PREFIX, SharedStore, decode, encode

REPORT_EVERY_S = 5.0
REPORT_LIVES_S = 20
LARGEST_REPORT_BYTES = 16384
_MACHINES = f"{PREFIX}machines"


class MachineReport(msgspec.Struct, frozen=True):
    """What one machine's service did, summed over its workers."""

    identity: str
    host: str
    version: str
    started_at: float  # seconds since the epoch
    reported_at: float
    workers: int
    requests: int
    errors: int
    bytes_to_clients: int
    connections_open: int
    throughput_bits_per_second: float


class Machines:
    """Publishes this machine's report every 5 s, and lists those of all machines.

    ``report()`` makes the report; ``leads()`` says whether this worker is the one that speaks for the machine (the one
    with the lowest slot). A machine that has not reported for 20 s is gone.
    """

    def __init__(
        self, store: SharedStore, report: Callable[[], MachineReport], leads: Callable[[], bool], clock: Clock
    ) -> None:
        self._store = store
        self._report = report
        self._leads = leads
        self._clock = clock

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            if self._store.state == "ok" and self._leads():
                await self.publish()
            await self._clock.sleep(REPORT_EVERY_S)

    async def publish(self) -> bool:
        """Publish one report now. False when the store could not take it."""
        report = self._report()

        async def work(redis: Redis) -> bool:
            async with redis.pipeline(transaction=False) as pipe:
                pipe.set(_key(report.identity), encode(report), ex=REPORT_LIVES_S)
                pipe.sadd(_MACHINES, report.identity)
                await pipe.execute()
            return True

        return await self._store.call(work) is True

    async def all(self) -> list[MachineReport] | None:
        """Every machine's last report, by host and identity; None when the store does not answer."""

        async def work(redis: Redis) -> list[MachineReport]:
            known = sorted(name for name in await redis.smembers(_MACHINES) if isinstance(name, bytes))
            if not known:
                return []
            values = await redis.mget([_key(identity.decode("utf-8", "replace")) for identity in known])
            gone = [identity for identity, value in zip(known, values, strict=True) if value is None]
            if gone:
                await redis.srem(_MACHINES, *gone)
            return _reports(values)

        return await self._store.call(work)


def _key(identity: str) -> str:
    return f"{PREFIX}machine:{identity}"


def _reports(values: Iterable[object]) -> list[MachineReport]:
    fit = [value for value in values if isinstance(value, bytes) and len(value) <= LARGEST_REPORT_BYTES]
    reports = [report for value in fit if (report := decode(value, MachineReport)) is not None]
    return sorted(reports, key=lambda report: (report.host, report.identity))
