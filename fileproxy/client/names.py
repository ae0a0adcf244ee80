"""Which name a file gets when the user gave none. Pure. A server chooses a name, never a place."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

DEFAULT = "download"
MOST_BYTES = 240  # 255 on most file systems, minus ``.part.json`` and its temporary twin

_PARAMETER = re.compile(r""";\s*(filename\*?)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)""", re.IGNORECASE)
_EXTENDED = re.compile(r"([A-Za-z0-9!#$%&+^_`{}~-]+)'[^']*'([^']*)")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def file_name(disposition: str | None, url: str) -> str:
    """The name of Content-Disposition (RFC 6266: ``filename*`` before ``filename``), else the URL's last part."""
    parameters: dict[str, str] = {}
    for match in _PARAMETER.finditer(disposition or ""):
        parameters.setdefault(match[1].lower(), match[2].strip())
    candidates = (
        _extended(parameters.get("filename*", "")),
        _quoted(parameters.get("filename", "")),
        unquote(urlsplit(url).path.rpartition("/")[2]),
    )
    return next((name for text in candidates if (name := safe_name(text))), DEFAULT)


def safe_name(text: str) -> str:
    """The last path part, printable, not hidden, short enough to be a file's name; empty when nothing is left."""
    last = re.split(r"[/\\]", text)[-1]
    name = _FORBIDDEN.sub("", last).strip().lstrip(".").strip()
    return name.encode()[:MOST_BYTES].decode(errors="ignore")


def _quoted(value: str) -> str:
    if value.startswith('"'):
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value


def _extended(value: str) -> str:
    """RFC 8187: ``UTF-8'en'%e2%82%ac.txt``. Empty when it is malformed."""
    match = _EXTENDED.fullmatch(value)
    if match is None or match[1].lower() not in ("utf-8", "iso-8859-1"):
        return ""
    return unquote(match[2], encoding=match[1], errors="replace")
