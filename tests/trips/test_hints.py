"""Early hints: what the origin says before its answer reaches a client that understands it, at once and in bounds."""

from __future__ import annotations

import asyncio
from email.utils import formatdate

import pytest

from fileproxy.server.hints import BYTES, MOST
from fileproxy.upstream.request import MOST_INTERIM
from tests.conftest import OpenHouse
from tests.origin import Content, Origin, Reply
from tests.trips.plays import settings

pytestmark = pytest.mark.loops("asyncio", "uvloop")
FILE = Content(8, 5000)
HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX-Odd: \xff\r\n\r\n"
CACHED = {"disk": "off"}


def now() -> str:
    return formatdate(usegmt=True)


@pytest.mark.parametrize("cached", [False, True])
async def test_a_hint_comes_before_the_answer_is_made(house: OpenHouse, origin: Origin, cached: bool) -> None:
    """Also to a client that misses; what is stored is answered without it."""
    origin.script("/f", Reply(FILE, interim=(HINT,), headers=(("Cache-Control", "max-age=60"), ("Date", now()))))
    running = await house(settings(origin, **({"cache": CACHED} if cached else {})))
    async with await running.connect() as client:
        got = await client.ask("GET", "/f")
        assert (got.status, got.sha256, got.interim) == (200, FILE.sha256(), [HINT])
        got = await client.ask("GET", "/f")
        assert (got.status, got.sha256, got.interim) == (200, FILE.sha256(), [] if cached else [HINT])
    assert running.counts["hints.passed"] == (1 if cached else 2)


async def test_it_is_passed_on_at_once(house: OpenHouse, free_port: int) -> None:
    """While the origin still thinks about the final answer."""
    thinks = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HINT[:30])
        await writer.drain()
        writer.write(HINT[30:])
        await thinks.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", free_port)
    running = await house(settings(f"http://127.0.0.1:{free_port}"))
    async with await running.connect() as client:
        await client.request("GET", "/f")
        assert await client.reader.readuntil(b"\r\n\r\n") == HINT
        thinks.set()
        got = await client.answer()
        assert (got.status, got.body) == (200, b"ok")
    server.close()
    await server.wait_closed()


async def test_what_is_about_this_hop_stays_here(house: OpenHouse, origin: Origin) -> None:
    hint = (
        b"HTTP/1.1 103 Early Hints\r\nConnection: X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=9\r\n"
        b"Content-Length: 5\r\nLink: </b>\r\n\r\n"
    )
    origin.script(
        "/f", Reply(FILE, interim=(b"HTTP/1.1 100 Continue\r\n\r\n", hint, b"HTTP/1.1 102 Processing\r\n\r\n"))
    )
    running = await house(settings(origin, upstream={"retry": {"attempts": 1}}))
    got = await running.fetch("/f")
    assert got.interim == [b"HTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n", b"HTTP/1.1 102 Processing\r\n\r\n"]
    assert got.sha256 == FILE.sha256()


async def test_an_old_client_gets_none(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", Reply(FILE, interim=(HINT,)))
    running = await house(origin)
    async with await running.connect() as client:
        await client.send(b"GET /f HTTP/1.0\r\nHost: files.test\r\n\r\n")
        got = await client.answer()
    assert (got.status, got.interim) == (200, [])


async def test_they_are_bounded(house: OpenHouse, origin: Origin) -> None:
    long = b"HTTP/1.1 103 Early Hints\r\nLink: <" + b"x" * (BYTES // 2) + b">\r\n\r\n"
    origin.script("/many", Reply(FILE, interim=(HINT,) * (MOST + 3)))
    origin.script("/long", Reply(FILE, interim=(long, long, HINT)))
    origin.script("/endless", Reply(FILE, interim=(HINT,) * (MOST_INTERIM + 1)))
    running = await house(settings(origin, upstream={"retry": {"attempts": 1}}))
    assert (await running.fetch("/many")).interim == [HINT] * MOST
    assert (await running.fetch("/long")).interim == [long, HINT]
    got = await running.fetch("/endless")
    assert (got.status, got.interim) == (502, [HINT] * MOST)


async def test_a_try_that_failed_may_have_hinted(house: OpenHouse, origin: Origin, mirror: Origin) -> None:
    origin.script("/f", Reply(b"", status=503, interim=(HINT,)))
    mirror.script("/f", Reply(FILE, interim=(HINT,)))
    running = await house(settings(origin, mirror))
    got = await running.fetch("/f")
    assert (got.status, got.sha256, got.interim) == (200, FILE.sha256(), [HINT, HINT])


async def test_pipelined_answers_keep_their_hints(house: OpenHouse, origin: Origin) -> None:
    origin.script("/a", Reply(FILE))
    origin.script("/b", Reply(FILE, interim=(HINT,)))
    running = await house(origin)
    async with await running.connect() as client:
        asks = [f"GET {path} HTTP/1.1\r\nHost: files.test\r\n\r\n" for path in ("/a", "/b", "/a")]
        await client.send("".join(asks).encode())
        answers = [await client.answer() for _ in asks]
    assert [got.interim for got in answers] == [[], [HINT], []]
    assert {got.sha256 for got in answers} == {FILE.sha256()}


async def test_another_fetch_of_the_same_answer_says_nothing(house: OpenHouse, origin: Origin) -> None:
    """The rest after a break, when the final head is long out."""
    from tests.origin import MIB, reset

    big = Content(9, 2 * MIB)
    origin.script("/f", Reply(big, breaks=reset(MIB)), Reply(big, interim=(HINT,)))
    running = await house(origin)
    got = await running.fetch("/f")
    assert (got.sha256, got.interim) == (big.sha256(), [])
