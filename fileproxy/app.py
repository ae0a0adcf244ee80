"""Builds every room of one worker, wires them, and owns their lifetimes.

``House`` serves connections under one settings generation after the other. What must outlive a reload (connections,
counters, logs, file readers, the shared store) belongs to the house; what a configuration decides (routes, upstreams
with their pools) belongs to a ``Generation`` and goes when the last request that uses it has ended.
"""

from __future__ import annotations

import asyncio
import os
import resource
import select
import socket
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.web_urldispatcher import AbstractResource, AbstractRoute, ResourceRoute, UrlMappingMatchInfo
from yarl import URL

from fileproxy import sockets
from fileproxy.administration import Administration
from fileproxy.cache.policy import policy_of
from fileproxy.caching import Caching
from fileproxy.clock import Clock, SystemClock
from fileproxy.guard.load import BusyMeter, LagMeter, descriptors_low
from fileproxy.http.forwarded import Networks
from fileproxy.machines import Machines
from fileproxy.model import Counters
from fileproxy.pacing import Pacing
from fileproxy.process import worked_s
from fileproxy.reports import Reports
from fileproxy.server.acceptor import Acceptor, Listening
from fileproxy.server.compress import Compression
from fileproxy.server.connections import Connections, FrontPolicy
from fileproxy.server.cors import RouteCors
from fileproxy.server.deliver import Delivery
from fileproxy.server.fast import Fast
from fileproxy.server.front import Front
from fileproxy.server.handler import Handler
from fileproxy.server.routing import RouteTable
from fileproxy.server.service import Fetcher, Generation, LogLines, Service
from fileproxy.settings import Settings, resolve
from fileproxy.shared import SharedStore
from fileproxy.tasks import Tasks
from fileproxy.upstream.pool import Upstream
from fileproxy.upstream.services import Services

FILE_READERS = 8  # threads that read local files
LAG_SAMPLE_S = 0.1


class House:
    """One worker's rooms. The worker drives it: open, accept_from …, apply …, drain, close.

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
        self._run_dir = run_dir
        self._facts = dict(facts or {})
        self._first_settings = settings
        self._tasks = Tasks(self._task_failed)
        self._readers = ThreadPoolExecutor(FILE_READERS, thread_name_prefix="file-read")
        self._generations: set[Generation] = set()
        self._upstreams: dict[str, Upstream] = {}  # of the current generation
        self._open_upstreams: set[Fetcher] = set()  # of all generations
        self._lag = LagMeter(None)
        self._busy = BusyMeter()
        self._nofile = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._granted: dict[str, Any] | None = None
        self._draining = False
        self._acceptor: Acceptor | None = None  # None: the loop accepts

    # --- the worker's verbs -------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Build everything and start the house's own tasks."""
        settings = self._first_settings
        self._reports = Reports(
            generation=lambda: self._service.current,
            upstreams=lambda: self._upstreams,
            granted=self._granted_options,
            caching=lambda: self._caching.describe(),  # noqa: PLW0108 (made later)
            counters=self._counters,
            logs=self._logs,
            run_dir=self._run_dir,
            identity=self._identity,
            clock=self._clock,
            facts=self._facts,
        )
        slot = self._facts.get("worker", 0)
        self._pacing = Pacing(
            upstreams=lambda: self._upstreams,
            totals=self._reports.totals,
            slot=slot if isinstance(slot, int) else 0,
            lock=self._run_dir / "pacing",
            clock=self._clock,
        )
        self._services = Services(
            clock=self._clock,
            tasks=self._tasks,
            on_change=lambda: self._replace(self._service.current.settings, self._service.current.number),
            say=lambda level, event, detail: self._logs.event(level, event, detail=detail),
        )
        await self._services.open(settings.upstreams, settings.profile)
        number = self._facts.get("generation", 0)
        self._service = Service(
            current=self._build(settings, number if isinstance(number, int) else 0),
            counters=self._counters,
            clock=self._clock,
            identity=self._identity,
            logs=self._logs,
            health=lambda: self._reports.health(self._store),
            stats=self._stats,
        )
        await self._open_store(settings)
        self._caching = Caching(
            settings,
            store=self._store,
            run_dir=self._run_dir,
            leads=self._reports.leads,
            generation=lambda: self._service.current,
            counters=self._counters,
            clock=self._clock,
            tasks=self._tasks,
            logs=self._logs,
        )
        await self._caching.open()
        self._service.caching = self._caching
        self._service.compression = Compression(
            self._counters, budget=lambda: self._caching.store.memory.budget, busy=lambda: self._busy.share
        )
        self._service.fast = Fast(self._service, self._caching.store.memory, self._caching.store, self._caching.bans)
        self._service.admin = Administration(
            self._caching,
            generation=lambda: self._service.current,
            run_dir=self._run_dir,
            identity=self._identity,
            counters=self._counters,
            clock=self._clock,
            tasks=self._tasks,
            logs=self._logs,
        ).api
        app = web.Application()
        app.router.register_resource(
            _Everything(
                Handler(
                    self._service,
                    Delivery(self._readers, lambda: self._caching.chunk, self._counters),
                    RouteCors(app),
                )
            )
        )
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
            self._runner.server,
            FrontPolicy.from_settings(settings, self._nofile),
            counters=self._counters,
            clock=self._clock,
            fast=self._service.fast,
            tune=self._tune,
        )
        if settings.server.fast and hasattr(select, "epoll"):
            self._acceptor = Acceptor(self._connections, self._service.fast.turn)
            self._connections.acceptor = self._acceptor
        self._pacing.tell()
        self._tasks.start(self._pacing.run(), "pacing")
        self._tasks.start(self._watch_load(), "load")
        self._tasks.start(self._connections.watch(), "connection-sweep")
        self._take(settings)

    def protocol(self) -> Front:
        """A new client connection (the factory of ``loop.create_server``)."""
        return self._connections()

    async def accept_from(self, listener: socket.socket, backlog: int) -> Listening | asyncio.Server:
        """Serve who connects to a socket, until what is returned is closed."""
        self._prepare(listener)
        if self._acceptor is not None:
            return self._acceptor.listen(listener)
        return await asyncio.get_running_loop().create_server(self.protocol, sock=listener, backlog=backlog)

    def _prepare(self, listener: socket.socket) -> None:
        """Set the TCP options on a listening socket; accepted ones inherit them."""
        options = resolve.sockets(self._first_settings.profile, self._first_settings.server.sockets)
        refused = {} if options is None or listener.family == socket.AF_UNIX else sockets.apply(listener, options)
        for name, why in refused.items():
            self._logs.event("warning", "socket option refused", option=name, detail=why)

    async def apply(self, settings: Settings, generation: int) -> None:
        """Take over a newer configuration; running requests keep theirs. On an error nothing has changed."""
        await self._services.open(settings.upstreams, settings.profile)
        self._replace(settings, generation)
        self._services.forget(settings.upstreams)
        self._take(settings)
        self._caching.take(settings, self._store)
        for problem in self._logs.apply(settings.logs):
            self._logs.event("warning", "reload", detail=problem)
        self._counters.add("reloads.applied")

    def _replace(self, settings: Settings, generation: int) -> None:
        """Go on with these settings, or with the servers that their services have now."""
        old, upstreams = self._service.current, self._upstreams
        self._service.current = self._build(settings, generation)
        for name, upstream in upstreams.items():
            if (heir := self._upstreams.get(name)) is not upstream:
                rate = upstream.retire(free=settings.profile == "baseline")
                if heir is not None:
                    heir.inherit(rate)
        self._pacing.tell()
        old.retire()

    def drain(self) -> None:
        """Take no new work: idle connections close now, the others after their answer."""
        self._draining = True
        self._service.load = replace(self._service.load, draining=True)
        self._connections.drain()
        self._caching.drain()
        self._pacing.drain()

    @property
    def busy(self) -> int:
        """Connections that still serve a request, or whose last bytes are still on their way."""
        return self._connections.busy

    def settle(self) -> None:
        """Count and log what waits for that; called before counts are told."""
        self._connections.count()
        if self._service.fast is not None:
            self._service.fast.settle()

    async def _stats(self) -> dict[str, Any]:
        self.settle()
        return await self._reports.stats(self._machines if self._store.state == "ok" else None, self._service.downloads)

    async def close(self) -> None:
        """Cut what still runs, and let everything go."""
        self._service.cutting = True
        self._pacing.close()
        await self._connections.close()
        if self._acceptor is not None:
            await self._acceptor.close()
        if self._service.fast is not None:
            self._service.fast.close()
        self._service.current.retire()
        if self._service.compression is not None:
            self._service.compression.close()
        await self._caching.close()
        await self._close_store()
        await self._tasks.close()
        for upstream in list(self._open_upstreams):  # those, too, whose closing was just cancelled with the tasks
            await self._close_upstream(upstream)
        self._generations.clear()
        await self._runner.cleanup()
        self._readers.shutdown(wait=False, cancel_futures=True)

    # --- generations --------------------------------------------------------------------------------------------------

    def _build(self, settings: Settings, number: int) -> Generation:
        """A generation of ``settings``. An upstream that is asked in the same way goes on with its connections."""
        old = self._service.current.settings if self._upstreams else None
        upstreams: dict[str, Upstream] = {}
        mirrors = self._services.expanded(settings.upstreams)
        for name, one in mirrors.items():
            same = (
                old is not None
                and name in self._upstreams
                and self._upstreams[name].takes(one)
                and old.profile == settings.profile
                and old.limits.response_head == settings.limits.response_head
            )
            upstreams[name] = (
                self._upstreams[name]
                if same
                else Upstream(
                    name,
                    one,
                    profile=settings.profile,
                    limits=settings.limits,
                    counters=self._counters,
                    clock=self._clock,
                )
            )
        routes = RouteTable(settings.routes, settings.upstreams)
        for name, upstream in upstreams.items():  # nothing can fail any more
            upstream.apply(mirrors[name])
        self._open_upstreams.update(upstreams.values())
        generation = Generation(
            number=number,
            settings=settings,
            routes=routes,
            upstreams=upstreams,
            policies={(route.path, tuple(route.hosts)): policy_of(route) for route in routes.routes},
            trusted=Networks(settings.server.trusted_proxies),
            operators=Networks(settings.server.operators),
            on_unused=self._unused,
        )
        self._generations.add(generation)
        self._upstreams = upstreams
        return generation

    def _take(self, settings: Settings) -> None:
        """What of the settings acts beside the requests."""
        self._connections.policy = FrontPolicy.from_settings(settings, self._nofile)
        self._lag.limit_s = None if settings.limits.loop_lag == "off" else settings.limits.loop_lag

    def _unused(self, generation: Generation) -> None:
        """The last request of a retired generation has ended: close what no other one uses."""
        self._generations.discard(generation)
        kept = {one for other in self._generations for one in other.upstreams.values()}
        for name, upstream in generation.upstreams.items():
            if upstream not in kept:
                self._tasks.start(self._close_upstream(upstream), f"close-upstream-{name}")

    async def _close_upstream(self, upstream: Fetcher) -> None:
        await upstream.close()
        self._open_upstreams.discard(upstream)

    # --- beside the requests ------------------------------------------------------------------------------------------

    async def _open_store(self, settings: Settings) -> None:
        redis = settings.redis
        self._store = SharedStore(
            "off" if redis.url == "embedded" else redis.url,  # the master fills in the embedded one's URL
            pool=redis.pool,
            timeout_s=redis.timeout,
            counters=self._counters,
            clock=self._clock,
            tasks=self._tasks,
            on_change=lambda state, why: self._logs.event(
                "info" if state == "ok" else "warning", f"shared store {state}", detail=why
            ),
        )
        await self._store.open()
        self._machines = Machines(self._store, self._reports.machine, self._reports.leads, self._clock)
        self._publishing = self._tasks.start(self._machines.run(), "machine-report")

    async def _close_store(self) -> None:
        self._publishing.cancel()
        await asyncio.wait([self._publishing])
        await self._store.close()

    async def _watch_load(self) -> None:
        """Look ten times a second whether the loop keeps up and descriptors are left; shed while they do not."""
        service = self._service
        while True:
            due = self._clock.now() + LAG_SAMPLE_S
            await self._clock.sleep(LAG_SAMPLE_S)
            service.downloads.look()
            self._busy.note(self._clock.now(), worked_s())
            if self._lag.wake(due, self._clock.now()):
                self._counters.add("workers.lag_sheds")
            low = descriptors_low(_next_descriptor(self._nofile), self._nofile)
            if (service.load.lagging, service.load.descriptors_low) != (self._lag.lagging, low):
                service.load = replace(service.load, lagging=self._lag.lagging, descriptors_low=low)
                self._logs.event("warning", "load", lagging=self._lag.lagging, descriptors_low=low)

    def _granted_options(self) -> dict[str, Any] | None:
        """Read back from the first client connection, and from the one last adapted to a far or lossy path."""
        if self._granted is None:
            return None
        adapted = self._connections.granted
        return {**self._granted, "far_or_lossy": adapted.newest, "far_or_lossy_refused": dict(adapted.refused)}

    def _tune(self, sock: socket.socket) -> None:
        """What an accepted socket does not inherit, set before its first answer."""
        options = resolve.sockets(self._service.current.settings.profile, self._service.current.settings.server.sockets)
        if options is not None and sock.family != socket.AF_UNIX:
            sockets.tune_connected(sock, options)
        if self._granted is None:
            self._granted = sockets.granted(sock)

    def _task_failed(self, name: str, error: BaseException) -> None:
        self._counters.add("tasks.failed")
        self._logs.event("error", "task_failed", task=name, detail="".join(traceback.format_exception(error)))


def _next_descriptor(limit: int) -> int:
    """The number the kernel would give to the next descriptor, the lowest free one: about how many are in use."""
    try:
        descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return limit
    os.close(descriptor)
    return descriptor


async def _expect(_request: web.Request) -> None:
    """``100 Continue`` is sent when the body is first read (``server/intake.py``), not before it was decided to."""


class _Everything(AbstractResource):
    """aiohttp's router with one entry: every path is served by the handler, which has routes of its own."""

    def __init__(self, handler: Handler) -> None:
        super().__init__()
        self._route = ResourceRoute("*", handler.__call__, self, expect_handler=_expect)

    @property
    def canonical(self) -> str:
        return "/"

    async def resolve(self, request: web.Request) -> tuple[UrlMappingMatchInfo, set[str]]:
        return UrlMappingMatchInfo({}, self._route), set()

    def url_for(self, **_: str) -> URL:
        return URL("/")

    def add_prefix(self, prefix: str) -> None:
        raise RuntimeError("not a sub-application")

    def get_info(self) -> Any:
        return {"path": "/"}

    def raw_match(self, path: str) -> bool:
        return True

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Any:
        routes: list[AbstractRoute] = [self._route]
        return iter(routes)
