"""Methods besides GET, where a route allows them: bodies stream through, and only so much of them."""

from __future__ import annotations

import asyncio

import pytest

from fileproxy.clock import ManualClock
from fileproxy.server.ends import Phase
from tests.conftest import OpenHouse
from tests.house import settled
from tests.origin import MIB, Content, Gate, Origin, Reply
from tests.trips.plays import WRITABLE, settings

pytestmark = pytest.mark.loops("asyncio", "uvloop")

BODIES = ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@pytest.mark.option("routes.methods")
@pytest.mark.parametrize("method", [*BODIES, "TRACE"])
async def test_the_default_is_read_only(house: OpenHouse, origin: Origin, method: str) -> None:
    running = await house(origin)
    async with await running.connect() as client:
        got = await client.ask(method, "/f", body=b"" if method == "TRACE" else b"body")
        assert got.status == 405
        assert got.get("allow") == "GET, HEAD"
        assert (await client.ask("GET", "/f")).status == 404  # the refused body was not read as a request
    assert [request.method for request in origin.requests] == ["GET"]


@pytest.mark.parametrize("method", BODIES)
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_is_forwarded_byte_for_byte(house: OpenHouse, origin: Origin, method: str, chunked: bool) -> None:
    file = Content(1, 3 * MIB + 7)
    origin.script("/f", Reply(b"done", status=201, headers=(("Location", "/new"),)))
    running = await house(settings(origin, route=WRITABLE))
    async with await running.connect() as client:
        if chunked:
            await client.request(method, "/f?x=%20", "Transfer-Encoding: chunked", "Content-Type: a/b")
            for piece in file.pieces(piece=100_001):
                await client.send(b"%x;ext=1\r\n%s\r\n" % (len(piece), piece))
            await client.send(b"0\r\nX-Trailer: y\r\n\r\n")
        else:
            await client.request(method, "/f?x=%20", f"Content-Length: {file.size}", "Content-Type: a/b")
            for piece in file.pieces():
                await client.send(piece)
        got = await client.answer()
        assert (got.status, got.body, got.get("location")) == (201, b"done", "/new")
        assert (await client.ask("GET", "/f")).status == 201  # the connection is fit for the next
    request = origin.requests[0]
    assert (request.method, request.target, request.get("content-type")) == (method, "/f?x=%20", "a/b")
    assert (request.body_size, request.body_sha256, request.complete) == (file.size, file.sha256(), True)
    if not chunked:
        assert request.get("content-length") == str(file.size)
    assert running.counts["bytes.from_clients"] == file.size


async def test_options_of_the_whole_server_has_no_route(house: OpenHouse, origin: Origin) -> None:
    running = await house(settings(origin, route=WRITABLE))
    assert (await running.fetch("*", method="OPTIONS")).status == 404


async def test_a_delete_without_a_body(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", Reply(status=204))
    running = await house(settings(origin, route=WRITABLE))
    assert (await running.fetch("/f", method="DELETE")).status == 204
    assert origin.last.get("transfer-encoding") is None


async def test_an_answer_may_come_before_the_body_has_ended(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", Reply(b"too early", status=403, reads="none", after="close"))
    running = await house(settings(origin, route=WRITABLE))
    async with await running.connect() as client:
        await client.request("PUT", "/f", "Content-Length: 100000")
        got = await client.answer()
        assert (got.status, got.body) == (403, b"too early")


async def test_the_body_waits_for_a_slow_origin(house: OpenHouse, origin: Origin) -> None:
    """Backpressure up: the client can hand over only what the buffers on the way hold."""
    gate = Gate()
    origin.script("/f", Reply(b"done", reads=gate))
    running = await house(settings(origin, route=WRITABLE))
    file = Content(1, 64 * MIB)
    async with await running.connect() as client:
        await client.request("PUT", "/f", f"Content-Length: {file.size}")

        async def send() -> None:
            for piece in file.pieces():
                await client.send(piece)

        sending = asyncio.create_task(send())
        await settled(lambda: not running.house._connections._open)
        (front,) = running.house._connections._open
        await settled(lambda: front.phase is Phase.MOVING)
        await settled(lambda: front.transport.is_reading() and not sending.done(), within=15)
        assert not sending.done()
        assert running.counts["bytes.from_clients"] < file.size / 2
        gate.open()
        assert (await client.answer()).body == b"done"
        await sending
    assert origin.last.body_sha256 == file.sha256()


# --- how much ---------------------------------------------------------------------------------------------------------


@pytest.mark.option("limits.request_body")
async def test_a_declared_body_that_is_too_long_is_413_at_once(house: OpenHouse, origin: Origin) -> None:
    running = await house(settings(origin, route=WRITABLE, limits={"request_body": 1000}))
    async with await running.connect() as client:
        await client.request("PUT", "/f", "Content-Length: 1001")
        got = await client.answer()
        assert (got.status, got.get("connection")) == (413, "close")
        assert await client.ended()
    assert origin.requests == []
    assert running.counts.endings == {"body_too_large": 1}
    assert (await running.fetch("/f", method="PUT", body=b"x" * 1000)).status == 404


async def test_a_chunked_body_that_grows_too_long_is_413(house: OpenHouse, origin: Origin) -> None:
    running = await house(settings(origin, route=WRITABLE, limits={"request_body": 1000}))
    async with await running.connect() as client:
        await client.request("PUT", "/f", "Transfer-Encoding: chunked")
        for _ in range(3):
            await client.send(b"190\r\n" + b"x" * 400 + b"\r\n")
        got = await client.answer()
        assert got.status == 413
        assert await client.ended()
    await running.quiet()
    assert running.counts.endings == {"body_too_large": 1}
    assert not any(request.complete for request in origin.requests)
    await origin.wait_for(lambda: origin.open == 0)  # what was begun is cut, never ended as if complete


# --- Expect -----------------------------------------------------------------------------------------------------------


async def test_100_continue_is_said_when_the_body_is_wanted(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", Reply(b"done"))
    running = await house(settings(origin, route=WRITABLE))
    async with await running.connect() as client:
        await client.request("PUT", "/f", "Expect: 100-continue", "Content-Length: 5")
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"hello")
        got = await client.answer()
        assert (got.status, got.interim) == (200, [])
        assert (await client.ask("GET", "/f")).status == 200
    assert bytes(origin.requests[0].body) == b"hello"


async def test_a_refused_body_is_not_asked_for(house: OpenHouse, origin: Origin) -> None:
    running = await house(origin)
    async with await running.connect() as client:
        await client.request("PUT", "/f", "Expect: 100-continue", "Content-Length: 5")
        got = await client.answer()
        assert (got.status, got.interim, got.get("connection")) == (405, [], "close")
        assert await client.ended()  # whether the body follows is not known, so nothing can follow
    assert origin.requests == []


async def test_a_client_that_does_not_wait_for_100_is_served(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", Reply(b"done"))
    running = await house(settings(origin, route=WRITABLE))
    async with await running.connect() as client:
        got = await client.ask("PUT", "/f", "Expect: 100-continue", body=b"hello")
        assert got.body == b"done"
    assert bytes(origin.last.body) == b"hello"


async def test_http_1_0_gets_no_100(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", Reply(b"done"))
    running = await house(settings(origin, route=WRITABLE))
    async with await running.connect() as client:
        await client.send(b"PUT /f HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello")
        got = await client.answer()
        assert (got.status, got.interim) == (200, [])


async def test_other_expectations_are_417(house: OpenHouse, origin: Origin) -> None:
    running = await house(settings(origin, route=WRITABLE))
    got = await running.fetch("/f", "Expect: 200-ok", method="PUT", body=b"x")
    assert (got.status, got.get("content-type")) == (417, "application/problem+json")
    await running.quiet()
    assert running.counts.endings == {"expectation_failed": 1}
    assert origin.requests == []


# --- a client that breaks off -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["reset", "close", "half_close"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_broken_off_never_looks_complete(
    house: OpenHouse, origin: Origin, how: str, chunked: bool
) -> None:
    running = await house(settings(origin, route=WRITABLE))
    async with await running.connect() as client:
        await client.request("PUT", "/f", "Transfer-Encoding: chunked" if chunked else "Content-Length: 100000")
        piece = b"x" * 50_000
        await client.send(b"c350\r\n" + piece + b"\r\n" if chunked else piece)
        await origin.wait_for(lambda: bool(origin.requests) and origin.last.body_size == len(piece))
        if how == "half_close":
            client.half_close()
        elif how == "reset":
            client.reset()
        else:
            await client.close()
        await origin.wait_for(lambda: origin.closed_by_peer == 1)
    await running.quiet()
    assert not origin.last.complete
    assert origin.requests_of("/f") == 1  # a body that was begun is not sent again
    assert running.counts.endings == {"client_gone": 1}


@pytest.mark.option("limits.client_idle")
async def test_a_body_that_stops_coming_is_408(house: OpenHouse, origin: Origin) -> None:
    clock = ManualClock()
    running = await house(settings(origin, route=WRITABLE, limits={"client_idle": "20s"}), clock)
    async with await running.connect() as client:
        await client.request("PUT", "/f", "Content-Length: 100000")
        await client.send(b"x" * 2000)
        await origin.wait_for(lambda: bool(origin.requests) and origin.last.body_size == 2000)
        await clock.advance(1)  # the sweep sees the progress
        await clock.advance(19)
        assert running.counts["downloads.active"] == 1
        await clock.advance(2)
        got = await client.answer()
        assert (got.status, got.get("connection")) == (408, "close")
        assert await client.ended()
    await running.quiet()
    assert running.counts.endings == {"client_stalled": 1}
    assert not origin.last.complete
