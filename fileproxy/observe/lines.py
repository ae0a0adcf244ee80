"""One JSON object a line, whatever the values are (pure).

A line cannot be forged or broken: strings are JSON-escaped, and so are the characters that end or turn round a line in
viewers (C1 controls, U+2028, bidirectional overrides); bytes that are no UTF-8 are spelled out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

_UNSAFE = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]")


def encode(fields: Mapping[str, object]) -> bytes:
    """One JSON line (RFC 8259) with its newline and no other. Never raises, whatever the values are."""
    try:
        data = msgspec.json.encode(fields, enc_hook=str)
    except (UnicodeEncodeError, OverflowError, ValueError, TypeError, RecursionError, msgspec.MsgspecError):
        data = msgspec.json.encode({_text(key): _plain(value) for key, value in fields.items()})
    return _UNSAFE.sub(_escape, data) + b"\n"


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    return _text(value)


def _text(value: object) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode()


def _escape(match: re.Match[bytes]) -> bytes:
    return b"".join(b"\\u%04x" % ord(character) for character in match[0].decode())
