"""Cache identity (RFC 9111 §2, §4.1): what a response is found by. Pure.

``entry_url`` names the file for people, purges and reports. ``primary_key`` is the name in the tiers: a digest of it,
the scheme and, where a route keeps users apart, of the user. Where answers vary, ``variant_key`` adds the request
fields that Vary names, normalised only as far as their meaning stays the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

from fileproxy.http.fields import is_token, split_list
from fileproxy.model import Headers, Target, header_list, header_values

if TYPE_CHECKING:
    from fileproxy.cache.freshness import CachePolicy

KEY_BYTES = 16

_WEIGHT = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")  # RFC 9110 §12.4.2

# Lists whose elements may have white space around commas, and whose text has no case (RFC 9110 §12.5).
_LISTS_WITHOUT_CASE = frozenset({"accept-charset", "accept-language"})
_LISTS = _LISTS_WITHOUT_CASE | {"accept", "cache-control", "prefer"}


def entry_url(upstream: str, host: str, target: Target, policy: CachePolicy) -> str:
    """``upstream/host/path?query``, the query without parameters that do not matter.

    ``target`` is the one sent upstream. ``host`` is the client's, in lower case; "" when the upstream cannot tell (then
    all hosts share its files).
    """
    return f"{upstream}/{host.lower()}{keyed_target(target, policy)}"


def keyed_target(target: Target, policy: CachePolicy) -> Target:
    """The target without ignored query parameters; the order of the others stays, it may matter to the origin."""
    if target.query is None or not policy.ignored_query:
        return target
    kept = [part for part in target.query.split("&") if not _ignored(part, policy.ignored_query)]
    return Target(target.path, "&".join(kept) if kept else None)


def _ignored(part: str, patterns: tuple[str, ...]) -> bool:
    name = unquote_plus(part.partition("=")[0])
    return any(
        name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern for pattern in patterns
    )  # fmt: skip


def primary_key(url: str, scheme: str, request_headers: Headers, policy: CachePolicy, secret: bytes = b"") -> bytes:
    """16 bytes that stand for the URL, the scheme, and the user where ``policy.per_user`` names a header.

    The scheme counts because origins redirect http to https: that answer must never meet an https client. ``secret``
    (at most 64 bytes) keys the digest, so that nobody can try passwords against names in a store.
    """
    parts = [url, scheme]
    if policy.per_user is not None:
        value = header_list(request_headers, policy.per_user)
        parts += ["-"] if value is None else ["+", value.strip(" \t")]
    return _digest(parts, b"fp-primary", secret)


def vary_fields(response_headers: Headers) -> tuple[str, ...] | None:
    """The request fields that Vary names, lower-case and sorted; () when none.

    None when nothing can ever match: ``*`` among them (§4.1), or something that is no field name.
    """
    names: set[str] = set()
    for value in header_values(response_headers, "Vary"):
        for element in split_list(value):
            if element == "*" or not is_token(element):
                return None
            names.add(element.lower())
    return tuple(sorted(names))


def variant_key(primary: bytes, fields: Iterable[str], request_headers: Headers) -> bytes:
    """16 bytes for the answer of ``primary`` that fits a request, by the fields of :func:`vary_fields` (§4.1).

    A field that is absent only matches where it is absent.
    """
    parts = [primary.hex()]
    for name in fields:
        value = normalised(name, request_headers)
        parts += [name, "-"] if value is None else [name, "+", value]
    return _digest(parts, b"fp-variant", b"")


def normalised(name: str, request_headers: Headers) -> str | None:
    """The value of a request field for comparison; None when absent.

    Lines are joined, white space is removed where the syntax allows it, and of Accept-Encoding the codings remain that
    the client takes.
    """
    value = header_list(request_headers, name)
    if value is None:
        return None
    lower = name.lower()
    if lower == "accept-encoding":
        return accepted_codings(value)
    if lower not in _LISTS:
        return value.strip(" \t")
    joined = ",".join(split_list(value))
    return joined.lower() if lower in _LISTS_WITHOUT_CASE else joined


def accepted_codings(value: str) -> str:
    """Accept-Encoding as the sorted codings that are acceptable, with ``identity`` unless ruled out (RFC 9110 §12.5.3).

    Weights go: whichever of these codings the origin chose for one client, the other takes as well. Codings ruled out
    beside ``*`` are written with ``!``. A value that fits no grammar stands for itself.
    """
    weights: dict[str, bool] = {}
    for element in split_list(value.lower()):
        coding, _, parameter = (part.strip(" \t") for part in element.partition(";"))
        accepted = _accepted(parameter)
        if accepted is None or not is_token(coding):
            return f"={value.strip()}"
        coding = coding.removeprefix("x-") if coding in ("x-gzip", "x-compress") else coding
        weights[coding] = weights.get(coding, True) and accepted
    anything = weights.pop("*", None)
    identity = weights.pop("identity", anything is not False)
    named = [coding for coding, accepted in weights.items() if accepted and not anything]
    denied = [f"!{coding}" for coding, accepted in weights.items() if not accepted and anything]
    return ",".join(sorted(named + denied + ["*"] * bool(anything) + ["identity"] * identity))


def _accepted(parameter: str) -> bool | None:
    """Whether a weight lets a coding through; None when it is no weight."""
    if not parameter:
        return True
    name, equals, digits = parameter.partition("=")
    if name.strip(" \t") != "q" or not equals or _WEIGHT.fullmatch(digits.strip(" \t")) is None:
        return None
    return digits.strip(" \t").strip("0.") != ""


def _digest(parts: Iterable[str], use: bytes, secret: bytes) -> bytes:
    """BLAKE2b over parts with their lengths, so that no two lists of parts read alike."""
    state = hashlib.blake2b(digest_size=KEY_BYTES, person=use, key=secret)
    for part in parts:
        data = part.encode("utf-8", "surrogateescape")
        state.update(len(data).to_bytes(8, "big") + data)
    return state.digest()
