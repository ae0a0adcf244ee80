"""Parts of one representation, asked of an upstream: only what joins under law 1 comes back."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from fileproxy.clock import Clock
from fileproxy.errors import BadAnswer, FileChanged
from fileproxy.fill.insist import pauses_s
from fileproxy.fill.join import Differs, if_range, judge
from fileproxy.model import Answer, Body, Headers, Meta, Want


class Fetcher(Protocol):
    """An upstream: retries and mirrors are its business."""

    async def fetch(self, want: Want) -> Answer: ...


class NoParts(BadAnswer):
    """The origin sends the whole file where a part was asked for."""


class Parts:
    """Asks for parts of the file that ``meta`` names.

    Args:
        want: a GET of the whole file, without conditions and ranges.
        size_and_time: mirrors whose ETags differ hold the same bytes where size and Last-Modified are equal.
    """

    def __init__(self, upstream: Fetcher, want: Want, meta: Meta, clock: Clock, *, size_and_time: bool) -> None:
        self.meta = meta
        self._upstream = upstream
        self._want = want
        self._clock = clock
        self._size_and_time = size_and_time
        self._others: frozenset[str] = frozenset()  # mirrors that were seen to hold another version

    async def ask(
        self, first: int, end: int, *, avoid: frozenset[str] = frozenset(), whole: bool = True
    ) -> tuple[Body, int]:
        """A body that holds bytes from ``first`` on to at most ``end`` (exclusive), after as many to skip as is said.

        Args:
            avoid: mirrors that are asked only when there is no other.
            whole: the whole file will do, too: what comes before ``first`` is then skipped.

        Raises:
            UpstreamError: FileChanged when the file is another one now; NoParts; whatever the upstream raises.
        """
        validator = if_range(self.meta, size_and_time=self._size_and_time)
        conditions: Headers = (("Range", f"bytes={first}-{end - 1}"),)
        if validator is not None:
            conditions += (("If-Range", validator),)
        headers = (*self._want.headers, *conditions)
        pauses = pauses_s()
        while True:
            answer = await self._upstream.fetch(replace(self._want, headers=headers, avoid=avoid | self._others))
            try:
                return await self._joined(answer, first, end, whole=whole)
            except FileChanged:
                if (pause_s := next(pauses, None)) is None:
                    raise
                self._others |= {answer.mirror}  # another mirror may still hold it
            await self._clock.sleep(pause_s)

    async def _joined(self, answer: Answer, first: int, end: int, *, whole: bool) -> tuple[Body, int]:
        joins = judge(
            self.meta,
            answer.status,
            answer.headers,
            answer.body.length,
            first,
            end - 1,
            self._clock.time(),
            size_and_time=self._size_and_time,
        )
        if not isinstance(joins, Differs) and (whole or answer.status == 206):
            return answer.body, joins.skip
        await answer.body.aclose()
        if not isinstance(joins, Differs):
            raise NoParts("The upstream sends the whole file where a part was asked for.", retryable=False)
        if joins.changed:
            raise FileChanged(f"The file changed while it was being fetched: {joins.reason}.")
        raise BadAnswer(f"The upstream's answer cannot be joined: {joins.reason}.")
