"""Preconditions (RFC 9110 §13): evaluated by the origin, or by us when the origin does not."""

from __future__ import annotations

import pytest

from tests.conftest import OpenHouse
from tests.origin import Content, Origin, Reply

pytestmark = pytest.mark.loops("uvloop")

FILE = Content(4, 100_000)
NEW, SAME, OLD = "Mon, 02 Nov 2026 12:00:00 GMT", "Sun, 01 Nov 2026 12:00:00 GMT", "Sat, 31 Oct 2026 12:00:00 GMT"

CASES = [
    (f"If-None-Match: {FILE.etag}", 304),
    (f"If-None-Match: W/{FILE.etag}", 304),
    (f'If-None-Match: "a", {FILE.etag} , "b"', 304),
    ("If-None-Match: *", 304),
    ('If-None-Match: "a"', 200),
    (f"If-Modified-Since: {SAME}", 304),
    (f"If-Modified-Since: {NEW}", 304),
    (f"If-Modified-Since: {OLD}", 200),
    ("If-Modified-Since: yesterday", 200),
    (f"If-Match: {FILE.etag}", 200),
    ("If-Match: *", 200),
    ('If-Match: "a"', 412),
    (f"If-Match: W/{FILE.etag}", 412),
    (f"If-Unmodified-Since: {SAME}", 200),
    (f"If-Unmodified-Since: {OLD}", 412),
]


@pytest.mark.parametrize(("line", "status"), CASES)
async def test_an_origin_that_ignores_conditions(house: OpenHouse, origin: Origin, line: str, status: int) -> None:
    head = f"HTTP/1.1 200 OK\r\nETag: {FILE.etag}\r\nLast-Modified: {SAME}\r\nContent-Length: {FILE.size}\r\n\r\n"
    origin.script("/f", Reply(raw=head.encode() + FILE.read()))
    running = await house(origin)
    async with await running.connect() as client:
        got = await client.ask("GET", "/f", line)
        assert got.status == status
        assert got.complete
        if status == 304:
            assert (got.get("etag"), got.size) == (FILE.etag, 0)
        if status == 200:
            assert got.sha256 == FILE.sha256()
        assert (await client.ask("GET", "/f")).sha256 == FILE.sha256()  # the connection is fit for the next


async def test_conditions_reach_an_origin_that_knows_them(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", FILE)
    running = await house(origin)
    assert (await running.fetch("/f", f"If-None-Match: {FILE.etag}")).status == 304
    assert origin.sent["/f"] == 0
    assert (await running.fetch("/f", 'If-Match: "a"')).status == 412
    assert origin.last.get("if-match") == '"a"'


async def test_if_none_match_wins_over_if_modified_since(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", FILE)
    got = await (await house(origin)).fetch("/f", 'If-None-Match: "a"', f"If-Modified-Since: {SAME}")
    assert got.status == 200


async def test_a_304_carries_what_a_200_would_say_and_no_body(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", Reply(FILE, headers=(("Cache-Control", "max-age=5"), ("Vary", "Accept"))))
    got = await (await house(origin)).fetch("/f", f"If-None-Match: {FILE.etag}")
    assert (got.status, got.get("cache-control"), got.get("vary")) == (304, "max-age=5", "Accept")
    assert got.get("etag") == FILE.etag


async def test_conditions_on_head(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", FILE)
    got = await (await house(origin)).fetch("/f", f"If-None-Match: {FILE.etag}", method="HEAD")
    assert got.status == 304


async def test_a_failed_condition_wins_over_a_range(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", FILE)
    running = await house(origin)
    assert (await running.fetch("/f", "Range: bytes=0-9", 'If-Match: "a"')).status == 412
    assert (await running.fetch("/f", "Range: bytes=0-9", f"If-None-Match: {FILE.etag}")).status == 304
