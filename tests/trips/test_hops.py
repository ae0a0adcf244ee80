"""Being one hop of many: what ends here, what travels on, and what is added (RFC 9110 §7.6, RFC 8586, RFC 7239)."""

from __future__ import annotations

import re

import pytest

from tests.conftest import OpenHouse
from tests.house import IDENTITY
from tests.origin import KIB, Content, Origin, Reply
from tests.trips.plays import WRITABLE, settings

pytestmark = pytest.mark.loops("uvloop")

NOBODY: dict[str, list[str]] = {"trusted_proxies": []}


async def test_hop_by_hop_fields_of_a_request_end_here(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    running = await house(origin)
    await running.fetch(
        "/f",
        "Connection: keep-alive, X-Hop",
        "Keep-Alive: timeout=5",
        "X-Hop: 1",
        "TE: trailers",
        "Trailer: X-T",
        "Proxy-Authorization: Basic c2VjcmV0",
        "Proxy-Connection: keep-alive",
        "X-End: 2",
        "Authorization: Bearer t",
        "Cookie: a=b",
    )
    names = {name.lower() for name, _ in origin.last.headers}
    assert not names & {"x-hop", "keep-alive", "te", "trailer", "proxy-authorization", "proxy-connection"}
    assert [origin.last.get(name) for name in ("x-end", "authorization", "cookie")] == ["2", "Bearer t", "a=b"]


async def test_connection_cannot_take_away_what_others_decide_by(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", Content(1, KIB))
    running = await house(origin)
    got = await running.fetch("/f", "Connection: Range, Host, X-Forwarded-For, Authorization", "Range: bytes=0-9",
                              "Authorization: x")  # fmt: skip
    assert got.status == 206
    assert origin.last.get("authorization") == "x"
    assert origin.last.get("x-forwarded-for") == "127.0.0.1"


async def test_hop_by_hop_fields_of_an_answer_end_here(house: OpenHouse, origin: Origin) -> None:
    fields = (
        ("Connection", "X-Hop"),
        ("X-Hop", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authenticate", "Basic"),
        ("Trailer", "X-T"),
        ("Upgrade", "h2c"),
        ("X-End", "2"),
    )
    origin.script("/f", Reply(b"x", headers=fields))
    got = await (await house(origin)).fetch("/f")
    assert not got.names & {"x-hop", "keep-alive", "proxy-authenticate", "trailer", "upgrade"}
    assert got.get("x-end") == "2"


async def test_everything_else_of_an_answer_is_intact(house: OpenHouse, origin: Origin) -> None:
    fields = (
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("Content-Type", "application/x-thing; a=b"),
        ("Content-Disposition", "attachment; filename*=UTF-8''%e2%82%ac.bin"),
        ("Content-Encoding", "gzip"),
        ("Content-Language", "de"),
        ("X-Bytes", b"\xff\xfe\xe4"),
        ("X-Text", "grün"),
        ("x-MixedCase", "1"),
        ("X-Empty", ""),
        ("Link", "</a>; rel=preload"),
        ("Server", "origin/1"),
        ("Digest", "sha-256=x"),
        ("Via", "1.0 inner"),
    )
    origin.script("/f", Reply(b"not really gzip", headers=fields))
    got = await (await house(origin)).fetch("/f")
    assert got.body == b"not really gzip"
    wanted = [(n, v.decode("latin-1") if isinstance(v, bytes) else v.encode().decode("latin-1")) for n, v in fields]
    assert [pair for pair in got.headers if pair in wanted] == wanted
    assert got.all("content-type") == ["application/x-thing; a=b"]


async def test_no_field_is_invented_for_the_client_or_the_origin(house: OpenHouse, origin: Origin) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
    origin.script("/f", Reply(raw=head))
    got = await (await house(origin)).fetch("/f")
    assert got.names == {"content-length", "date", "via", "x-cache", "cache-status", "x-request-id", "server-timing"}
    assert {name.lower() for name, _ in origin.last.headers} == {
        "host", "via", "cdn-loop", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded",
        "x-request-id",
    }  # fmt: skip


async def test_request_bytes_outside_utf_8_reach_the_origin(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    running = await house(origin)
    await running.fetch("/f", "X-Bytes: \xff\xe4", "X-Two: a", "X-Two: b", "x-two: c")
    assert origin.last.get("x-bytes") == "\xff\xe4"
    assert origin.last.all("x-two") == ["a", "b", "c"]


@pytest.mark.option("server.name")
async def test_via_names_us_in_both_directions(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    running = await house(settings(origin, server={"name": "edge-7"}))
    got = await running.fetch("/f", "Via: 1.0 other")
    assert got.get("via") == "1.1 edge-7"
    assert (got.get("cache-status") or "").startswith("edge-7;")
    assert ", ".join(origin.last.all("via")) == "1.0 other, 1.1 edge-7"
    async with await running.connect() as client:
        await client.send(b"GET /f HTTP/1.0\r\n\r\n")
        await client.answer()
    assert origin.last.get("via") == "1.0 edge-7"


async def test_cdn_loop_is_kept_and_ours_added(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    running = await house(origin)
    await running.fetch("/f", "CDN-Loop: other; v=1")
    assert origin.last.all("cdn-loop") == ["other; v=1", IDENTITY]


async def test_a_proxy_that_is_its_own_upstream_says_508(house: OpenHouse, origin: Origin) -> None:
    inner = await house(origin)
    outer = await house(settings(inner.url))  # of the same identity: one service with a wrong configuration
    got = await outer.fetch("/f")
    assert got.status == 508
    assert "proxy_loop_detected" in (got.get("proxy-status") or "")
    assert origin.requests == []
    await inner.quiet()
    assert inner.counts.endings == {"loop_detected": 1}
    assert inner.counts["errors"] == 1


# --- who asked --------------------------------------------------------------------------------------------------------

FORGED = (
    "X-Forwarded-For: 203.0.113.9",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: evil.test",
    "Forwarded: for=203.0.113.9;proto=https",
    "X-Real-IP: 203.0.113.9",
    "X-Request-Id: chosen",
)


@pytest.mark.option("server.trusted_proxies")
async def test_an_untrusted_peer_is_not_believed(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    running = await house(settings(origin, server=NOBODY))
    got = await running.fetch("/f", *FORGED)
    request = origin.last
    assert request.all("x-forwarded-for") == ["127.0.0.1"]
    assert request.all("x-forwarded-proto") == ["http"]
    assert request.all("x-forwarded-host") == ["files.test"]
    assert request.all("forwarded") == ["for=127.0.0.1;host=files.test;proto=http"]
    assert request.get("x-real-ip") is None
    assert got.get("x-request-id") not in (None, "chosen")
    assert request.get("x-request-id") == got.get("x-request-id")
    await running.quiet()
    assert running.lines.access_lines[0]["client"] == "127.0.0.1"


@pytest.mark.option("server.trusted_proxies")
async def test_a_trusted_peer_is(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    running = await house(settings(origin, server={"trusted_proxies": ["127.0.0.0/8"]}))
    got = await running.fetch("/f", *FORGED)
    request = origin.last
    assert request.all("x-forwarded-for") == ["203.0.113.9, 127.0.0.1"]
    assert request.all("x-forwarded-proto") == ["https"]
    assert request.all("x-forwarded-host") == ["evil.test"]
    assert got.get("x-request-id") == "chosen"
    await running.quiet()
    assert running.lines.access_lines[0]["client"] == "203.0.113.9"


@pytest.mark.parametrize("given", ["a b", "a\tb", "x" * 200, '"', "{}", "\xe4"])
async def test_a_request_id_that_could_do_harm_is_replaced(house: OpenHouse, origin: Origin, given: str) -> None:
    origin.serve("/f", b"x")
    got = await (await house(origin)).fetch("/f", f"X-Request-Id: {given}")
    assert re.fullmatch("[0-9a-f]{16}", got.get("x-request-id") or "")


async def test_requests_have_different_ids(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    running = await house(origin)
    ids = {(await running.fetch("/f")).get("x-request-id") for _ in range(5)}
    assert len(ids) == 5


@pytest.mark.option("upstreams.host")
@pytest.mark.parametrize(("option", "seen"), [("preserve", "files.test"), ("fixed.test:81", "fixed.test:81")])
async def test_which_host_the_origin_sees(house: OpenHouse, origin: Origin, option: str, seen: str) -> None:
    origin.serve("/f", b"x")
    running = await house(settings(origin, upstream={"host": option}))
    await running.fetch("/f")
    assert origin.last.all("host") == [seen]


async def test_server_timing_says_where_the_time_went(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    got = await (await house(origin)).fetch("/f")
    assert re.search(r"\bfirst_byte;dur=[0-9.]+", got.get("server-timing") or "")


async def test_a_length_that_the_origin_said_twice_is_no_answer(house: OpenHouse, origin: Origin) -> None:
    origin.script(
        "/f", Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxy", after="close")
    )
    running = await house(settings(origin, upstream={"retry": {"attempts": 1}}, route=WRITABLE))
    assert (await running.fetch("/f")).status == 502
