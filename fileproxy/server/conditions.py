"""Preconditions and ranges (RFC 9110 §13, §14): what of a complete 200 the client gets. Pure.

A local folder knows neither, and an HTTP upstream may not have looked: its 200 or 206 is judged again by the validators
it carries. Evaluating twice is harmless, because a condition the upstream found true is true here as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from fileproxy.http.dates import last_modified_is_strong, parse_date
from fileproxy.http.etags import ANY, parse_etag, parse_etags, strong_equal, strong_match, weak_match
from fileproxy.http.ranges import MOST_SPANS, Span, ranges_of, resolve
from fileproxy.model import Headers, header, header_list, header_values


@dataclass(frozen=True, slots=True)
class Decision:
    """``spans`` are (offset, length), ascending and disjoint; only a 206 has any."""

    status: int  # 200, 206, 304, 412 or 416
    spans: tuple[Span, ...] = ()


_WHOLE = Decision(200)


def evaluate(method: str, request_headers: Headers, response_headers: Headers, size: int, now: float) -> Decision:
    """All preconditions in the order of §13.2.2, then the range.

    ``response_headers`` are those of the 200 that would be sent (ETag, Last-Modified, Date), ``size`` is its length,
    ``now`` is in seconds since the epoch and stands for Date when there is none.
    """
    stops = precondition(method, request_headers, response_headers, now)
    return stops or select_ranges(method, request_headers, response_headers, size, now)


def precondition(method: str, request_headers: Headers, response_headers: Headers, now: float) -> Decision | None:
    """Steps 1 to 4: the 412 or 304 that ends the request, or None when it goes on."""
    if not _may_change(request_headers, response_headers, now):
        return Decision(412)
    if _is_known(method, request_headers, response_headers, now):
        return Decision(304 if method in ("GET", "HEAD") else 412)
    return None


def _may_change(request: Headers, response: Headers, now: float) -> bool:
    """Steps 1 and 2: If-Match, else If-Unmodified-Since. A malformed If-Match matches nothing."""
    if (value := header_list(request, "If-Match")) is not None:
        tags = parse_etags(value)
        return tags is not None and (tags == ANY or strong_match(tags, parse_etag(header(response, "ETag"))))
    since = _only_date(request, "If-Unmodified-Since", now)
    modified = parse_date(header(response, "Last-Modified"), now)
    return since is None or modified is None or modified <= since


def _is_known(method: str, request: Headers, response: Headers, now: float) -> bool:
    """Steps 3 and 4: If-None-Match, else If-Modified-Since (for GET and HEAD). A malformed list matches nothing."""
    if (value := header_list(request, "If-None-Match")) is not None:
        tags = parse_etags(value)
        return tags is not None and (tags == ANY or weak_match(tags, parse_etag(header(response, "ETag"))))
    if method not in ("GET", "HEAD"):
        return False
    since = _only_date(request, "If-Modified-Since", now)
    modified = parse_date(header(response, "Last-Modified"), now)
    return since is not None and modified is not None and modified <= since


def select_ranges(method: str, request_headers: Headers, response_headers: Headers, size: int, now: float) -> Decision:
    """Step 5: the Range of a GET, when there is one we serve and If-Range (if any) holds; else the whole (200).

    An empty file has no bytes a 206 could name: a suffix range of it, which §14.1.2 calls satisfiable, gets the whole.
    """
    specs = ranges_of(header_values(request_headers, "Range")) if method == "GET" else None
    if specs is None or not _if_range_holds(request_headers, response_headers, now):
        return _WHOLE
    spans = resolve(specs, size)
    if len(spans) > MOST_SPANS:
        return _WHOLE
    if not spans:
        wants_end = size == 0 and any(spec.first is None and spec.last for spec in specs)
        return _WHOLE if wants_end else Decision(416)
    return Decision(206, spans)


def _if_range_holds(request: Headers, response: Headers, now: float) -> bool:
    """§13.1.5: the same strong ETag, or exactly the same Last-Modified where that is a strong validator."""
    values = header_values(request, "If-Range")
    if not values:
        return True
    if len(values) > 1:
        return False
    if (tag := parse_etag(values[0])) is not None:
        return strong_equal(tag, parse_etag(header(response, "ETag")))
    given = parse_date(values[0], now)
    modified = parse_date(header(response, "Last-Modified"), now)
    if given is None or given != modified:
        return False
    date = header(response, "Date")
    return last_modified_is_strong(modified, int(now) if date is None else parse_date(date, now))


def denies_if_range(request: Headers, response: Headers, now: float) -> bool:
    """Whether a 206 shows by its own validator that If-Range did not hold: its bytes are of another version.

    A 206 may leave out Last-Modified (§15.3.7); what is not said denies nothing.
    """
    values = header_values(request, "If-Range")
    if len(values) != 1:
        return False
    if (tag := parse_etag(values[0])) is not None:
        current = parse_etag(header(response, "ETag"))
        return current is not None and current.tag != tag.tag
    given, modified = parse_date(values[0], now), parse_date(header(response, "Last-Modified"), now)
    return given is not None and modified is not None and given != modified


def _only_date(headers: Headers, name: str, now: float) -> int | None:
    """The date of a condition; None (ignored, §13.1.3) when missing, malformed or there are several."""
    values = header_values(headers, name)
    return parse_date(values[0], now) if len(values) == 1 else None
