"""routes.*: which upstream serves what, and to which web pages."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients import Got
from tests.conftest import OpenHouse
from tests.origin import Origin, Reply
from tests.trips.plays import settings

PAGE = "https://page.example"


@pytest.mark.option("routes.path", "routes.upstream", "routes.hosts")
async def test_path_upstream_and_hosts(house: OpenHouse, origin: Origin, mirror: Origin) -> None:
    origin.otherwise(Reply(b"one"))
    mirror.otherwise(Reply(b"two"))
    values = {
        "upstreams": {"one": origin.url, "two": mirror.url},
        "routes": [
            {"path": "/", "upstream": "one"},
            {"path": "/b/", "upstream": "two"},
            {"path": "/", "upstream": "two", "hosts": ["*.two.example"]},
        ],
    }
    running = await house(values)
    assert (await running.fetch("/a")).body == b"one"
    assert (await running.fetch("/b/a")).body == b"two"
    assert (await running.fetch("/a", host="www.two.example")).body == b"two"


@pytest.mark.option("routes.methods")
async def test_methods(house: OpenHouse, origin: Origin) -> None:
    origin.otherwise(Reply(b"x"))
    running = await house(settings(origin, route={"methods": ["GET", "DELETE"]}))
    statuses = {method: (await running.fetch("/f", method=method)).status for method in ("GET", "DELETE", "HEAD")}
    assert statuses == {"GET": 200, "DELETE": 200, "HEAD": 405}


@pytest.mark.option("routes.strip_prefix")
@pytest.mark.parametrize(("strip", "asked"), [(True, "/f"), (False, "/pub/f")])
async def test_strip_prefix(house: OpenHouse, origin: Origin, strip: bool, asked: str) -> None:
    origin.otherwise(Reply(b"x"))
    running = await house(settings(origin, route={"path": "/pub/", "strip_prefix": strip}))
    await running.fetch("/pub/f")
    assert origin.last.target == asked


# --- routes.*.cors ----------------------------------------------------------------------------------------------------


async def get(house: OpenHouse, origin: Origin, page: str = PAGE, **cors: Any) -> Got:
    origin.otherwise(Reply(b"x"))
    running = await house(settings(origin, route={"cors": {"origins": [PAGE], **cors}}))
    return await running.fetch("/f", f"Origin: {page}")


async def preflight(house: OpenHouse, origin: Origin, method: str = "GET", header: str = "Range", **cors: Any) -> Got:
    running = await house(settings(origin, route={"cors": {"origins": [PAGE], **cors}}))
    asks = [f"Origin: {PAGE}", f"Access-Control-Request-Method: {method}", f"Access-Control-Request-Headers: {header}"]
    return await running.fetch("/f", *asks, method="OPTIONS")


@pytest.mark.option("routes.cors", "routes.cors.origins")
async def test_cors_origins(house: OpenHouse, origin: Origin) -> None:
    assert (await get(house, origin)).get("access-control-allow-origin") == PAGE
    assert (await get(house, origin, "https://other.example")).get("access-control-allow-origin") is None
    off = await house(settings(origin, route={}))
    assert "access-control-allow-origin" not in (await off.fetch("/f", f"Origin: {PAGE}")).names


@pytest.mark.option("routes.cors.methods")
async def test_cors_methods(house: OpenHouse, origin: Origin) -> None:
    assert (await preflight(house, origin, "PUT")).status == 403
    allowed = await preflight(house, origin, "PUT", methods=["GET", "PUT"])
    assert allowed.get("access-control-allow-methods") == "PUT"


@pytest.mark.option("routes.cors.headers")
async def test_cors_headers(house: OpenHouse, origin: Origin) -> None:
    assert (await preflight(house, origin, header="X-Own")).status == 403
    allowed = await preflight(house, origin, header="X-Own", headers=["X-Own"])
    assert (allowed.get("access-control-allow-headers") or "").lower() == "x-own"


@pytest.mark.option("routes.cors.expose")
async def test_cors_expose(house: OpenHouse, origin: Origin) -> None:
    got = await get(house, origin, expose=["X-Own", "ETag"])
    assert set((got.get("access-control-expose-headers") or "").split(",")) == {"X-Own", "ETag"}
    assert "Content-Range" in ((await get(house, origin)).get("access-control-expose-headers") or "")


@pytest.mark.option("routes.cors.credentials")
async def test_cors_credentials(house: OpenHouse, origin: Origin) -> None:
    assert (await get(house, origin, credentials=True)).get("access-control-allow-credentials") == "true"
    assert (await get(house, origin)).get("access-control-allow-credentials") is None


@pytest.mark.option("routes.cors.max_age")
async def test_cors_max_age(house: OpenHouse, origin: Origin) -> None:
    assert (await preflight(house, origin, max_age="90s")).get("access-control-max-age") == "90"
