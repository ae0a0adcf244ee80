"""A real browser: it saves files, and its own preflights decide which pages may read them."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.browser import browser
from tests.lab.sites import CACHED, RELAYED, Site, digest, routes
from tests.origin import OriginThread, Reply
from tests.service import Service

pytestmark = pytest.mark.lab

PAGE = Reply(b"<!doctype html><title>a page of another site</title>", headers=(("Content-Type", "text/html"),))
FILE = b"0123456789abcdefghij" * 10
# Range alone needs no preflight (Fetch, "CORS-safelisted request-header"); If-Range does.
SCRIPT = """
fetch(%s, {headers: {"Range": "bytes=10-19", "If-Range": %s}}).then(
    async answer => [answer.status, answer.headers.get("Content-Range"), await answer.text()],
    error => [error.name])
"""


@pytest.mark.parametrize("site", ["nginx"], indirect=True)
async def test_chromium_saves_files(site: Site, tmp_path: Path) -> None:
    async with browser() as chromium:
        for number, target in enumerate(["/1KiB", "/relay/1KiB", "/1MiB", "/relay/1MiB", "/64MiB", "/64MiB"]):
            folder = tmp_path / str(number)
            folder.mkdir()
            saved = await chromium.save(site.url + target, folder)
            assert saved.name == target.rpartition("/")[2]
            assert digest(saved) == site.sha256(saved.name)


async def test_a_real_preflight_lets_in_the_pages_of_allowed_origins_only(service: Callable[..., Service]) -> None:
    with OriginThread() as files, OriginThread() as pages:
        files.serve("/f", FILE)
        pages.script("/page", PAGE)
        allowed, other = (f"http://{host}:{pages.play.port}" for host in ("127.0.0.1", "localhost"))
        running = service({"upstreams": {"files": files.url}, "routes": routes(cors={"origins": [allowed]})})
        etag = _etag(running)
        async with browser() as chromium:
            for prefix in (CACHED, RELAYED):
                script = SCRIPT % (json.dumps(f"{running.url}{prefix}f"), json.dumps(etag))
                page = await chromium.open(f"{allowed}/page")
                assert await chromium.script(page, script) == [206, "bytes 10-19/200", "abcdefghij"]
                page = await chromium.open(f"{other}/page")
                assert await chromium.script(page, script) == ["TypeError"]
        asked = [
            (line["method"], line["status"]) for line in running.lines("access.log") if line["method"] == "OPTIONS"
        ]
        assert asked == [("OPTIONS", 204), ("OPTIONS", 403)] * 2


def _etag(service: Service) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
    connection.request("HEAD", "/f")
    etag = connection.getresponse().headers["ETag"]
    connection.close()
    return etag
