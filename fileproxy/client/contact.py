"""The first answer: how large the file is, which version, and whether its parts may be joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fileproxy.client.asking import first_range
from fileproxy.client.checksum import Checksum
from fileproxy.client.failures import Declined, DownloadFailed
from fileproxy.client.mirrors import Mirror, best
from fileproxy.client.partfile import meta_of
from fileproxy.clock import Clock
from fileproxy.errors import BadAnswer, FileProxyError, UpstreamError
from fileproxy.fill.join import is_pinned
from fileproxy.http.digests import parse_digests
from fileproxy.http.ranges import parse_content_range
from fileproxy.model import Answer, Headers, Meta, header
from fileproxy.upstream.retry import retry_after

FIRST = 256 * 1024  # asked for before anything is known; what is smaller comes with one request
RETRIED = frozenset({429, 500, 502, 503, 504, 524})  # answers that may mend (the default of `retry.statuses`)


@dataclass(frozen=True, slots=True)
class Opened:
    """An answer whose body is still to be read: bytes ``offset`` to ``end`` (exclusive; None: until the body ends).

    ``meta`` is None when the file is this one answer only, because no strong validator or no size came with it.
    """

    mirror: Mirror
    answer: Answer
    meta: Meta | None
    offset: int
    end: int | None

    @property
    def size(self) -> int | None:
        return self.answer.body.length if self.meta is None else self.meta.size

    @property
    def disposition(self) -> str | None:
        return header(self.answer.headers, "Content-Disposition")

    @property
    def promised(self) -> Checksum | None:
        """What the origin says the whole file hashes to (Repr-Digest, RFC 9530)."""
        return Checksum.of_digests(parse_digests(self.answer.headers, "Repr-Digest"))


async def contact(mirrors: Sequence[Mirror], first: int, clock: Clock, timeout_s: float, length: int = FIRST) -> Opened:
    """Ask one mirror after the other for the bytes from ``first`` on, the first one for ``length`` of them.

    Raises DownloadFailed when none gives them within ``timeout_s``, with the reason of each.
    """
    began = clock.now()
    while True:
        mirror = best(mirrors, clock.now())
        if mirror is not None:
            asked = clock.now()
            mirror.asking()
            try:
                return await _open(mirror, first, length, clock)
            except UpstreamError as error:
                length = FIRST
                mirror.failed(error, began=asked, after_bytes=False)
        hopeful = [one for one in mirrors if one.hopeless is None]
        wait_s = min((one.rests_until() for one in hopeful), default=0.0) - clock.now()
        if not hopeful or clock.now() + max(0.0, wait_s) - began > timeout_s:
            raise DownloadFailed(reasons(mirrors))
        await clock.sleep(wait_s)


def reasons(mirrors: Sequence[Mirror]) -> str:
    """Why none of the mirrors can be used, in one line."""
    found = [f"{one.url.partition('?')[0]}: {one.last_error or 'was not asked'}" for one in mirrors]
    return "; ".join(found)


async def _open(mirror: Mirror, first: int, length: int, clock: Clock) -> Opened:
    answer = await mirror.fetch((first_range(first, length),))
    try:
        found = _judge(mirror, answer, first, length, clock)
    except BaseException:
        await answer.body.aclose()
        raise
    if found is not None:
        return found
    # Parts of it would not join, or it is empty, or shorter than it was: the whole of it, as one answer.
    await answer.body.aclose()
    answer = await mirror.fetch(())
    try:
        if answer.status != 200:
            raise declined(answer, clock)
        return _whole(mirror, answer, clock)
    except BaseException:
        await answer.body.aclose()
        raise


def _judge(mirror: Mirror, answer: Answer, first: int, length: int, clock: Clock) -> Opened | None:
    """What the answer to the range is good for; None: ask without one. Raises UpstreamError."""
    now = clock.time()
    if answer.status == 200:
        return _whole(mirror, answer, clock)
    if answer.status == 416:
        return None
    if answer.status != 206:
        raise declined(answer, clock)
    part = parse_content_range(header(answer.headers, "Content-Range") or "")
    if part is None or part.first != first or part.last >= first + length:
        raise BadAnswer(f"{answer.mirror}: sent another part of the file than was asked")
    if answer.body.length is not None and answer.body.length != part.length:
        raise BadAnswer(f"{answer.mirror}: a Content-Range that contradicts Content-Length")
    if part.size is None or not is_pinned(answer.headers, now):
        return None
    meta = meta_of(mirror.url, answer.headers, part.size, now)
    return Opened(mirror, answer, meta, first, part.last + 1)


def _whole(mirror: Mirror, answer: Answer, clock: Clock) -> Opened:
    now, size = clock.time(), answer.body.length
    if size is None or not is_pinned(answer.headers, now):
        return Opened(mirror, answer, None, 0, size)
    mirror.rangeless = size > 0
    return Opened(mirror, answer, meta_of(mirror.url, answer.headers, size, now), 0, size)


def declined(answer: Answer, clock: Clock, why: str = "", *, changed: bool = False) -> Declined:
    """The error that this answer is. Statuses that mend themselves may be asked again."""
    said = why or f"answered {answer.status} {answer.reason}".rstrip()
    return Declined(
        f"{answer.mirror.partition('/')[2] or answer.mirror}: {said}",
        answer.status,
        retry_after_s=retry_after(header(answer.headers, "Retry-After"), clock.time()),
        changed=changed,
        retryable=changed or answer.status in (200, 206) or answer.status in RETRIED,
    )


def is_push_back(error: FileProxyError) -> bool:
    """Whether the mirror says that it has enough of us."""
    return isinstance(error, Declined) and error.answer_status in (429, 503)


def headers_for_span(first: int, end: int, validator: str | None) -> Headers:
    """Range, and If-Range when there is a validator to name (RFC 9110 §13.1.5)."""
    asked: Headers = (("Range", f"bytes={first}-{end - 1}"),)
    return asked if validator is None else (*asked, ("If-Range", validator))
