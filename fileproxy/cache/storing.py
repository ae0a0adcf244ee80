"""What may be stored, for whom, and how (RFC 9111 §3). Pure.

A response that is not stored is not shared either (law 4). When that lies in the response, and not in the one request,
``Storable.hit_for_miss_s`` says how long asks for its key should not queue behind one another for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fileproxy.cache.freshness import (
    AUTO,
    HEURISTIC,
    NEGATIVE,
    OVERRIDDEN,
    CachePolicy,
    age_at_receipt,
    cache_date,
    date_value,
    explicit_lifetime,
    lifetime,
    shares_authorized,
)
from fileproxy.cache.key import vary_fields
from fileproxy.http.cache_control import ResponseDirectives, request_directives, response_directives
from fileproxy.http.dates import format_date, last_modified_is_strong
from fileproxy.http.etags import parse_etag
from fileproxy.http.fields import end_to_end
from fileproxy.http.ranges import parse_content_range
from fileproxy.model import Headers, header, header_values, without

UNDERSTOOD = HEURISTIC | {302, 303, 307, 451}
"""Statuses whose caching rules are implemented here: what ``must-understand`` asks for (§5.2.2.3)."""

NEVER = frozenset({304, 401, 407, 408, 412, 416, 421, 425, 426, 428, 429, 431, 511})
"""Answers to one request's conditions, ranges, credentials or connection, not to its URI. RFC 6585 forbids storing
428, 429, 431 and 511; for the others storing is merely pointless or risky."""


class Why(Enum):
    """Why a response is stored or not; the values go into logs and Cache-Status details."""

    STORED = "stored"
    OFF = "caching-off"
    METHOD = "method"
    REQUEST_BODY = "request-body"
    REQUEST_NO_STORE = "request-no-store"
    AUTHORIZATION = "authorization"
    STATUS = "status"
    NO_STORE = "no-store"
    PRIVATE = "private"
    SET_COOKIE = "set-cookie"
    VARY = "vary"
    PARTIAL = "partial"
    TOO_LARGE = "too-large"
    NO_LIFETIME = "no-lifetime"


# What the next answer for the key will most likely say again.
_LASTING = frozenset({Why.NO_STORE, Why.PRIVATE, Why.SET_COOKIE, Why.VARY, Why.TOO_LARGE})


@dataclass(frozen=True, slots=True)
class Storable:
    """The verdict.

    ``store``: keep it. ``share``: asks that waited for this response may have it as it comes (§4, "collapse"); stored
    but not shared means that each of them has to validate it first. ``hit_for_miss_s``: for how long further asks for
    the key should go straight on; 0 = the next may queue again.
    """

    store: bool
    share: bool
    why: Why
    hit_for_miss_s: float = 0.0


def storable(
    method: str,
    request_headers: Headers,
    status: int,
    response_headers: Headers,
    policy: CachePolicy = AUTO,
    *,
    received_at: float,
) -> Storable:
    """The verdict on a response whose head has come, for a shared cache (§3).

    ``received_at`` (seconds since the epoch) stands for a missing Date. What is stored may still be of no use without
    asking the origin: that is for :func:`fileproxy.cache.freshness.decide`.
    """
    said = response_directives(response_headers, policy.targets)
    overridden = isinstance(policy.mode, (int, float)) and status in OVERRIDDEN
    named = explicit_lifetime(response_headers, received_at, said)
    why = (
        _request_forbids(method, request_headers, said, policy)
        or _kept_apart(request_headers, response_headers, said, policy)
        or _not_allowed(status, said, named, overridden, policy)
        or _does_not_fit(status, response_headers, received_at, policy)
    )
    if why is not None:
        lasting = why in _LASTING and status < 400
        return Storable(False, False, why, policy.hit_for_miss_s if lasting else 0.0)
    age = age_at_receipt(response_headers, received_at, received_at)
    # Where the origin names no lifetime, the moment it streams is one we may choose ourselves (§4.2.2).
    fresh = named is None or lifetime(status, response_headers, received_at, policy) > age
    return Storable(True, overridden or (fresh and not said.no_cache), Why.STORED)


def may_queue(method: str, request_headers: Headers, policy: CachePolicy = AUTO) -> bool:
    """Whether an ask may wait for another one's response: only when nothing of its own forbids sharing one."""
    said = ResponseDirectives(public=True)  # the most that a response could allow
    return _request_forbids(method, request_headers, said, policy) is None


def _request_forbids(method: str, headers: Headers, said: ResponseDirectives, policy: CachePolicy) -> Why | None:
    """What of the request alone keeps its response from being stored."""
    if policy.mode == "off":
        return Why.OFF
    if method != "GET":
        return Why.METHOD
    if header(headers, "Transfer-Encoding") is not None or (header(headers, "Content-Length") or "0").strip() != "0":
        return Why.REQUEST_BODY  # the key does not hold it (RFC 9110 §9.3.1: it has no meaning anyway)
    if not policy.ignore_request and request_directives(headers).no_store:
        return Why.REQUEST_NO_STORE
    if header(headers, "Authorization") is not None and not shares_authorized(said, policy):
        return Why.AUTHORIZATION
    return None


def _kept_apart(request: Headers, response: Headers, said: ResponseDirectives, policy: CachePolicy) -> Why | None:
    """What protects one user from another. No route's lifetime overrides it."""
    own_key = policy.per_user is not None and header(request, policy.per_user) is not None
    if said.private and not own_key:
        return Why.PRIVATE
    left_out = "set-cookie" in said.no_cache_fields | said.private_fields
    allowed = said.public or said.s_maxage is not None or left_out
    if header(response, "Set-Cookie") is not None and not allowed:
        return Why.SET_COOKIE
    return Why.VARY if vary_fields(response) is None else None


def _not_allowed(
    status: int, said: ResponseDirectives, named: float | None, overridden: bool, policy: CachePolicy
) -> Why | None:
    """The list of §3: a final status that is understood where it must be, no no-store, and a reason to keep it."""
    if not 200 <= status <= 599 or status in NEVER or (said.must_understand and status not in UNDERSTOOD):
        return Why.STATUS
    if overridden:
        return None
    if said.no_store and not said.must_understand:
        return Why.NO_STORE
    if status in NEGATIVE and named is None and policy.negative_ttl_s <= 0:
        return Why.NO_LIFETIME
    return None if named is not None or said.public or status in HEURISTIC else Why.NO_LIFETIME


def _does_not_fit(status: int, headers: Headers, received_at: float, policy: CachePolicy) -> Why | None:
    """What entries cannot hold: parts of something unknown (§3.3), and more than the route wants."""
    if status == 206 and not _is_whole_part(headers, received_at):
        return Why.PARTIAL
    too_large = policy.max_object is not None and (_size(status, headers) or 0) > policy.max_object
    return Why.TOO_LARGE if too_large else None


def _is_whole_part(headers: Headers, received_at: float) -> bool:
    """Whether a 206 can be a part of an entry (§3.3, §3.4): one range of bytes, the size known, a strong validator."""
    values = header_values(headers, "Content-Range")
    part = parse_content_range(values[0]) if len(values) == 1 else None
    return part is not None and part.size is not None and has_strong_validator(headers, received_at)


def has_strong_validator(headers: Headers, received_at: float) -> bool:
    """A strong ETag, or without any ETag a Last-Modified that is strong (RFC 9110 §8.8.2.2)."""
    tag = header(headers, "ETag")
    if tag is not None:
        parsed = parse_etag(tag)
        return parsed is not None and not parsed.weak
    modified = cache_date(header(headers, "Last-Modified"), received_at)
    return last_modified_is_strong(modified, int(date_value(headers, received_at)))


def _size(status: int, headers: Headers) -> int | None:
    """Bytes of the whole representation, when the head tells."""
    if status == 206:
        part = parse_content_range(header(headers, "Content-Range") or "")
        return None if part is None else part.size
    length = header(headers, "Content-Length")
    return int(length) if length is not None and length.isascii() and length.isdigit() and len(length) < 20 else None


# --- how -------------------------------------------------------------------------------------------------------------

# Age is kept as a number and made anew; the rest belongs to one client's proxy or connection (§3.1).
_NOT_KEPT = frozenset({"age", "proxy-authenticate", "proxy-authentication-info", "proxy-authorization"})


def stored_headers(headers: Headers, received_at: float, policy: CachePolicy = AUTO) -> Headers:
    """The header fields as they are stored (§3.1): all, but for hop-by-hop ones, Age, and what no-cache="…" and
    private="…" name (§5.2.2.4, §5.2.2.7).

    A Date that is missing or unreadable becomes the time of receipt (RFC 9110 §6.6.1). For a 206 that starts an entry,
    the caller replaces status, Content-Range and Content-Length by those of the whole.
    """
    said = response_directives(headers, policy.targets)
    kept = without(end_to_end(headers), _NOT_KEPT | said.no_cache_fields | said.private_fields)
    if cache_date(header(headers, "Date"), received_at) is None:
        kept = (*without(kept, frozenset({"date"})), ("Date", format_date(received_at)))
    return tuple(kept)  # plain: they are kept for long, and looked at seldom
