"""Builds every room of one worker, wires them, and owns their lifetimes.

``House`` serves connections under one settings generation after the other. What must outlive a reload (connections,
counters, logs, file readers, the shared store) belongs to the house; what a configuration decides (routes, upstreams
with their pools) belongs to a ``Generation`` and goes when the last request that uses it has ended.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from aiohttp import web
from aiohttp.web_urldispatcher import AbstractResource, ResourceRoute, UrlMappingMatchInfo

from fileproxy.clock import Clock, SystemClock
from fileproxy.guard.load import LagMeter
from fileproxy.http.forwarded import Networks
from fileproxy.model import Counters
from fileproxy.server.connections import Connections, FrontPolicy
from fileproxy.server.cors import RouteCors
from fileproxy.server.deliver import Delivery
from fileproxy.server.front import Front
from fileproxy.server.handler import Handler
from fileproxy.server.routing import RouteTable
from fileproxy.server.service import Generation, LogLines, Service
from fileproxy.settings import Settings
from fileproxy.tasks import Tasks
from fileproxy.upstream.pool import Upstream

FILE_READERS = 8  # threads that read local files
LAG_SAMPLE_S = 0.1
SWEEP_S = 1.0


class House:
    """One worker's rooms. The worker drives it: open, protocol …, apply …, drain, close.

    Args:
        settings: the first generation; must be valid.
        counters, logs: where the rooms count and write.
        run_dir: where the counter pages of all workers are.
        identity: random, the same in all workers of one start; finds loops.
        facts: what the process knows about itself, for /health.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        counters: Counters,
        logs: LogLines,
        run_dir: Path,
        identity: str,
        clock: Clock | None = None,
        facts: Mapping[str, object] | None = None,
    ) -> None:
        self._clock: Clock = clock or SystemClock()
        self._counters = counters
        self._logs = logs
        self._identity = identity
        self._tasks = Tasks(self._task_failed)
        self._readers = ThreadPoolExecutor(FILE_READERS, thread_name_prefix="file-read")
        self._generations: set[Generation] = set()
        self._lag = LagMeter(None)
        self._nofile = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._run_dir = run_dir
        self._facts = dict(facts or {})
        self._first_settings = settings
        self._runner: web.AppRunner
        self._service: Service
        self._connections: Connections

    # --- the worker's verbs ---

    async def open(self) -> None:
        """Build everything and start the house's own tasks."""
        settings = self._first_settings
        generation = self._build(settings, 0)
        self._service = Service(
            current=generation,
            counters=self._counters,
            clock=self._clock,
            identity=self._identity,
            logs=self._logs,
            health=self._health,
            stats=self._stats,
        )
        app = web.Application()
        handler = Handler(self._service, Delivery(self._readers), RouteCors(app))
        app.router.register_resource(_Everything(handler))
        self._runner = web.AppRunner(
            app,
            handle_signals=False,
            handler_cancellation=True,  # a client that leaves stops its upstream at once
            access_log=None,
            auto_decompress=False,  # bodies are passed on as they are
        )
        await self._runner.setup()
        assert self._runner.server is not None
        self._connections = Connections(
            FrontPolicy.from_settings(settings, self._nofile), self._counters, self._clock
        )
        self._lag.limit_s = None if settings.limits.loop_lag == "off" else settings.limits.loop_lag
        self._tasks.start(self._watch_lag(), "loop-lag")
        self._tasks.start(self._sweep(), "connection-sweep")
