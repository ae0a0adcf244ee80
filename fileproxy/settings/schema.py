"""The options. Each row: name, type, default, one sentence with the unit.

``apply`` of a row says what a reload does with a change: ``live`` (the default: the next request sees it), ``rolling``
(new workers take over, the old ones drain) or ``restart`` (only a new start can apply it; a reload refuses it).

The larger groups have files of their own (``server.py``, ``upstreams.py``, ``routes.py``) and are to be had here.
"""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from annotated_types import Ge, Le
from pydantic import Field, StringConstraints, Tag, field_validator, model_validator

from fileproxy.settings.routes import Compress, Cors, Key, Route
from fileproxy.settings.server import Limits, Server
from fileproxy.settings.sockets import KeepAlive, Sockets
from fileproxy.settings.types import (
    LIVE,
    ROLLING,
    SECRET,
    Contradiction,
    Meaning,
    Off,
    OrOff,
    Positive,
    Row,
    Size,
    Text,
    Whole,
)
from fileproxy.settings.upstreams import (
    FRAMING,
    SERVICE_SCHEMES,
    Balance,
    CircuitBreaker,
    HealthCheck,
    Mirror,
    Pool,
    Redirects,
    Retry,
    Segments,
    Timeouts,
    Tls,
    Upstream,
)

__all__ = [
    "EMBEDDED",
    "FRAMING",
    "PROFILES",
    "SERVICE_SCHEMES",
    "Balance",
    "Cache",
    "CircuitBreaker",
    "Compress",
    "Cors",
    "DiskTier",
    "HealthCheck",
    "KeepAlive",
    "Key",
    "Limits",
    "Logs",
    "Mirror",
    "Pool",
    "Redirects",
    "Redis",
    "RedisTier",
    "Retry",
    "Route",
    "Segments",
    "Server",
    "Settings",
    "Sockets",
    "Timeouts",
    "Tls",
    "Upstream",
]


class RedisTier(Row):
    max_object: Size = Field(1024**2, le=16 * 1024**2, description="Largest object kept in the shared store.")
    max_entries: Whole = Field(10000, ge=0, description="Most objects kept there, over all machines; the oldest go.")


class DiskTier(Row):
    path: Text = Field("var/cache", description="Folder of the disk tier.", json_schema_extra=ROLLING)
    size: Size = Field(10 * 1024**3, description="Bytes it may take.", json_schema_extra=LIVE)
    min_free: Size = Field(
        256 * 1024**2,
        description="Bytes of its file system that stay free; below, it stores nothing.",
        json_schema_extra=LIVE,
    )
    scrub: Size = Field(
        4 * 1024**2,
        description="Bytes a second re-read in the background to find damage; 0 = never.",
        json_schema_extra=LIVE,
    )


class Cache(Row):
    """What is kept of answers, and where."""

    block: Annotated[Size, Ge(64 * 1024), Le(16 * 1024**2)] = Field(
        1024**2, description="Unit of caching, integrity and repair.", json_schema_extra=ROLLING
    )
    memory: Size = Field(
        256 * 1024**2, description="Memory tier of the whole machine, divided by the workers; 0 = none."
    )
    memory_check: Positive = Field(10.0, description="How often memory pressure is looked at.")
    window: Annotated[Size, Ge(256 * 1024)] = Field(
        8 * 1024**2, description="How far ahead of its fastest reader a fill may run, and what it holds at most."
    )
    fill_after_abort: Size = Field(
        4 * 1024**2, description="A fill that nobody waits for any more goes on when at most this much is missing."
    )
    redis: Annotated[Annotated[RedisTier, Tag("group")] | Annotated[Off, Tag("off")], OrOff] = Field(
        RedisTier(), description="Small objects in the shared store, or `off`."
    )
    disk: Annotated[Annotated[DiskTier, Tag("group")] | Annotated[Off, Tag("off")], OrOff] = Field(
        DiskTier(), description="Blocks on disk, or `off`.", json_schema_extra=ROLLING
    )


class Redis(Row):
    url: str = Field(
        "embedded",
        description="embedded, off, redis://, rediss:// or unix:// of the store that machines share.",
        json_schema_extra=ROLLING | SECRET,
    )
    secret: Text | None = Field(
        None,
        description="Key that proves records of the shared store genuine, one for all machines; null = one is made.",
        json_schema_extra=ROLLING | SECRET,
    )
    pool: Whole = Field(150, ge=1, description="Most connections a worker opens to it.")
    timeout: Positive = Field(0.05, description="Longest wait for it; it is never required.")

    @field_validator("url", mode="before")
    @classmethod
    def _known(cls, url: object) -> object:
        if url is False:
            return "off"
        if isinstance(url, str) and url not in ("embedded", "off"):  # no error may show it: it can hold a password
            try:
                parts = urlsplit(url)
                whole = bool(parts.path if parts.scheme == "unix" else parts.hostname) and parts.port != 0
            except ValueError:
                raise ValueError("the host or port of the URL is not valid") from None
            if parts.scheme not in ("redis", "rediss", "unix"):
                raise ValueError("must be embedded, off, or start with redis://, rediss:// or unix://")
            if not whole:
                raise ValueError("the URL must name a host, or with unix:// the path of a socket")
        return url


class Logs(Row):
    access: Text = Field("logs/access.log", description="A file, `stdout` or `off`: one JSON line a request.")
    error: Text = Field("logs/error.log", description="A file, `stdout` or `stderr`: JSON lines of what went wrong.")
    audit: Text = Field("logs/audit.log", description="A file, `stdout` or `off`: one JSON line for each admin call.")
    level: Literal["debug", "info", "warning", "error", "critical"] = Field(
        "info", description="Least severe line that is written."
    )


# The upstream that serves everything when no route says otherwise; with no upstream configured, the embedded origin.
EMBEDDED = "files"


class Settings(Row):
    """The whole configuration: one immutable generation of it."""

    profile: Literal["optimized", "baseline"] = Field(
        "optimized", description="baseline = the old, smaller constants and plain sockets, to compare with."
    )
    server: Server = Field(Server(), description="Where and how clients are served.")
    limits: Limits = Field(Limits(), description="What one client or worker may use up.")
    upstreams: dict[
        Annotated[
            str,
            Meaning("a name of 1 to 64 letters, digits, _ or -"),
            StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$"),
        ],
        Upstream,
    ] = Field({}, description="Pools of servers that hold the same files, by name. Empty = the embedded origin.")
    routes: list[Route] = Field(
        [], description="Which upstream serves what. Empty = everything from the only (or the one named files)."
    )
    cache: Cache = Field(Cache(), description="What is kept of answers, and where.")
    redis: Redis = Field(
        Redis(), description="The store that machines share; never required.", json_schema_extra=ROLLING
    )
    logs: Logs = Field(Logs(), description="Where log lines go.")

    @model_validator(mode="after")
    def _routes_lead_somewhere(self) -> Settings:
        problems: list[tuple[str, str]] = []
        known = list(self.upstreams) or [EMBEDDED]
        seen: dict[tuple[str, str], int] = {}
        for number, route in enumerate(self.routes):
            if route.upstream not in known:
                problems.append(
                    (f"routes.{number}.upstream", f"there is no upstream {route.upstream!r}; known: {', '.join(known)}")
                )
            for host in route.hosts or [""]:
                first = seen.setdefault((host, route.path), number)
                if first != number:
                    which = f"path {route.path}" + (f" and host {host}" if host else "")
                    problems.append((f"routes.{number}", f"routes.{first} already serves {which}"))
        if not self.routes and len(known) > 1 and EMBEDDED not in known:
            problems.append(("routes", f"several upstreams, none named {EMBEDDED}: routes must say which serves what"))
        if problems:
            raise Contradiction(*problems)
        return self


# What `auto` means in each profile (sources.md's table: optimized, and the older values as the baseline).
PROFILES: dict[str, dict[str, float]] = {
    "optimized": {
        "limit": 200, "per_host": 50, "keepalive": 60.0, "dns_cache": 600.0, "buffer": 131072, "connect": 15.0,
    },
    "baseline": {
        "limit": 100, "per_host": 30, "keepalive": 30.0, "dns_cache": 500.0, "buffer": 65536, "connect": 8.0,
    },
}  # fmt: skip
