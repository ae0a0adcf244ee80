"""How long a stored response may be used, and what may be done with it now (RFC 9111 §4.2, RFC 5861, 8246, 9213). Pure.

Times are seconds since the epoch as floats, ages and lifetimes seconds. Whatever contradicts itself or cannot be read
counts as stale: a revalidation costs one small request, a wrong byte costs more.

1. ``reuse_of`` reads a stored response once: its lifetime and what the origin allows when that is over.
2. ``decide`` weighs that, its age and the wishes of one request.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Literal

from fileproxy.http.cache_control import (
    LONGEST,
    TARGETS,
    RequestDirectives,
    ResponseDirectives,
    delta_seconds,
    request_directives,
    response_directives,
)
from fileproxy.http.dates import parse_date
from fileproxy.model import Headers, header, header_values

HEURISTIC = frozenset({200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501})
"""Statuses that may be given a lifetime the origin did not name (RFC 9110 §15.1)."""

NEGATIVE = frozenset({404, 405, 410, 414, 501})
"""Of those, the ones that say there is nothing; ``CachePolicy.negative_ttl_s`` is about them."""

OVERRIDDEN = HEURISTIC - NEGATIVE
"""Whose lifetime a route may set. An error is never made to last by a route that only meant its files."""


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """What a route says about caching; the rest is the RFCs'. Durations in seconds.

    Its own lifetime (a number as ``mode``) is the operator's word over the origin's: it wins over max-age, no-cache,
    no-store and must-revalidate of a successful answer. It does not win over what protects one user from another
    (private, Authorization, Set-Cookie, Vary).
    """

    mode: Literal["auto", "off"] | float = "auto"
    ignore_request: bool = False  # Cache-Control and Pragma of requests
    negative_ttl_s: float = 0.0  # of 404, 405, 410, 414, 501 without a lifetime of their own
    max_object: int | None = None  # bytes; larger ones are not kept
    ignored_query: tuple[str, ...] = ()  # parameter names, "utm_*", or "*" for the whole query
    per_user: str | None = None  # request header that keeps users apart; such answers become storable
    targets: tuple[str, ...] = TARGETS  # RFC 9213 target list
    heuristic_fraction: float = 0.1  # of the time since Last-Modified (§4.2.2 suggests it)
    heuristic_cap_s: float = 86_400.0
    error_cap_s: float = 60.0  # most that a 5xx lasts, whatever it says
    disconnected_s: float = 86_400.0  # how long past its lifetime a file still serves while no mirror can be reached
    hit_for_miss_s: float = 60.0  # how long it is remembered that a key's answers may not be shared


AUTO = CachePolicy()


# --- lifetime --------------------------------------------------------------------------------------------------------


def lifetime(status: int, headers: Headers, received_at: float, policy: CachePolicy = AUTO) -> float:
    """freshness_lifetime (§4.2.1): the route's, else s-maxage, else max-age, else Expires − Date, else a heuristic.

    A targeted field replaces Cache-Control and Expires (RFC 9213 §2.2). ``received_at`` stands for a missing Date.
    """
    return _lifetime(status, headers, received_at, response_directives(headers, policy.targets), policy)


def _lifetime(
    status: int, headers: Headers, received_at: float, said: ResponseDirectives, policy: CachePolicy
) -> float:
    if isinstance(policy.mode, (int, float)) and status in OVERRIDDEN:
        return min(float(policy.mode), LONGEST)
    seconds = explicit_lifetime(headers, received_at, said)
    if seconds is None:
        seconds = heuristic_lifetime(status, headers, received_at, said.public, policy)
    return min(seconds, policy.error_cap_s) if status >= 500 and status != 501 else seconds


def explicit_lifetime(headers: Headers, received_at: float, said: ResponseDirectives) -> float | None:
    """What the origin names (§4.2.1); None when it names nothing, 0 when that cannot be read."""
    if said.s_maxage is not None:
        return said.s_maxage
    if said.max_age is not None:
        return said.max_age
    expires = [] if said.targeted else header_values(headers, "Expires")
    if not expires:
        return None
    dates = {cache_date(value, received_at) for value in expires}
    if len(dates) > 1 or None in dates:
        return 0.0  # "0" and other non-dates are in the past (§5.3), several that differ are stale (§4.2.1)
    return max(0.0, min((dates.pop() or 0) - date_value(headers, received_at), LONGEST))


def heuristic_lifetime(status: int, headers: Headers, received_at: float, public: bool, policy: CachePolicy) -> float:
    """§4.2.2: a fraction of the time since Last-Modified, capped; 0 for statuses it is not meant for.

    ``public`` allows it for any status (§5.2.2.9).
    """
    if status in NEGATIVE:
        return policy.negative_ttl_s
    modified = cache_date(header(headers, "Last-Modified"), received_at)
    if modified is None or (status not in HEURISTIC and not public):
        return 0.0
    since = date_value(headers, received_at) - modified
    return max(0.0, min(since * policy.heuristic_fraction, policy.heuristic_cap_s))


def cache_date(value: str | None, now: float) -> int | None:
    """An HTTP-date, letters in any case (§4.2); None when it is none, also with another zone than GMT."""
    if value is None:
        return None
    return parse_date(value, now) or parse_date(value.title().replace("Gmt", "GMT"), now)


def date_value(headers: Headers, received_at: float) -> float:
    """When the origin made the response (§4.2.3); a Date that is missing or unreadable is the time it was received."""
    date = cache_date(header(headers, "Date"), received_at)
    return received_at if date is None else date


# --- age -------------------------------------------------------------------------------------------------------------


def age_at_receipt(headers: Headers, requested_at: float, received_at: float) -> float:
    """corrected_initial_age (§4.2.3): how old a response was when its head came.

    Of several Age lines the first counts; one that is no number makes the response stale (§5.1): ``LONGEST``.
    """
    lines = header_values(headers, "Age")
    age_value = delta_seconds(lines[0].strip(" \t")) if lines else 0
    if age_value is None:
        return LONGEST
    apparent_age = max(0.0, received_at - date_value(headers, received_at))
    corrected_age_value = age_value + max(0.0, received_at - requested_at)
    return min(max(apparent_age, corrected_age_value), LONGEST)


def current_age(age_s: float, received_at: float, now: float) -> float:
    """current_age (§4.2.3), at most ``LONGEST`` (§1.2.2). A clock that went back makes nothing younger."""
    return min(age_s + max(0.0, now - received_at), LONGEST)


def age_header(age_s: float) -> str:
    """The Age of a response that is served from the cache (§5.1), rounded up: never younger than it is."""
    return str(-int(-min(max(age_s, 0.0), LONGEST) // 1))


# --- what may be done ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reuse:
    """What a stored response permits; read once for an entry."""

    lifetime_s: float
    validate: bool  # no-cache: not without asking the origin
    validate_stale: bool  # must-revalidate, proxy-revalidate, s-maxage: once stale, not without asking, come what may
    immutable: bool
    stale_while_revalidate_s: float  # RFC 5861 §3
    stale_if_error_s: float  # RFC 5861 §4
    authorized: bool  # may serve requests with Authorization (§3.5)
    since_receipt: bool = False  # the lifetime is the route's: it counts from when we got it, however old it was then


@lru_cache(maxsize=1024)  # what is asked for is asked for again, and reading its head is most of a hit's judgement
def reuse_of(status: int, headers: Headers, received_at: float, policy: CachePolicy = AUTO) -> Reuse:
    """Read a stored response. ``received_at`` is when its head came."""
    said = response_directives(headers, policy.targets)
    overridden = isinstance(policy.mode, (int, float)) and status in OVERRIDDEN
    # Not stored as such; but a 304 may have said so of what was stored before.
    forbidden = (said.no_store and not said.must_understand) or (said.private and policy.per_user is None)
    return Reuse(
        lifetime_s=_lifetime(status, headers, received_at, said, policy),
        validate=(said.no_cache or forbidden) and not overridden,
        validate_stale=(said.must_revalidate or said.proxy_revalidate or said.s_maxage is not None) and not overridden,
        immutable=said.immutable,
        stale_while_revalidate_s=said.stale_while_revalidate or 0,
        stale_if_error_s=said.stale_if_error or 0,
        authorized=shares_authorized(said, policy),
        since_receipt=overridden,
    )


def shares_authorized(said: ResponseDirectives, policy: CachePolicy) -> bool:
    """§3.5: public, must-revalidate and s-maxage let a response to (or for) Authorization be shared.

    So does a route whose keys are apart for each Authorization: then nobody else can meet it.
    """
    own_key = policy.per_user is not None and policy.per_user.lower() == "authorization"
    return said.public or said.must_revalidate or said.s_maxage is not None or own_key


def passing(status: int, headers: Headers, received_at: float, age_s: float, policy: CachePolicy = AUTO) -> bool:
    """Whether a response is of no use once it has been read, while its origin answers: it may not be used without
    asking, and there is nothing to ask by (§4.3.1).
    """
    if header(headers, "ETag") is not None or header(headers, "Last-Modified") is not None:
        return False
    reuse = reuse_of(status, headers, received_at, policy)
    fresh = reuse.lifetime_s > (0.0 if reuse.since_receipt else age_s)
    grace = max(reuse.stale_while_revalidate_s, reuse.stale_if_error_s) > 0
    return reuse.validate or not (fresh or grace)


class Serve(Enum):
    """What to do with a stored response."""

    FRESH = "fresh"  # send it
    STALE = "stale"  # send it although it is stale; Decision.refresh says whether to revalidate behind it
    REVALIDATE = "revalidate"  # ask the origin first
    TIMEOUT = "timeout"  # 504: the client wants nothing else than what is stored, and that may not be sent
    BYPASS = "bypass"  # as if nothing were stored


@dataclass(frozen=True, slots=True)
class Decision:
    """``if_error`` and ``if_disconnected`` are about :attr:`Serve.REVALIDATE`: whether the stored response may be sent
    when the origin answers 5xx, or when none of its servers can be reached.
    """

    serve: Serve
    age_s: float
    ttl_s: float  # freshness left; negative when stale
    refresh: bool = False
    if_error: bool = False
    if_disconnected: bool = False
    by_request: bool = False  # it would be fresh but for the request (Cache-Status: fwd=request)


@dataclass(frozen=True, slots=True)
class Times:
    """Of a stored response: when its head came, how old it was then, and since when it is soft-purged (or None)."""

    received_at: float
    age_s: float
    expired_at: float | None = None


def decide(reuse: Reuse, times: Times, request_headers: Headers, now: float, policy: CachePolicy = AUTO) -> Decision:
    """What to do with a stored response that the key and Vary selected (§4), for a GET or HEAD.

    A soft purge makes it stale at that moment; until its lifetime would be over it serves while it is revalidated.
    """
    wants = RequestDirectives() if policy.ignore_request else request_directives(request_headers)
    age = current_age(times.age_s, times.received_at, now)
    ttl = reuse.lifetime_s - (current_age(0.0, times.received_at, now) if reuse.since_receipt else age)
    purged = times.expired_at is not None and now >= times.expired_at
    behind = reuse.stale_while_revalidate_s
    if purged:
        behind = max(behind, ttl + now - (times.expired_at or 0))
        ttl = min(ttl, (times.expired_at or 0) - now)
    fresh = ttl > 0 and not purged  # freshness_lifetime > current_age (§4.2)
    if header(request_headers, "Authorization") is not None and not reuse.authorized:
        return Decision(Serve.TIMEOUT if wants.only_if_cached else Serve.BYPASS, age, ttl)
    serve = _serve(reuse, wants, age=age, ttl=ttl, fresh=fresh, behind=behind)
    if serve is Serve.REVALIDATE and wants.only_if_cached:
        return Decision(Serve.TIMEOUT, age, ttl)
    may_be_stale = not reuse.validate and (fresh or not reuse.validate_stale)
    overdue = max(0.0, -ttl)
    window = max(reuse.stale_if_error_s, wants.stale_if_error or 0)
    return Decision(
        serve,
        age,
        ttl,
        refresh=serve is Serve.STALE and _within(overdue, behind),
        if_error=may_be_stale and (fresh or _within(overdue, window)),
        if_disconnected=may_be_stale and (fresh or _within(overdue, max(window, policy.disconnected_s))),
        by_request=fresh and not reuse.validate and serve is Serve.REVALIDATE,
    )


def _serve(reuse: Reuse, wants: RequestDirectives, *, age: float, ttl: float, fresh: bool, behind: float) -> Serve:
    if reuse.validate or wants.no_cache:  # §5.2.2.4, §5.2.1.4
        return Serve.REVALIDATE
    # §5.2.1.1. What is immutable needs no reload while it is fresh (RFC 8246 §2).
    too_old = wants.max_age is not None and age > wants.max_age and not (reuse.immutable and fresh)
    too_soon = wants.min_fresh is not None and ttl < wants.min_fresh  # §5.2.1.3
    if fresh:
        return Serve.REVALIDATE if too_old or too_soon else Serve.FRESH
    if reuse.validate_stale or too_old or too_soon:
        return Serve.REVALIDATE
    if wants.max_stale is not None and -ttl <= wants.max_stale:  # §5.2.1.2
        return Serve.STALE
    if wants.max_age is None and _within(-ttl, behind):  # who limits the age wants nothing stale (§5.2.1.1)
        return Serve.STALE
    return Serve.REVALIDATE


def _within(overdue: float, window: float) -> bool:
    """Whether a stale response is still in a window that lets it be used; none is open for 0 seconds."""
    return 0 < window >= overdue
