"""Whether the disk tier is well. When it is not, it is looked at again every few seconds until it is (law 9)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fileproxy.clock import Clock
from fileproxy.tasks import Tasks

RETRY_S = 3.0


class DiskHealth:
    """``detail`` says what is wrong (empty: nothing). While ``stalled`` the disk is not even asked to read.

    ``probe()`` tries the disk and returns what is wrong; ``on_problem(detail)`` is told at every change.
    """

    def __init__(
        self, clock: Clock, tasks: Tasks, probe: Callable[[], Awaitable[str]], on_problem: Callable[[str], None]
    ) -> None:
        self.detail = ""
        self.stalled = False
        self._clock, self._tasks, self._probe, self._on_problem = clock, tasks, probe, on_problem
        self._reviver: asyncio.Task[Any] | None = None
        self._closed = False

    def report(self, detail: str, *, stalled: bool = False) -> None:
        """Something went wrong. The first sentence stands until the disk was tried again."""
        self.stalled = self.stalled or stalled
        if not self.detail:
            self._turn(detail)
        if not self._closed and (self._reviver is None or self._reviver.done()):
            self._reviver = self._tasks.start(self._bring_back(), "disk: bring back")

    async def close(self) -> None:
        """Stop trying."""
        self._closed = True
        if self._reviver is not None:
            self._reviver.cancel()
            await asyncio.wait([self._reviver])

    async def _bring_back(self) -> None:
        while self.detail:
            await self._clock.sleep(RETRY_S)
            why = await self._probe()
            self.stalled = self.stalled and bool(why)
            self._turn(why)

    def _turn(self, detail: str) -> None:
        if detail != self.detail:
            self.detail = detail
            self._on_problem(detail)
