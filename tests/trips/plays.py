"""Settings in one line, for plays that are about something else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from fileproxy.guard.load import LagMeter
from tests.house import Running
from tests.origin import Origin

# Retries come at once, so that no test waits for a pause that it is not about.
QUICK = {"base": "1ms", "cap": "50ms"}


def settings(
    *servers: Origin | str,
    upstream: Mapping[str, Any] | None = None,
    route: Mapping[str, Any] | None = None,
    **rest: Any,
) -> dict[str, Any]:
    """One upstream named ``files`` over these servers, and one route to it when ``route`` says something of it."""
    options = dict(upstream or {})
    retry = {**QUICK, **options.pop("retry", {})}
    urls = [server if isinstance(server, str) else server.url for server in servers]
    options.setdefault("balance", "round_robin")  # in their order, whatever came of it before
    result: dict[str, Any] = {"upstreams": {"files": {"servers": urls, "retry": retry, **options}}, **rest}
    if route is not None:
        result["routes"] = [{"path": "/", "upstream": "files", **route}]
    return result


WRITABLE = {"methods": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]}


class NotingMeter(LagMeter):
    """Keeps how late each wake-up was."""

    def __init__(self, limit_s: float | None) -> None:
        super().__init__(limit_s)
        self.seen: list[float] = []

    def wake(self, scheduled: float, actual: float) -> bool:
        counted = super().wake(scheduled, actual)
        self.seen.append(self.last_s)
        return counted


async def late_once(running: Running, seconds: float) -> None:
    """The event loop is busy for so long; returns when its watcher has noticed."""
    meter = running.house._lag = NotingMeter(running.house._lag.limit_s)
    async with asyncio.timeout(10):
        while not meter.seen:  # until it sleeps, by the loop's time of now
            await asyncio.sleep(0)
        time.sleep(seconds)  # nothing else can run meanwhile
        while meter.seen[-1] < seconds - 0.2:  # it looks ten times a second
            await asyncio.sleep(0)


async def overload(running: Running, seconds: float = 0.4) -> None:
    """Keep the event loop busy, so long at a time, until it counts as overloaded."""
    for _ in range(10):
        time.sleep(seconds)
        for _ in range(5):
            await asyncio.sleep(0)
        if running.house._lag.lagging:
            return
    raise AssertionError("it does not lag")
