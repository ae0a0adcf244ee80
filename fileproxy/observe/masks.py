"""Keeping secrets out of logs and reports (pure).

A signed URL is a key to its file, so log lines and ``/health`` show that there was one and not what it was. Only values
are masked: names, order and everything else stay as sent, so that a line can still be matched with a request.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

MASK = "***"

# A parameter is secret when one of the words of its name is one of these …
_SECRET_WORD = re.compile(
    r"token|jwt|key|secret|signature|sig|sign|password|passphrase|pass|pwd|pw|auth|authorization|credential|sid|cookie"
    r"|code|otp|hmac|policy|ticket"
)
# … or, however it is glued together, holds one of these.
_INSIDE = re.compile(r"token|secret|signature|passw|credential|apikey|accesskey|accountkey|authkey|privatekey|session")
_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")
_QUERY_PAIR = re.compile(r"([^&;=#]*)=([^&;#]*)")
_USERINFO = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*:)?//([^/?#]*)@")


def is_secret(name: str) -> bool:
    """Does a parameter, header or option of this name carry something that opens doors?"""
    name = unquote_plus(name)
    if any(_SECRET_WORD.fullmatch(word.lower()) for word in _WORD.findall(name)):
        return True
    return _INSIDE.search(re.sub(r"[^a-z0-9]", "", name.lower())) is not None


def mask_url(url: str) -> str:
    """A URL or request target with the values of secret parameters, and a password before the host, masked."""
    if "@" in url:
        url = _USERINFO.sub(lambda match: f"{match[1] or ''}//{_mask_userinfo(match[2])}@", url)
    path, mark, query = url.partition("?")
    return f"{path}?{_QUERY_PAIR.sub(_mask_pair, query)}" if mark else url


def _mask_userinfo(userinfo: str) -> str:
    user, colon, _ = userinfo.partition(":")
    return f"{user}:{MASK}" if colon else MASK


def _mask_pair(match: re.Match[str]) -> str:
    name, value = match[1], match[2]
    return f"{name}={MASK}" if value and is_secret(name) else f"{name}={value}"
