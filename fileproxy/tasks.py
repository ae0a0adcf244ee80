"""The only place that calls ``create_task``: every task has a name, an owner and an end that somebody learns of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

CANCEL_AGAIN_S = 1.0
OnFailure = Callable[[str, BaseException], None]


class Tasks:
    """The tasks one owner started. Closing cancels and awaits what still runs.

    ``on_failure(name, error)`` is told of every task that ended with an exception nobody awaited.
    """

    def __init__(self, on_failure: OnFailure) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._on_failure = on_failure

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run ``work`` as a named task of this owner."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def __len__(self) -> int:
        return len(self._running)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_failure(task.get_name(), error)

    async def close(self) -> None:
        """Cancel everything and wait until it has ended.

        Again each second: a library may take a cancellation for a time-out of its own, and go on.
        """
        while running := list(self._running):
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=CANCEL_AGAIN_S)
