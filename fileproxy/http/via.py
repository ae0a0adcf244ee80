"""Being seen as an intermediary: Via (RFC 9110 §7.6.3) and CDN-Loop (RFC 8586)."""

from __future__ import annotations

import re

from fileproxy.http.fields import parse_parameters, split_list
from fileproxy.model import Headers, header_values

# cdn-id: a token, or a host with an optional port (RFC 8586 §2)
_CDN_ID = re.compile(r"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?")


def with_via(headers: Headers, http10: bool, name: str) -> Headers:
    """The message's headers with our Via entry after those of earlier hops.

    ``http10``: the message was received as HTTP/1.0. ``name`` is a token, our pseudonym.
    """
    return (*headers, ("Via", f"{'1.0' if http10 else '1.1'} {name}"))


def with_cdn_loop(headers: Headers, identity: str) -> Headers:
    """The request's headers with our CDN-Loop entry, on a line of its own; entries of others are kept as they are."""
    return (*headers, ("CDN-Loop", identity))


def loops(headers: Headers, identity: str) -> int:
    """How often the request has been here: the CDN-Loop entries whose cdn-id is ``identity``.

    Each field line is read by itself, and an entry that does not fit the grammar counts as nobody's, so that a broken
    entry of somebody else neither accuses us nor hides ours.
    """
    return sum(
        _cdn_id(entry) == identity for value in header_values(headers, "CDN-Loop") for entry in split_list(value)
    )


def _cdn_id(entry: str) -> str | None:
    match = _CDN_ID.match(entry)
    if match is None:
        return None
    rest = entry[match.end() :].lstrip(" \t")
    if rest and (not rest.startswith(";") or parse_parameters(rest) is None):
        return None
    return match[0]
