"""Builds what keeps and fills files in one worker: the tiers, the purges, the store, the fills.

All of it outlives a reload; what a newer configuration changes is taken over by ``apply``. Nothing here is required: a
folder that cannot be used and a store that does not answer leave a smaller cache, and ``describe`` says so (law 9).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fileproxy.cache.banfeed import BanFeed
from fileproxy.cache.bans import Bans, Kind
from fileproxy.cache.disk import DiskTier
from fileproxy.cache.freshness import AUTO
from fileproxy.cache.key import entry_url, primary_key
from fileproxy.cache.memory import MemoryTier
from fileproxy.cache.pressure import Decision, MemoryManager, Sizes
from fileproxy.cache.redis import RedisTier
from fileproxy.cache.store import Store
from fileproxy.clock import Clock
from fileproxy.errors import BadTarget
from fileproxy.fill import wire
from fileproxy.fill.entry import Shared
from fileproxy.fill.filler import Filler
from fileproxy.fill.lanes import Lanes
from fileproxy.fill.origin import OriginSource
from fileproxy.fill.owners import WorkerOwners
from fileproxy.fill.peer import PeerSource
from fileproxy.fill.serving import PeerServer
from fileproxy.fill.values import Need, Source
from fileproxy.fill.window import Windows
from fileproxy.keyfile import store_key
from fileproxy.model import Counters, Target, Want
from fileproxy.observe.slots import Slots
from fileproxy.process import cpu_count
from fileproxy.server.routing import Match
from fileproxy.server.service import Generation, LogLines
from fileproxy.settings import Settings, resolve, schema
from fileproxy.shared import SharedStore
from fileproxy.tasks import Tasks

CHUNK = (
    256 * 1024
)  # bytes of a file read at once: large enough that thread hops do not show, small enough for each download
LEAST_WINDOWS = 8  # windows that fit whatever the memory tier may take


class Caching:
    """See the module's docstring. ``leads``: whether this worker speaks for the machine."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: SharedStore,
        run_dir: Path,
        leads: Callable[[], bool],
        generation: Callable[[], Generation],
        counters: Counters,
        clock: Clock,
        tasks: Tasks,
        logs: LogLines,
    ) -> None:
        self._counters = counters
        self._clock = clock
        self._tasks = tasks
        self._logs = logs
        self._block = settings.cache.block
        self._generation = generation
        disk = settings.cache.disk
        folder = run_dir if disk == "off" else Path(disk.path)
        # Beside what it names: a cache folder is found again from another run folder, and after an upgrade.
        self.secret = store_key(settings.redis.secret, folder, run_dir)
        self.bans = Bans(folder, clock)
        self.disk = None if disk == "off" else self._disk(disk)
        self.store = Store(
            memory=MemoryTier(settings.cache.memory // worker_count(settings), counters),
            disk=self.disk,
            shared=None,
            bans=self.bans,
            counters=counters,
            tasks=tasks,
        )
        self.windows = Windows(settings.cache.window, 0)
        self._manager = MemoryManager(
            sizes_of(settings), settings.cache.memory_check, clock, self._resize, workers=worker_count(settings)
        )
        self._resize(self._manager.decision)
        self.shared = Shared(
            self.store, clock, tasks, counters, self.windows, settings.cache.fill_after_abort, settings.cache.block
        )
        self.filler = Filler(self.shared, logs)
        self.owners = WorkerOwners(run_dir / "owners", Slots(run_dir / "owners"), clock)
        self._peers = PeerServer(self.filler, self._need_of, tasks, self.windows)
        self._feed = BanFeed(self.bans, store, leads=leads, secret=self.secret, counters=counters, clock=clock)
        self._lanes: dict[str, Lanes] = {}  # by upstream
        self.take(settings, store)

    def _disk(self, disk: schema.DiskTier) -> DiskTier:
        return DiskTier(
            Path(disk.path),
            size=disk.size,
            min_free=disk.min_free,
            scrub=disk.scrub,
            writable=True,
            counters=self._counters,
            clock=self._clock,
            tasks=self._tasks,
            on_problem=lambda problem: self._logs.event("warning", "disk tier", detail=problem),
        )

    async def open(self) -> None:
        """Open the disk tier, and listen for the other workers."""
        self._tasks.start(self._feed.run(), "ban feed")
        self._tasks.start(self._manager.run(), "memory manager")
        if self.disk is None:
            return  # nothing the workers could share: each fills for itself
        await self.disk.open()
        try:
            await self.owners.open(self._peers.serve)
        except OSError as error:
            self._logs.event("warning", "owners", detail=f"each worker fills for itself: {error}")

    def source(self, match: Match, generation: Generation, primary: bytes) -> Source:
        """Where missing bytes come from: the upstream where this worker owns the key, else the worker that does."""
        name = match.route.upstream
        if self.owners.owner(primary) is None:
            return self._origin(generation, name, writes=True)
        route = (match.route.path, tuple(match.route.hosts))
        alone = self._origin(generation, name, writes=False)
        return PeerSource(self.owners, name, route, alone, self._counters)

    def relay(self, generation: Generation, upstream: str) -> OriginSource:
        """Where the rest of an answer comes from that nobody keeps."""
        return self._origin(generation, upstream, writes=False)

    def _origin(self, generation: Generation, name: str, *, writes: bool) -> OriginSource:
        return OriginSource(
            generation.upstreams[name],
            writes=writes,
            block=self._block,
            clock=self._clock,
            ban=lambda: self.bans.seq,
            size_and_time=generation.settings.upstreams[name].mirrors_match == "size+mtime",
            lanes=self._lanes.setdefault(name, Lanes()),
            shared=self.shared,
        )

    def _need_of(self, ask: wire.PeerAsk) -> Need | None:
        """The need of another worker's ask, under this worker's current settings."""
        generation = self._generation()
        policy = generation.policies.get(ask.route)
        if policy is None or ask.upstream not in generation.upstreams:
            return None
        target = Target(wire.decoded(ask.path), None if ask.query is None else wire.decoded(ask.query))
        return Need(
            primary=ask.primary,
            key=ask.key,
            url=wire.decoded(ask.url),
            headers=wire.unpacked(ask.headers),
            wanted=Want("GET", target, wire.unpacked(ask.want), ask.authority, id=ask.id, client=ask.client),
            policy=policy,
            source=self._origin(generation, ask.upstream, writes=True),
            ranges=wire.specs_of(ask.ranges),
            conditional=ask.conditional,
            method=ask.method,
            counted=False,
        )

    def drain(self) -> None:
        """New keys go to the other workers; who still asks is answered."""
        self.owners.release()

    def take(self, settings: Settings, store: SharedStore) -> None:
        """Take over what of the settings acts without new workers."""
        cache = settings.cache
        self._manager.configure(sizes_of(settings), cache.memory_check, worker_count(settings))
        self.shared.fill_after_abort = cache.fill_after_abort
        if self.disk is not None and cache.disk != "off":
            self.disk.apply(size=cache.disk.size, min_free=cache.disk.min_free, scrub=cache.disk.scrub)
        for name, upstream in settings.upstreams.items():
            lanes = self._lanes.setdefault(name, Lanes())
            lanes.parallel = resolve.parallel(settings.profile, upstream.segments.parallel)
            lanes.cap = max(1, resolve.pool(settings.profile, upstream.pool).per_host * len(upstream.servers) // 2)
            lanes.stall_s = None if isinstance(upstream.timeouts.stall, str) else upstream.timeouts.stall
        self.store.shared = (
            None
            if cache.redis == "off" or store.state == "off"
            else RedisTier(
                store,
                self.bans,
                secret=self.secret,
                max_object=cache.redis.max_object,
                max_entries=cache.redis.max_entries,
                counters=self._counters,
                clock=self._clock,
            )
        )

    async def invalidate(self, uris: tuple[str, ...], generation: Generation) -> None:
        """Nothing that is stored under these URIs may be used any more (RFC 9111 §4.4): a ban each, for all workers.

        Only what is there costs a ban, so that nobody fills the list by asking for what is not.
        """
        wanted: list[tuple[Kind, str, bool]] = [
            ("key", url, False)
            for uri in uris
            for url in urls_of(uri, generation)
            if await self.present([url], generation)
        ]
        if wanted:
            await self.bans.announce(wanted)

    async def present(self, urls: Sequence[str], generation: Generation) -> bool:
        """Whether any of these is stored or being filled (what a route keeps for each user apart is taken to be)."""
        policies = set(generation.policies.values())
        if any(policy.per_user for policy in policies):
            return True
        for url in urls:
            for scheme in ("http", "https"):
                key = primary_key(url, scheme, (), AUTO, self.secret)
                if self.filler.knows(key) or await self.store.find(key) is not None:
                    return True
        return False

    def _resize(self, decision: Decision) -> None:
        """The memory manager's word: what tier, windows and reads may take from now on."""
        self.store.memory.resize(decision.budget)
        self.windows.configured = decision.window
        self.windows.total = max(decision.budget, LEAST_WINDOWS * decision.window)
        self.chunk = decision.chunk

    def describe(self) -> dict[str, Any]:
        """For ``/health`` and ``/stats``."""
        return {
            **self.store.statistics(),
            "bans": self.bans.statistics(),
            "ban_feed": self._feed.statistics(),
            "window_bytes": self.windows.size,
            "flights": self.windows.flights,
            "memory_manager": self._manager.statistics(),
            "owners": self.owners.statistics(),
            "parallel": {name: lanes.describe(self._clock.now()) for name, lanes in self._lanes.items()},
        }

    async def close(self) -> None:
        """Answer nobody any more, write what is under way, and let everything go."""
        await self.owners.close()
        await self._peers.close()
        await self.store.close()
        self.bans.close()


def sizes_of(settings: Settings) -> Sizes:
    """What this worker may use without memory pressure: its part of ``cache.memory``, the window, a read of a file."""
    return Sizes(settings.cache.memory // worker_count(settings), settings.cache.window, CHUNK)


def worker_count(settings: Settings) -> int:
    """Workers that share the machine."""
    return cpu_count() if settings.server.workers == "auto" else settings.server.workers


def urls_of(uri: str, generation: Generation) -> list[str]:
    """What ``Meta.url`` is for an absolute URI as clients ask for it; [] when no route serves it."""
    parts = urlsplit(uri)
    target = Target(parts.path or "/", parts.query or None)
    try:
        match = generation.routes.match(parts.hostname or "", target)
    except BadTarget:
        return []
    if match is None:
        return []
    route = match.route
    policy = generation.policies[route.path, tuple(route.hosts)]
    return [entry_url(route.upstream, generation.keyed_host(route, parts.netloc), match.forwarded_target, policy)]
