"""What ``auto`` means. Pure: the profile, or what the caller found out about the machine, goes in as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

from fileproxy.settings.schema import PROFILES, Balance, CircuitBreaker, Limits, Pool, Sockets, Timeouts

Profile = Literal["optimized", "baseline"]
Number = TypeVar("Number", int, float)

STALL_S = 10.0
IDLE_S = 60.0
OWN_DESCRIPTORS = 256  # kept back for logs, pages, listeners, libraries and the shared store
FEWEST_CONNECTIONS = 16


@dataclass(frozen=True, slots=True)
class ResolvedPool:
    """The pool of one upstream in one worker: connections, seconds, bytes."""

    limit: int
    per_host: int
    keepalive: float
    dns_cache: float
    buffer: int
    happy_eyeballs: float | Literal["off"]


@dataclass(frozen=True, slots=True)
class ResolvedTimeouts:
    """Seconds to wait for what."""

    connect: float
    first_byte: float
    stall: float
    idle: float


def pool(profile: Profile, pool: Pool) -> ResolvedPool:
    """The connector's values; ``auto`` is the profile's."""
    usual = PROFILES[profile]
    return ResolvedPool(
        limit=_or(pool.limit, int(usual["limit"])),
        per_host=_or(pool.per_host, int(usual["per_host"])),
        keepalive=_or(pool.keepalive, usual["keepalive"]),
        dns_cache=_or(pool.dns_cache, usual["dns_cache"]),
        buffer=_or(pool.buffer, int(usual["buffer"])),
        happy_eyeballs=pool.happy_eyeballs,
    )


def timeouts(profile: Profile, timeouts: Timeouts) -> ResolvedTimeouts:
    """The waits; ``auto`` of ``connect`` is the profile's."""
    return ResolvedTimeouts(
        connect=_or(timeouts.connect, PROFILES[profile]["connect"]),
        first_byte=timeouts.first_byte,
        stall=_or(timeouts.stall, STALL_S),
        idle=_or(timeouts.idle, IDLE_S),
    )


def sockets(profile: Profile, sockets: Sockets) -> Sockets | None:
    """The TCP options to apply, or None: the baseline's sockets stay as the system makes them."""
    return None if profile == "baseline" else sockets


def parallel(profile: Profile, parallel: int | Literal["auto", "off"]) -> int | Literal["auto", "off"]:
    """Connections of one download; the baseline has one."""
    return "off" if profile == "baseline" else parallel


def breaker(profile: Profile, breaker: CircuitBreaker | Literal["off"]) -> CircuitBreaker | Literal["off"]:
    """The breaker's settings; the baseline has none."""
    return "off" if profile == "baseline" else breaker


def limit(profile: Profile, limit: Literal["auto", "off"] | int) -> Literal["auto", "off"] | int:
    """A limit of requests to an upstream; the baseline has none that adapts."""
    return "off" if profile == "baseline" and limit == "auto" else limit


def balance(profile: Profile, balance: Balance) -> Balance:
    """How mirrors are chosen; the baseline knows nothing that adapts."""
    adapts = balance in ("fastest_response", "resource_based")
    return "weighted_round_robin" if profile == "baseline" and adapts else balance


def connections(limits: Limits, descriptors: int) -> int:
    """Client connections a worker holds at most.

    Args:
        descriptors: the soft limit of open files (RLIMIT_NOFILE). A download takes two: the client's and a mirror's.
    """
    return _or(limits.connections, max(FEWEST_CONNECTIONS, (descriptors - OWN_DESCRIPTORS) // 2))


def _or(value: Number | Literal["auto"], automatic: Number) -> Number:
    return automatic if isinstance(value, str) else value
