"""Cache directives: of requests, of responses, and targeted at caches like this one (RFC 9111 §5.2, RFC 9213).

What is unclear is read as less caching, as §4.2.1 encourages:

* a lifetime that is no number, or two that differ, is 0; a request's limit likewise becomes the strictest one;
* an element that fits no grammar (``max-age =5``, ``a=1; no-store``, an open quote) is believed where it restricts,
  and nowhere else;
* ``no-cache`` or ``private`` with a list that cannot be read, or that names a field the bytes make no sense without, is
  taken as the form without a list.

Arguments may be tokens or quoted strings (§5.2). Unknown directives are ignored (§5.2.3).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from fileproxy.http.fields import is_token, split_list, unquote
from fileproxy.http.structured import Item, Member, Token, parse_dictionary
from fileproxy.model import Headers, header_values

LONGEST = 2**31
"""Seconds that stand for "for ever": larger numbers mean this much (§1.2.2)."""

TARGETS = ("cdn-cache-control", "surrogate-control")
"""Response fields meant for us, the first that is there and valid wins (RFC 9213 §2.2). Surrogate-Control is the older
name that origins behind Varnish and Fastly still send; only what fits the same grammar is understood."""

_DIRECTIVE = re.compile(r"([^=]+?)(?:=(.*))?", re.DOTALL)
_WORD = re.compile(r"[A-Za-z-]+")
_DIGITS = re.compile(r"[0-9]+")

# Without these the stored bytes mean something else, or the cache could not keep its promises about them.
_NEEDED = frozenset(
    {
        "cache-control", "cdn-cache-control", "content-encoding", "content-length", "content-range", "content-type",
        "date", "etag", "expires", "last-modified", "location", "surrogate-control", "vary",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ResponseDirectives:
    """Seconds, or None where a directive is absent. ``*_fields`` are lower-case names of the forms with a list."""

    max_age: int | None = None
    s_maxage: int | None = None
    no_store: bool = False
    no_cache: bool = False
    no_cache_fields: frozenset[str] = frozenset()
    private: bool = False
    private_fields: frozenset[str] = frozenset()
    public: bool = False
    must_revalidate: bool = False
    proxy_revalidate: bool = False
    must_understand: bool = False
    no_transform: bool = False
    immutable: bool = False
    stale_while_revalidate: int | None = None
    stale_if_error: int | None = None
    targeted: bool = False  # from a targeted field: Cache-Control and Expires do not count (RFC 9213 §2.2)


@dataclass(frozen=True, slots=True)
class RequestDirectives:
    """Seconds, or None where a directive is absent. ``max_stale`` without a value is infinite."""

    max_age: int | None = None
    min_fresh: int | None = None
    max_stale: float | None = None
    no_cache: bool = False
    no_store: bool = False
    no_transform: bool = False
    only_if_cached: bool = False
    stale_if_error: int | None = None


_NO_WISHES = RequestDirectives()
_USUAL = 200  # characters of a Cache-Control; longer ones are not worth remembering


def delta_seconds(text: str | None) -> int | None:
    """A whole number of seconds, at most :data:`LONGEST` (§1.2.2); None when it is something else."""
    if text is None or _DIGITS.fullmatch(text) is None:
        return None
    digits = text.lstrip("0") or "0"
    return LONGEST if len(digits) > 10 else min(int(digits), LONGEST)


def request_directives(headers: Headers) -> RequestDirectives:
    """Cache-Control of a request; ``Pragma: no-cache`` counts where there is none (§5.4)."""
    values = header_values(headers, "Cache-Control")
    if not values:
        pragma = {element.lower() for value in header_values(headers, "Pragma") for element in split_list(value)}
        return RequestDirectives(no_cache=True) if "no-cache" in pragma else _NO_WISHES
    said = _said(values)
    return RequestDirectives(
        max_age=said.seconds("max-age", invalid=0, pick="least"),
        min_fresh=said.seconds("min-fresh", invalid=LONGEST, pick="most"),
        max_stale=math.inf if said.bare("max-stale") else said.seconds("max-stale", invalid=None, pick="least"),
        no_cache=said.restricts("no-cache"),
        no_store=said.restricts("no-store"),
        no_transform=said.restricts("no-transform"),
        only_if_cached=said.has("only-if-cached"),
        stale_if_error=said.seconds("stale-if-error", invalid=None, pick="least"),
    )


def response_directives(headers: Headers, targets: Sequence[str] = TARGETS) -> ResponseDirectives:
    """The directives that bind us: of the first target field that is valid and not empty, else of Cache-Control.

    ``targets`` are field names in order of preference (RFC 9213 §2.2).
    """
    for name in targets:
        values = header_values(headers, name)
        if values and (said := _targeted(values)) is not None:
            return _response(said, targeted=True)
    values = header_values(headers, "Cache-Control")
    return _known_response(values[0]) if len(values) == 1 and len(values[0]) <= _USUAL else _plain_response(values)


def _plain_response(values: Sequence[str]) -> ResponseDirectives:
    return _response(_said(values), targeted=False)


@lru_cache(maxsize=256)  # an origin says the same of all its files, and each head is read several times
def _known_response(value: str) -> ResponseDirectives:
    return _plain_response((value,))


def _response(said: _Said, targeted: bool) -> ResponseDirectives:
    no_cache, no_cache_fields = said.fields("no-cache")
    private, private_fields = said.fields("private")
    return ResponseDirectives(
        max_age=said.seconds("max-age", invalid=0),
        s_maxage=said.seconds("s-maxage", invalid=0),
        no_store=said.restricts("no-store"),
        no_cache=no_cache,
        no_cache_fields=no_cache_fields,
        private=private,
        private_fields=private_fields,
        public=said.has("public"),
        must_revalidate=said.restricts("must-revalidate"),
        proxy_revalidate=said.restricts("proxy-revalidate"),
        must_understand=said.has("must-understand"),
        no_transform=said.restricts("no-transform"),
        immutable=said.has("immutable"),
        stale_while_revalidate=said.seconds("stale-while-revalidate", invalid=0),
        stale_if_error=said.seconds("stale-if-error", invalid=0),
        targeted=targeted,
    )


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Said:
    """What stood there: pairs of lower-case name and plain argument (None: without), and words of broken elements."""

    pairs: tuple[tuple[str, str | None], ...]
    suspected: frozenset[str] = frozenset()

    def has(self, name: str) -> bool:
        return any(key == name for key, _ in self.pairs)

    def restricts(self, name: str) -> bool:
        return name in self.suspected or self.has(name)

    def bare(self, name: str) -> bool:
        """Given, and never with an argument."""
        return name not in self.suspected and self._arguments(name) == {None}

    def _arguments(self, name: str) -> set[str | None]:
        return {argument for key, argument in self.pairs if key == name}

    def seconds(self, name: str, invalid: int | None, pick: Literal["same", "least", "most"] = "same") -> int | None:
        """delta-seconds (§1.2.2). ``invalid`` stands for what is no number, and for numbers that are not the same."""
        if name in self.suspected:
            return invalid
        numbers = {delta_seconds(argument) for argument in self._arguments(name)}
        plain = [number for number in numbers if number is not None]
        if not numbers:
            return None
        if len(plain) < len(numbers) or (len(plain) > 1 and pick == "same"):
            return invalid
        return max(plain) if pick == "most" else min(plain)

    def fields(self, name: str) -> tuple[bool, frozenset[str]]:
        """For no-cache and private: whether it holds for the whole response, and else which fields it names."""
        if name in self.suspected:
            return True, frozenset()
        named: set[str] = set()
        for argument in self._arguments(name):
            names = [] if argument is None else [element.lower() for element in split_list(argument)]
            if not names or not all(map(is_token, names)) or not _NEEDED.isdisjoint(names):
                return True, frozenset()
            named.update(names)
        return False, frozenset(named)


def _said(values: Iterable[str]) -> _Said:
    """The elements of all Cache-Control lines. A quote that never closes ends with its line."""
    pairs: list[tuple[str, str | None]] = []
    suspected: set[str] = set()
    for value in values:
        for element in split_list(value):
            match = _DIRECTIVE.fullmatch(element)
            argument = None if match is None or match[2] is None else unquote(match[2])
            if match is None or not is_token(match[1]) or (match[2] is not None and argument is None):
                suspected.update(word.lower() for word in _WORD.findall(element))
            else:
                pairs.append((match[1].lower(), argument))
    return _Said(tuple(pairs), frozenset(suspected))


# Directives whose value has another type than here do not fit the field: it is ignored (RFC 9213 §2.1).
_NUMBERS = frozenset({"max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"})
_SWITCHES = frozenset(
    {"no-store", "public", "must-revalidate", "proxy-revalidate", "must-understand", "no-transform", "immutable"}
)
_LISTS = frozenset({"no-cache", "private"})


def _targeted(values: Sequence[str]) -> _Said | None:
    """A targeted field (RFC 9213 §2.1); None when it is absent, empty, malformed or has a value of a wrong type."""
    members = parse_dictionary(values)
    if not members:
        return None
    pairs: list[tuple[str, str | None]] = []
    for name, member in members.items():
        value = member.value if isinstance(member, Item) else None
        if value is False and name not in _NUMBERS:
            continue  # ?0 says that it does not apply
        if not _fits(name, member):
            return None
        pairs.append((name, None if value is True or value is None else str(value)))
    return _Said(tuple(pairs))


def _fits(name: str, member: Member) -> bool:
    value = member.value if isinstance(member, Item) else None
    if name in _NUMBERS:
        return type(value) is int and value >= 0
    if name in _SWITCHES:
        return value is True
    if name in _LISTS:
        return value is True or type(value) in (str, Token)
    return True
