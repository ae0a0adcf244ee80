"""The workers of this machine that own keys: each holds a locked slot and listens on a socket of its own.

The kernel frees a slot at its holder's death. A worker that drains frees it first, and goes on answering who still
asks. Socket paths are short (``/proc/self/fd/N/…``), because a Unix address holds about a hundred bytes and run folders
may be deeper.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from fileproxy.clock import Clock
from fileproxy.fill.owner import owner_of

LOOK_EVERY_S = 1.0
SHUN_S = 10.0  # a worker that hung owns nothing for so long
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Held(Protocol):
    """A held slot."""

    @property
    def number(self) -> int: ...

    def release(self) -> None: ...


class Locks(Protocol):
    """The slots of all workers (``observe/slots.py``)."""

    def claim(self) -> Held: ...

    def held(self) -> frozenset[int]: ...


class WorkerOwners:
    """Who owns what, seen from one worker. Until ``open`` and after ``release`` it owns nothing by itself."""

    def __init__(self, folder: Path, locks: Locks, clock: Clock) -> None:
        self._folder = folder
        self._locks = locks
        self._clock = clock
        self._slot: Held | None = None
        self._owning = True
        self._directory = -1
        self._server: asyncio.Server | None = None
        self._held: frozenset[int] = frozenset()
        self._looked_at = float("-inf")
        self._changed_ns = 0  # of the folder: who joins makes a socket in it
        self._shunned: dict[int, float] = {}  # slot → until when

    async def open(self, serve: Serve) -> None:
        """Listen, and claim a slot. OSError when the folder cannot be used: then this worker fetches for itself."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._slot = self._locks.claim()
        name = f"{self._slot.number}.sock"
        try:
            (self._folder / name).unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(serve, self._path(name), backlog=1024)
            os.chmod(self._folder / name, 0o600)
        except BaseException:
            self._slot.release()  # nobody could reach us
            self._slot = None
            raise

    def owner(self, key: bytes) -> int | None:
        """The slot of another worker that owns the key; None when it is this one, or nobody does."""
        if self._clock.now() - self._looked_at >= LOOK_EVERY_S or self._joined():
            self._look()
        slot = owner_of(key, self._held)
        return None if self._owning and self._slot is not None and slot == self._slot.number else slot

    def _joined(self) -> bool:
        """Whether a worker has joined since the last look: two must not take themselves for the owner meanwhile."""
        return self._directory >= 0 and os.fstat(self._directory).st_mtime_ns != self._changed_ns

    def lost(self, slot: int, *, hangs: bool = False) -> None:
        """An owner could not be reached: look again at the next question. One that hangs owns nothing for a while."""
        if hangs:
            self._shunned[slot] = self._clock.now() + SHUN_S
        self._looked_at = float("-inf")

    def _look(self) -> None:
        now = self._looked_at = self._clock.now()
        if self._directory >= 0:
            self._changed_ns = os.fstat(self._directory).st_mtime_ns
        self._shunned = {slot: until for slot, until in self._shunned.items() if until > now}
        try:
            held = self._locks.held() if self._slot is not None else frozenset()
        except OSError:
            held = frozenset()
        self._held = held - self._shunned.keys()

    async def connect(self, slot: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the owner in this slot. OSError when it is gone."""
        return await asyncio.open_unix_connection(self._path(f"{slot}.sock"), limit=2**18)

    def _path(self, name: str) -> str:
        short = f"/proc/self/fd/{self._directory}/{name}"
        return short if os.path.isdir(f"/proc/self/fd/{self._directory}") else str(self._folder / name)

    def statistics(self) -> dict[str, object]:
        """For ``/health``: this worker's slot, and all that are held."""
        return {"slot": None if self._slot is None else self._slot.number, "held": sorted(self._held)}

    def release(self) -> None:
        """Own nothing from now on: new keys go to the others (the worker drains)."""
        if self._slot is not None and self._owning:
            self._owning = False  # the number may be another worker's from now on
            self._slot.release()
            self._looked_at = float("-inf")

    async def close(self) -> None:
        self.release()
        if self._server is not None:
            self._server.close()
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1
