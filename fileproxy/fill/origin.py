"""First answers and missing segments from an upstream, judged by the rules of RFC 9111 and law 1."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import msgspec

from fileproxy.cache.freshness import age_at_receipt
from fileproxy.cache.key import vary_fields
from fileproxy.cache.storing import has_strong_validator, storable, stored_headers
from fileproxy.cache.tags import tags_of
from fileproxy.cache.validation import revalidation_headers, selects, update_headers
from fileproxy.clock import Clock
from fileproxy.errors import BadAnswer, FileChanged
from fileproxy.fill.insist import pauses_s
from fileproxy.fill.join import Differs, if_range, judge, same_representation
from fileproxy.fill.values import Contacted, Need
from fileproxy.http.ranges import RangeSpec, format_range, parse_content_range, resolve
from fileproxy.model import UNKNOWN_SIZE, Answer, Body, Headers, Meta, Seekable, Want, header, header_values, without

_PART = frozenset({"content-range", "content-length"})


class Fetcher(Protocol):
    """An upstream: retries and mirrors are its business."""

    async def fetch(self, want: Want) -> Answer: ...


class OriginSource:
    """A ``Source`` over one upstream.

    Args:
        writes: what it brings may be kept on disk by this worker.
        block: bytes of a block.
        ban: the newest purge now.
        size_and_time: mirrors whose ETags differ hold the same bytes where size and Last-Modified are equal
            (``mirrors_match``).
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
    ) -> None:
        self.writes = writes
        self._upstream = upstream
        self._block = block
        self._clock = clock
        self._ban = ban
        self._size_and_time = size_and_time

    async def contact(self, need: Need, spec: RangeSpec | None, stale: Meta | None) -> Contacted:
        """See ``Source``. A revalidation is one for the whole file, whatever part of it is asked for."""
        conditions: Headers = ()
        if stale is not None:
            conditions = revalidation_headers(stale.headers)
        elif spec is not None:
            conditions = (("Range", format_range(spec)),)
        ban, requested_at = self._ban(), self._clock.time()
        answer = await self._upstream.fetch(replace(need.want, headers=(*need.want.headers, *conditions)))
        if (
            stale is not None
            and answer.status == 304
            and not selects(stale.headers, answer.headers, self._clock.time())
        ):
            await answer.body.aclose()  # it speaks of another version than ours: ask for the file itself (§4.3.4)
            stale = None
            answer = await self._upstream.fetch(need.want)
        try:
            found = self._judge(need, answer, spec if stale is None else None, stale, ban, requested_at)
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
        if isinstance(answer.body, Seekable) or not answer.body.framed:
            # A local file is its own cache; what only the close ends proves no end (law 2).
            return Contacted(None, answer, reason="local" if answer.body.framed else "unframed", shared=False)
        offset, size = 0, answer.body.length
        headers = answer.headers
        if answer.status == 206:
            part = parse_content_range(header(headers, "Content-Range") or "")
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
        """See ``Source``: Range with If-Range; what comes back joins only under law 1.

        That the file has changed is believed when several answers in a row have said so.
        """
        validator = if_range(meta, size_and_time=self._size_and_time)
        conditions: Headers = (("Range", f"bytes={first}-{end - 1}"),)
        if validator is not None:
            conditions += (("If-Range", validator),)
        pauses = pauses_s()
        while True:
            try:
                return await self._segment(meta, need, conditions, first, end)
            except FileChanged:
                if (pause_s := next(pauses, None)) is None:
                    raise
            await self._clock.sleep(pause_s)

    async def _segment(self, meta: Meta, need: Need, conditions: Headers, first: int, end: int) -> tuple[Body, int]:
        answer = await self._upstream.fetch(replace(need.want, headers=(*need.want.headers, *conditions)))
        joins = judge(
            meta,
            answer.status,
            answer.headers,
            answer.body.length,
            first,
            end - 1,
            self._clock.time(),
            size_and_time=self._size_and_time,
        )
        if isinstance(joins, Differs):
            await answer.body.aclose()
            if joins.changed:
                raise FileChanged(f"The file changed while it was being fetched: {joins.reason}.")
            raise BadAnswer(f"The upstream's answer cannot be joined: {joins.reason}.")
        return answer.body, joins.skip


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
