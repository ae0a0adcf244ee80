"""Writing structured field values (RFC 9651 §4.1), as much of it as we send."""

from __future__ import annotations

import re

_TOKEN = re.compile(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


def sf_string(text: str) -> str:
    """``text`` as a String. Strings are ASCII: other characters are written as Python escapes, controls as a space."""
    ascii_text = _CONTROL.sub(" ", text).encode("ascii", "backslashreplace").decode("ascii")
    return '"' + ascii_text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def sf_token_or_string(text: str) -> str:
    """``text`` as a Token where it can be one, else as a String."""
    return text if _TOKEN.fullmatch(text) else sf_string(text)
