"""The tags an origin puts on its answers, for purging many files at once. Pure.

``Cache-Tag: a, b`` separates by commas, ``Surrogate-Key: a b`` by spaces; there is no RFC. Both are read, case counts.
"""

from __future__ import annotations

from fileproxy.model import Headers

MOST_BYTES = 16 * 1024  # of all tags of one answer, a byte more each: what large CDNs accept
LONGEST_BYTES = 1024  # of one tag


def tags_of(headers: Headers) -> tuple[str, ...]:
    """Each tag once, in order. Empty and overlong tags, and what is over the bound altogether, are left out."""
    found: dict[str, None] = {}
    room = MOST_BYTES
    for name, value in headers:
        match name.lower():
            case "cache-tag":
                parts = [part.strip(" \t") for part in value.split(",")]
            case "surrogate-key":
                parts = value.replace("\t", " ").split(" ")
            case _:
                continue
        for tag in parts:
            size = len(tag.encode("utf-8", "surrogateescape"))
            if not tag or tag in found or size > LONGEST_BYTES:
                continue
            room -= size + 1
            if room < 0:
                return tuple(found)
            found[tag] = None
    return tuple(found)
