r"""The request target, made canonical by refusing what is ambiguous, never by rewriting (RFC 9112 §3.2, RFC 3986).

Path and query leave here byte for byte as they came: signed URLs and ``/@scope%2fname`` stay what they are. What two
parties could read differently is a :class:`BadTarget` (400): dot segments however they are written, backslashes, NUL,
broken percent-escapes, bytes that do not belong in a URL. An encoded slash is allowed in a path, but not where it
selects a route (``server/routing.py``).

The query is looked at less closely: it selects no file and no route, browsers send ``\`` and lone ``%`` in it, and
signatures hold ``%00``. Only bytes outside 0x21-0x7e and ``#`` are refused there.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from fileproxy.errors import BadTarget
from fileproxy.model import Target

_PRINTABLE = re.compile(r"[\x21\x22\x24-\x7e]+")  # all of 0x21-0x7e but the #
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# A segment is one of dots also before path parameters: some servers read /..;x/ as /../
_DOT_SEGMENT = re.compile(r"(?:\A|[/\\])\.{1,2}(?=[/\\;]|\Z)")
_ABSOLUTE = re.compile(r"https?://([^/?]*)(.*)", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,255})(?::([0-9]{0,5}))?")


def parse_target(raw: str, method: str) -> tuple[Target, str | None]:
    """The target of a request line, and the authority when it came in absolute form (it then overrides Host).

    ``raw`` is the target as sent. ``*`` is for OPTIONS only; its absolute form is a bare authority (RFC 9112 §3.2.4).
    Raises BadTarget. CONNECT's authority form is refused like everything that has no path.
    """
    if not raw:
        raise BadTarget("the request target is empty")
    if _PRINTABLE.fullmatch(raw) is None:
        raise BadTarget("the request target holds a character that must be percent-encoded")
    authority = None
    if raw[0] != "/":
        if raw == "*" and method == "OPTIONS":
            return Target("*"), None
        absolute = _ABSOLUTE.fullmatch(raw)
        if absolute is None:
            raise BadTarget("the request target must begin with a / or be an http:// or https:// URL")
        authority, raw = absolute[1], absolute[2]
        if not is_authority(authority):
            raise BadTarget("the request target names no valid host")
        if not raw and method == "OPTIONS":
            return Target("*"), authority
        if not raw.startswith("/"):
            raw = "/" + raw
    path, mark, query = raw.partition("?")
    _check_path(path)
    return Target(path, query if mark else None), authority


def _check_path(path: str) -> None:
    decoded = path
    if "%" in path:
        if _BROKEN_ESCAPE.search(path):
            raise BadTarget("the path holds a % that is not followed by two hexadecimal digits")
        decoded = decode_path(path)
        if "\0" in decoded:
            raise BadTarget("the path holds a NUL")
    if "\\" in decoded:
        raise BadTarget("the path holds a backslash")
    if "." in decoded and _DOT_SEGMENT.search(decoded):
        raise BadTarget("the path holds a dot segment")


def decode_path(path: str) -> str:
    """The path with its percent-escapes decoded once; bytes that are no UTF-8 become surrogate escapes."""
    return unquote(path, errors="surrogateescape") if "%" in path else path


def is_authority(text: str) -> bool:
    """Whether ``text`` is ``host`` or ``host:port`` as an http URL or Host has it: ASCII, no user information."""
    match = _AUTHORITY.fullmatch(text)
    return match is not None and (not match[1] or int(match[1]) <= 65535)
