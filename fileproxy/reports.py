"""What the operators' pages say: gathers from the rooms and the counter pages, lets ``observe/`` word it.

Reading the pages of all workers costs a few ``pread``s and no lock; nothing here is on the way of a download.
"""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from fileproxy import __version__, sockets
from fileproxy.clock import Clock
from fileproxy.machines import MachineReport, Machines
from fileproxy.model import Counters
from fileproxy.observe import health, stats
from fileproxy.observe.totals import Totals, read_totals
from fileproxy.process import cpu_count
from fileproxy.server import coders
from fileproxy.server.running import Downloads
from fileproxy.server.service import Generation, LogLines
from fileproxy.settings import Settings, resolve
from fileproxy.settings.show import effective
from fileproxy.shared import SharedStore

COUNTERS = "counters"  # folder of the counter pages in the run folder
PATH = ("quality", "rtt_ms", "loss", "goodput_bytes_per_second", "idle_s")  # of a mirror, as this worker sees it


class Described(Protocol):
    """An upstream, as far as reports go."""

    def describe(self) -> dict[str, Any]: ...

    def holds(self, ask: str) -> bool: ...

    def qualities(self) -> Mapping[str, str | None]: ...


class Reports:
    """``/health``, ``/stats`` and this machine's report to the others.

    Args:
        generation: the current settings generation.
        granted: TCP options read back from the newest client socket; None before the first.
        caching: what the cache says of itself (``Caching.describe``).
        facts: of the process: ``uvloop_enabled``, ``started_at``, ``worker`` (its slot).
    """

    def __init__(
        self,
        *,
        generation: Callable[[], Generation],
        upstreams: Callable[[], Mapping[str, Described]],
        granted: Callable[[], Mapping[str, Any] | None],
        caching: Callable[[], Mapping[str, Any]],
        counters: Counters,
        logs: LogLines,
        run_dir: Path,
        identity: str,
        clock: Clock,
        facts: Mapping[str, object],
    ) -> None:
        self._generation = generation
        self._upstreams = upstreams
        self._granted = granted
        self._caching = caching
        self._counters = counters
        self._logs = logs
        self._run_dir = run_dir
        self._clock = clock
        self._facts = {"version": __version__, "identity": identity, "started_at": clock.time(), **facts}
        self._host = socket.gethostname()
        self._config: tuple[Settings | None, dict[str, Any]] = (None, {})

    @property
    def facts(self) -> dict[str, object]:
        """What is known of the process, with what the current settings decide."""
        current = self._generation()
        return {
            **self._facts,
            "optimizer_enabled": current.settings.profile == "optimized",
            "generation": current.number,
        }

    def totals(self) -> Totals:
        """The sums over all workers."""
        return read_totals(self._run_dir / COUNTERS, now=self._clock.now(), time_now=self._clock.time())

    def machine(self) -> MachineReport:
        """What the other machines are told."""
        return stats.machine_report(self.totals(), self.facts, host=self._host, now=self._clock.time())

    def leads(self) -> bool:
        """Whether this worker speaks for the machine: the one with the lowest slot."""
        live = self.totals().live
        return not live or live[0].slot == self._facts.get("worker", 0)

    async def stats(self, machines: Machines | None, downloads: Downloads) -> dict[str, Any]:
        """``/stats``. Counts are of all workers; paths of mirrors and running downloads as this one sees them."""
        report = stats.stats(self.totals(), self.facts, None if machines is None else await machines.all())
        report["downloads"] = downloads.report(self._clock.now(), self._upstreams())
        for one in self._upstreams().values():
            for mirror in one.describe().get("mirrors", ()):
                path = {name: mirror[name] for name in PATH if name in mirror}
                if path:
                    report["mirrors"].setdefault(mirror["label"], {}).update(path)
        cache = dict(self._caching())
        for name, parallel in cache.pop("parallel", {}).items():
            if name in report["upstreams"]:
                report["upstreams"][name]["parallel"] = parallel
        return {**report, "cache": stats.cache(report["counters"], cache)}

    async def health(self, store: SharedStore) -> dict[str, Any]:
        """``/health``, for operators."""
        settings = self._generation().settings
        totals = self.totals()
        wanted = cpu_count() if settings.server.workers == "auto" else settings.server.workers
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        options = resolve.sockets(settings.profile, settings.server.sockets)
        alone = not totals.pages  # `fileproxy origin` keeps no pages: what answers is all there is
        cache = self._caching()
        kept = any(tier is not None and tier.get("bytes") for tier in (cache["memory"], cache["disk"]))
        parts = {
            "workers": health.workers_part(
                1 if alone else len(totals.live), 1 if alone else wanted, totals.counters["workers.crashed"]
            ),
            "upstreams": health.upstreams_part(
                {name: one.describe() for name, one in self._upstreams().items()}, kept=kept
            ),
            "shared_store": health.shared_store_part(store.describe()),
            "descriptors": health.descriptors_part(soft, hard, used_descriptors()),
            "logs": health.logs_part(self._logs.problems, totals.counters["logs.dropped"]),
            "counters": health.counters_part(getattr(self._counters, "problem", None), totals.unreadable),
            **health.cache_parts(cache),
            "compression": health.compression_part(coders.available(), coders.missing()),
            "client_sockets": health.sockets_part({} if options is None else sockets.asked(options), self._granted()),
        }
        if self._config[0] is not settings:
            self._config = (settings, effective(settings))
        return health.health(self.facts, config=self._config[1], parts=parts, now=self._clock.time())


def used_descriptors() -> int | None:
    """How many descriptors this process has open; None where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/fd")) - 1
    except OSError:
        return None
