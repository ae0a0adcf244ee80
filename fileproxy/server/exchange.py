"""What changes hands at the ends of the trip (pure): the ask as the upstream gets it, the answer as the client does.

Upstream headers pass unchanged but for hop-by-hop ones; what we add is listed in ``downstream``.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from fileproxy.errors import BadAnswer
from fileproxy.http.cache_status import CacheStatus, with_cache_status
from fileproxy.http.fields import PRECONDITIONS, end_to_end
from fileproxy.http.forwarded import FORWARDING, forwarding_headers
from fileproxy.http.multipart import byteranges
from fileproxy.http.ranges import format_content_range, forwardable_range, parse_content_range, parse_ranges, resolve
from fileproxy.http.via import with_cdn_loop, with_via
from fileproxy.model import (
    Answer,
    Ask,
    Body,
    BytesBody,
    Headers,
    OnInterim,
    Target,
    Want,
    header,
    header_values,
    names_any,
    without,
)
from fileproxy.server.conditions import Decision, denies_if_range, precondition, select_ranges
from fileproxy.server.ranged import SKIP_LIMIT, Ranged, seekable, skipped

# Said by ourselves (forwarding headers, Want.body, Range after parsing), or settled on this hop.
_NOT_FORWARDED = FORWARDING | {"host", "content-length", "expect", "range"}
_SELECTING = PRECONDITIONS | {"range"}
# About the bytes of a full answer; a 304, 412 or 416 has none of them (RFC 9110 §15.4.5).
_REPRESENTATION = frozenset({"content-length", "content-type", "content-encoding", "content-range", "accept-ranges"})
# What we say about this trip: another proxy's before us spoke about its own (Cache-Status, a list, keeps both).
_OURS = frozenset({"x-cache", "x-request-id"})
_CORS_HEADERS = frozenset(
    {"access-control-allow-origin", "access-control-allow-credentials", "access-control-expose-headers"}
    | {"access-control-allow-methods", "access-control-allow-headers", "access-control-max-age"}
)


def want_of(ask: Ask, target: Target, name: str, identity: str, on_interim: OnInterim | None = None) -> Want:
    """The ask as an upstream gets it: end-to-end headers, Via, CDN-Loop, who asked, and a Range we understood."""
    headers = without(end_to_end(ask.headers), _NOT_FORWARDED)
    if ask.method == "GET" and (ranges := forwardable_range(header_values(ask.headers, "range"))) is not None:
        headers = (*headers, ("Range", ranges))
    else:
        headers = without(headers, frozenset({"if-range"}))
    headers = with_cdn_loop(with_via(headers, ask.http10, name), identity)
    return Want(
        method=ask.method,
        target=target,
        headers=headers + forwarding_headers(ask),
        authority=ask.authority,
        body=ask.body,
        id=ask.id,
        client=ask.client,
        on_interim=on_interim,
    )


@dataclass(frozen=True, slots=True)
class Selected:
    """What of an answer goes to the client."""

    status: int
    reason: str
    headers: Headers
    body: Body
    length: int | None  # Content-Length to announce; for HEAD and 304 without bytes behind it


def select(ask: Ask, answer: Answer, now: float) -> Selected:
    """Apply the ask's conditions and ranges as far as the upstream did not (RFC 9110 §13.2.2).

    A local file knows neither. An HTTP upstream may have ignored the conditions: they are judged again by the
    validators of its answer. When it answered 200 to a Range, the range is cut out here if it starts near enough.
    """
    check_partial(ask, answer, now)
    as_it_is = Selected(answer.status, answer.reason, answer.headers, answer.body, _announced(ask, answer))
    if answer.status not in (200, 206) or ask.method not in ("GET", "HEAD"):
        return as_it_is
    if answer.status == 200 and not names_any(ask.headers, _SELECTING):
        return as_it_is
    local = seekable(answer.body) is not None
    decision = None
    if names_any(ask.headers, PRECONDITIONS) and (local or _validators(answer.headers)):
        decision = precondition(ask.method, ask.headers, _judged_by(answer), now)
    size = as_it_is.length
    if decision is None and answer.status == 200 and size is not None and not answer.whole:
        decision = select_ranges(ask.method, ask.headers, answer.headers, size, now)
        if decision.status == 206 and (local or skipped(decision.spans) <= SKIP_LIMIT):
            return _partial(answer, decision.spans, size)
    return as_it_is if decision is None else _without_bytes(answer, decision, size) or as_it_is


def _judged_by(answer: Answer) -> Headers:
    """The headers that conditions look at. For what is stored, Date stands in for Last-Modified (RFC 9111 §4.3.2)."""
    date = header(answer.headers, "date")
    if not answer.stored or date is None or header(answer.headers, "last-modified") is not None:
        return answer.headers
    return (*answer.headers, ("Last-Modified", date))


def _validators(headers: Headers) -> bool:
    return header(headers, "etag") is not None or header(headers, "last-modified") is not None


def _without_bytes(answer: Answer, decision: Decision, size: int | None) -> Selected | None:
    """The 304, 412 or 416 that was decided; None for a decision to send bytes."""
    kept = without(answer.headers, _REPRESENTATION)
    if decision.status == 304:
        return Selected(304, "Not Modified", kept, BytesBody(), None)
    if decision.status == 412:
        return Selected(412, "Precondition Failed", kept, BytesBody(), 0)
    if decision.status == 416:
        unsatisfied = (*kept, ("Content-Range", f"bytes */{size}"))
        return Selected(416, "Range Not Satisfiable", unsatisfied, BytesBody(), 0)
    return None


def check_partial(ask: Ask, answer: Answer, now: float) -> None:
    """A single-range 206 must hold just what was asked, of the version that was asked (law 1). Raises BadAnswer."""
    if answer.status != 206:
        return
    values = header_values(ask.headers, "range")
    spec = parse_ranges(values[0]) if ask.method == "GET" and len(values) == 1 else None
    if spec is None:
        raise BadAnswer("The upstream sent a part of the file although all of it was asked.")
    if denies_if_range(ask.headers, answer.headers, now):
        raise BadAnswer("The upstream sent a part of another version than If-Range asked for.")
    content_range = header(answer.headers, "content-range")
    if content_range is None:
        if (header(answer.headers, "content-type") or "").lower().startswith("multipart/byteranges"):
            return
        raise BadAnswer("The upstream sent a part of the file without saying which.")
    part = parse_content_range(content_range)
    if part is None or part.first is None:
        raise BadAnswer(f"The upstream's Content-Range {content_range!r} is not valid.")
    length = part.last - part.first + 1
    if answer.body.length is not None and ask.method != "HEAD" and answer.body.length != length:
        raise BadAnswer(f"The upstream's Content-Range {content_range!r} contradicts its Content-Length.")
    if part.size is not None:
        asked = resolve(spec, part.size)
        if not any(offset == part.first and length <= wanted for offset, wanted in asked):
            raise BadAnswer(f"The upstream sent {content_range!r}, which is not what was asked.")


def downstream(
    selected: Selected, ask: Ask, answer: Answer, name: str, *, how: str, status: CacheStatus, cors: bool
) -> Headers:
    """The head's fields for the client: the upstream's, and what we add about the trip.

    ``how`` is what X-Cache says, ``status`` our member of Cache-Status.
    """
    headers = without(selected.headers, _OURS | _CORS_HEADERS if cors else _OURS)
    headers = with_cache_status(with_via(headers, False, name), name, status)
    timing = [f"{step};dur={seconds * 1000:.1f}" for step, seconds in answer.timings.items()]
    added = [
        ("X-Cache", how),
        ("X-Request-Id", ask.id),
    ]
    if cors:
        added.append(("Vary", "Origin"))
    if timing:
        added.append(("Server-Timing", ", ".join(timing)))
    return (*headers, *added)


def _announced(ask: Ask, answer: Answer) -> int | None:
    """The length to announce: the body's, or for answers without one what the upstream announced."""
    if ask.method == "HEAD" or answer.status == 304:
        announced = header(answer.headers, "content-length")
        return int(announced) if announced is not None and announced.isascii() and announced.isdigit() else None
    return answer.body.length


def _partial(answer: Answer, spans: tuple[tuple[int, int], ...], size: int) -> Selected:
    headers = without(answer.headers, frozenset({"content-length", "content-range"}))
    if len(spans) == 1:
        body = Ranged(answer.body, spans)
        headers = (*headers, ("Content-Range", format_content_range(*spans[0], size)))
    else:
        content_type = header(answer.headers, "content-type")
        parts = byteranges(secrets.token_hex(12), content_type, size, spans)
        body = Ranged(answer.body, spans, parts.heads, parts.tail)
        headers = (*without(headers, frozenset({"content-type"})), ("Content-Type", parts.content_type))
    return Selected(206, "Partial Content", headers, body, body.length)
