"""What the rooms of one worker share while it serves: the current generation, the load, and where to count."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from fileproxy.clock import Clock
from fileproxy.http.forwarded import Networks
from fileproxy.model import Answer, Ask, Counters, Headers, Load, Want
from fileproxy.server.routing import Match, RouteTable
from fileproxy.server.running import Downloads
from fileproxy.settings import Settings, schema

if TYPE_CHECKING:
    from fileproxy.server.compress import Compression
    from fileproxy.server.fast import Fast


class Fetcher(Protocol):
    """An upstream, as the trip sees it."""

    async def fetch(self, want: Want) -> Answer: ...

    async def close(self) -> None: ...


class Admin(Protocol):
    """The admin API (``admin/api.py``): status, headers and body for a call."""

    async def answer(self, ask: Ask, body: bytes) -> tuple[int, Headers, bytes]: ...

    async def purge(self, ask: Ask) -> tuple[int, Headers, bytes]: ...


class Cached(Protocol):
    """The cache and its fills (``caching.py``)."""

    @property
    def filler(self) -> Any: ...

    @property
    def secret(self) -> bytes: ...

    def source(self, match: Match, generation: Generation, primary: bytes) -> Any: ...

    def relay(self, generation: Generation, upstream: str) -> Any:
        """Where the rest of an answer comes from that nobody keeps."""
        ...

    async def invalidate(self, uris: tuple[str, ...], generation: Generation) -> None:
        """Nothing that is stored under these URIs may be used any more."""
        ...


class LogLines(Protocol):
    """Where lines go (``observe/logs.py``)."""

    @property
    def problems(self) -> Mapping[str, str]:
        """What is wrong with a log now, by log; empty when all is well."""
        ...

    def access(self, **fields: object) -> None:
        """One line for one request."""
        ...

    def part(self, **fields: object) -> bytes:
        """These fields as they stand within an access line."""
        ...

    def access_start(self) -> bytes | None:
        """How the lines of requests begin that end now, up to the text of their id; None when there is no log."""
        ...

    def access_batch(self, lines: bytes) -> None:
        """Whole access lines."""
        ...

    def event(self, level: str, event: str, **fields: object) -> None:
        """One line of the error log."""
        ...

    def audit(self, line: bytes) -> None:
        """One whole line of the audit log."""
        ...

    def apply(self, settings: schema.Logs) -> list[str]:
        """Take over new settings; what could not be taken over is returned."""
        ...


@dataclass(slots=True, eq=False)
class Generation:
    """One immutable configuration and what was built from it. Requests keep the generation they started with.

    ``users`` counts them; ``on_unused`` is called when the last one of a retired generation has ended.
    """

    number: int
    settings: Settings
    routes: RouteTable
    upstreams: Mapping[str, Fetcher]
    policies: Mapping[tuple[str, tuple[str, ...]], Any]  # CachePolicy by path and hosts of the route
    trusted: Networks
    operators: Networks
    on_unused: Callable[[Generation], None]
    users: int = 0
    retired: bool = False

    def keyed_host(self, route: schema.Route, authority: str) -> str:
        """The host that tells files apart: the client's where the upstream gets to see it, else none."""
        upstream = self.settings.upstreams.get(route.upstream)
        return authority.lower() if upstream is not None and upstream.host == "preserve" else ""

    def enter(self) -> None:
        self.users += 1

    def leave(self) -> None:
        self.users -= 1
        self._release()

    def retire(self) -> None:
        self.retired = True
        self._release()

    def _release(self) -> None:
        if self.retired and self.users == 0:
            self.on_unused(self)


@dataclass(slots=True)
class Service:
    """Handed to the handlers by ``app.py``. ``current`` is replaced as a whole by a reload."""

    current: Generation
    counters: Counters
    clock: Clock
    identity: str
    logs: LogLines
    health: Callable[[], Awaitable[dict[str, Any]]]
    stats: Callable[[], Awaitable[dict[str, Any]]]
    caching: Cached | None = None
    fast: Fast | None = None
    compression: Compression | None = None
    admin: Admin | None = None
    load: Load = field(default_factory=Load)
    downloads: Downloads = field(default_factory=Downloads)
    cutting: bool = False  # drain_timeout is over: running downloads are being cut
