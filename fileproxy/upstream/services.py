"""Mirrors that are named by SRV records: looked up again and again, so that the set of them changes while we serve.

``srv+http://_http._tcp.example.org/pub`` stands for one mirror a record: its priority is the mirror's (others than the
lowest are backups), its weight the mirror's weight. While nothing is known of the service, and where there are no
records, it stands for ``http://example.org/pub``, as RFC 2782 says.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

from fileproxy.clock import Clock
from fileproxy.settings import resolve, schema
from fileproxy.settings.schema import SERVICE_SCHEMES
from fileproxy.tasks import Tasks
from fileproxy.upstream import srv
from fileproxy.upstream.srv import Found, NoAnswer, Record

TIMEOUT_S = 2.0  # for each try with a name server
FIRST_S = 3.0  # the start waits so long for the first answers
LEAST_S = 5.0  # between two look-ups, whatever the records say
_MOST_WEIGHT, _MOST_PRIORITY = 1000, 65535  # as schema.Mirror has them
Known = Mapping[str, Sequence[Record]]


def service_of(url: str) -> str | None:
    """The name whose SRV records a mirror's URL asks for; None when it is an ordinary one."""
    parts = urlsplit(url)
    return parts.hostname if parts.scheme in SERVICE_SCHEMES else None


def expanded(upstream: schema.Upstream, known: Known) -> schema.Upstream:
    """The upstream with its services replaced by the mirrors they stand for, in an order that records do not change."""
    if not any(service_of(one.url) for one in upstream.servers):
        return upstream
    servers: dict[str, schema.Mirror] = {}
    for one in upstream.servers:
        for mirror in _mirrors(one, known):
            servers.setdefault(mirror.url, mirror)
    return upstream.model_copy(update={"servers": list(servers.values())})


def _mirrors(one: schema.Mirror, known: Known) -> list[schema.Mirror]:
    name = service_of(one.url)
    if name is None:
        return [one]
    parts = urlsplit(one.url)
    scheme = SERVICE_SCHEMES[parts.scheme]
    records = known.get(name, ())
    if not records:
        host = name.split(".", 2)[-1] if name.startswith("_") else name
        return [one.model_copy(update={"url": f"{scheme}://{host}{parts.path}"})]
    heaviest = max(record.weight for record in records)
    scale = min(1.0, _MOST_WEIGHT / max(1, heaviest))
    return [
        one.model_copy(
            update={
                "url": f"{scheme}://{record.target}:{record.port}{parts.path}",
                "weight": max(1, round(record.weight * scale)),
                "priority": min(_MOST_PRIORITY, one.priority + record.priority),
            }
        )
        for record in records
    ]


class Services:
    """The services of all upstreams in one worker.

    Args:
        on_change: other records than before are known; told after ``open`` has returned once.
        say: takes (level, event, detail).
    """

    def __init__(
        self,
        *,
        clock: Clock,
        tasks: Tasks,
        on_change: Callable[[], None],
        say: Callable[[str, str, str], None],
    ) -> None:
        self._clock = clock
        self._tasks = tasks
        self._on_change = on_change
        self._say = say
        self._known: dict[str, tuple[Record, ...]] = {}
        self._keep_s: dict[str, float] = {}
        self._watched: dict[str, asyncio.Task[None]] = {}
        self._failing: set[str] = set()
        self._heard: set[str] = set()  # those that were looked up, with or without an answer
        self._news = asyncio.Event()
        self._opened = False

    def expanded(self, upstreams: Mapping[str, schema.Upstream]) -> dict[str, schema.Upstream]:
        """The upstreams with the mirrors that are known now."""
        return {name: expanded(one, self._known) for name, one in upstreams.items()}

    def forget(self, upstreams: Mapping[str, schema.Upstream]) -> None:
        """Look up no other services than those of these upstreams any more."""
        for name in set(self._watched) - {service_of(one.url) for row in upstreams.values() for one in row.servers}:
            self._watched.pop(name).cancel()
            self._known.pop(name, None)
            self._heard.discard(name)

    async def open(self, upstreams: Mapping[str, schema.Upstream], profile: resolve.Profile) -> None:
        """Look up the services of these upstreams from now on; wait a little until each was looked up once."""
        for upstream in upstreams.values():
            keep_s = resolve.pool(profile, upstream.pool).dns_cache
            for name in filter(None, (service_of(one.url) for one in upstream.servers)):
                self._keep_s[name] = keep_s
                if name not in self._watched:
                    self._watched[name] = self._tasks.start(self._watch(name), f"srv-{name}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_S):
                while not self._heard >= set(self._watched):
                    self._news.clear()
                    await self._news.wait()
        self._opened = True

    async def _watch(self, name: str) -> None:
        while True:
            ttl_s = await self._renew(name)
            self._heard.add(name)
            self._news.set()
            await self._clock.sleep(max(LEAST_S, min(ttl_s, self._keep_s[name])))

    async def _renew(self, name: str) -> float:
        """Look it up; how long what is known now holds."""
        try:
            found: Found = await srv.look_up(name, srv.name_servers(), timeout_s=TIMEOUT_S)
        except NoAnswer as error:  # what was known holds on
            if name not in self._failing:
                self._failing.add(name)
                self._say("warning", "service not looked up", str(error.strerror))
            return LEAST_S
        self._failing.discard(name)
        before = self._known.get(name)
        self._known[name] = found.records
        if (before or ()) != found.records:
            listed = ", ".join(f"{one.target}:{one.port}" for one in found.records)
            self._say("info", "service records", f"{name}: {listed or 'none'}")
            if self._opened:
                self._on_change()
        return float(found.ttl_s)
