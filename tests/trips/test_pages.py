"""The pages that are ours, in the exact forms people read them by."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from fileproxy import __version__
from tests.clients import Got
from tests.conftest import OpenHouse
from tests.origin import Content, Origin, Reply
from tests.trips.plays import settings

pytestmark = pytest.mark.loops("uvloop")

STRANGER = "X-Forwarded-For: 203.0.113.9"  # believed, because the peer is a trusted proxy; no operator


def read(got: Got, status: int = 200) -> Any:
    assert (got.status, got.get("content-type"), got.get("cache-control")) == (status, "application/json", "no-store")
    assert got.get("x-request-id")
    return json.loads(got.body)


@pytest.mark.parametrize("lines", [(), (STRANGER,)])
async def test_livez_and_readyz_are_for_anyone(house: OpenHouse, origin: Origin, lines: tuple[str, ...]) -> None:
    running = await house(origin)
    assert read(await running.fetch("/livez", *lines)) == {"status": "alive"}
    assert read(await running.fetch("/readyz", *lines)) == {"status": "ready"}
    assert read(await running.fetch("/-/livez", *lines)) == {"status": "alive"}
    assert origin.requests == []


async def test_a_draining_worker_is_alive_but_not_ready(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    running = await house(origin)
    running.house.drain()
    got = await running.fetch("/readyz")
    assert read(got, 503) == {"status": "draining"}
    assert got.get("connection") == "close"
    assert read(await running.fetch("/livez")) == {"status": "alive"}
    served = await running.fetch("/f")  # who still comes is served, and then asked to go elsewhere
    assert (served.status, served.get("connection")) == (200, "close")


async def test_verbose_lists_the_parts(house: OpenHouse, origin: Origin) -> None:
    running = await house(origin)
    for page in ("/livez?verbose", "/readyz?verbose", "/readyz?a=b&verbose"):
        parts = read(await running.fetch(page))["parts"]
        assert {"workers", "upstreams", "shared_store", "descriptors", "logs", "counters"} <= set(parts)
        assert len(parts["descriptors"]) > 1
        public = read(await running.fetch(page, STRANGER))["parts"]
        assert set(public) == set(parts)
        assert all(set(part) == {"status"} for part in public.values())


async def test_health_for_operators(house: OpenHouse, origin: Origin) -> None:
    values = settings(origin, upstream={"headers": {"Authorization": "Bearer hunter2"}})
    running = await house(values)
    got = await running.fetch("/health")
    report = read(got)
    assert set(report) >= {
        "status", "version", "uptime_seconds", "performance_optimization", "config", "parts",
    }  # fmt: skip
    assert report["status"] in ("ok", "degraded")
    assert report["version"] == __version__
    assert report["uptime_seconds"] >= 0
    optimization = report["performance_optimization"]
    assert set(optimization) == {"uvloop_enabled", "optimizer_enabled", "optimization_level"}
    assert optimization["optimization_level"] in ("high", "medium", "low")
    assert report["config"]["upstreams"]["files"]["servers"][0]["url"] == origin.url
    assert b"hunter2" not in got.body


@pytest.mark.option("profile")
@pytest.mark.parametrize(("profile", "optimizer"), [("optimized", True), ("baseline", False)])
async def test_health_shows_the_profile(house: OpenHouse, origin: Origin, profile: str, optimizer: bool) -> None:
    running = await house(settings(origin, profile=profile))
    assert read(await running.fetch("/health"))["performance_optimization"]["optimizer_enabled"] is optimizer


async def test_health_shows_what_the_kernel_granted(house: OpenHouse, origin: Origin) -> None:
    running = await house(origin)
    part = read(await running.fetch("/health"))["parts"]["client_sockets"]
    assert part["asked"]
    assert part["granted"]["nodelay"]


@pytest.mark.option("server.operators")
async def test_others_get_only_the_status(house: OpenHouse, origin: Origin) -> None:
    running = await house(origin)
    assert set(read(await running.fetch("/health", STRANGER))) == {"status"}
    closed = await house(settings(origin, server={"operators": ["10.0.0.0/8"]}))
    assert set(read(await closed.fetch("/health"))) == {"status"}
    assert (await closed.fetch("/stats")).status == 403
    assert (await closed.fetch("/stats", "X-Forwarded-For: 10.1.2.3")).status == 200


@pytest.mark.parametrize("node", ["unknown", "_hidden", "nonsense", "127.0.0.1, unknown"])
async def test_a_client_nobody_can_name_is_no_operator(house: OpenHouse, origin: Origin, node: str) -> None:
    running = await house(origin)
    assert (await running.fetch("/stats", f"X-Forwarded-For: {node}")).status == 403


async def test_health_is_503_only_when_nothing_can_be_served(house: OpenHouse, origin: Origin) -> None:
    running = await house(origin)
    report = read(await running.fetch("/health"))

    async def failing() -> dict[str, Any]:
        return {**report, "status": "failing"}

    running.house._service.health = failing
    assert read(await running.fetch("/health"), 503)["status"] == "failing"
    assert read(await running.fetch("/health", STRANGER), 503) == {"status": "failing"}


async def test_stats_in_the_forms_people_read(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", Content(1, 100_000))
    await origin.refuse()
    running = await house(settings(origin, upstream={"retry": {"attempts": 1}}))
    assert (await running.fetch("/f")).status == 502
    await origin.listen()
    for _ in range(3):
        assert (await running.fetch("/f")).status == 200
    await running.quiet()
    got = read(await running.fetch("/stats"))
    optimizer = got["performance_optimizer"]
    assert set(optimizer) == {"metrics", "current_rate_limit", "optimization_level"}
    metrics = optimizer["metrics"]
    assert set(metrics) == {
        "total_requests", "error_rate", "avg_response_time_ms", "p95_response_time_ms", "throughput_mbps",
        "uvloop_enabled",
    }  # fmt: skip
    assert metrics["total_requests"] == 4
    assert metrics["error_rate"] == "25.00%"
    for name in ("avg_response_time_ms", "p95_response_time_ms", "throughput_mbps"):
        assert re.fullmatch(r"[0-9]+\.[0-9]{2}", metrics[name])
    assert got["requests"] == 4
    assert got["errors"] == 1
    assert got["bytes"]["to_clients"] >= 300_000
    assert got["endings"] == {"completed": 3, "upstream_refused": 1}
    assert got["routes"]["/"]["requests"] == 4
    assert got["upstreams"]["files"]
    assert got["mirrors"]


async def test_stats_are_for_operators(house: OpenHouse, origin: Origin) -> None:
    running = await house(origin)
    got = await running.fetch("/stats", STRANGER)
    assert (got.status, got.get("content-type")) == (403, "application/problem+json")
    assert "http_request_denied" in (got.get("proxy-status") or "")
    await running.quiet()
    assert running.counts.endings == {"forbidden": 1}


@pytest.mark.parametrize("page", ["/livez", "/readyz", "/health", "/stats"])
async def test_pages_can_only_be_read(house: OpenHouse, origin: Origin, page: str) -> None:
    running = await house(origin)
    got = await running.fetch(page, method="POST", body=b"x")
    assert (got.status, got.get("allow")) == (405, "GET, HEAD")
    head = await running.fetch(page, method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert int(head.get("content-length") or 0) > 0


@pytest.mark.option("server.short_names")
async def test_without_short_names_the_paths_are_the_files(house: OpenHouse, origin: Origin) -> None:
    origin.otherwise(Reply(b"file"))
    running = await house(settings(origin, server={"short_names": False}))
    for page in ("/livez", "/readyz", "/health", "/stats"):
        assert (await running.fetch(page)).body == b"file"
        assert (await running.fetch("/-" + page)).get("content-type") == "application/json"


@pytest.mark.parametrize("path", ["/-/", "/-/nothing", "/-/livez/", "/-/../livez"])
async def test_the_reserved_place_is_never_the_files(house: OpenHouse, origin: Origin, path: str) -> None:
    origin.otherwise(Reply(b"file"))
    running = await house(origin)
    got = await running.fetch(path)
    assert got.status in (400, 401, 403, 404)
    assert origin.requests == []


@pytest.mark.parametrize("path", ["/livez/", "/livezx", "/a/livez", "/-", "/-x"])
async def test_what_only_looks_like_a_page_is_a_file(house: OpenHouse, origin: Origin, path: str) -> None:
    origin.otherwise(Reply(b"file"))
    assert (await (await house(origin)).fetch(path)).body == b"file"
