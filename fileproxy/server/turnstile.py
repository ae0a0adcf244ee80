"""Whose turn it is to send: the loop's time, shared among a crowd of downloads.

A download that has sent its share steps back behind the others. Of those that wait a few go on in each round of the
loop: between two rounds it reads what origins and other workers send, and begins new answers, so the more downloads run
the more it matters that a round stays short. With few downloads nobody waits longer than one round.
"""

from __future__ import annotations

import asyncio
from collections import deque

TURN = 1024 * 1024  # bytes a download may send before others get their turn
ROUND = 8  # downloads that go on in one round: of TURN bytes each a few milliseconds
CROWD = 16
FEW = 4


class Turnstile:
    """Of one worker. ``downloads`` is how many run now."""

    def __init__(self) -> None:
        self.downloads = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._turning = False

    @property
    def crowded(self) -> bool:
        return self.downloads > CROWD

    @property
    def share(self) -> int:
        """Bytes of a turn that is sent past the transport: each costs as much as sending a quarter of a MiB."""
        return 4 * TURN if self.downloads <= FEW else TURN

    async def next(self) -> None:
        """Wait for the next turn: one round of the loop at least."""
        loop = asyncio.get_running_loop()
        mine = loop.create_future()
        self._waiting.append(mine)
        if not self._turning:
            self._turning = True
            loop.call_soon(self._turn)
        await mine

    def _turn(self) -> None:
        admitted = 0
        while self._waiting and admitted < ROUND:
            one = self._waiting.popleft()
            if not one.done():  # else its download has ended
                one.set_result(None)
                admitted += 1
        self._turning = bool(self._waiting)
        if self._turning:
            asyncio.get_running_loop().call_soon(self._turn)
