"""First answers and missing segments from an upstream, judged by the rules of RFC 9111 and law 1."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace

import msgspec

from fileproxy.cache.freshness import age_at_receipt
from fileproxy.cache.key import vary_fields
from fileproxy.cache.storing import has_strong_validator, storable, stored_headers
from fileproxy.cache.tags import tags_of
from fileproxy.cache.validation import revalidation_headers, selects, update_headers
from fileproxy.clock import Clock
from fileproxy.errors import BadAnswer
from fileproxy.fill.entry import Shared
from fileproxy.fill.insist import pauses_s
from fileproxy.fill.join import same_representation
from fileproxy.fill.lanes import Lanes
from fileproxy.fill.parts import Fetcher, Parts
from fileproxy.fill.stream import Stream
from fileproxy.fill.values import Contacted, Need, Span
from fileproxy.http.ranges import RangeSpec, format_range, parse_content_range, resolve
from fileproxy.model import (
    UNKNOWN_SIZE,
    Answer,
    Body,
    Headers,
    Meta,
    has_landed,
    header,
    header_values,
    is_connected,
    is_seekable,
    without,
)
from fileproxy.tcpinfo import NetPath

_PART = frozenset({"content-range", "content-length"})


class OriginSource:
    """A ``Source`` over one upstream.

    Args:
        writes: what it brings may be kept on disk by this worker.
        block: bytes of a block.
        ban: the newest purge now.
        size_and_time: mirrors whose ETags differ hold the same bytes where size and Last-Modified are equal
            (``mirrors_match``).
        lanes, shared: to ask for several parts at once where one connection is too slow; None: never.
    """

    def __init__(
        self,
        upstream: Fetcher,
        *,
        writes: bool,
        block: int,
        clock: Clock,
        ban: Callable[[], int],
        size_and_time: bool = False,
        lanes: Lanes | None = None,
        shared: Shared | None = None,
    ) -> None:
        self.writes = writes
        self._upstream = upstream
        self._block = block
        self._clock = clock
        self._ban = ban
        self._size_and_time = size_and_time
        self._lanes = lanes
        self._shared = shared

    async def contact(self, need: Need, spec: RangeSpec | None, stale: Meta | None) -> Contacted:
        """See ``Source``. A revalidation is one for the whole file, whatever part of it is asked for.

        An answer that contradicts itself or what was asked is none: it is asked for again.
        """
        conditions: Headers = ()
        if stale is not None:
            conditions = revalidation_headers(stale.headers)
        elif spec is not None:
            conditions = (("Range", format_range(spec)),)
        conditional = replace(need.want, headers=(*need.want.headers, *conditions), avoid=self._slow())
        pauses = pauses_s()
        while True:
            ban, requested_at = self._ban(), self._clock.time()
            with self._asking():
                answer, asked, confirms = await self._upstream.fetch(conditional), spec, stale
            if (
                confirms is not None
                and answer.status == 304
                and not selects(confirms.headers, answer.headers, self._clock.time())
            ):
                await answer.body.aclose()  # it speaks of another version than ours: ask for the file itself (§4.3.4)
                asked = confirms = None
                answer = await self._upstream.fetch(need.want)
            try:
                found = self._judge(need, answer, asked if confirms is None else None, confirms, ban, requested_at)
            except BadAnswer:
                await answer.body.aclose()
                if (pause_s := next(pauses, None)) is None:
                    raise
                await self._clock.sleep(pause_s)
                continue
            except BaseException:
                await answer.body.aclose()
                raise
            if found.answer is None:
                await answer.body.aclose()
            return found

    def _judge(
        self, need: Need, answer: Answer, spec: RangeSpec | None, stale: Meta | None, ban: int, requested_at: float
    ) -> Contacted:
        now = self._clock.time()
        if stale is not None and (refreshed := self._refreshed(need, answer, stale, ban, requested_at, now)):
            still = storable("GET", need.headers, stale.status, refreshed.headers, need.policy, received_at=now)
            vary = vary_fields(refreshed.headers) or ()
            return Contacted(refreshed, None, vary=vary, keep=still.store, reason=still.why.value)
        if answer.status == 304:
            raise BadAnswer("The upstream said that nothing has changed, but not from what.")
        verdict = storable("GET", need.headers, answer.status, answer.headers, need.policy, received_at=now)
        if is_seekable(answer.body) or not answer.body.framed:
            # A local file is its own cache; what only the close ends proves no end (law 2).
            return Contacted(None, answer, reason="local" if answer.body.framed else "unframed", shared=False)
        offset, size = 0, answer.body.length
        headers = answer.headers
        if answer.status == 206:
            part = parse_content_range(header(headers, "Content-Range") or "")
            if verdict.store and part is None:
                raise BadAnswer("The upstream sent a part of the file and did not say which.")
            if not verdict.store or part is None or part.size is None:
                return Contacted(None, None, reason=verdict.why.value, hit_for_miss_s=need.policy.hit_for_miss_s)
            asked = resolve((spec,), part.size) if spec is not None else ()
            if not asked or part.first != asked[0][0] or part.last >= sum(asked[0]):
                raise BadAnswer("The upstream sent another part of the file than was asked.")
            if size is not None and size != part.length:
                raise BadAnswer("The upstream's Content-Range contradicts its Content-Length.")
            offset, size = part.first, part.size
            headers = (*without(headers, _PART), ("Content-Length", str(size)))
        too_large = need.policy.max_object is not None and size is not None and size > need.policy.max_object
        if not verdict.store or too_large:
            why = "too-large" if verdict.store else verdict.why.value
            return Contacted(
                None, answer, reason=why, hit_for_miss_s=verdict.hit_for_miss_s or (60.0 if too_large else 0)
            )
        pinned = answer.status in (200, 206) and size is not None and has_strong_validator(headers, now)
        if not pinned and answer.status == 206:
            return Contacted(None, None, reason="not pinned", hit_for_miss_s=need.policy.hit_for_miss_s)
        meta = Meta(
            key=need.key,
            rid=os.urandom(16),
            url=need.url,
            status=200 if answer.status == 206 else answer.status,
            reason="OK" if answer.status == 206 else answer.reason,
            headers=_kept(headers, now, need),
            size=UNKNOWN_SIZE if size is None else size,
            block=self._block,
            pinned=pinned,
            requested_at=requested_at,
            received_at=now,
            age_s=age_at_receipt(answer.headers, requested_at, now),
            ban=ban,
            tags=tags_of(headers),
        )
        end = None if size is None else offset + (answer.body.length or 0)
        ranges = spec is None or answer.status == 206 or spec.first == 0
        return Contacted(meta, answer, offset, end, vary_fields(headers) or (), shared=verdict.share, ranges=ranges)

    def _refreshed(
        self, need: Need, answer: Answer, stale: Meta, ban: int, requested_at: float, now: float
    ) -> Meta | None:
        """The stored entry as the origin confirmed it: by a 304, or by a 200 of the very same representation."""
        if answer.status == 304:
            headers = update_headers(stale.headers, answer.headers, now, need.policy)
        elif answer.status == 200 and same_representation(
            stale, answer.headers, answer.body.length, now, size_and_time=self._size_and_time
        ):
            headers = _renamed(_kept(answer.headers, now, need), stale)
        else:
            return None
        return msgspec.structs.replace(
            stale,
            headers=headers,
            requested_at=requested_at,
            received_at=now,
            age_s=age_at_receipt(answer.headers, requested_at, now),
            ban=ban,
            expired_at=None,
            tags=tags_of(headers),
        )

    async def segment(self, meta: Meta, need: Need, first: int, end: int) -> tuple[Body, int]:
        """See ``Source``."""
        with self._asking():
            return await self._parts(meta, need).ask(first, end, avoid=self._slow())

    def _asking(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self._lanes is None else self._lanes.ask()

    def stream(self, meta: Meta, need: Need, got: tuple[Body, int], at: int, span: Span) -> tuple[Body, int]:
        """See ``Source``."""
        body, skip = got
        lanes, shared = self._lanes, self._shared
        if lanes is None or shared is None or lanes.most == 1 or not is_connected(body):
            return got
        if (header(meta.headers, "Accept-Ranges") or "").lower() == "none":
            return got
        if has_landed(body):
            self.landed(body.path)
            return got
        stream = Stream(
            got[0],
            skip,
            at,
            span.end,
            ask=self._parts(meta, need).ask,
            lanes=lanes,
            reach=span.reach,
            ahead=lambda: shared.windows.among(max(shared.windows.flights, lanes.streams)),
            clock=self._clock,
            tasks=shared.tasks,
            counters=shared.counters,
        )
        return stream, 0

    def landed(self, path: NetPath | None) -> None:
        """An answer of the upstream was here at once: what that tells of the path it came over."""
        if self._lanes is not None and path is not None:
            self._lanes.landed(path, self._clock.now())

    def _parts(self, meta: Meta, need: Need) -> Parts:
        return Parts(self._upstream, need.want, meta, self._clock, size_and_time=self._size_and_time)

    def _slow(self) -> frozenset[str]:
        """Mirrors that others are far faster than."""
        return frozenset() if self._lanes is None else self._lanes.slow(self._clock.now())


def _renamed(headers: Headers, stored: Meta) -> Headers:
    """With the ETag that clients know the stored bytes by: another mirror may have one of its own."""
    etag = header(stored.headers, "ETag")
    if etag is None or header(headers, "ETag") is None:
        return headers
    return (*without(headers, frozenset({"etag"})), ("ETag", etag))


def _kept(headers: Headers, now: float, need: Need) -> Headers:
    """The header fields to store. On a whole answer Content-Digest is about the representation: it stays as such."""
    kept = stored_headers(headers, now, need.policy)
    content = header_values(kept, "Content-Digest")
    if content:
        kept = without(kept, frozenset({"content-digest"}))
        if header(kept, "Repr-Digest") is None and header(headers, "Content-Range") is None:
            kept = (*kept, *(("Repr-Digest", value) for value in content))
    return kept
