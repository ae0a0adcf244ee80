"""Which web pages may read the files: per route, off by default (Fetch standard)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients import Got
from tests.conftest import OpenHouse
from tests.house import Running
from tests.origin import Origin, Reply
from tests.trips.plays import WRITABLE, settings

pytestmark = pytest.mark.loops("uvloop")

PAGE = "https://page.test"
OURS = "Origin: " + PAGE


def cors(origin: Origin, **options: Any) -> dict[str, Any]:
    return settings(origin, route={"cors": {"origins": [PAGE], **options}})


async def preflight(running: Running, method: str = "GET", *headers: str, page: str = PAGE) -> Got:
    lines = [f"Origin: {page}", f"Access-Control-Request-Method: {method}"]
    if headers:
        lines.append("Access-Control-Request-Headers: " + ", ".join(headers))
    return await running.fetch("/f", *lines, method="OPTIONS")


def listed(got: Got, name: str) -> set[str]:
    return {one.strip().lower() for value in got.all(name) for one in value.split(",") if one.strip()}


async def test_off_by_default_what_the_origin_says_passes(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", Reply(b"x", headers=(("Access-Control-Allow-Origin", "*"),)), Reply(b"x"))
    running = await house(origin)
    assert (await running.fetch("/f", OURS)).get("access-control-allow-origin") == "*"
    assert "access-control-allow-origin" not in (await running.fetch("/f", OURS)).names
    assert (await preflight(running)).status == 405


@pytest.mark.option("routes.cors.origins")
async def test_a_page_on_the_list_may_read(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", Reply(b"x", headers=(("Access-Control-Allow-Origin", "https://evil.test"), ("Vary", "Accept"))))
    running = await house(cors(origin))
    got = await running.fetch("/f", OURS)
    assert (got.status, got.all("access-control-allow-origin")) == (200, [PAGE])
    assert listed(got, "vary") == {"accept", "origin"}
    other = await running.fetch("/f", "Origin: https://other.test")
    assert (other.status, other.all("access-control-allow-origin")) == (200, [])
    assert "origin" in listed(other, "vary")
    assert (await running.fetch("/f")).all("access-control-allow-origin") == []


async def test_everybody_may_read_when_it_says_so(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    got = await (await house(cors(origin, origins=["*"]))).fetch("/f", OURS)
    assert got.get("access-control-allow-origin") in ("*", PAGE)
    assert "access-control-allow-credentials" not in got.names


async def test_errors_can_be_read_as_well(house: OpenHouse, origin: Origin) -> None:
    await origin.refuse()
    running = await house(cors(origin) | {"upstreams": {"files": {"servers": [origin.url], "retry": {"attempts": 1}}}})
    got = await running.fetch("/f", OURS)
    assert (got.status, got.get("access-control-allow-origin")) == (502, PAGE)


async def test_a_preflight_is_answered_here(house: OpenHouse, origin: Origin) -> None:
    running = await house(cors(origin))
    async with await running.connect() as client:
        got = await client.ask(
            "OPTIONS", "/f", OURS, "Access-Control-Request-Method: GET", "Access-Control-Request-Headers: range"
        )
        assert (got.status, got.get("access-control-allow-origin")) == (204, PAGE)
        assert "get" in listed(got, "access-control-allow-methods")
        assert "range" in listed(got, "access-control-allow-headers")
        assert "origin" in listed(got, "vary")
        assert (await client.ask("OPTIONS", "/f", OURS, "Access-Control-Request-Method: GET")).status == 204
    assert origin.requests == []
    await running.quiet()
    assert running.counts.endings == {"completed": 2}


async def test_a_preflight_of_somebody_else_is_403(house: OpenHouse, origin: Origin) -> None:
    running = await house(cors(origin))
    got = await preflight(running, page="https://other.test")
    assert (got.status, got.get("content-type")) == (403, "application/problem+json")
    assert "access-control-allow-origin" not in got.names
    await running.quiet()
    assert running.counts.endings == {"forbidden": 1}


@pytest.mark.option("routes.cors.methods")
async def test_methods(house: OpenHouse, origin: Origin) -> None:
    running = await house(cors(origin, methods=["GET"]))
    assert (await preflight(running, "GET")).status == 204
    assert (await preflight(running, "HEAD")).status == 403
    assert (await preflight(running, "DELETE")).status == 403
    wider = settings(origin, route={**WRITABLE, "cors": {"origins": [PAGE], "methods": ["GET", "PUT"]}})
    running = await house(wider)
    assert (await preflight(running, "PUT")).status == 204
    origin.serve("/f", b"x")
    assert (await running.fetch("/f", OURS, method="PUT", body=b"b")).get("access-control-allow-origin") == PAGE
    assert "access-control-allow-origin" not in (await running.fetch("/f", OURS, method="DELETE")).names


@pytest.mark.option("routes.cors.headers")
async def test_request_headers(house: OpenHouse, origin: Origin) -> None:
    running = await house(cors(origin))
    assert (await preflight(running, "GET", "range", "if-range")).status == 204
    assert (await preflight(running, "GET", "x-other")).status == 403
    running = await house(cors(origin, headers=["X-Other"]))
    assert (await preflight(running, "GET", "x-other")).status == 204
    assert (await preflight(running, "GET", "range")).status == 403
    running = await house(cors(origin, headers=["*"]))
    assert (await preflight(running, "GET", "x-anything")).status == 204


@pytest.mark.option("routes.cors.expose")
async def test_response_headers_that_scripts_may_read(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    got = await (await house(cors(origin))).fetch("/f", OURS)
    assert listed(got, "access-control-expose-headers") == {
        "content-range", "accept-ranges", "etag", "content-disposition", "content-length",
    }  # fmt: skip
    got = await (await house(cors(origin, expose=["X-Thing"]))).fetch("/f", OURS)
    assert listed(got, "access-control-expose-headers") == {"x-thing"}


@pytest.mark.option("routes.cors.credentials")
async def test_credentials(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    for allowed in (False, True):
        running = await house(cors(origin, credentials=allowed))
        for got in (await running.fetch("/f", OURS), await preflight(running)):
            assert got.get("access-control-allow-credentials") == ("true" if allowed else None)


@pytest.mark.option("routes.cors.max_age")
async def test_how_long_a_preflight_holds(house: OpenHouse, origin: Origin) -> None:
    assert (await preflight(await house(cors(origin)))).get("access-control-max-age") == "600"
    assert (await preflight(await house(cors(origin, max_age="60s")))).get("access-control-max-age") == "60"


async def test_each_route_has_its_own(house: OpenHouse, origin: Origin) -> None:
    origin.otherwise(Reply(b"x"))
    values = cors(origin)
    values["routes"].append({"path": "/closed/", "upstream": "files"})
    running = await house(values)
    async with await running.connect() as client:
        assert (await client.ask("GET", "/f", OURS)).get("access-control-allow-origin") == PAGE
        assert "access-control-allow-origin" not in (await client.ask("GET", "/closed/f", OURS)).names
        assert (await client.ask("GET", "/f", OURS)).get("access-control-allow-origin") == PAGE


async def test_an_options_that_is_no_preflight_is_a_method_like_others(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", Reply(b"", status=204, headers=(("Allow", "GET"),)))
    running = await house(settings(origin, route={**WRITABLE, "cors": {"origins": [PAGE]}}))
    got = await running.fetch("/f", method="OPTIONS")
    assert (got.status, got.get("allow")) == (204, "GET")
    assert origin.last.method == "OPTIONS"
