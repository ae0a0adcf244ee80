"""A client gets a file: byte for byte, whatever its size and however the origin frames it."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import OpenHouse
from tests.origin import KIB, MIB, Content, Origin, Reply
from tests.trips.plays import settings

pytestmark = pytest.mark.loops("asyncio", "uvloop")


@pytest.mark.parametrize("size", [0, 1, 1023, 64 * KIB, MIB, 20 * MIB + 1])
async def test_a_file_arrives_byte_for_byte(house: OpenHouse, origin: Origin, size: int) -> None:
    file = Content(1, size)
    origin.serve("/f", file)
    got = await (await house(origin)).fetch("/f")
    assert (got.status, got.reason, got.ending) == (200, "OK", "length")
    assert got.get("content-length") == str(size)
    assert got.sha256 == file.sha256()
    assert got.get("etag") == file.etag
    assert got.get("last-modified") == "Sun, 01 Nov 2026 12:00:00 GMT"


async def test_chunked_in_chunked_out(house: OpenHouse, origin: Origin) -> None:
    file = Content(2, 3 * MIB)
    origin.script("/f", Reply(file, framing="chunked", trailers=b"X-Trailer: gone\r\n"))
    got = await (await house(origin)).fetch("/f")
    assert got.ending == "chunked"
    assert got.sha256 == file.sha256()


async def test_chunked_reaches_an_http_1_0_client_until_the_close(house: OpenHouse, origin: Origin) -> None:
    file = Content(2, 300 * KIB)
    origin.script("/f", Reply(file, framing="chunked"))
    async with await (await house(origin)).connect() as client:
        await client.send(b"GET /f HTTP/1.0\r\nHost: files.test\r\n\r\n")
        got = await client.answer()
    assert got.ending == "close"
    assert got.sha256 == file.sha256()


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
async def test_a_body_that_ends_with_the_close_is_passed_on_as_such(
    house: OpenHouse, origin: Origin, version: str
) -> None:
    file = Content(3, MIB)
    origin.script("/f", Reply(file, framing="close", version=version))
    got = await (await house(origin)).fetch("/f")
    assert got.ending == "close"  # a final chunk would claim that somebody had proved the end
    assert "transfer-encoding" not in got.names
    assert got.sha256 == file.sha256()


async def test_head_has_the_headers_and_no_body(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", Content(1, 5 * MIB))
    async with await (await house(origin)).connect() as client:
        got = await client.ask("HEAD", "/f")
        assert (got.status, got.get("content-length")) == (200, str(5 * MIB))
        again = await client.ask("HEAD", "/f")
    assert again.status == 200
    assert [request.method for request in origin.requests] == ["HEAD", "HEAD"]


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body(house: OpenHouse, origin: Origin, status: int) -> None:
    origin.script("/f", Reply(status=status))
    async with await (await house(origin)).connect() as client:
        got = await client.ask("GET", "/f", 'If-None-Match: "x"')
        assert got.status == status
        assert "transfer-encoding" not in got.names
        assert (await client.ask("GET", "/f", 'If-None-Match: "x"')).status == status


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418, 451, 501, 505])
async def test_the_origins_errors_are_the_clients(house: OpenHouse, origin: Origin, status: int) -> None:
    origin.script("/f", Reply(b"why not", status=status, headers=(("X-Why", "so"),)))
    got = await (await house(origin)).fetch("/f")
    assert (got.status, got.body, got.get("x-why")) == (status, b"why not", "so")
    assert origin.requests_of("/f") == 1


async def test_a_strange_reason_phrase_passes(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", Reply(b"x", reason="Sehr Gut"), Reply(b"x", reason=""))
    running = await house(origin)
    assert (await running.fetch("/f")).reason == "Sehr Gut"
    assert (await running.fetch("/f")).reason == ""


TARGETS = [
    "/a%20b",
    "/%e4%f6%fc",
    "/%C3%A4",
    "/x%2Fy",
    "/a+b",
    "/~user/(1);v=2,3!$&'*:@",
    "/f?q=%2e%2e/&x=a+b%20c&&=",
    "/f?",
    "/f?a?b/../c",
    "/%7Euser",
    "/a//b",
    "/" + "x" * 4000,
]


@pytest.mark.parametrize("target", TARGETS)
async def test_the_target_reaches_the_origin_exactly_as_sent(house: OpenHouse, origin: Origin, target: str) -> None:
    origin.otherwise(Reply(b"here"))
    got = await (await house(origin)).fetch(target)
    assert (got.status, got.body) == (200, b"here")
    assert origin.last.target == target


@pytest.mark.option("upstreams.*.servers.*.url")
async def test_the_path_of_the_upstreams_url_comes_first(house: OpenHouse, origin: Origin) -> None:
    origin.otherwise(Reply(b"here"))
    running = await house(settings(origin.url + "/pub/v%201/"))
    await running.fetch("/a?b")
    assert origin.last.target == "/pub/v%201/a?b"


async def test_many_requests_on_one_connection(house: OpenHouse, origin: Origin) -> None:
    files = {f"/{number}": Content(number, number * 700) for number in range(100)}
    for path, file in files.items():
        origin.serve(path, file)
    running = await house(origin)
    async with await running.connect() as client:
        for path, file in files.items():
            got = await client.ask("GET", path)
            assert (got.status, got.sha256) == (200, file.sha256())
    assert origin.accepted == 1  # the connection to the origin is kept as well
    assert running.counts["connections.accepted"] == 1
    await running.quiet()
    assert running.counts.endings == {"completed": 100}


async def test_pipelined_requests_are_answered_in_order(house: OpenHouse, origin: Origin) -> None:
    files = [Content(number, 200_000 // (number + 1)) for number in range(10)]
    for number, file in enumerate(files):
        origin.serve(f"/{number}", file)
    async with await (await house(origin)).connect() as client:
        await client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: f\r\n\r\n" % number for number in range(10)))
        for file in files:
            got = await client.answer()
            assert got.sha256 == file.sha256()


async def test_connection_close_is_kept(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    async with await (await house(origin)).connect() as client:
        got = await client.ask("GET", "/f", "Connection: close")
        assert got.get("connection") == "close"
        assert await client.ended()


async def test_http_1_0_keeps_alive_only_when_asked(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    running = await house(origin)
    async with await running.connect() as client:
        await client.send(b"GET /f HTTP/1.0\r\nHost: f\r\nConnection: keep-alive\r\n\r\n")
        got = await client.answer()
        assert (got.body, (got.get("connection") or "").lower()) == (b"x", "keep-alive")
        await client.send(b"GET /f HTTP/1.0\r\nHost: f\r\n\r\n")
        assert (await client.answer()).body == b"x"
        assert await client.ended()


async def test_a_body_on_a_get_is_drained_and_never_the_next_request(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"file")
    smuggled = b"GET /secret HTTP/1.1\r\nHost: f\r\n\r\n"
    async with await (await house(origin)).connect() as client:
        got = await client.ask("GET", "/f", body=smuggled)
        assert got.body == b"file"
        assert (await client.ask("GET", "/f")).body == b"file"
    assert [request.target for request in origin.requests] == ["/f", "/f"]
    assert all(request.body_size == 0 for request in origin.requests)


async def test_interim_answers_of_the_origin_do_no_harm(house: OpenHouse, origin: Origin) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>; rel=preload\r\n\r\n"
    origin.script("/f", Reply(b"file", interim=(b"HTTP/1.1 100 Continue\r\n\r\n", hints, hints)))
    got = await (await house(origin)).fetch("/f")
    assert (got.status, got.body, got.ending) == (200, b"file", "length")


async def test_a_kept_connection_that_the_origin_closed_is_no_error(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"file")
    running = await house(origin)
    for _ in range(5):
        assert (await running.fetch("/f")).body == b"file"
        await origin.wait_for(lambda: origin.idle == origin.open)
        origin.close_idle()
        await origin.wait_for(lambda: origin.open == 0)


async def test_a_kept_connection_closed_at_the_moment_of_asking_is_tried_again(
    house: OpenHouse, origin: Origin
) -> None:
    origin.script("/warm", Reply(b"x"))
    origin.script("/f", Reply(raw=b"", after="fin"), Reply(b"file"))
    running = await house(origin)
    await running.fetch("/warm")
    assert (await running.fetch("/f")).body == b"file"


async def test_parallel_downloads_do_not_mix(house: OpenHouse, origin: Origin) -> None:
    files = [Content(number, MIB + number) for number in range(40)]
    for number, file in enumerate(files):
        origin.serve(f"/{number}", file)
    running = await house(origin)
    answers = await asyncio.gather(*(running.fetch(f"/{number}") for number in range(40)))
    assert [got.sha256 for got in answers] == [file.sha256() for file in files]
