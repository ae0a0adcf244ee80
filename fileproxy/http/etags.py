"""Entity tags (RFC 9110 §8.8.3)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

# The quoted part is opaque: no escapes, commas allowed, bytes over 0x7f too.
_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\U0010ffff]*)"')
_SEPARATOR = re.compile(r"[ \t]*(?:,[ \t]*)+|[ \t]*\Z")

ANY: Final = "*"
EtagList = tuple["ETag", ...] | Literal["*"]


@dataclass(frozen=True, slots=True)
class ETag:
    """``tag`` is what stands between the quotes."""

    tag: str
    weak: bool = False

    def __str__(self) -> str:
        return f'{"W/" if self.weak else ""}"{self.tag}"'


def parse_etag(value: str | None) -> ETag | None:
    """One entity tag; None when there is none or it is malformed (then it validates nothing)."""
    match = None if value is None else _TAG.fullmatch(value.strip(" \t"))
    return None if match is None else ETag(match[2], match[1] is not None)


def parse_etags(value: str) -> EtagList | None:
    """The list of If-Match or If-None-Match: tags, or :data:`ANY` for ``*``. None when malformed."""
    text = value.strip(" \t")
    if text == "*":
        return ANY
    tags: list[ETag] = []
    at = len(text) - len(text.lstrip(", \t"))  # empty elements are allowed (§5.6.1)
    while at < len(text):
        match = _TAG.match(text, at)
        separator = None if match is None else _SEPARATOR.match(text, match.end())
        if match is None or separator is None:
            return None
        tags.append(ETag(match[2], match[1] is not None))
        at = separator.end()
    return tuple(tags) or None


def strong_equal(one: ETag | None, other: ETag | None) -> bool:
    """Strong comparison (§8.8.3.2): the same bytes. False when either is weak or missing."""
    return one is not None and one == other and not one.weak


def weak_equal(one: ETag | None, other: ETag | None) -> bool:
    """Weak comparison: as good as the same, whether or not one is weak. False when either is missing."""
    return one is not None and other is not None and one.tag == other.tag


def strong_match(tags: Iterable[ETag], current: ETag | None) -> bool:
    return any(strong_equal(tag, current) for tag in tags)


def weak_match(tags: Iterable[ETag], current: ETag | None) -> bool:
    return any(weak_equal(tag, current) for tag in tags)
