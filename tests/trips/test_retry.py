"""A failing origin: healed before the first byte, visible after it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fileproxy.clock import ManualClock
from tests.conftest import OpenHouse
from tests.origin import KIB, MIB, Content, Origin, Reply, fin, reset, stall
from tests.trips.plays import WRITABLE, settings

pytestmark = pytest.mark.loops("asyncio", "uvloop")
FILE = Content(7, 2 * MIB)
STATUSES = [429, 500, 502, 503, 504, 524]
AT_ONCE = Reply(b"later", status=503, headers=(("Retry-After", "0"),))


def failing(status: int) -> Reply:
    """An answer that is tried again; 429 says that it need not take a second."""
    return Reply(b"no", status=status, headers=(("Retry-After", "0"),))


# --- before the first byte -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [reset(), fin(), reset(0), fin(0)],
    ids=["reset", "close", "reset in the body's place", "close in the body's place"],
)
async def test_a_broken_connection_is_tried_again(house: OpenHouse, origin: Origin, broken: Any) -> None:
    origin.script("/f", Reply(FILE, breaks=broken), Reply(FILE, breaks=broken), Reply(FILE))
    running = await house(settings(origin))
    got = await running.fetch("/f")
    assert (got.status, got.ending, got.sha256) == (200, "length", FILE.sha256())
    await running.quiet()
    assert running.counts.endings == {"completed": 1}
    assert running.lines.access_lines[0]["tries"] == 3


async def test_a_refused_connection_is_tried_again(house: OpenHouse, origin: Origin) -> None:
    """The origin comes back while the proxy waits between two rounds."""
    origin.serve("/f", FILE)
    await origin.refuse()
    running = await house(settings(origin, upstream={"retry": {"base": "20ms", "cap": "20ms", "attempts": 100}}))
    asking = asyncio.create_task(running.fetch("/f"))
    await running.counts.wait_for(lambda: running.counts.of("upstream.retries", "files") >= 3)
    await origin.listen()
    assert (await asking).sha256 == FILE.sha256()


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE", "PUT"])
@pytest.mark.parametrize("status", STATUSES)
async def test_statuses_of_idempotent_requests(house: OpenHouse, origin: Origin, status: int, method: str) -> None:
    origin.script("/f", failing(status), Reply(b"ok"))
    running = await house(settings(origin, route=WRITABLE))
    got = await running.fetch("/f", method=method)
    assert got.status == 200
    assert [request.method for request in origin.requests] == [method, method]


@pytest.mark.parametrize("status", [400, 404, 501, 505])
async def test_other_statuses_are_answers(house: OpenHouse, origin: Origin, status: int) -> None:
    origin.script("/f", failing(status), Reply(b"ok"))
    running = await house(settings(origin))
    assert (await running.fetch("/f")).status == status
    assert origin.requests_of("/f") == 1


@pytest.mark.parametrize("status", STATUSES)
async def test_a_post_is_sent_once(house: OpenHouse, origin: Origin, mirror: Origin, status: int) -> None:
    for one in (origin, mirror):
        one.script("/f", failing(status), Reply(b"ok"))
    running = await house(settings(origin, mirror, route=WRITABLE))
    got = await running.fetch("/f", method="POST", body=b"x")
    assert (got.status, got.body) == (status, b"no")
    assert len(origin.requests) + len(mirror.requests) == 1


async def test_nor_is_it_after_a_break(house: OpenHouse, origin: Origin, mirror: Origin) -> None:
    for one in (origin, mirror):
        one.script("/f", Reply(breaks=reset()), Reply(b"ok"))
    running = await house(settings(origin, mirror, route=WRITABLE))
    got = await running.fetch("/f", method="POST", body=b"x")
    assert got.status == 502
    assert "connection_terminated" in (got.get("proxy-status") or "")
    assert len(origin.requests) + len(mirror.requests) == 1


async def test_the_next_mirror_comes_first(house: OpenHouse, origin: Origin, mirror: Origin) -> None:
    """At once: with pauses of ten minutes the next mirror is all that can help."""
    origin.script("/f", failing(503))
    mirror.serve("/f", FILE)
    slow = {"retry": {"base": "600s", "cap": "600s", "within": "1200s"}}
    running = await house(settings(origin, mirror, upstream=slow))
    for _ in range(4):
        assert (await running.fetch("/f")).sha256 == FILE.sha256()
    assert (origin.requests_of("/f"), mirror.requests_of("/f")) == (2, 4)


async def test_a_stalled_mirror_is_left_for_the_next(house: OpenHouse, origin: Origin, mirror: Origin) -> None:
    origin.script("/f", Reply(FILE, breaks=stall()))
    mirror.serve("/f", FILE)
    running = await house(settings(origin, mirror, upstream={"timeouts": {"stall": "50ms", "first_byte": "600s"}}))
    assert (await running.fetch("/f")).sha256 == FILE.sha256()


async def test_retry_after_is_honoured(house: OpenHouse, origin: Origin) -> None:
    """By a clock that stands still until it is moved: not a moment before the time it said."""
    reply = Reply(b"later", status=503, headers=(("Retry-After", "7"),))
    origin.script("/f", reply, Reply(b"ok"))
    clock = ManualClock()
    running = await house(settings(origin, upstream={"retry": {"cap": "60s"}}), clock)
    asking = asyncio.create_task(running.fetch("/f"))
    await origin.wait_for(lambda: origin.requests_of("/f") == 1)
    await running.counts.wait_for(lambda: running.counts.of("mirror.failures", f"files/{origin.authority}") == 1)
    for _ in range(69):
        await clock.advance(0.1)
    assert origin.requests_of("/f") == 1
    await clock.advance(0.2)
    assert (await asking).body == b"ok"


async def test_a_longer_one_is_passed_on(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", Reply(b"maintenance", status=503, headers=(("Retry-After", "3600"),)))
    got = await (await house(settings(origin))).fetch("/f")
    assert (got.status, got.get("retry-after"), got.body) == (503, "3600", b"maintenance")
    assert origin.requests_of("/f") == 1


@pytest.mark.option("upstreams.retry.attempts")
async def test_when_the_tries_are_used_up_the_origins_answer_is_the_clients(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", Reply(b"busy", status=503, headers=(("X-Why", "so"),)))
    running = await house(settings(origin, upstream={"retry": {"attempts": 4}}))
    got = await running.fetch("/f")
    assert (got.status, got.get("x-why"), got.body) == (503, "so", b"busy")
    assert origin.requests_of("/f") == 4
    await running.quiet()
    assert running.counts["errors"] == 0  # passed on, not ours


async def test_when_nobody_answers_the_last_error_has_a_name(house: OpenHouse, origin: Origin) -> None:
    await origin.refuse()
    running = await house(settings(origin, upstream={"retry": {"attempts": 3}}))
    got = await running.fetch("/f")
    assert (got.status, got.get("content-type")) == (502, "application/problem+json")
    assert "connection_refused" in (got.get("proxy-status") or "")
    await running.quiet()
    assert running.counts.endings == {"upstream_refused": 1}
    assert running.counts.of("mirror.tries", f"files/{origin.authority}") == 3


@pytest.mark.option("upstreams.retry.within")
async def test_no_try_starts_after_within(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", failing(503))
    running = await house(settings(origin, upstream={"retry": {"within": "0s", "base": "10ms", "attempts": 100}}))
    assert (await running.fetch("/f")).status == 503
    assert origin.requests_of("/f") <= 2  # the second only when no measurable time had passed


@pytest.mark.option("upstreams.retry.budget", "upstreams.retry.budget_floor")
async def test_retries_cannot_bury_a_failing_origin(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", AT_ONCE)
    retry = {"attempts": 100, "budget": 0.2, "budget_floor": 0}
    running = await house(settings(origin, upstream={"retry": retry}))
    for _ in range(50):
        assert (await running.fetch("/f")).status == 503
    # 20 % of 50 (a window that moved on meanwhile may have seen fewer first tries, never more)
    assert 50 < origin.requests_of("/f") <= 60
    assert running.counts.of("upstream.retries_refused", "files") >= 40


# --- after the first byte --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 64 * KIB, MIB + 1])
@pytest.mark.parametrize(
    ("framing", "how"),
    [("length", fin), ("length", reset), ("chunked", fin), ("chunked", reset), ("close", reset)],
)
async def test_a_break_in_the_body_is_never_an_end(
    house: OpenHouse, origin: Origin, mirror: Origin, framing: Any, how: Any, at: int
) -> None:
    """Nothing shows which bytes would fit (with a validator and a length it goes on: test_relay.py)."""
    nameless = Reply(FILE, framing=framing, breaks=how(at), etag=None, last_modified=None)
    for one in (origin, mirror):
        one.script("/f", nameless, Reply(FILE))
    running = await house(settings(origin, mirror))
    async with await running.connect() as client:
        await client.request("GET", "/f")
        got = await client.head()
        assert got.status == 200
        await client.body(got)
    # A close would look like the end of what only the close ends: there it must be a reset.
    assert got.ending in (("reset",) if framing == "close" else ("cut", "reset"))
    assert FILE.read().startswith(got.body)
    await running.quiet()
    assert running.counts["downloads.cut"] == running.counts["errors"] == 1
    (ending,) = running.counts.endings
    assert ending in ("upstream_truncated", "upstream_reset")
    assert len(origin.requests) + len(mirror.requests) == 1  # what was sent cannot be taken back


@pytest.mark.parametrize("fault", ["truncated", "bad_size", "no_crlf"])
async def test_chunks_that_break_the_rules(house: OpenHouse, origin: Origin, fault: Any) -> None:
    origin.script("/f", Reply(FILE, framing="chunked", chunk_fault=fault))
    running = await house(settings(origin, upstream={"retry": {"attempts": 1}}))
    async with await running.connect() as client:
        await client.request("GET", "/f")
        got = await client.head()
        await client.body(got)
    if got.status == 200:
        assert got.ending in ("cut", "reset")
        assert FILE.read().startswith(got.body)
    else:
        assert got.status == 502  # it showed before the head went out
    await running.quiet()
    assert running.counts["errors"] == 1


async def test_fewer_bytes_than_announced(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", Reply(b"x" * 1000, length=1001, after="fin", etag=None, last_modified=None))
    running = await house(settings(origin))
    async with await running.connect() as client:
        await client.request("GET", "/f")
        got = await client.head()
        await client.body(got)
    assert (got.get("content-length"), got.size, got.complete) == ("1001", 1000, False)


async def test_more_bytes_than_announced_are_nobodys(house: OpenHouse, origin: Origin) -> None:
    """Whether they are seen in time (502) or after the last byte that counts: the next answer is not made of them."""
    origin.script("/f", Reply(b"x" * 1000, length=999))
    origin.serve("/g", b"good")
    async with await (await house(settings(origin))).connect() as client:
        got = await client.ask("GET", "/f")
        assert (got.status, got.size) == (200, 999) or got.status == 502
        assert (await client.ask("GET", "/g")).body == b"good"


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("after", ["keep", "close", "fin"])
async def test_a_slow_reader_gets_every_byte(house: OpenHouse, origin: Origin, framing: Any, after: Any) -> None:
    """aiohttp issue 13348: the origin has sent all and closed while most of it is still on its way to the client."""
    file = Content(8, 6 * MIB)
    origin.script("/f", Reply(file, framing=framing, after=after))
    running = await house(settings(origin, upstream={"pool": {"buffer": "1KiB"}}))
    async with await running.connect(receive_buffer=8 * KIB) as client:
        await client.request("GET", "/f")
        got = await client.head()
        await client.body(got)
    assert (got.complete, got.sha256) == (True, file.sha256())
