"""Header fields: their small grammars, and which of them end at this hop (RFC 9110 §5.6, §7.6.1)."""

from __future__ import annotations

import re

from fileproxy.model import Headers, header_values, without

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_QUOTED = re.compile(r'"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[^\x00-\x08\x0a-\x1f\x7f])*)"')
_ELEMENT = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*"|".*\Z)+', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_OWS = " \t"

# About one connection only, whether or not Connection names them (RFC 9110 §7.6.1, §11.7, RFC 7540 §3.2.1).
# Trailer is here because trailers are not passed on; a promise of them would be false.
HOP_BY_HOP = frozenset(
    {
        "connection", "http2-settings", "keep-alive", "proxy-authenticate", "proxy-authentication-info",
        "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip

# Fields that make an ask conditional (RFC 9110 §13.1.1 to §13.1.4); If-Range is about the range alone.
PRECONDITIONS = frozenset({"if-match", "if-modified-since", "if-none-match", "if-unmodified-since"})

# Fields meant for every recipient. Naming one in Connection is forbidden (RFC 9110 §7.6.1), and obeying it would let a
# client take away what the origin, a guard or a cache decides by: a proxy's X-Forwarded-For, the Range of a resume, the
# length of a body, the Vary of an answer. Such options are not obeyed; every other named field is removed.
END_TO_END = frozenset(
    {
        "accept", "accept-encoding", "accept-ranges", "age", "allow", "authorization", "cache-control", "cache-status",
        "cdn-cache-control", "cdn-loop", "content-digest", "content-disposition", "content-encoding",
        "content-language", "content-length", "content-location", "content-range", "content-security-policy",
        "content-type", "cookie", "date", "digest", "etag", "expect", "expires", "forwarded", "host", "if-match",
        "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "last-modified", "location",
        "max-forwards", "origin", "pragma", "proxy-status", "range", "referer", "repr-digest", "retry-after", "server",
        "set-cookie", "strict-transport-security", "user-agent", "vary", "via", "warning", "www-authenticate",
        "x-content-type-options", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto",
        "x-frame-options", "x-real-ip", "x-request-id",
    }
)  # fmt: skip


def end_to_end(headers: Headers) -> Headers:
    """The headers that may travel on: without hop-by-hop fields and those that Connection names.

    Fields of :data:`END_TO_END` and CORS fields stay even when Connection names them.
    """
    options = connection_options(headers)
    named = {name for name in options if not _always_travels(name)} if options else options
    return without(headers, HOP_BY_HOP | named if named else HOP_BY_HOP)


def connection_options(headers: Headers) -> frozenset[str]:
    """The lower-cased options of all Connection lines, for example ``close`` or ``upgrade``."""
    return frozenset(option.lower() for value in header_values(headers, "Connection") for option in split_list(value))


def _always_travels(name: str) -> bool:
    return name in END_TO_END or name.startswith("access-control-")


def is_token(text: str) -> bool:
    """Whether ``text`` is a token (RFC 9110 §5.6.2)."""
    return _TOKEN.fullmatch(text) is not None


def split_list(value: str) -> list[str]:
    """The non-empty elements of a comma-separated list (RFC 9110 §5.6.1); commas inside quotes do not separate.

    After a quote that never closes everything belongs to one element, which then fits no grammar.
    """
    if '"' not in value:
        return [element for part in value.split(",") if (element := part.strip(_OWS))]
    return [element for match in _ELEMENT.finditer(value) if (element := match[0].strip(_OWS))]


def quote(text: str) -> str:
    """``text`` as a quoted-string (RFC 9110 §5.6.4). ValueError when it holds control characters."""
    if any((c < " " and c != "\t") or c == "\x7f" for c in text):
        raise ValueError(f"{text!r} cannot be quoted: control characters")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def token_or_quoted(text: str) -> str:
    """``text`` as it is when it is a token, else quoted."""
    return text if is_token(text) else quote(text)


def unquote(text: str) -> str | None:
    """What a token or quoted-string stands for; None when ``text`` is neither."""
    if is_token(text):
        return text
    match = _QUOTED.fullmatch(text)
    return None if match is None else _ESCAPED.sub(r"\1", match[1])


def parse_parameters(text: str) -> tuple[tuple[str, str], ...] | None:
    """``a=b; c="d"`` as pairs of lower-cased name and unquoted value, in order (RFC 9110 §5.6.6).

    Empty parameters are skipped. None when anything does not fit the grammar, so that nobody trusts half of it.
    """
    pairs: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        if text[at] in " \t;":
            at += 1
            continue
        name = _TOKEN.match(text, at)
        if name is None or not text.startswith("=", name.end()):
            return None
        value = _TOKEN.match(text, name.end() + 1) or _QUOTED.match(text, name.end() + 1)
        if value is None:
            return None
        at = value.end()
        rest = text[at:].lstrip(_OWS)
        if rest and not rest.startswith(";"):
            return None
        at = len(text) - len(rest)
        plain = unquote(value[0])
        pairs.append((name[0].lower(), plain if plain is not None else ""))
    return tuple(pairs)
