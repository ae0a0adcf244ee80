"""The servers of one upstream: their transports, and one try with one of them, redirects followed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from fileproxy.clock import Clock
from fileproxy.control.quality import PathQuality
from fileproxy.errors import FileProxyError, RedirectRefused
from fileproxy.model import Answer, Counters, Target, Want, header
from fileproxy.settings import resolve
from fileproxy.settings.schema import Limits
from fileproxy.settings.schema import Upstream as UpstreamSettings
from fileproxy.upstream.attempt import Patience
from fileproxy.upstream.body import HttpBody
from fileproxy.upstream.connections import Connections, tls_context
from fileproxy.upstream.file import FileTransport
from fileproxy.upstream.gauge import GUESS_BYTES, Gauge
from fileproxy.upstream.redirects import (
    METHODS,
    STATUSES,
    Follow,
    follow,
    forbidden_address,
    headers_for,
    place_of,
)
from fileproxy.upstream.transport import HttpTransport


@dataclass(frozen=True, slots=True)
class Mirror:
    """One server of the upstream. ``index``: its number among them; ``gauge``: what it has to do."""

    index: int
    url: str
    label: str
    transport: HttpTransport | FileTransport
    gauge: Gauge = field(default_factory=Gauge)

    def path(self) -> dict[str, Any]:
        """What is known of the path to it: ``quality``, ``rtt_ms``, ``loss``, ``goodput_bytes_per_second``."""
        quality = getattr(self.transport, "quality", None)
        return {} if quality is None else {**quality.report(), "idle_s": getattr(self.transport, "idle_s", None)}


class Mirrors:
    """The servers of one upstream, ``all`` in their order.

    ``on_break(mirror, error)`` is told when an answer broke inside its body, after ``fetch`` has returned it.

    Raises:
        ConfigurationError: ``tls.ca`` cannot be read, or aiohttp has no C parser.
    """

    def __init__(
        self,
        name: str,
        settings: UpstreamSettings,
        *,
        profile: resolve.Profile,
        limits: Limits,
        counters: Counters,
        clock: Clock,
        on_break: Callable[[Mirror, FileProxyError], None],
    ) -> None:
        self.name = name
        self._settings = settings
        self._counters = counters
        self._clock = clock
        self._on_break = on_break
        self._adapts = profile == "optimized"
        self.timeouts = resolve.timeouts(profile, settings.timeouts)
        self._connections, self._outside = self._open(profile, limits)
        self.all = tuple(self._mirror(index, one.url) for index, one in enumerate(settings.servers))
        self._own = [one.transport.place for one in self.all if isinstance(one.transport, HttpTransport)]
        self._configured = frozenset(key.lower() for key in settings.headers)

    def _open(self, profile: resolve.Profile, limits: Limits) -> tuple[Connections, Connections]:
        """The connections to our own servers, and those (checked) to where redirects may lead."""
        settings = self._settings
        pool = self._pool = resolve.pool(profile, settings.pool)
        options = resolve.sockets(profile, settings.sockets)
        where = f"upstreams.{self.name}"
        redirects = settings.follow_redirects
        needs_tls = redirects != "off" or any(one.url.startswith("https:") for one in settings.servers)
        context = tls_context(settings.tls, where) if needs_tls else None
        private = redirects != "off" and redirects.private
        own, outside = (
            Connections(
                pool,
                connect_s=self.timeouts.connect,
                options=options,
                context=context,
                response_head=limits.response_head,
                counters=self._counters,
                forbidden=check,
            )
            for check in (None, lambda address: forbidden_address(address, private))
        )
        return own, outside

    def _mirror(self, index: int, url: str) -> Mirror:
        parts = urlsplit(url)
        if parts.scheme == "file":
            label = f"{self.name}/{parts.path}"
            return Mirror(index, url, label, FileTransport(url, label=label, clock=self._clock))
        place = place_of(url)
        label = f"{self.name}/{place.address}"
        settings = self._settings
        transport = HttpTransport(
            place,
            prefix=parts.path,
            label=label,
            connections=self._connections,
            timeouts=self.timeouts,
            counters=self._counters,
            clock=self._clock,
            host=settings.host,
            headers=settings.headers,
            server_name=settings.tls.server_name,
            quality=PathQuality() if self._adapts else None,
            idle_by_quality=settings.timeouts.idle == "auto",
        )
        return Mirror(index, url, label, transport)

    async def fetch(
        self, mirror: Mirror, want: Want, patience: Patience, over: Callable[[], None] = lambda: None
    ) -> Answer:
        """One try with this mirror. Until its body is over it counts as in flight; then ``over`` is called, once.

        Raises:
            FileProxyError: as ``HttpTransport.fetch``; RedirectRefused.
        """
        gauge = mirror.gauge
        gauge.in_flight += 1
        answer: Answer | None = None
        try:
            answer = await self._follow(mirror, want, patience)
        finally:
            if answer is None or not isinstance(answer.body, HttpBody):
                gauge.in_flight -= 1
        if isinstance(answer.body, HttpBody):
            size = GUESS_BYTES if answer.body.length is None else answer.body.length
            gauge.bytes_in_flight += size
            body, began = answer.body, self._clock.now()

            def ended(error: FileProxyError | None) -> None:
                now = self._clock.now()
                gauge.flowed(body.received, now - began, body.waited_s, now)
                self._over(mirror, size, over, error)

            body.when_over(ended)
        else:
            over()
        return answer

    def _over(self, mirror: Mirror, size: int, over: Callable[[], None], error: FileProxyError | None) -> None:
        mirror.gauge.in_flight -= 1
        mirror.gauge.bytes_in_flight -= size
        over()
        if error is not None:
            self._on_break(mirror, error)

    async def _follow(self, mirror: Mirror, want: Want, patience: Patience) -> Answer:
        if isinstance(mirror.transport, FileTransport):
            return await mirror.transport.fetch(want)
        answer = await mirror.transport.fetch(want, patience)
        redirects = self._settings.follow_redirects
        if redirects == "off" or want.method not in METHODS:
            return answer
        place, path_query = mirror.transport.place, f"{mirror.transport.prefix}{want.target}"
        headers = want.headers
        for hops_left in range(redirects.hops, -1, -1):
            location = header(answer.headers, "Location")
            if answer.status not in STATUSES or location is None:
                return answer
            await answer.body.aclose()
            goal = follow(
                location, place=place, path_query=path_query, own=self._own, hosts=redirects.hosts, hops_left=hops_left
            )
            headers = headers_for(headers, self._configured, goal.own)
            path, mark, query = goal.path_query.partition("?")
            onward = replace(want, target=Target(path, query if mark else None), headers=headers)
            answer = await self._elsewhere(goal).fetch(onward, patience)
            answer.mirror = mirror.label
            place, path_query = goal.place, goal.path_query
        raise RedirectRefused(f"{place.address} sent one redirect too many (follow_redirects.hops)")

    def _elsewhere(self, goal: Follow) -> HttpTransport:
        """A transport to where a redirect leads. Counted under the mirror's upstream, not under a row of its own."""
        return HttpTransport(
            goal.place,
            label=f"{self.name}/redirected",
            connections=self._connections if goal.own else self._outside,
            timeouts=self.timeouts,
            counters=self._counters,
            clock=self._clock,
            headers=self._settings.headers if goal.own else {},
            server_name=self._settings.tls.server_name if goal.own else None,
        )

    @property
    def most_connections(self) -> int | None:
        """Connections that there may be to our own servers; None when all of them are folders."""
        hosts = {(place.scheme, place.host, place.port) for place in self._own}
        return min(self._pool.limit, self._pool.per_host * len(hosts)) if hosts else None

    def describe(self) -> dict[str, Any]:
        """The connections to them (see ``Connections.describe``)."""
        return self._connections.describe()

    async def close(self) -> None:
        """Close every connection and thread."""
        for mirror in self.all:
            await mirror.transport.close()
        await self._connections.close()
        await self._outside.close()
