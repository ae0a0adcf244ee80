"""What an ask needs of the cache. Pure."""

from __future__ import annotations

from dataclasses import replace

from fileproxy.cache.freshness import CachePolicy
from fileproxy.cache.validation import CONDITIONS
from fileproxy.fill.values import Need, Source
from fileproxy.http.ranges import ranges_of
from fileproxy.model import Ask, Want, header, header_values, without

_FOR_ORIGIN = ("If-Match", "If-Unmodified-Since")  # RFC 9111 §4.3.2: not a cache's to judge
_PRECONDITIONS = (*_FOR_ORIGIN, "If-None-Match", "If-Modified-Since")


def need_of(ask: Ask, want: Want, url: str, key: bytes, policy: CachePolicy, source: Source) -> Need:
    """The need of a GET or HEAD.

    Args:
        want: the ask as an upstream would get it; what a fill sends has none of its conditions (law 6).
        url, key: as in ``Meta.url``, and the primary key.
    """
    return Need(
        primary=key,
        key=key,
        url=url,
        headers=ask.headers,
        want=replace(want, method="GET", headers=without(want.headers, CONDITIONS), body=None),
        policy=policy,
        source=source,
        ranges=ranges_of(header_values(ask.headers, "Range")) if ask.method == "GET" else None,
        conditional=any(header(ask.headers, name) is not None for name in _PRECONDITIONS),
        for_origin=any(header(ask.headers, name) is not None for name in _FOR_ORIGIN),
        method=ask.method,
    )


def lean(need: Need) -> Need:
    """The same need without what only a fetch would look at: to ask again whether memory alone can answer it."""
    return replace(
        need,
        headers=tuple(pair for pair in need.headers if pair[0].lower() == "accept-encoding"),
        want=Want("GET", need.want.target, ()),
        counted=False,
    )
