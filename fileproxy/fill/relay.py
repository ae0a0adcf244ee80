"""An answer for one client alone that survives its connection (law 1): it goes on at the next missing byte.

What nobody else may have, or nobody keeps, is no entry and has no flight. Where the answer has a strong validator and
a known length, a break inside its body is mended in the same way: the rest is asked for with Range and If-Range, from
whichever mirror, and joined only when it is shown to be of the same version.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import cast

from fileproxy.cache.freshness import CachePolicy
from fileproxy.cache.validation import CONDITIONS
from fileproxy.clock import Clock
from fileproxy.errors import Shed, Truncated, UpstreamError
from fileproxy.fill.flight import BARREN_MOST, pause_s
from fileproxy.fill.join import is_pinned
from fileproxy.fill.origin import OriginSource
from fileproxy.fill.values import Need, Span
from fileproxy.http.ranges import parse_content_range
from fileproxy.model import (
    Answer,
    Body,
    Counters,
    Meta,
    Piece,
    PipeSlice,
    Want,
    has_landed,
    header,
    is_piping,
    is_seekable,
    without,
)


def lasting(answer: Answer, want: Want, source: Callable[[], OriginSource], clock: Clock, counters: Counters) -> Answer:
    """``answer`` to ``want``, with a body that goes on after a break where that can be shown to be right.

    ``source`` makes the one that the rest is asked of.
    """
    if has_landed(answer.body):
        source().landed(answer.path)
        return answer
    span = _span(answer)
    if want.method != "GET" or span is None or not is_pinned(answer.headers, clock.time()):
        return answer
    first, length, size = span
    meta = Meta(
        key=b"",
        rid=b"",
        url=str(want.target),
        status=answer.status,
        reason=answer.reason,
        headers=answer.headers,
        size=size,
        block=1,
        pinned=True,
        requested_at=clock.time(),
        received_at=clock.time(),
        age_s=0.0,
    )
    plain = replace(want, headers=without(want.headers, CONDITIONS), on_interim=None)
    need = Need(primary=b"", key=b"", url=meta.url, headers=(), wanted=plain, policy=CachePolicy(), source=source())
    return replace(answer, body=LastingBody(answer.body, meta, need, (first, length), clock, counters))


def _span(answer: Answer) -> tuple[int, int, int] | None:
    """Where the body begins within the representation, its length (a part says it, however it is framed), and the size
    of the whole; None when it cannot be continued.
    """
    body = answer.body
    if is_seekable(body) or body.length == 0:
        return None
    if answer.status == 200:
        return None if body.length is None else (0, body.length, body.length)
    part = parse_content_range(header(answer.headers, "Content-Range") or "")
    if answer.status != 206 or part is None or part.size is None or body.length not in (None, part.length):
        return None
    return part.first, part.length, part.size


class LastingBody:
    """A :class:`fileproxy.model.Body` of the bytes ``span`` (first, length), over as many connections as it takes."""

    framed = True

    def __init__(
        self, body: Body, meta: Meta, need: Need, span: tuple[int, int], clock: Clock, counters: Counters
    ) -> None:
        first, length = span
        self.length: int | None = length
        self._body: Body | None = body
        self._meta = meta
        self._need = need
        self._position = first
        self._end = first + length
        self._clock = clock
        self._counters = counters

    def __aiter__(self) -> AsyncIterator[Piece]:
        return cast(AsyncIterator[Piece], self._pieces(piped=False))

    def piped(self) -> AsyncIterator[Piece | PipeSlice]:
        """See ``model.Piping``. A connection's answer goes through a pipe when all of it is wanted."""
        return self._pieces(piped=True)

    async def _pieces(self, *, piped: bool) -> AsyncIterator[Piece | PipeSlice]:
        skip, barren = 0, 0
        while True:
            before = self._position
            try:
                source, got = self._need.source, self._body
                if got is None:
                    got, skip = await source.segment(self._meta, self._need, self._position, self._end)
                span = Span(self._end, lambda: self._end)
                body, skip = source.stream(self._meta, self._need, (got, skip), self._position, span)
                self._body = body
                wholly = skip == 0 and body.length == self._end - self._position
                async for piece in body.piped() if piped and wholly and is_piping(body) else body:
                    if isinstance(piece, PipeSlice):
                        self._position += piece.length
                        yield piece
                        continue
                    assert isinstance(piece, bytes)
                    wanted = piece[skip : skip + self._end - self._position] if skip else piece
                    skip -= min(skip, len(piece))
                    if not wanted:
                        continue
                    wanted = wanted[: self._end - self._position]
                    self._position += len(wanted)
                    yield wanted
                    del piece, wanted  # what follows may come in pipes for hours, and these bytes are gone
                if self._position == self._end:
                    return
                raise Truncated(f"{self._meta.url}: the answer ended at byte {self._position} of {self._end}")
            except (UpstreamError, Shed) as error:
                if self._position == self._end:
                    return  # all is here; how the connection ended afterwards changes nothing
                barren = 0 if self._position > before else barren + 1
                if not error.retryable or barren >= BARREN_MOST:
                    raise
            self._counters.add("relay.resumed")
            await self.aclose()
            if barren:
                await self._clock.sleep(pause_s(barren))

    async def aclose(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            await body.aclose()
