"""The client of the shared store: the Redis-compatible server that all machines use, and none needs (law 9).

Laws kept here:

* No caller waits longer than ``redis.timeout``, and after a failure none waits at all: the circuit opens, one
  background task pings with growing pauses, and closes the circuit when the server answers again.
* Nothing raises to a caller: what could not be had is None, and counted (``shared.failures``).
* Keys begin with ``fileproxy:``. Values are MessagePack after a version byte; what another version or somebody else
  wrote decodes to None. Nothing is ever unpickled (law 10).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar

import msgspec
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MaxConnectionsError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from fileproxy.clock import Clock
from fileproxy.model import Counters
from fileproxy.settings.show import masked
from fileproxy.tasks import Tasks

PREFIX = "fileproxy:"
VERSION = b"\x01"
LARGEST_VALUE_BYTES = 64 * 1024 * 1024
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0

State = Literal["ok", "down", "off"]
T = TypeVar("T")


def encode(value: object) -> bytes:
    """A value as it is stored."""
    return VERSION + msgspec.msgpack.encode(value)


def decode(data: object, kind: type[T]) -> T | None:
    """What ``encode`` stored, or None when these bytes are not a ``kind`` of this version."""
    if not isinstance(data, bytes) or data[:1] != VERSION or len(data) > LARGEST_VALUE_BYTES:
        return None
    try:
        return msgspec.msgpack.decode(memoryview(data)[1:], type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


class SharedStore:
    """A connection pool with a circuit breaker.

    ``url`` is ``off`` or a redis://, rediss:// or unix:// URL (whoever started an embedded server put its URL here).
    ``on_change(state, why)`` is told when it goes down or comes back.
    """

    def __init__(
        self,
        url: str,
        *,
        pool: int,
        timeout_s: float,
        counters: Counters,
        clock: Clock,
        tasks: Tasks,
        on_change: Callable[[State, str], None] = lambda state, why: None,
    ) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._counters = counters
        self._clock = clock
        self._tasks = tasks
        self._on_change = on_change
        self._state: State = "off" if url == "off" else "down"
        self._why = "" if url == "off" else "not asked yet"
        self._reviver: asyncio.Task[Any] | None = None
        self._redis: Redis | None = None if url == "off" else _client(url, pool, timeout_s)

    @property
    def state(self) -> State:
        """``ok``; ``down`` (configured, does not answer); ``off`` (none is configured)."""
        return self._state

    def describe(self) -> dict[str, object]:
        """For ``/health``: state, the URL without its password, and what is wrong."""
        return {"state": self._state, "url": masked(self._url, ("redis", "url")), "error": self._why or None}

    async def open(self) -> None:
        """Ask whether the server is there; waits at most the timeout. Afterwards it is looked after by itself."""
        if self._redis is not None and not await self._ping():
            self._revive()

    async def call(self, work: Callable[[Redis], Awaitable[T]]) -> T | None:
        """What ``work`` returns, or None when the store is off, down, late or refuses. Never raises for these."""
        if self._redis is None or self._state != "ok":
            return None
        try:
            async with asyncio.timeout(self._timeout_s):
                return await work(self._redis)
        except (RedisError, OSError, TimeoutError) as error:
            self._counters.add("shared.failures")
            if _lost(error) and self._state == "ok":
                self._turn("down", _sentence(error))
                self._revive()
        return None

    async def close(self) -> None:
        """Stop pinging and close the connections."""
        if self._reviver is not None:
            self._reviver.cancel()
            await asyncio.wait([self._reviver])
        if self._redis is not None:
            await self._redis.aclose(close_connection_pool=True)
            self._redis = None

    async def _ping(self) -> bool:
        assert self._redis is not None
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._redis.ping()
        except (RedisError, OSError, TimeoutError) as error:
            self._counters.add("shared.failures")
            self._why = _sentence(error)
            return False
        self._turn("ok", "")
        return True

    def _revive(self) -> None:
        if self._reviver is None or self._reviver.done():
            self._reviver = self._tasks.start(self._bring_back(), "shared store: bring back")

    async def _bring_back(self) -> None:
        pause = FIRST_PAUSE_S
        while True:
            await self._clock.sleep(pause)
            # Connections from before the failure may hold half an answer or a dead peer.
            if self._redis is None:
                return
            try:
                await self._redis.connection_pool.disconnect()
            except (RedisError, OSError, TimeoutError) as error:  # one that cannot even be closed: it is forgotten
                self._why = _sentence(error)
            if await self._ping():
                return
            pause = min(pause * 2, LONGEST_PAUSE_S)

    def _turn(self, state: State, why: str) -> None:
        self._why = why
        if state != self._state:
            self._state = state
            self._on_change(state, why)


def _client(url: str, pool: int, timeout_s: float) -> Redis:
    connections = ConnectionPool.from_url(
        url,
        max_connections=pool,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        driver_info=None,  # saves two round trips at each new connection
        client_name="fileproxy",
    )
    return Redis(connection_pool=connections)


def _lost(error: Exception) -> bool:
    """Is the server out of reach? A refused command or a pool in use says nothing about the next call."""
    if isinstance(error, MaxConnectionsError):
        return False
    return isinstance(error, RedisConnectionError | RedisTimeoutError | OSError | TimeoutError)


def _sentence(error: BaseException) -> str:
    return str(error) or type(error).__name__
