"""Content codings: which one a client gets, and what the head says of it (RFC 9110 §8.4, §12.5.3). Pure.

A coded answer is another representation than the bytes it was made of, so it has a strong ETag of its own: that of the
bytes with the coding and its level behind it (``"x"`` → ``"x+fp.br.5"``), since another level gives other bytes. A
client that comes back with such a tag is understood (``with_origin_tags``); it never validates a range.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Literal, get_args

from fileproxy.http.cache_control import request_directives, response_directives
from fileproxy.http.dates import parse_date
from fileproxy.http.etags import ANY, ETag, parse_etag, parse_etags
from fileproxy.http.fields import is_token, split_list
from fileproxy.model import Headers, header, header_list, header_values, without

Coding = Literal["zstd", "br", "gzip"]
CODINGS: tuple[Coding, ...] = get_args(Coding)  # by our preference

_WEIGHT = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")  # §12.4.2
# Behind the coding: its level, or what stands for a sibling.
_CODED_TAG = re.compile(rf"(?P<tag>.*)\+fp\.(?P<coding>{'|'.join(CODINGS)})\.(?:[1-9]|s[0-9a-f]{{16}})")
# What a site says of the type of files in these codings, where it does not say the coding.
_PACKED = {
    "zstd": {"application/zstd", "application/x-zstd"},
    "br": {"application/brotli", "application/x-brotli", "application/x-br"},
    "gzip": {"application/gzip", "application/x-gzip"},
}
_ANY_BYTES = {"application/octet-stream", ""}
# About the bytes as they were (RFC 9530, RFC 1864), or said anew for those that are sent.
_OF_THE_BYTES = frozenset(
    {
        "accept-ranges", "content-digest", "content-encoding", "content-length", "content-md5", "digest", "etag",
        "repr-digest",
    }
)  # fmt: skip


# --- which coding -----------------------------------------------------------------------------------------------------


def weights(headers: Headers) -> dict[str, float] | None:
    """Accept-Encoding of a request: weight by coding, in lower case. None when there is none, or it is malformed.

    A coding that is given twice has its lowest weight. ``x-gzip`` is ``gzip`` (§8.4.1.3).
    """
    value = header_list(headers, "Accept-Encoding")
    if value is None:
        return None
    found: dict[str, float] = {}
    for element in split_list(value.lower()):
        coding, semicolon, parameter = (part.strip(" \t") for part in element.partition(";"))
        name, _, digits = (part.strip(" \t") for part in parameter.partition("="))
        if not is_token(coding) or (semicolon and (name != "q" or _WEIGHT.fullmatch(digits) is None)):
            return None
        coding = "gzip" if coding == "x-gzip" else coding
        weight = float(digits) if semicolon else 1.0
        found[coding] = min(weight, found.get(coding, weight))
    return found


def choose(headers: Headers, offered: Sequence[Coding]) -> Coding | None:
    """The coding of ``offered`` (by preference) that the client likes best; None: the bytes as they are.

    Without Accept-Encoding any coding would be allowed, but who says nothing is not known to decode anything. What is
    not coded wins only where the client gives it a higher weight; ``identity;q=0`` does not force us to code.
    """
    return next(iter(ranked(headers, offered)), None)


def ranked(headers: Headers, offered: Sequence[Coding]) -> list[Coding]:
    """All of ``offered`` that ``choose`` may choose, what the client likes best first."""
    accepted = weights(headers)
    if accepted is None:
        return []
    weight = {coding: accepted.get(coding, accepted.get("*", 0.0)) for coding in offered}
    least = accepted.get("identity", 0.0)
    return sorted((one for one in offered if weight[one] > 0.0 and weight[one] >= least), key=lambda one: -weight[one])


# --- what may be coded ------------------------------------------------------------------------------------------------


def is_compressible(content_type: str | None, types: Sequence[str]) -> bool:
    """Whether a Content-Type is one of ``types`` (lower case): ``text/plain``, ``text/*`` or ``*+json``."""
    if content_type is None:
        return False
    kind = content_type.partition(";")[0].strip(" \t").lower()
    if kind == "text/event-stream":  # each event is awaited
        return False
    for one in types:
        if kind == one or (one[-1] == "*" and kind.startswith(one[:-1])) or (one[0] == "*" and kind.endswith(one[1:])):
            return True
    return False


def may_be_coded(request: Headers, response: Headers, types: Sequence[str]) -> bool:
    """Whether an answer of this head is of a kind that is coded at all, for whom who takes it.

    Not when it has a coding already, when either side forbids a transformation (RFC 9110 §7.7), or when it is for one
    user alone: what is secret must not be compressed together with what an attacker can choose (BREACH).
    """
    if not is_compressible(header(response, "Content-Type"), types):
        return False
    codings = [one.lower() for value in header_values(response, "Content-Encoding") for one in split_list(value)]
    if any(coding != "identity" for coding in codings):
        return False
    said = response_directives(response, ())
    if said.no_transform or said.private or request_directives(request).no_transform:
        return False
    return header(response, "Set-Cookie") is None and header(request, "Authorization") is None


def tells_apart(response: Headers) -> bool:
    """Whether clients can tell a coded answer from the bytes: not by a date, if that is all there is (law 1).

    A client with the beginning of the one could ask for the end of the other, by If-Range with Last-Modified.
    """
    return header(response, "ETag") is not None or header(response, "Last-Modified") is None


def by_date(request: Headers) -> bool:
    """Whether a Range depends on a date alone."""
    value = header(request, "If-Range")
    return value is not None and parse_etag(value) is None


# --- the head ---------------------------------------------------------------------------------------------------------


def varied(response: Headers) -> Headers:
    """With Accept-Encoding in Vary, unless it says so already."""
    named = {name.lower() for value in header_values(response, "Vary") for name in split_list(value)}
    return response if named & {"*", "accept-encoding"} else (*response, ("Vary", "Accept-Encoding"))


def coded_head(response: Headers, coding: Coding, level: int | str, *, exact: bool = True) -> Headers:
    """The head of an answer with its bytes coded. Ranges of those cannot be had.

    ``exact``: the same bytes come each time; else its ETag is a weak one.
    """
    tag = parse_etag(header(response, "ETag"))
    head = (
        *without(response, _OF_THE_BYTES),
        ("Content-Encoding", coding),
        ("Accept-Ranges", "none"),
    )
    if tag is not None:
        head = (*head, ("ETag", str(coded_tag(tag, coding, level) if exact else ETag(tag.tag, weak=True))))
    return varied(head)


def coded_tag(tag: ETag, coding: Coding, level: int | str) -> ETag:
    """The tag of the coded bytes (of a level, or of a sibling). A weak one stays: it names what both have in common."""
    return tag if tag.weak else ETag(f"{tag.tag}+fp.{coding}.{level}")


def origin_tag(tag: ETag) -> tuple[ETag, str] | None:
    """What ``coded_tag`` was made of: the origin's tag, and the coding. None when it is not one of ours."""
    found = _CODED_TAG.fullmatch(tag.tag)
    return None if found is None else (ETag(found["tag"], tag.weak), found["coding"])


def with_origin_tags(request: Headers, *, taken_only: bool = True) -> Headers:
    """The request with the origin's tag behind each of ours in If-None-Match and If-Match, as the origin knows it.

    Only for codings the client takes now (``taken_only``; one that changes a file need take none). Ours stay, since
    they may be the origin's own (it is one like us). With a Range nothing changes: ranges are of the bytes as they are,
    which a coded tag must not validate (law 1).
    """
    names = [name for name in ("If-None-Match", "If-Match") if header(request, name) is not None]
    if not names or header(request, "Range") is not None:
        return request
    for name in names:
        tags = parse_etags(header_list(request, name) or "")
        if tags is None or tags == ANY:
            continue
        added = [origin for origin in _ours(request, tags, taken_only) if origin not in tags]
        if added:
            value = ", ".join(map(str, dict.fromkeys((*tags, *added))))
            request = (*without(request, frozenset({name.lower()})), (name, value))
    return request


def known_tag(request: Headers, current: ETag) -> ETag | None:
    """Which of our tags in If-None-Match stands for the ``current`` one, in a coding the client takes; None: none."""
    tags = parse_etags(header_list(request, "If-None-Match") or "")
    if tags is None or tags == ANY:
        return None
    known = [tag for tag in tags for origin in _ours(request, (tag,), True) if origin.tag == current.tag]
    return ETag(known[0].tag) if known else None


def _ours(request: Headers, tags: Sequence[ETag], taken_only: bool) -> list[ETag]:
    """The origin's tags of those of ours among ``tags``."""
    accepted = weights(request) or {}
    found = [origin for tag in tags if (origin := origin_tag(tag)) is not None]
    return [tag for tag, coding in found if not taken_only or accepted.get(coding, accepted.get("*", 0.0)) > 0.0]


# --- siblings ---------------------------------------------------------------------------------------------------------


def sibling_mark(response: Headers, size: int, sibling: Headers, length: int, coding: Coding) -> str | None:
    """What stands for these bytes in the tag of ``/file.gz``, sent in the place of ``/file``; None: it may not be.

    ``response`` and ``size`` are of the file, ``sibling`` and ``length`` of what lies beside it. It must say that it is
    packed (a site that answers everything with its start page does not), be smaller, and not be older than the file:
    that one was changed then, and the other forgotten. As nobody else says that they belong together, dates must.
    """
    said = [one.lower() for value in header_values(sibling, "Content-Encoding") for one in split_list(value)]
    kind = (header(sibling, "Content-Type") or "").partition(";")[0].strip(" \t").lower()
    if said not in ([coding], [f"x-{coding}"]) and (said or kind not in _PACKED[coding] | _ANY_BYTES):
        return None
    changed, packed = header(response, "Last-Modified"), header(sibling, "Last-Modified")
    if changed is None or packed is None or not 0 < length < size:
        return None
    changed_at, packed_at = parse_date(changed, 0.0), parse_date(packed, 0.0)
    if changed_at is None or packed_at is None or packed_at < changed_at:
        return None
    text = f"{header(sibling, 'ETag')} {packed} {length}"
    return "s" + hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8, person=b"fp-side").hexdigest()


# --- how hard ---------------------------------------------------------------------------------------------------------

# By how busy the event loop's thread is: below the first share, and below the second, and up to BUSIEST.
# Measured on a core of 2026: 20 to 40, 20 to 90, 85 to 170 MB/s of text.
_LEVELS: dict[Coding, tuple[int, int, int]] = {"zstd": (6, 3, 1), "br": (5, 4, 1), "gzip": (6, 4, 1)}
_CALM, _BUSY, BUSIEST = 0.35, 0.65, 0.9
BIG = 1024 * 1024  # bytes; more is not kept, and coding must keep up with the network


def level(coding: Coding, busy: float, size: int | None) -> int | None:
    """How hard to compress ``size`` bytes (None: unknown); None: there is no CPU left for it.

    ``busy`` is the share of its time (0 to 1) that the event loop's thread ran, or waited for a processor to run on.
    """
    if busy >= BUSIEST:
        return None
    effort = 0 if busy < _CALM else 1 if busy < _BUSY else 2
    if size is None or size > BIG:
        effort = 2
    return _LEVELS[coding][effort]
