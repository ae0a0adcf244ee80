"""Parts that are asked for while the first answer for their file is still on its way.

Who wants another part than the first ask must not wait for two answers one after the other. Nothing is known of the
file yet, so each is a contact like the first; when that has made the entry, a flight takes over what joins it under
law 1. What does not is closed, and fetched as if it had never been asked for early.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from fileproxy.cache.key import variant_key
from fileproxy.errors import FileProxyError
from fileproxy.fill.entry import Entry, Shared
from fileproxy.fill.flight import Flight
from fileproxy.fill.join import Joins, judge
from fileproxy.fill.values import Contacted, Need
from fileproxy.http.ranges import RangeSpec
from fileproxy.model import Body, Meta

MOST = 64  # of one contact: a crowd at random places of 100 MiB takes 25 to 40


class Early:
    """Bytes ``first`` to ``end`` (exclusive), asked for at once. Either ``joined`` or ``close`` ends it."""

    def __init__(self, shared: Shared, need: Need, first: int, end: int) -> None:
        self.need = need
        self.first = first
        self.end = end
        self._shared = shared
        self._task: asyncio.Task[Contacted | None] = shared.tasks.start(self._ask(), "early")

    async def _ask(self) -> Contacted | None:
        spec = RangeSpec(self.first, self.end - 1)
        try:
            return await self.need.source.contact(replace(self.need, ranges=(spec,)), spec, None)
        except FileProxyError:
            return None  # whoever needs it asks again

    async def joined(self, meta: Meta) -> Body | None:
        """The body, if its bytes belong to ``meta``."""
        try:
            await asyncio.wait((self._task,))
        except BaseException:
            self.close()
            raise
        contacted = None if self._task.cancelled() else self._task.result()
        if contacted is None or contacted.answer is None:
            return None
        if self._belongs(meta, contacted):
            return contacted.answer.body
        await contacted.answer.body.aclose()
        return None

    def _belongs(self, meta: Meta, contacted: Contacted) -> bool:
        found, answer = contacted.meta, contacted.answer
        if found is None or answer is None or contacted.offset != self.first:
            return False
        if found.rid == meta.rid:
            return True  # the worker that owns the key says so
        now = self._shared.clock.time()
        verdict = judge(meta, answer.status, answer.headers, answer.body.length, self.first, self.end - 1, now)
        return isinstance(verdict, Joins)

    def close(self) -> None:
        """Nobody wants it."""
        if not self._task.done():
            self._task.cancel()
        elif not self._task.cancelled() and (found := self._task.result()) is not None and found.answer is not None:
            self._shared.tasks.start(found.answer.body.aclose(), "close")


def join(early: list[Early], entry: Entry, vary: tuple[str, ...]) -> list[Early]:
    """Let flights of the new entry take over what was asked for. Returns what is left, for the caller to close."""
    meta = entry.meta
    left = []
    for one in early:
        key = variant_key(one.need.primary, vary, one.need.headers) if vary else one.need.key
        here = one.first // meta.block in entry.held or entry.flight_for(one.first) is not None
        if not meta.pinned or one.first >= meta.size or key != meta.key or here:
            left.append(one)
            continue
        flight = Flight(entry, one.need, one.first, min(one.end, meta.size))
        entry.early[flight] = one
        entry.launch(flight)
    return left
