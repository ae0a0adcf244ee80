"""What an ask needs of the cache. Pure."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from fileproxy.cache.freshness import CachePolicy
from fileproxy.cache.validation import CONDITIONS
from fileproxy.fill.values import Later, Need, Source
from fileproxy.http.fields import PRECONDITIONS
from fileproxy.http.ranges import ranges_of
from fileproxy.model import Ask, Target, Want, header_values, names_any, without

_FOR_ORIGIN = frozenset({"if-match", "if-unmodified-since"})  # RFC 9111 §4.3.2: not a cache's to judge


def need_of(ask: Ask, want: Want | Later, url: str, key: bytes, policy: CachePolicy, source: Source) -> Need:
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
        wanted=Later(partial(_plain, want)),
        policy=policy,
        source=source,
        ranges=ranges_of(header_values(ask.headers, "Range")) if ask.method == "GET" else None,
        conditional=names_any(ask.headers, PRECONDITIONS),
        for_origin=names_any(ask.headers, _FOR_ORIGIN),
        method=ask.method,
    )


def _plain(want: Want | Later) -> Want:
    want = want if isinstance(want, Want) else want()
    return replace(want, method="GET", headers=without(want.headers, CONDITIONS), body=None)


def lean(need: Need, target: Target) -> Need:
    """The same need, for ``target``, without what only a fetch looks at: to ask again whether memory can answer it."""
    return replace(
        need,
        headers=tuple(pair for pair in need.headers if pair[0].lower() == "accept-encoding"),
        wanted=Want("GET", target, ()),
        counted=False,
    )
