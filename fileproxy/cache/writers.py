"""What is written below memory, in the background.

Jobs of one key run in one lane, in order. Blocks that follow each other and wait in a lane are written together: a
thread gets little time of a busy worker's interpreter, and one job takes as much of it for eight blocks as for one. Two
such runs may be under way, so that no thread of the disk waits until a busy loop hands it the next one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from fileproxy.model import Bytes, Meta
from fileproxy.tasks import Tasks

MOST_TOGETHER = 8 * 1024 * 1024  # bytes of one write; a slow disk must get it done in time
AT_ONCE = 2  # runs of blocks of one lane, each with a thread
WORTH_SECOND = 4  # waiting blocks; fewer are better written with those that are still to come
LANES = 4
Job = Callable[[], Awaitable[object]]
Lost = Callable[[int], None]


@dataclass(slots=True, eq=False)
class Waiting:
    """A block on its way to disk. ``large``: where it does not get there, memory may have room for it; ``lost`` is told
    its index when nothing has.
    """

    meta: Meta
    index: int
    data: Bytes
    large: bool
    lost: Lost

    def whole(self) -> bytes:
        """For readers: they share what was a view before."""
        if not isinstance(self.data, bytes):
            self.data = bytes(self.data)
        return self.data

    def follows(self, before: Waiting) -> bool:
        """Whether it is the next block of the same file: with the last one of a chunked body its size became known."""
        one, other = self.meta, before.meta
        return one.rid == other.rid and one.size == other.size and self.index == before.index + 1


@dataclass(slots=True, eq=False)
class _Lane:
    """What waits for its turn, and how much is under way: one job, or up to ``AT_ONCE`` runs of blocks."""

    waiting: deque[Job | Waiting] = field(default_factory=deque)
    running: int = 0
    due: bool = False  # the next one begins soon
    writes: bool = False  # what runs are blocks

    def may_begin(self) -> bool:
        """Whether what waits first may begin now."""
        if self.due or not self.waiting:
            return False
        if not self.running:
            return True
        second = self.writes and self.running < AT_ONCE and len(self.waiting) >= WORTH_SECOND
        return second and isinstance(self.waiting[0], Waiting)


class Writers:
    """``write`` stores blocks that follow each other; several at once only where there may be ``runs`` of them."""

    def __init__(self, tasks: Tasks, write: Callable[[list[Waiting]], Awaitable[object]], *, runs: bool) -> None:
        self._tasks = tasks
        self._write = write
        self._together = MOST_TOGETHER if runs else 0
        self._lanes = [_Lane() for _ in range(LANES)]
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def submit(self, key: bytes, job: Job | Waiting) -> None:
        """Do this when all that was submitted for the key before is done."""
        lane = self._lanes[key[0] % LANES]
        lane.waiting.append(job)
        if lane.may_begin():
            self._start(lane)

    async def settle(self) -> None:
        """Wait until all that was submitted is done."""
        await self._idle.wait()

    def _start(self, lane: _Lane) -> None:
        """Soon: what follows in this turn of the loop may be written together with it."""
        lane.due = True
        self._running += 1
        self._idle.clear()
        asyncio.get_running_loop().call_soon(self._begin, lane)

    def _begin(self, lane: _Lane) -> None:
        lane.due = False
        self._tasks.start(self._work(lane, self._take(lane)), "store writer")

    async def _work(self, lane: _Lane, job: Job) -> None:
        try:
            while True:
                try:
                    await job()
                finally:
                    lane.running -= 1
                if not lane.may_begin():
                    return
                job = self._take(lane)
        except Exception:  # a mistake of a tier: it is told, and the rest of the lane goes on
            if lane.may_begin():
                self._start(lane)
            raise
        finally:
            self._running -= 1
            if self._running == 0:
                self._idle.set()

    def _take(self, lane: _Lane) -> Job:
        """What is done next in a lane: a job, or the writing of all blocks at its front that are written at once."""
        lane.running += 1
        first = lane.waiting.popleft()
        lane.writes = isinstance(first, Waiting)
        if not isinstance(first, Waiting):
            return first
        blocks, left = [first], self._together - len(first.data)
        while lane.waiting:
            block = lane.waiting[0]
            if not isinstance(block, Waiting) or not block.follows(blocks[-1]) or len(block.data) > left:
                break
            blocks.append(block)
            left -= len(block.data)
            lane.waiting.popleft()
        return partial(self._write, blocks)
