"""Addresses of the mirrors' names: kept for ``pool.dns_cache``, and all of them used.

Rules:

1. New connections take turns over a name's addresses. Those of one family stay together, in the order of the families
   that the system gives (RFC 6724), so that the connector's happy eyeballs (RFC 8305) still have their head start.
2. An address that another one overtook while both were being connected to (it refused, or was silent for longer than
   ``happy_eyeballs``) is tried last for ``LAME_S``.
3. While a name cannot be resolved for want of an answer, its old addresses serve on, for up to ``STALE_S`` (RFC 8767);
   an answer that there is no such name counts at once.
4. Many that ask for one name at once wait for one look-up.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import groupby

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

LAME_S = 30.0
STALE_S = 3600.0
AGAIN_S = 5.0  # an old answer is used this long before the resolver is asked again
MOST = 1000  # names, and lame addresses, that are remembered

# What the connection that is being opened in this task has tried so far, in order.
_TRIED: ContextVar[list[str] | None] = ContextVar("tried", default=None)


@dataclass(slots=True)
class _Known:
    """What is known of one name. ``turn``: connections that were given its addresses."""

    addresses: list[ResolveResult] = field(default_factory=list)
    resolved_at: float = 0.0
    fresh_until: float = -1.0
    turn: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


def arranged(addresses: Sequence[ResolveResult], turn: int, lame: Callable[[str], bool]) -> list[ResolveResult]:
    """The addresses in the order in which connection number ``turn`` tries them (rules 1 and 2). Pure."""
    order: list[ResolveResult] = []
    families = sorted(addresses, key=lambda one: [other["family"] for other in addresses].index(one["family"]))
    for _, group in groupby(families, key=lambda one: one["family"]):
        some = list(group)
        start = turn % len(some)
        order += some[start:] + some[:start]
    return sorted(order, key=lambda one: lame(one["host"]))


class Names(AbstractResolver):
    """The resolver of one connector, which then needs no cache of its own.

    Args:
        timeout_s: a look-up is given up after this time (getaddrinfo knows none).
        keep_s: an answer is used this long; 0 = once.
        now: monotonic seconds.
    """

    def __init__(self, *, timeout_s: float, keep_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._system = aiohttp.ThreadedResolver()
        self._timeout_s = timeout_s
        self._keep_s = keep_s
        self._now = now
        self._known: dict[tuple[str, int, int], _Known] = {}
        self._lame: dict[str, float] = {}  # until when

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The name's addresses, in the order in which they are to be tried now. Raises OSError when there is none."""
        known = self._known.get((host, port, family))
        if known is None:
            while len(self._known) >= MOST:
                del self._known[next(iter(self._known))]
            known = self._known[host, port, family] = _Known()
        if self._keep_s <= 0:
            known.addresses = await self._ask(host, port, family)
        elif self._now() >= known.fresh_until:
            async with known.lock:
                if self._now() >= known.fresh_until:
                    await self._renew(known, host, port, family)
        known.turn += 1
        _TRIED.set([])
        return arranged(known.addresses, known.turn - 1, self._is_lame)

    async def _renew(self, known: _Known, host: str, port: int, family: socket.AddressFamily) -> None:
        try:
            known.addresses = await self._ask(host, port, family)
        except OSError as error:
            gone = isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME
            if gone or not known.addresses or self._now() >= known.resolved_at + self._keep_s + STALE_S:
                known.addresses = []
                raise
            known.fresh_until = self._now() + min(AGAIN_S, self._keep_s)
            return
        known.resolved_at = self._now()
        known.fresh_until = known.resolved_at + self._keep_s

    async def _ask(self, host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._system.resolve(host, port, family)
        except TimeoutError as error:
            raise OSError(None, f"no answer within {self._timeout_s:g} s") from error

    # --- which addresses are dead ------------------------------------------------------------------------------------

    def trying(self, address: str) -> None:
        """The connection that is being opened in this task begins with another address."""
        tried = _TRIED.get()
        if tried is not None:
            tried.append(address)

    def connected(self, address: str) -> None:
        """It is open: what it tried before this address was no good."""
        tried = _TRIED.get()
        _TRIED.set(None)
        self._lame.pop(address, None)
        if tried is None or address not in tried:
            return
        until = self._now() + LAME_S
        for one in tried[: tried.index(address)]:
            self._lame[one] = until
        while len(self._lame) > MOST:
            del self._lame[next(iter(self._lame))]

    def _is_lame(self, address: str) -> bool:
        return self._now() < self._lame.get(address, 0.0)

    def describe(self) -> dict[str, dict[str, str]]:
        """Each name's addresses as last resolved: ``ok``, or ``failing`` when they are tried last."""
        return {
            host: {one["host"]: "failing" if self._is_lame(one["host"]) else "ok" for one in known.addresses}
            for (host, _, _), known in self._known.items()
        }

    async def close(self) -> None:
        await self._system.close()
