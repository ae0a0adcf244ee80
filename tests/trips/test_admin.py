"""The admin API over HTTP: purges act in every worker and tier, against running fills too; warming; who may."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.clients import Got
from tests.conftest import OpenHouse
from tests.house import Running
from tests.origin import MIB, Content, Gate, Origin, Reply

pytestmark = pytest.mark.loops("asyncio", "uvloop")

FILE = Content(1, 3 * MIB + 1)
NEWER = Content(2, 3 * MIB + 1)


@pytest.fixture
def values(origin: Origin, tmp_path: Path) -> dict[str, Any]:
    return {
        "upstreams": {"files": origin.url},
        "routes": [{"upstream": "files", "cache": "1h", "methods": ["GET", "HEAD", "PUT"]}],
        "cache": {"disk": {"path": str(tmp_path / "cache"), "min_free": 0}},
        "server": {"admin_token_file": str(tmp_path / "token")},
    }


def token(running: Running) -> str:
    return "Authorization: Bearer " + Path(running.settings.server.admin_token_file).read_text().strip()


async def call(running: Running, method: str, path: str, order: object = None, *lines: str) -> tuple[int, Any]:
    body = b"" if order is None else json.dumps(order).encode()
    got = await running.fetch(f"/-/api/v1/{path}", token(running), *lines, method=method, body=body)
    return got.status, json.loads(got.body) if got.body else None


def cached(got: Got) -> tuple[str | None, str]:
    return got.get("x-cache"), got.sha256


@pytest.mark.parametrize(
    "order",
    [{"key": "/f"}, {"key": "http://files.test/f"}, {"prefix": "/"}, {"tag": "release"}, {"all": True}],
    ids=["key", "address", "prefix", "tag", "all"],
)
async def test_a_purge_reaches_every_worker(
    house: OpenHouse, origin: Origin, values: dict[str, Any], order: dict[str, Any]
) -> None:
    origin.script("/f", Reply(FILE, headers=(("Cache-Tag", "release,other"),)))
    origin.script("/g", Reply(FILE))
    one, two = await house(values), await house(values)
    for running in (one, two):
        assert (await running.fetch("/f")).sha256 == FILE.sha256()
        assert cached(await running.fetch("/f")) == ("HIT", FILE.sha256())
    await one.fetch("/g")
    origin.script("/f", Reply(NEWER))
    assert (await call(one, "POST", "purge", order))[0] == 200
    for running in (two, one):
        assert (await running.fetch("/f")).sha256 == NEWER.sha256()
    other = (await one.fetch("/g")).get("x-cache")
    assert other == ("MISS" if "all" in order or "prefix" in order else "HIT")
    assert one.lines.audit_lines[-1]["action"] == "purge"


async def test_a_soft_purge_serves_what_is_there_while_it_asks(
    house: OpenHouse, origin: Origin, values: dict[str, Any]
) -> None:
    origin.script("/f", Reply(FILE))
    running = await house(values)
    await running.fetch("/f")
    await call(running, "POST", "purge", {"key": "/f", "soft": True})
    got = await running.fetch("/f")
    assert cached(got) == ("STALE", FILE.sha256())
    await running.counts.wait_for(lambda: running.counts["cache.refreshed_behind"] == 1)
    await origin.wait_for(lambda: len(origin.requests) == 2, what="the revalidation behind it")


async def test_a_purge_during_a_fill_keeps_the_old_file_from_being_kept(
    house: OpenHouse, origin: Origin, values: dict[str, Any]
) -> None:
    gate = Gate()
    origin.script("/f", Reply(FILE, before_body=gate))
    running = await house(values)
    async with await running.connect() as client:
        await client.request("GET", "/f")
        await origin.wait_for(lambda: len(origin.requests) == 1, what="the fetch")
        assert (await call(running, "POST", "purge", {"key": "/f"}))[0] == 200
        gate.open()
        assert (await client.answer()).sha256 == FILE.sha256()  # who had asked before gets what was asked for
    origin.script("/f", Reply(NEWER))
    assert (await running.fetch("/f")).sha256 == NEWER.sha256()


async def test_purge_as_a_method(house: OpenHouse, origin: Origin, values: dict[str, Any]) -> None:
    origin.script("/f", Reply(FILE))
    running = await house(values)
    assert (await running.fetch("/f", token(running), method="PURGE")).status == 404
    await running.fetch("/f")
    assert (await running.fetch("/f", method="PURGE")).status == 403
    assert (await running.fetch("/f", "Authorization: Bearer wrong", method="PURGE")).status == 403
    assert (await running.fetch("/f")).get("x-cache") == "HIT"
    assert (await running.fetch("/f", token(running), method="PURGE")).status == 200
    assert (await running.fetch("/f")).get("x-cache") == "MISS"
    assert len(origin.requests) == 2


async def test_every_call_needs_the_token(house: OpenHouse, origin: Origin, values: dict[str, Any]) -> None:
    running = await house(values)
    for path in ("openapi.json", "purge", "warm"):
        got = await running.fetch(f"/-/api/v1/{path}", method="GET" if path.endswith("json") else "POST")
        assert (got.status, got.get("content-type")) == (401, "application/problem+json")
    status, document = await call(running, "GET", "openapi.json")
    assert status == 200
    assert {"/purge", "/warm"} <= {path.removeprefix("/-/api/v1") for path in document["paths"]}


async def test_warming_fills_before_the_first_client(house: OpenHouse, origin: Origin, values: dict[str, Any]) -> None:
    sitemap = b"<urlset><url><loc>http://files.test/f</loc></url><url><loc>http://files.test/none</loc></url></urlset>"
    origin.script("/f", Reply(FILE))
    origin.script("/sitemap.xml", Reply(sitemap))
    running = await house(values)
    status, job = await call(running, "POST", "warm", {"sitemap": "/sitemap.xml"})
    assert status == 202
    await running.counts.wait_for(lambda: running.counts["warm.fetched"] + running.counts["warm.failed"] == 2)
    assert (running.counts["warm.fetched"], running.counts["warm.failed"]) == (1, 1)
    assert cached(await running.fetch("/f")) == ("HIT", FILE.sha256())
    assert (await call(running, "GET", f"warm/{job['id']}"))[0] == 200


async def test_an_unsafe_method_makes_what_is_stored_invalid(
    house: OpenHouse, origin: Origin, values: dict[str, Any]
) -> None:
    origin.script("/f", Reply(FILE))
    one, two = await house(values), await house(values)
    for running in (one, two):
        await running.fetch("/f")
        assert (await running.fetch("/f")).get("x-cache") == "HIT"
    origin.script("/f", Reply(b"", status=204))
    assert (await one.fetch("/f", method="PUT", body=b"new")).status == 204
    origin.script("/f", Reply(NEWER))
    for running in (two, one):
        assert (await running.fetch("/f")).sha256 == NEWER.sha256()


async def test_asking_for_what_is_not_stored_costs_no_ban(
    house: OpenHouse, origin: Origin, values: dict[str, Any]
) -> None:
    origin.otherwise(Reply(b"", status=204))
    running = await house(values)
    before = running.house._caching.bans.seq
    for number in range(5):
        await running.fetch(f"/nothing{number}", method="PUT", body=b"x")
    assert running.house._caching.bans.seq == before
