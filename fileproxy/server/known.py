"""What of a request's head may be known by heart, and the head of its answer with its changing places (pure).

A head is two rows: its request line, and its header block (everything behind that line's CRLF). The header blocks that
may be known hold only fields of :data:`INERT`: whatever they say, the answer is the same, unless Vary names them. All
other fields (conditions, Range, Cache-Control, Authorization, Origin, those that nobody thought of) are served the long
way.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from fileproxy.model import Headers, header_list
from fileproxy.server.heads import Head

LONGEST_HEAD = 4096  # bytes; longer ones are served the long way
INERT = frozenset(
    {
        "accept", "accept-charset", "accept-encoding", "accept-language", "connection", "cookie", "dnt", "forwarded",
        "from", "host", "priority", "referer", "save-data", "traceparent", "tracestate", "upgrade-insecure-requests",
        "user-agent", "via", "x-client-ip", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port",
        "x-forwarded-proto", "x-forwarded-server", "x-real-ip",
    }
)  # fmt: skip
CHOOSING = "accept-encoding"  # of these the one that Vary may name: it is part of the site
GUARDED = frozenset({"load", "method", "route", "upgrade", "expect", "cdn-loop", "content-length"})
"""What a verdict may depend on: the load is looked at for each answer; all else is the same for all known heads."""

_ID_LINE = re.compile(rb"^x-request-id: ?([A-Za-z0-9._:/+=@-]{1,128})\r\n", re.IGNORECASE | re.MULTILINE)
_CONNECTION_LINE = re.compile(rb"\r\nconnection:[^\r]*", re.IGNORECASE)


class Site(NamedTuple):
    """All that a header block may have to say about which answer a request line gets."""

    authority: str
    scheme: str
    codings: str | None  # Accept-Encoding


def without_id(block: bytes) -> tuple[bytes, bytes]:
    """The block without its first X-Request-Id line (a front may send another one each time), and that id; or b""."""
    found = _ID_LINE.search(block)
    return (block, b"") if found is None else (block[: found.start()] + block[found.end() :], found[1])


def fits(line: bytes, block: bytes, longest: int) -> bool:
    """Whether this line with any known block, and this block with any known line, is a head of at most ``longest``."""
    most = longest // 4
    return len(line) + 2 <= most and len(block) <= longest - most


def around_id(head: bytes) -> tuple[bytes, bytes]:
    """The head of an answer up to its request's id, and what follows it; without Connection, as another asks anew."""
    before, name, rest = _CONNECTION_LINE.sub(b"", head).partition(b"\r\nX-Request-Id: ")
    return before + name, rest[rest.index(b"\r\n") :]


def is_plain(head: Head) -> bool:
    """A GET of a path in HTTP/1.1, without a body and without special wishes (``Connection`` is for ``all_inert``)."""
    return (
        head.method == "GET"
        and head.target.startswith("/")
        and head.length is None
        and not (head.http10 or head.chunked or head.upgrade or head.expect is not None)
    )


def is_inert(name: str) -> bool:
    """Whether a field (by its name in lower case) says nothing that changes an answer."""
    return name in INERT or name.startswith("sec-")


def all_inert(headers: Headers) -> bool:
    """Whether a request says nothing that changes its answer; one X-Request-Id is looked at apart."""
    names = [name.lower() for name, _ in headers]
    if "connection" in names and _connection(headers) not in ("keep-alive", "close"):
        return False
    return names.count("x-request-id") <= 1 and all(is_inert(name) or name == "x-request-id" for name in names)


def closes(headers: Headers) -> bool:
    """Whether the client of such a request closes its connection behind the answer."""
    return _connection(headers) == "close"


def _connection(headers: Headers) -> str:
    return (header_list(headers, "Connection") or "").strip().lower()


def may_vary(fields: tuple[str, ...]) -> bool:
    """Whether the answers a Vary chooses among (its fields in lower case) are the same for all blocks of a site."""
    return all(field == CHOOSING or not is_inert(field) for field in fields)


def lasts(age_s: float, ttl_s: float, epoch: float) -> float:
    """Seconds until a head that was made now says something wrong: its Age (rounded up), ttl (down) or Date."""
    return min(math.ceil(age_s) - age_s, ttl_s - math.floor(ttl_s), 1 - epoch % 1)


class Frame:
    """The head of an answer, with the places that change: Age, our Cache-Status, the id, and Date where it is ours."""

    __slots__ = ("_age", "_date", "_id", "_lines", "_status")

    def __init__(self, head: bytes, *, dated: bool) -> None:
        """``head`` as it was sent; ``dated``: its Date is the origin's. ValueError when a place is not there once."""
        lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
        self._lines = [line for line in lines if not line.lower().startswith(b"connection:")]  # another asks anew
        self._age, self._id = self._only(b"age:"), self._only(b"x-request-id:")
        self._status = self._places(b"cache-status:")[-1]  # ours comes last
        self._date = None if dated else self._only(b"date:")

    def _places(self, name: bytes) -> list[int]:
        places = [place for place, line in enumerate(self._lines) if line.lower().startswith(name)]
        if not places:
            raise ValueError(f"the head has no {name.decode()}")
        return places

    def _only(self, name: bytes) -> int:
        place, *others = self._places(name)
        if others:
            raise ValueError(f"the head has more than one {name.decode()}")
        return place

    @property
    def size(self) -> int:
        return sum(map(len, self._lines))

    def render(self, age: str, status: str, date: str) -> tuple[bytes, bytes]:
        """The head up to the request's id, and what follows it."""
        lines = self._lines
        lines[self._age] = b"Age: " + age.encode()
        lines[self._status] = b"Cache-Status: " + status.encode()
        if self._date is not None:
            lines[self._date] = b"Date: " + date.encode()
        before = b"".join(line + b"\r\n" for line in lines[: self._id])
        after = b"".join(b"\r\n" + line for line in lines[self._id + 1 :])
        return before + b"X-Request-Id: ", after + b"\r\n\r\n"
