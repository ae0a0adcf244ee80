"""A route's options as a cache policy. Pure."""

from __future__ import annotations

from fileproxy.cache.freshness import CachePolicy
from fileproxy.settings.schema import Route


def policy_of(route: Route) -> CachePolicy:
    """What ``routes.N`` says about caching."""
    return CachePolicy(
        mode=route.cache,
        ignore_request=route.ignore_request,
        negative_ttl_s=route.negative,
        max_object=None if route.max_object == "off" else route.max_object,
        ignored_query=tuple(route.key.ignore_query),
        per_user=route.key.per_user,
    )
