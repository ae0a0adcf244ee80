"""A limit of bytes a second that all connections of a client share."""

from __future__ import annotations

from fileproxy.clock import Clock

BURST_S = 0.1  # so much may be caught up after a pause


class RateLimit:
    """Whoever took bytes waits until they are paid for (a leaky bucket; GCRA, ITU-T I.371)."""

    def __init__(self, bytes_per_s: int, clock: Clock) -> None:
        self.bytes_per_s = bytes_per_s
        self._clock = clock
        self._paid_until = clock.now()

    def charge(self, amount: int) -> float:
        """Book ``amount`` bytes; seconds to wait before the next may be taken."""
        now = self._clock.now()
        self._paid_until = max(self._paid_until, now - BURST_S) + amount / self.bytes_per_s
        return max(0.0, self._paid_until - now)

    async def take(self, amount: int) -> None:
        if (wait_s := self.charge(amount)) > 0:
            await self._clock.sleep(wait_s)
