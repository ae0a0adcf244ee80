"""What one answer of the scripted origin looks like: frozen values, and the pure step from (request, reply) to a plan.

The default is an honest file server: Content-Length, strong ETag, Last-Modified, single ranges with If-Range, HEAD,
304 and 412. Each field of :class:`Reply` is one way to be something else.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

from tests.origin.content import Content

HeaderValue = str | bytes  # text goes out as UTF-8; bytes exactly as they are
LAST_MODIFIED = "Sun, 01 Nov 2026 12:00:00 GMT"
DATE = "Sun, 22 Nov 2026 12:00:00 GMT"


class Gate:
    """A moment the test decides: the origin waits in front of it until ``open()`` (from any thread)."""

    def __init__(self) -> None:
        self._open = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def open(self) -> None:
        self._open = True
        for loop, event in self._waiting:
            loop.call_soon_threadsafe(event.set)

    async def passed(self) -> None:
        event = asyncio.Event()
        self._waiting.append((asyncio.get_running_loop(), event))
        if not self._open:
            await event.wait()


Wait = float | Gate


@dataclass(frozen=True)
class Break:
    """What happens to the connection after ``at`` body bytes (None: instead of the answer's head)."""

    how: Literal["reset", "fin", "stall"]
    at: int | None
    lasts: Wait | None = None  # a stall ends after this; None = never


def reset(at: int | None = None) -> Break:
    """RST after ``at`` body bytes; None: before the head."""
    return Break("reset", at)


def fin(at: int | None = None) -> Break:
    """An early, orderly close after ``at`` body bytes; None: before the head."""
    return Break("fin", at)


def stall(at: int | None = None, lasts: Wait | None = None) -> Break:
    """Silence after ``at`` body bytes (None: before the head), for ever or until ``lasts`` is over."""
    return Break("stall", at, lasts)


@dataclass(frozen=True)
class Reply:
    """One answer. Times in seconds, sizes in bytes.

    ``headers`` are added as they are, duplicates included; a header the honest server would make itself (Content-Type,
    Date, ETag …) is left out when named there. ``etag`` and ``last_modified``: None = none sent.
    """

    content: Content | bytes = b""
    status: int = 200
    headers: tuple[tuple[str, HeaderValue], ...] = ()
    reason: str | None = None
    version: str = "HTTP/1.1"
    # validators and ranges
    etag: str | None = "auto"
    last_modified: str | None = LAST_MODIFIED
    ranges: Literal["honour", "ignore"] = "honour"
    content_range: str | None = None  # a 206 that says this instead of the truth
    shift: int = 0  # a 206 whose bytes come from this much further on
    # framing
    framing: Literal["length", "chunked", "close"] = "length"
    length: int | None = None  # a Content-Length that lies
    chunk: int = 16 * 1024
    chunk_fault: Literal["none", "truncated", "bad_size", "no_crlf"] = "none"
    trailers: bytes = b""
    # timing
    before_head: Wait = 0.0
    before_body: Wait = 0.0
    rate: float | None = None  # bytes a second
    interim: tuple[bytes, ...] = ()  # whole 1xx heads sent first
    # the request's body
    reads: Literal["all", "none"] | Gate = "all"
    read_rate: float | None = None
    # the connection
    breaks: Break | None = None
    after: Literal["keep", "close", "fin", "reset"] = "keep"  # close says so; fin and reset just do it
    raw: bytes | None = None  # exactly this instead of an answer
    echo: bool = False  # the request as received is the body

    @property
    def size(self) -> int:
        return self.content.size if isinstance(self.content, Content) else len(self.content)

    def bytes_at(self, offset: int, length: int) -> bytes:
        if isinstance(self.content, Content):
            return self.content.read(offset, length)
        return self.content[offset : offset + length]


@dataclass(frozen=True)
class Plan:
    """The head to send, and which bytes follow it."""

    status: int
    head: bytes
    start: int
    length: int
    bodyless: bool


def plan(reply: Reply, method: str, request: Mapping[str, str]) -> Plan:
    """From a request (lower-cased header names) and a reply to what goes out (RFC 9110 §13, §14)."""
    etag = reply.etag
    if etag == "auto":
        etag = reply.content.etag if isinstance(reply.content, Content) else f'"{hash(reply.content) & 0xFFFFFFFF:x}"'
    status, start, length = reply.status, 0, reply.size
    extra: list[tuple[str, HeaderValue]] = []
    if status == 200:
        status, start, length = _select(reply, etag, request)
        if status == 206:
            start += reply.shift
            true = f"bytes {start}-{start + length - 1}/{reply.size}"
            extra.append(("Content-Range", reply.content_range or true))
        elif status == 416:
            extra.append(("Content-Range", f"bytes */{reply.size}"))
        if reply.ranges == "honour":
            extra.append(("Accept-Ranges", "bytes"))
    elif reply.content_range is not None:
        extra.append(("Content-Range", reply.content_range))
    bodyless = method == "HEAD" or status in (204, 304) or status < 200
    if status in (304, 412, 416):
        length = 0
    extra += [("Date", DATE), ("Content-Type", "application/octet-stream")]
    if etag is not None and status in (200, 206, 304):
        extra.append(("ETag", etag))
    if reply.last_modified is not None and status in (200, 206, 304):
        extra.append(("Last-Modified", reply.last_modified))
    if reply.framing == "length" and status not in (204, 304):
        extra.append(("Content-Length", str(length if reply.length is None else reply.length)))
    elif reply.framing == "chunked" and not bodyless:
        extra.append(("Transfer-Encoding", "chunked"))
    if reply.after == "close" or reply.framing == "close":
        extra.append(("Connection", "close"))
    return Plan(status, render(reply, status, extra), start, length, bodyless)


def _select(reply: Reply, etag: str | None, request: Mapping[str, str]) -> tuple[int, int, int]:
    """Status, first byte and number of bytes of an honest 200, 206, 304, 412 or 416."""
    if "if-match" in request and not {"*", etag} & set(re.split(r",\s*", request["if-match"])):
        return 412, 0, 0
    if "if-none-match" in request:
        if request["if-none-match"] in ("*", etag):
            return 304, 0, 0
    elif request.get("if-modified-since", "") == reply.last_modified:
        return 304, 0, 0
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", request.get("range", ""))
    if match is None or match[0] == "bytes=-" or reply.ranges == "ignore":
        return 200, 0, reply.size
    if "if-range" in request and request["if-range"] not in (etag, reply.last_modified):
        return 200, 0, reply.size
    first, last = match[1], match[2]
    if first == "":
        start, end = max(0, reply.size - int(last)), reply.size
    else:
        start, end = int(first), min(reply.size, int(last) + 1 if last else reply.size)
    if start >= reply.size or end <= start:
        return 416, 0, 0
    return 206, start, end - start


def render(reply: Reply, status: int, extra: list[tuple[str, HeaderValue]]) -> bytes:
    """The head's bytes: what the reply names itself wins over what the honest server would add."""
    named = {name.lower() for name, _ in reply.headers}
    reason = reply.reason if reply.reason is not None else _reason(status)
    lines = [f"{reply.version} {status} {reason}".encode()]
    for name, value in (*(pair for pair in extra if pair[0].lower() not in named), *reply.headers):
        lines.append(name.encode() + b": " + (value if isinstance(value, bytes) else value.encode()))
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Scripted"
