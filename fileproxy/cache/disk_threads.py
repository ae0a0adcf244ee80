"""The threads that wait for the disk, so that the event loop never does (law 5)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

READERS = 4
WRITERS = 2
T = TypeVar("T")


class DiskThreads:
    """Readers share a queue. Each writer has its own: what is handed to one writer happens in that order.

    Chores and syncs, which may take long, delay neither.
    """

    def __init__(self) -> None:
        self.read = ThreadPoolExecutor(READERS, thread_name_prefix="disk-read")
        self.chore = ThreadPoolExecutor(1, thread_name_prefix="disk-chore")
        self.sync = ThreadPoolExecutor(1, thread_name_prefix="disk-sync")
        self._writers = [ThreadPoolExecutor(1, thread_name_prefix=f"disk-write{n}") for n in range(WRITERS)]

    def writer(self, number: int) -> ThreadPoolExecutor:
        """Always the same one for the same number."""
        return self._writers[number % WRITERS]

    async def run(
        self,
        pool: ThreadPoolExecutor,
        work: Callable[[], T],
        patience_s: float,
        *,
        discard: Callable[[T], None] | None = None,
        ended: Callable[[], None] | None = None,
    ) -> T:
        """What ``work`` returns or raises; TimeoutError (an OSError) when it takes longer than ``patience_s``.

        It is not interrupted then, nor when the caller is cancelled: ``discard`` gets what it returns in the end, and
        ``ended`` is called once it has ended, whatever happened.
        """
        future = asyncio.get_running_loop().run_in_executor(pool, work)
        if ended is not None:
            future.add_done_callback(lambda _: ended())
        taken = False
        try:
            await asyncio.wait((future,), timeout=patience_s)
            if not future.done():
                raise TimeoutError
            taken = True
            return future.result()
        finally:
            if not taken:
                future.add_done_callback(partial(_discard, discard))

    def close(self) -> None:
        """Let the threads end; one that hangs is not waited for."""
        for pool in (self.read, self.chore, self.sync, *self._writers):
            pool.shutdown(wait=False, cancel_futures=True)


def _discard(discard: Callable[[Any], None] | None, future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and future.exception() is None and discard is not None:
        discard(future.result())
