"""Requests that two parties could read differently: refused, the connection closed, nothing of them forwarded."""

from __future__ import annotations

import pytest

from tests.clients import Got
from tests.conftest import OpenHouse
from tests.origin import Origin, Reply
from tests.trips.plays import WRITABLE, settings

pytestmark = pytest.mark.loops("asyncio", "uvloop")

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: files.test\r\n\r\n"


def head(*lines: str, request: str = "POST /f HTTP/1.1", host: str | None = "files.test") -> bytes:
    every = [request, *([] if host is None else [f"Host: {host}"]), *lines]
    return ("\r\n".join(every) + "\r\n\r\n").encode("latin-1")


ATTACKS = {
    "CL.TE": head("Content-Length: 6", "Transfer-Encoding: chunked") + b"0\r\n\r\nG",
    "TE.CL": head("Transfer-Encoding: chunked", "Content-Length: 4") + b"5c\r\n",
    "TE.TE": head("Transfer-Encoding: chunked", "Transfer-Encoding: x"),
    "TE obfuscated by space": head("Transfer-Encoding : chunked"),
    "TE obfuscated by tab": head("Transfer-Encoding:\x0bchunked"),
    "TE with a bare LF": head("X: a\nTransfer-Encoding: chunked"),
    "TE folded": head("Transfer-Encoding:", " chunked"),
    "TE xchunked": head("Transfer-Encoding: xchunked"),
    "TE identity": head("Transfer-Encoding: identity"),
    "two lengths": head("Content-Length: 0", "Content-Length: 44"),
    "two equal lengths": head("Content-Length: 5", "Content-Length: 5"),
    "a list of lengths": head("Content-Length: 5, 5"),
    "signed length": head("Content-Length: +5"),
    "negative length": head("Content-Length: -5"),
    "hex length": head("Content-Length: 0x10"),
    "NUL in a header": head("X: a\0b"),
    "obs-fold": head("X: a", " b"),
    "space before the colon": head("X : a"),
    "no colon": head("nonsense"),
    "LF line ends": b"GET /f HTTP/1.1\nHost: files.test\n\n\r\n\r\n",
    "chunked on HTTP/1.0": head("Transfer-Encoding: chunked", request="POST /f HTTP/1.0"),
    "HTTP/1.2": head(request="GET /f HTTP/1.2"),
    "HTTP/2.0": head(request="GET /f HTTP/2.0"),
    "HTTP/0.9": b"GET /f\r\n\r\n",
    "HTTP/11.1": head(request="GET /f HTTP/11.1"),
    "no Host": head(request="GET /f HTTP/1.1", host=None),
    "two Hosts": head("Host: other.test", request="GET /f HTTP/1.1"),
    "bad Host": head(request="GET /f HTTP/1.1", host="a b"),
    "Host with a user": head(request="GET /f HTTP/1.1", host="u@files.test"),
    "Host with a path": head(request="GET /f HTTP/1.1", host="files.test/x"),
    "TLS on the plain port": b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


def assert_refused(got: Got, status: int = 400) -> None:
    assert got.status == status
    assert (got.get("content-type"), got.get("connection")) == ("application/problem+json", "close")
    assert got.complete
    assert b'"status":%d' % status in got.body


@pytest.mark.parametrize("name", ATTACKS)
async def test_one_meaning_or_none(house: OpenHouse, origin: Origin, name: str) -> None:
    origin.otherwise(Reply(b"x"))
    running = await house(settings(origin, route=WRITABLE))
    async with await running.connect() as client:
        await client.send(ATTACKS[name] + SMUGGLED)
        assert_refused(await client.answer())
        assert await client.ended()  # one answer, and what followed it was thrown away
    assert origin.requests == []
    assert running.counts.endings == {"malformed": 1}


BAD_CHUNKS = {
    "no hex": b"xyz\r\n",
    "sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "space": b"5 \r\nhello\r\n0\r\n\r\n",
    "0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "bare LF": b"5\nhello\r\n0\r\n\r\n",
    "overflow": b"ffffffffffffffffff\r\n",
    "longer than it says": b"5\r\nhello!\r\n0\r\n\r\n",
    "bad trailer": b"5\r\nhello\r\n0\r\nX : y\r\n\r\n",
    "endless extension": b"5;" + b"x" * 10_000,
}


@pytest.mark.parametrize("name", BAD_CHUNKS)
async def test_bad_chunks_are_400_and_close(house: OpenHouse, origin: Origin, name: str) -> None:
    origin.otherwise(Reply(b"x"))
    running = await house(settings(origin, route=WRITABLE))
    async with await running.connect() as client:
        await client.send(head("Transfer-Encoding: chunked") + BAD_CHUNKS[name] + SMUGGLED)
        assert_refused(await client.answer())
        assert await client.ended()
    await running.quiet()
    assert all(request.path == "/f" and not request.complete for request in origin.requests)
    assert running.counts.endings == {"malformed": 1}


async def test_an_attack_behind_a_good_request_spoils_only_itself(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"file")
    running = await house(origin)
    async with await running.connect() as client:
        await client.send(head(request="GET /f HTTP/1.1") + ATTACKS["CL.TE"] + SMUGGLED)
        assert (await client.answer()).body == b"file"
        assert (await client.answer()).status == 400
        assert await client.ended()
    assert [request.target for request in origin.requests] == ["/f"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_is_never_the_next_request(house: OpenHouse, origin: Origin, method: str, chunked: bool) -> None:
    """As one piece, and with the body as its own segment: what a table of known heads would have been fooled by."""
    origin.serve("/f", b"file")
    running = await house(origin)
    known = head(request="GET /f HTTP/1.1")
    line = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(known)}"
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(known), known) if chunked else known
    async with await running.connect() as client:
        assert (await client.ask("GET", "/f")).status == 200
        await client.send(head(line, request=f"{method} /f HTTP/1.1") + body)
        assert (await client.answer(method)).status == 200
        await client.send(head(line, request=f"{method} /f HTTP/1.1"))
        await origin.wait_for(lambda: len(origin.requests) == 3)  # being served, and its body still to come
        await client.send(body)
        assert (await client.answer(method)).status == 200
        assert (await client.ask("GET", "/f")).body == b"file"
    assert [request.method for request in origin.requests] == ["GET", method, method, "GET"]
    assert all(request.body_size == 0 for request in origin.requests)


async def test_half_a_head_followed_by_a_known_head_is_one_head(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"file")
    running = await house(origin)
    async with await running.connect() as client:
        assert (await client.ask("GET", "/f")).status == 200
        await client.send(b"GET /f HTTP/1.1\r\nHost: files.test\r\nX: ")
        await client.send(head(request="GET /f HTTP/1.1"))
        assert (await client.answer()).status == 400  # two Hosts: one malformed head
        assert await client.ended()
    assert len(origin.requests) == 1


async def test_a_head_may_come_byte_by_byte(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"file")
    async with await (await house(origin)).connect() as client:
        for byte in head("X: y", request="GET /f HTTP/1.1"):
            await client.send(bytes((byte,)))
        assert (await client.answer()).body == b"file"


LIMITS = [
    (head(request="GET /" + "x" * 9000 + " HTTP/1.1"), 414),
    (b"GET /" + b"x" * 9000, 414),  # told before it is complete
    (head(*(f"X{number}: y" for number in range(101)), request="GET /f HTTP/1.1"), 431),
    (head("X: " + "y" * 9000, request="GET /f HTTP/1.1"), 431),
    (head(*("X: " + "y" * 8000 for _ in range(5)), request="GET /f HTTP/1.1"), 431),
    (b"GET /f HTTP/1.1\r\n" + b"X: y\r\n" * 120, 431),
]


@pytest.mark.parametrize("number", range(len(LIMITS)))
async def test_oversize_heads(house: OpenHouse, origin: Origin, number: int) -> None:
    raw, status = LIMITS[number]
    running = await house(origin)
    async with await running.connect() as client:
        await client.send(raw)
        assert_refused(await client.answer(), status)
        assert await client.ended()
    assert origin.requests == []
    assert running.counts.endings == {"malformed": 1}


@pytest.mark.option("limits.request_line", "limits.headers", "limits.header_line", "limits.head")
@pytest.mark.parametrize(
    ("limits", "lines", "status"),
    [
        ({"request_line": 64}, [], 414),
        ({"headers": 3}, ["A: b", "C: d", "E: f"], 431),
        ({"header_line": 64}, ["A: " + "x" * 70], 431),
        ({"head": 256}, ["A: " + "x" * 70, "B: " + "x" * 70, "C: " + "x" * 70], 431),
    ],
)
async def test_the_limits_are_options(
    house: OpenHouse, origin: Origin, limits: dict[str, int], lines: list[str], status: int
) -> None:
    origin.otherwise(Reply(b"x"))
    target = "/" + "x" * 60
    assert (await (await house(origin)).fetch(target, *lines)).status == 200
    assert (await (await house(settings(origin, limits=limits))).fetch(target, *lines)).status == status


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (head(request="TRACE /f HTTP/1.1"), 405),
        (head(request="CONNECT files.test:443 HTTP/1.1"), 501),
        (head(request="BREW /f HTTP/1.1"), 501),
        (head("Connection: upgrade", "Upgrade: websocket", request="GET /f HTTP/1.1"), 501),
        (head("Transfer-Encoding: gzip, chunked"), 501),
    ],
)
async def test_what_does_not_run_through_here(house: OpenHouse, origin: Origin, raw: bytes, status: int) -> None:
    running = await house(settings(origin, route=WRITABLE))
    async with await running.connect() as client:
        await client.send(raw)
        assert (await client.answer()).status == status
    assert origin.requests == []
    await running.quiet()
    assert running.counts.endings == {"unsupported": 1}


@pytest.mark.parametrize(
    "offer",
    [
        ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
        ("Upgrade: websocket",),  # Connection does not name it (RFC 9110 §7.8)
    ],
)
async def test_an_offer_that_may_be_ignored_is(house: OpenHouse, origin: Origin, offer: tuple[str, ...]) -> None:
    origin.serve("/f", b"file")
    running = await house(origin)
    async with await running.connect() as client:
        assert (await client.ask("GET", "/f", *offer)).body == b"file"
        assert (await client.ask("GET", "/f")).body == b"file"
    assert not {"upgrade", "http2-settings"} & {name.lower() for name, _ in origin.requests[0].headers}


@pytest.mark.parametrize(
    "target",
    ["/../f", "/a/../f", "/%2e%2e/f", "/a/%2E./f", "/a\\b", "/a%5cb", "/a%00b", "/a%", "/a%zz", "/a#b", "/..;/f"],
)
async def test_ambiguous_targets_are_400(house: OpenHouse, origin: Origin, target: str) -> None:
    running = await house(origin)
    got = await running.fetch(target)
    assert got.status == 400
    assert got.get("content-type") == "application/problem+json"
    assert got.get("x-request-id")
    assert origin.requests == []
    await running.quiet()
    assert running.counts.endings == {"bad_target": 1}


async def test_an_encoded_slash_where_it_selects_a_route_is_400(house: OpenHouse, origin: Origin) -> None:
    origin.otherwise(Reply(b"x"))
    values = settings(origin)
    values["routes"] = [{"path": "/", "upstream": "files"}, {"path": "/private/", "upstream": "files"}]
    running = await house(values)
    assert (await running.fetch("/private%2fx")).status == 400
    assert (await running.fetch("/%70rivate/x")).status == 400
    assert (await running.fetch("/private/a%2fb")).status == 200
    assert [request.target for request in origin.requests] == ["/private/a%2fb"]


async def test_the_absolute_form_names_the_host(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"file")
    values = settings(origin)
    values["routes"] = [{"path": "/", "upstream": "files", "hosts": ["files.test"]}]
    running = await house(values)
    assert (await running.fetch("http://files.test/f", host="other.test")).body == b"file"
    assert origin.last.target == "/f"
    assert (await running.fetch("http://other.test/f", host="files.test")).status == 404
