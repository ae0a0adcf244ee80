"""Asking whether a stored response still holds, and what answers mean for it (RFC 9111 §3.2, §4.3, §4.4). Pure."""

from __future__ import annotations

from urllib.parse import SplitResult, urljoin, urlsplit

from fileproxy.cache.freshness import AUTO, CachePolicy, cache_date, date_value
from fileproxy.cache.storing import stored_headers
from fileproxy.http.cache_control import response_directives
from fileproxy.http.dates import last_modified_is_strong
from fileproxy.http.etags import parse_etag, strong_equal, weak_equal
from fileproxy.http.fields import PRECONDITIONS
from fileproxy.model import Headers, header, header_values, without

SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that change nothing (RFC 9110 §9.2.1). Unknown ones count as unsafe (§4.4)."""

CONDITIONS = PRECONDITIONS | {"if-range", "range"}
"""Request fields of the client's own that a fill or revalidation leaves out (law 6); we evaluate them (§4.3.2)."""

# What the stored bytes are, and what was proved about them, does not change by a 304 (§3.2). The stored ETag is the one
# that matched: a 304 that weakens it (a compressing server does) must not unpin the entry.
_OF_THE_BYTES = frozenset(
    {
        "content-digest", "content-encoding", "content-length", "content-md5", "content-range", "digest", "etag",
        "repr-digest", "transfer-encoding",
    }
)  # fmt: skip


def revalidation_headers(stored: Headers) -> Headers:
    """The conditions of a validation request (§4.3.1): both validators, as stored. Empty when there is none.

    They replace whatever conditions the client sent (:data:`CONDITIONS`).
    """
    tag, modified = header(stored, "ETag"), header(stored, "Last-Modified")
    conditions: list[tuple[str, str]] = []
    if tag is not None and parse_etag(tag) is not None:
        conditions.append(("If-None-Match", tag.strip(" \t")))
    if modified is not None and cache_date(modified, 0.0) is not None:
        conditions.append(("If-Modified-Since", modified.strip(" \t")))
    return tuple(conditions)


def selects(stored: Headers, answer: Headers, received_at: float) -> bool:
    """Whether a 304 (to :func:`revalidation_headers` of ``stored``) is about the stored response (§4.3.4).

    Stricter than the RFC where both carry an ETag: these must then match, whatever Last-Modified says (law 1). A 304
    without any validator can only mean the one we asked about. False: the stored response must not be used.
    """
    ours, theirs = header(stored, "ETag"), header(answer, "ETag")
    if theirs is not None and ours is not None:
        return _tags_match(ours, theirs)
    changed = cache_date(header(answer, "Last-Modified"), received_at)
    if changed is None:
        return theirs is None and header(answer, "Last-Modified") is None
    same = changed == cache_date(header(stored, "Last-Modified"), received_at)
    if theirs is None:
        return same
    # It has a tag we do not know: only another strong validator that is the same makes up for that.
    return same and last_modified_is_strong(changed, int(date_value(answer, received_at)))


def _tags_match(ours: str, theirs: str) -> bool:
    """A strong tag must be ours; our strong one may come back weakened. Malformed ones count when they are the same."""
    one, other = parse_etag(ours), parse_etag(theirs)
    if one is None or other is None:
        return ours == theirs
    return weak_equal(one, other) if other.weak else strong_equal(one, other)


def update_headers(stored: Headers, answer: Headers, received_at: float, policy: CachePolicy = AUTO) -> Headers:
    """The stored header fields after a 304, or a HEAD that matched (§3.2): each field of the answer replaces all of its
    name, new ones are added.

    Not updated: what describes the stored bytes, what is never stored, and Set-Cookie unless the answer allows it to be
    shared (it would be one client's cookie for everybody). Check afterwards with
    :func:`fileproxy.cache.storing.storable` that the result may still be kept, and compute its age and lifetime anew.
    """
    said = response_directives(answer, policy.targets)
    dropped = _OF_THE_BYTES if said.public or said.s_maxage is not None else _OF_THE_BYTES | {"set-cookie"}
    fresh = without(stored_headers(answer, received_at, policy), dropped)
    named = frozenset(name.lower() for name, _ in fresh)
    # Once more over the whole: an older no-cache="…" may name a field that has just come.
    return stored_headers((*without(stored, named), *fresh), received_at, policy)


def head_agrees(stored: Headers, answer: Headers, received_at: float) -> bool:
    """Whether the 200 to a HEAD is about the stored GET response (§4.3.5): all validators and the length agree.

    True: :func:`update_headers`. False: the stored response is stale and its bytes are no longer current; drop it.
    """
    theirs = header(answer, "ETag")
    if theirs is not None and not weak_equal(parse_etag(theirs), parse_etag(header(stored, "ETag"))):
        return False
    modified = header(answer, "Last-Modified")
    if modified is not None and cache_date(modified, received_at) != cache_date(
        header(stored, "Last-Modified"), received_at
    ):
        return False
    length = header(answer, "Content-Length")
    return length is None or length.strip(" \t") == (header(stored, "Content-Length") or "").strip(" \t")


def newest(answers: list[Headers], received_at: float) -> int:
    """Which of several stored responses to use: the most recent by Date (§4). The index; of equals the last."""
    return max(range(len(answers)), key=lambda index: (date_value(answers[index], received_at), index))


# --- invalidation ----------------------------------------------------------------------------------------------------


def invalidates(method: str, status: int, target: str, answer: Headers) -> tuple[str, ...]:
    """The URIs whose stored responses an answer makes invalid (§4.4): the target's, Location and Content-Location.

    ``target`` is the absolute URI that was asked for. Only 2xx and 3xx to unsafe methods; only URIs of the same origin,
    so that nobody can empty another site's cache. Drop what is stored under them, over all variants.
    """
    if method in SAFE or not 200 <= status <= 399:
        return ()
    base = _split(target)
    found = [_plain(target)]
    for name in ("Location", "Content-Location"):
        for value in header_values(answer, name):
            uri = _join(target, value.strip(" \t"))
            if uri is not None and base is not None and _origin(_split(uri)) == _origin(base):
                found.append(_plain(uri))
    return tuple(dict.fromkeys(found))


def _join(base: str, reference: str) -> str | None:
    try:
        return urljoin(base, reference)
    except ValueError:
        return None


def _split(uri: str) -> SplitResult | None:
    try:
        return urlsplit(uri)
    except ValueError:
        return None


def _origin(parts: SplitResult | None) -> tuple[str, str, int | None] | None:
    """Scheme, host and port (RFC 9110 §4.3.1); None when it is no http(s) URI with a host."""
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    try:
        port = parts.port
    except ValueError:
        return None
    return parts.scheme, parts.hostname, port or {"http": 80, "https": 443}[parts.scheme]


def _plain(uri: str) -> str:
    """Without the fragment, which never leaves the client."""
    return uri.partition("#")[0]
