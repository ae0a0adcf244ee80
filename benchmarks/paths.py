"""Pure paths that a request walks, each a call that can be counted (``guard.py``): no time, no dice, no I/O."""

from __future__ import annotations

from collections.abc import Callable

from fileproxy.cache import freshness
from fileproxy.cache.key import primary_key, variant_key
from fileproxy.fill.join import judge
from fileproxy.http.cache_control import response_directives
from fileproxy.http.ranges import parse_content_range, parse_ranges, resolve
from fileproxy.model import Meta
from fileproxy.server.conditions import evaluate
from fileproxy.server.heads import HeadLimits, check_head
from fileproxy.server.known import Frame, all_inert

NOW = 1_800_000_000.0
MIB = 1024 * 1024
BROWSER = (
    b"GET /pub/files/image.iso?mirror=2 HTTP/1.1\r\nHost: files.test\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\nAccept: */*\r\n"
    b"Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Referer: http://files.test/pub/files/\r\nConnection: keep-alive\r\nPriority: u=0, i\r\n\r\n"
)
REQUEST = (
    ("Host", "files.test"),
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("Accept", "*/*"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Connection", "keep-alive"),
)
CONDITIONAL = (*REQUEST, ("If-None-Match", '"a", W/"b", "5eed-1000"'), ("Range", "bytes=0-1023"))
RESPONSE = (
    ("Date", "Fri, 15 Jan 2027 07:59:30 GMT"),
    ("Content-Type", "application/octet-stream"),
    ("Content-Length", str(100 * MIB)),
    ("ETag", '"5eed-6400000"'),
    ("Last-Modified", "Tue, 01 Dec 2026 10:00:00 GMT"),
    ("Cache-Control", "public, max-age=3600, s-maxage=7200"),  # two lines: what one line said is remembered
    ("Cache-Control", 'stale-while-revalidate=60, stale-if-error=86400, x="y"'),
    ("Vary", "Accept-Encoding"),
)
PART = (
    *(one for one in RESPONSE if one[0] != "Content-Length"),
    ("Content-Range", f"bytes {MIB}-{2 * MIB - 1}/{100 * MIB}"),
    ("Content-Length", str(MIB)),
)
ANSWER_HEAD = (
    b"HTTP/1.1 200 OK\r\nDate: Fri, 15 Jan 2027 07:59:30 GMT\r\nContent-Type: application/octet-stream\r\n"
    b'Content-Length: 1024\r\nETag: "5eed-400"\r\nAge: 3\r\nVia: 1.1 fileproxy\r\nX-Cache: HIT\r\n'
    b"Cache-Status: fileproxy; hit; ttl=3597\r\nX-Request-Id: 0123456789abcdef\r\n\r\n"
)
META = Meta(
    key=bytes(16), rid=bytes(16), url="files/files.test/pub/image.iso", status=200, reason="OK", headers=RESPONSE,
    size=100 * MIB, block=MIB, pinned=True, requested_at=NOW - 31, received_at=NOW - 30, age_s=1.0,
)  # fmt: skip
LIMITS = HeadLimits()
REUSE = freshness.reuse_of.__wrapped__(200, RESPONSE, NOW - 30)
TIMES = freshness.Times(received_at=NOW - 30, age_s=1.0)
FRAME = Frame(ANSWER_HEAD, dated=True)
RANGES = "bytes=0-1023, 5000-, -500, 1048576-2097151"


def ranges() -> None:
    specs = parse_ranges(RANGES)
    assert specs is not None
    resolve(specs, 100 * MIB)


def keys() -> None:
    primary = primary_key(META.url, "http", REQUEST, freshness.AUTO)
    variant_key(primary, ("accept-encoding",), REQUEST)


PURE: dict[str, tuple[str, Callable[[], object]]] = {
    "head": ("checking a browser's request head", lambda: check_head(BROWSER, LIMITS, NOW)),
    "inert": ("whether a head may be known by heart", lambda: all_inert(REQUEST)),
    "frame": ("rendering the head of a known answer", lambda: FRAME.render("3", "fileproxy; hit; ttl=3597", "")),
    "cache-control": ("reading an answer's Cache-Control", lambda: response_directives(RESPONSE)),
    "reuse": ("what an answer allows (RFC 9111)", lambda: freshness.reuse_of.__wrapped__(200, RESPONSE, NOW - 30)),
    "fresh": ("whether a stored answer may be sent", lambda: freshness.decide(REUSE, TIMES, REQUEST, NOW)),
    "ranges": ("parsing and resolving four ranges", ranges),
    "content-range": ("parsing a Content-Range", lambda: parse_content_range(f"bytes 0-{MIB - 1}/{100 * MIB}")),
    "conditions": ("preconditions and a range", lambda: evaluate("GET", CONDITIONAL, RESPONSE, 100 * MIB, NOW)),
    "key": ("the keys of a file and its variant", keys),
    "join": ("law 1: whether a part joins", lambda: judge(META, 206, PART, MIB, MIB, 2 * MIB - 1, NOW)),
}
