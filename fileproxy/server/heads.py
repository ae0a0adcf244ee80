"""The raw head of a request, checked before any parser sees it (pure; RFC 9112 §2, §3, §5, §6).

aiohttp's parser accepts what two parties could read differently: unknown versions, chunked HTTP/1.0, lists of lengths.
Here such a head is refused and the connection closed, so that what reaches the parser has one meaning.

A good head costs two regular expressions; only a refused one is looked at line by line, to say what is wrong with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple

from fileproxy.errors import ClientError
from fileproxy.http.targets import is_authority

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]"
_REQUEST_LINE = rb"(" + _TOKEN + rb"++) ([\x21-\x7e\x80-\xff]++) HTTP/1\.([01])"
_is_request_line = re.compile(_REQUEST_LINE).fullmatch
# Atomic, not possessive: that is a sixth faster, and a possessive group matches nothing in Python before 3.11.3.
_is_head = re.compile(_REQUEST_LINE + rb"((?>(?:\r\n" + _TOKEN + rb"++:" + _VALUE + rb"*+)*))\r\n\r\n").fullmatch
_find_special = re.compile(
    rb"\n(host|content-length|transfer-encoding|connection|upgrade|expect):[ \t]*+([^\r]*)", re.IGNORECASE
).findall
_cut_upgrade = re.compile(rb"\r\nupgrade:[^\r]*+", re.IGNORECASE).sub
_is_length = re.compile(rb"[0-9]{1,19}").fullmatch
_is_field = re.compile(_TOKEN + rb"++:" + _VALUE + rb"*+").fullmatch
_has_version = re.compile(rb".* HTTP/[0-9]+(?:\.[0-9]+)?").fullmatch
_is_target = re.compile(rb"/.*|\*|https?://.*", re.IGNORECASE | re.DOTALL).match
_LONGEST_BODY = 2**63 - 1

# What the parser behind us (llhttp) knows; anything else is not implemented (RFC 9110 §9.1).
_METHODS = frozenset(
    b"GET HEAD POST PUT DELETE OPTIONS PATCH TRACE COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK BIND REBIND "
    b"UNBIND ACL REPORT MKACTIVITY CHECKOUT MERGE NOTIFY SUBSCRIBE UNSUBSCRIBE PURGE MKCALENDAR LINK UNLINK".split()
)


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """Bytes, and a number of lines. Line lengths are without their CRLF, ``head`` is with everything."""

    request_line: int = 8192
    headers: int = 100
    header_line: int = 8192
    head: int = 32768


class Head(NamedTuple):
    """What the front needs to know of a checked head. Text is UTF-8 with ``surrogateescape``."""

    method: str
    target: str  # exactly as sent
    http10: bool
    authority: str  # Host as sent; "" when HTTP/1.0 sent none
    length: int | None  # Content-Length
    chunked: bool
    keep_alive: bool
    expect: str | None  # lower case; None on HTTP/1.0, where it must be ignored (RFC 9110 §10.1.1)
    upgrade: bool  # an Upgrade field is there that we ignore
    received_at: float  # clock.now() when the head was complete


class BadHead(ClientError):
    """The head (or the framing of the body) broke the rules; the connection cannot go on. The ``detail`` is for people.

    ``status`` is 400, 408, 414, 431 or 501.
    """

    proxy_error = "http_request_error"

    def __init__(self, status: int, detail: str, *, ending: str = "malformed") -> None:
        super().__init__(detail)
        self.status = status
        self.ending = ending

    @property
    def title(self) -> str:
        return HTTPStatus(self.status).phrase


def head_end(raw: bytes, start: int = 0) -> int:
    """The index after the empty line that ends the head at ``start``; -1 while it is not there.

    One empty line before the request line belongs to the head (RFC 9112 §2.2).
    """
    at = raw.find(b"\r\n\r\n", start + 2 if raw.startswith(b"\r\n", start) else start)
    return at + 4 if at >= 0 else -1


def check_head(raw: bytes, limits: HeadLimits, received_at: float = 0.0) -> Head:
    """Check a complete head: ``raw`` ends with its empty line. Raises BadHead."""
    if raw.startswith(b"\r\n"):
        raw = raw[2:]
    _check_limits(raw, limits)
    match = _is_head(raw)
    if match is None:
        raise BadHead(400, _what_is_wrong(raw))
    method, target, minor, fields = match.groups()
    http10 = minor == b"0"
    _check_request(method, target)
    found: dict[bytes, bytes] = {}
    for name, value in _find_special(fields):
        key = name.lower()
        if key not in found:
            found[key] = value.rstrip(b" \t")
        elif key in (b"connection", b"upgrade", b"expect"):
            found[key] += b", " + value.rstrip(b" \t")
        else:
            raise BadHead(400, f"There is more than one {name.decode()} header.")
    options = found.get(b"connection", b"").lower()
    expect = None if http10 else found.get(b"expect")
    if b"upgrade" in found:
        _check_upgrade(found[b"upgrade"], options)
    return Head(
        method.decode(),
        target.decode("utf-8", "surrogateescape"),
        http10,
        _authority(found.get(b"host"), http10),
        _length(found.get(b"content-length")),
        b"transfer-encoding" in found and _chunked(found, http10),
        _keep_alive(options, http10),
        None if expect is None else expect.lower().decode("utf-8", "surrogateescape"),
        b"upgrade" in found,
        received_at,
    )


def check_partial(raw: bytes, limits: HeadLimits) -> None:
    """Refuse a head that is not complete yet as soon as it can no longer become a good one. Raises BadHead."""
    if raw.startswith(b"\r\n"):
        raw = raw[2:]
    _check_limits(raw, limits)
    end = raw.find(b"\r\n")
    if end >= 0 and _is_request_line(raw, 0, end) is None:
        raise BadHead(400, _what_is_wrong_with_request_line(raw[:end]))
    line_ends = raw.count(b"\r\n")
    if raw.count(b"\n") != line_ends or raw.count(b"\r") - raw.endswith(b"\r") != line_ends:
        raise BadHead(400, "A line ends with a bare CR or LF.")
    if b"\0" in raw:
        raise BadHead(400, "The head holds a NUL.")


def without_upgrade(raw: bytes) -> bytes:
    """The head without its Upgrade lines, so that no parser behind us changes the protocol."""
    return _cut_upgrade(b"", raw)


def _check_limits(raw: bytes, limits: HeadLimits) -> None:
    if raw.endswith(b"\r"):  # half of a line end that is still to come
        raw = raw[:-1]
    end = raw.find(b"\r\n")
    if (end if end >= 0 else len(raw)) > limits.request_line:
        raise BadHead(414, f"The request line is longer than {limits.request_line} bytes.")
    if len(raw) > limits.head:
        raise BadHead(431, f"The request head is longer than {limits.head} bytes.")
    # A complete head has two line ends more than header lines, a partial one at least as many.
    lines = raw.count(b"\r\n") - (2 if raw.endswith(b"\r\n\r\n") else 1)
    if lines > limits.headers:
        raise BadHead(431, f"There are more than {limits.headers} header lines.")
    if len(raw) - end > limits.header_line and end >= 0:
        longest = max(map(len, raw[end + 2 :].split(b"\r\n")))
        if longest > limits.header_line:
            raise BadHead(431, f"A header line is longer than {limits.header_line} bytes.")


def _check_request(method: bytes, target: bytes) -> None:
    if method not in _METHODS:
        raise BadHead(501, f"The method {method[:32].decode()} is not supported.", ending="unsupported")
    if _is_target(target) is None:
        raise BadHead(400, "The request target must begin with a / or be an http:// or https:// URL.")


def _authority(host: bytes | None, http10: bool) -> str:
    if host is None:
        if http10:
            return ""
        raise BadHead(400, "The Host header is missing.")
    authority = host.decode("latin-1")
    if not is_authority(authority):
        raise BadHead(400, "The Host header is not valid.")
    return authority


def _length(value: bytes | None) -> int | None:
    if value is None:
        return None
    if _is_length(value) is None or (length := int(value)) > _LONGEST_BODY:
        raise BadHead(400, "The Content-Length is not valid.")
    return length


def _chunked(found: dict[bytes, bytes], http10: bool) -> bool:
    """RFC 9112 §6.1 and §6.3: chunked alone; 501 where it comes last after a coding we do not know."""
    if http10:
        raise BadHead(400, "HTTP/1.0 knows no Transfer-Encoding.")
    if b"content-length" in found:
        raise BadHead(400, "Content-Length and Transfer-Encoding contradict each other.")
    codings = [coding.strip(b" \t") for coding in found[b"transfer-encoding"].lower().split(b",")]
    if codings == [b"chunked"]:
        return True
    if codings.count(b"chunked") == 1 and codings[-1] == b"chunked":
        raise BadHead(501, "Only the transfer coding chunked is supported.", ending="unsupported")
    raise BadHead(400, "The Transfer-Encoding is not valid.")


def _keep_alive(options: bytes, http10: bool) -> bool:
    if not options:
        return not http10
    tokens = {option.strip(b" \t") for option in options.split(b",")}
    return b"close" not in tokens and (not http10 or b"keep-alive" in tokens)


def _check_upgrade(value: bytes, options: bytes) -> None:
    """An Upgrade that Connection does not name counts for nothing (RFC 9110 §7.8); h2c may be ignored, others not."""
    if b"upgrade" not in {option.strip(b" \t") for option in options.split(b",")}:
        return
    if {protocol.strip(b" \t") for protocol in value.lower().split(b",")} != {b"h2c"}:
        raise BadHead(501, "The connection cannot be upgraded to another protocol.", ending="unsupported")


# --- a refused head: say why ------------------------------------------------------------------------------------------


def _what_is_wrong(raw: bytes) -> str:
    request_line, *lines = raw[:-4].split(b"\r\n")
    if _is_request_line(request_line) is None:
        return _what_is_wrong_with_request_line(request_line)
    for line in lines:
        if _is_field(line) is None:
            return _what_is_wrong_with_field(line)
    return "The request head is not valid."


def _what_is_wrong_with_request_line(line: bytes) -> str:
    if b"\n" in line or b"\r" in line:
        return "A line ends with a bare CR or LF."
    if _has_version(line) is None:
        return "The request line is not METHOD target HTTP/1.1."
    if not line.endswith((b" HTTP/1.0", b" HTTP/1.1")):
        return "Only HTTP/1.0 and HTTP/1.1 are spoken here."
    return "The request line is not METHOD target HTTP/1.1."


def _what_is_wrong_with_field(line: bytes) -> str:
    if line.startswith((b" ", b"\t")):
        return "A header is folded over several lines."
    name, colon, _ = line.partition(b":")
    if b"\n" in line or b"\r" in line:
        return "A line ends with a bare CR or LF."
    if b"\0" in line:
        return "The head holds a NUL."
    if not colon or not name:
        return "A header line has no name."
    if name.endswith((b" ", b"\t")):
        return "There is white space between a header's name and its colon."
    if re.fullmatch(_TOKEN + rb"+", name) is None:
        return "A header's name is not valid."
    return "A header's value holds a control character."
