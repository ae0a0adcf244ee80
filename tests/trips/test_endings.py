"""How requests end: every ending has a name, a count, an access line, and (while it can) a readable answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.clients import Got
from tests.conftest import OpenHouse
from tests.origin import Content, Origin, Reply, fin, reset
from tests.service import Service
from tests.trips.plays import settings

pytestmark = pytest.mark.loops("uvloop")

ONCE: Mapping[str, Any] = {"retry": {"attempts": 1}}


def problem(got: Got) -> dict[str, Any]:
    assert got.get("content-type") == "application/problem+json"
    assert got.get("cache-control") == "no-store"
    body: dict[str, Any] = json.loads(got.body)
    assert set(body) == {"type", "title", "status", "detail", "instance", "request_id"}
    assert body["status"] == got.status
    assert body["request_id"] == got.get("x-request-id")
    assert body["detail"]
    assert (got.get("proxy-status") or "").startswith("fileproxy; error=")
    return body


async def test_an_error_says_what_where_and_whose(house: OpenHouse, origin: Origin) -> None:
    await origin.refuse()
    running = await house(settings(origin, upstream=ONCE))
    got = await running.fetch("/a/b?c=%20d")
    body = problem(got)
    assert (got.status, body["instance"], body["title"]) == (502, "/a/b?c=%20d", "Bad Gateway")
    assert "error=connection_refused" in (got.get("proxy-status") or "")
    await running.quiet()
    assert running.counts.endings == {"upstream_refused": 1}
    assert (running.counts["errors"], running.counts["requests"]) == (1, 1)
    assert running.counts.of("route.errors", "/") == 1


async def test_an_error_of_a_head_request_has_no_body(house: OpenHouse, origin: Origin) -> None:
    await origin.refuse()
    running = await house(settings(origin, upstream=ONCE))
    async with await running.connect() as client:
        got = await client.ask("HEAD", "/f")
        assert (got.status, got.body) == (502, b"")
        assert (await client.ask("HEAD", "/f")).status == 502


async def test_no_route_is_404(house: OpenHouse, origin: Origin) -> None:
    values = settings(origin)
    values["routes"] = [{"path": "/pub/", "upstream": "files"}]
    running = await house(values)
    assert problem(await running.fetch("/private/x"))["status"] == 404
    await running.quiet()
    assert running.counts.endings == {"no_route": 1}
    assert running.counts["errors"] == 0


@pytest.mark.parametrize("how", [fin, reset])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_break_that_cannot_be_healed_shows(
    house: OpenHouse, origin: Origin, how: Callable[..., Any], framing: Any
) -> None:
    """No validator pins the bytes, so nothing can be joined: cut, never ended as if complete (laws 1 and 2)."""
    file = Content(1, 500_000)
    origin.script("/f", Reply(file, etag=None, last_modified=None, framing=framing, breaks=how(at=200_000)))
    running = await house(settings(origin, upstream=ONCE))
    got = await running.fetch("/f")
    assert got.status == 200
    assert not got.complete
    assert got.body == file.read(0, got.size)
    await running.quiet()
    (ending,) = running.counts.endings
    assert ending in ("upstream_reset", "upstream_truncated")
    assert (running.counts["downloads.cut"], running.counts["errors"]) == (1, 1)


async def test_a_bug_is_a_500_and_logged_with_its_traceback(
    house: OpenHouse, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fileproxy.server import handler

    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(handler, "download", broken)
    running = await house(origin)
    got = await running.fetch("/f")
    assert problem(got)["status"] == 500
    assert b"a bug" not in got.body
    await running.quiet()
    assert running.counts.endings == {"internal_error": 1}
    assert "ZeroDivisionError" in next(event["traceback"] for event in running.lines.events if event["event"] == "bug")


async def test_every_request_has_one_access_line(house: OpenHouse, origin: Origin) -> None:
    file = Content(1, 12_345)
    origin.serve("/f", file)
    running = await house(origin)
    got = await running.fetch("/f?x=1", "User-Agent: me")
    await running.fetch("/a/../b")
    await running.fetch("/livez")
    await running.quiet()
    served, refused, page = running.lines.access_lines
    assert {name: served[name] for name in ("client", "method", "host", "target", "status", "bytes", "ending")} == {
        "client": "127.0.0.1",
        "method": "GET",
        "host": "files.test",
        "target": "/f?x=1",
        "status": 200,
        "bytes": 12_345,
        "ending": "completed",
    }
    assert served["id"] == got.get("x-request-id")
    assert 0 <= served["first_byte"] <= served["seconds"]
    assert (served["route"], served["tries"]) == ("/", 1)
    assert (refused["status"], refused["ending"]) == (400, "bad_target")
    assert (page["target"], page["status"], page["route"]) == ("/livez", 200, None)


NASTY = [
    '/%0d%0a{"status":200}',
    "/%0aFAKE",
    "/%1b[31mred",
    '/f"}',
    "/f?%e2%80%ae%00",
]


@pytest.mark.loops("asyncio")
async def test_nothing_in_a_request_forges_a_line(service: Callable[..., Service], origin: Origin) -> None:
    origin.otherwise(Reply(b"x"))
    one = await asyncio.to_thread(lambda: service({"upstreams": {"files": origin.url}}))
    from tests.clients import fetch

    for target in NASTY:
        await fetch(
            one.port,
            "GET",
            target,
            'X-Request-Id: a","forged":"1',
            'User-Agent: x\\n{"forged":1}',
            'X-Forwarded-For: 1.2.3.4","forged":"1',
            "Referer: \x85\xe2\x80\xa8",
        )
    await asyncio.to_thread(one.stop)
    lines = [line for line in one.lines("access.log") if not line["target"].endswith("/readyz")]
    assert len(lines) == len(NASTY)
    names = set(lines[0])
    assert names >= {"time", "id", "client", "method", "host", "target", "status", "bytes", "seconds", "ending"}
    assert all(set(line) == names for line in lines)
    assert "forged" not in names
    assert {line["client"] for line in lines} == {"unknown"}
    raw = (one.folder / "access.log").read_bytes()
    assert not set(raw) & set(range(0x20)) - {0x0A}
