"""Cache-Status (RFC 9211): how this cache handled the request, for whoever debugs.

A member stands for one cache; the last one is the closest to the client, so ours comes after what the response already
says (§2). A response was either a hit or forwarded for a reason, never both (§2.1, §2.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from fileproxy.http.structured import sf_string, sf_token_or_string
from fileproxy.model import Headers

Forward = Literal["bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"]
"""Why a request went on to the origin (§2.2).

The cache is not used for it (``bypass``); its method; nothing is stored under the URI, nothing that Vary selects, or it
is not known which; the client asked for it (``request``); what is stored is stale, or only a part of it is.
"""

_LONGEST = 256  # characters of key and detail: a field must stay small whatever the target is


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """One member. ``forward`` None = a hit.

    ``status`` is what the origin answered (with ``forward`` only, §2.3), ``ttl_s`` the freshness left, negative when
    stale (§2.4), ``stored`` and ``collapsed`` what became of a forwarded request (§2.5, §2.6).
    """

    forward: Forward | None = None
    status: int | None = None
    ttl_s: float | None = None
    stored: bool = False
    collapsed: bool = False
    key: str | None = None
    detail: str | None = None

    def member(self, name: str) -> str:
        """The member of the cache called ``name``."""
        parts = [sf_token_or_string(name)]
        if self.forward is None:
            parts.append("hit")
        else:
            parts.append(f"fwd={self.forward}")
            if self.status is not None:
                parts.append(f"fwd-status={self.status}")
        if self.ttl_s is not None:
            parts.append(f"ttl={math.floor(max(-_MOST, min(_MOST, self.ttl_s)))}")
        if self.forward is not None:
            parts += [word for word, on in (("stored", self.stored), ("collapsed", self.collapsed)) if on]
        if self.key is not None:
            parts.append(f"key={sf_string(self.key[:_LONGEST])}")
        if self.detail is not None:
            parts.append(f"detail={sf_token_or_string(self.detail[:_LONGEST])}")
        return "; ".join(parts)


_MOST = 2**31  # seconds; what RFC 9111 takes for infinite


def with_cache_status(headers: Headers, name: str, status: CacheStatus) -> Headers:
    """The response headers with our member after those of caches nearer to the origin, which stay as they are."""
    return (*headers, ("Cache-Status", status.member(name)))
