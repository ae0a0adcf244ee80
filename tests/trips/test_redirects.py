"""An origin's redirects: the client's by default; followed only where that was allowed, to addresses that may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Authority, OpenHouse
from tests.origin import MIB, Content, Origin, Reply, reset
from tests.trips.fills import cached, whole
from tests.trips.plays import WRITABLE, settings

pytestmark = pytest.mark.loops("asyncio", "uvloop")
FILE = Content(10, MIB)
OWN: dict[str, Any] = {"follow_redirects": {}}


def to(location: str, status: int = 302) -> Reply:
    return Reply(b"moved", status=status, headers=(("Location", location),))


@pytest.mark.option("upstreams.follow_redirects")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_passed_on_or_followed(house: OpenHouse, origin: Origin, status: int) -> None:
    origin.script("/f", to("/g?x=1", status))
    origin.serve("/g", FILE)
    plain = await (await house(settings(origin))).fetch("/f")
    assert (plain.status, plain.get("location"), plain.body) == (status, "/g?x=1", b"moved")
    assert origin.requests_of("/g") == 0
    got = await (await house(settings(origin, upstream=OWN))).fetch("/f")
    assert (got.status, got.sha256) == (200, FILE.sha256())
    assert origin.last.target == "/g?x=1"


async def test_another_mirror_is_the_upstreams_own(house: OpenHouse, origin: Origin, mirror: Origin) -> None:
    """Also at a loopback address: it stands in the configuration."""
    for one, other in ((origin, mirror), (mirror, origin)):
        one.script("/f", to(f"{other.url}/g"))
        one.serve("/g", FILE)
    got = await (await house(settings(origin, mirror, upstream=OWN))).fetch("/f", "Authorization: Basic eDp5")
    assert got.sha256 == FILE.sha256()
    (asked,) = [request for one in (origin, mirror) for request in one.requests if request.path == "/g"]
    assert asked.get("authorization") == "Basic eDp5"  # it is at home there
    assert asked.get("host") in (origin.authority, mirror.authority)


async def test_ranges_and_head_go_along(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", to("/g"))
    origin.serve("/g", FILE)
    running = await house(settings(origin, upstream=OWN))
    part = await running.fetch("/f", "Range: bytes=1000-1999")
    assert (part.status, part.body) == (206, FILE.read(1000, 1000))
    head = await running.fetch("/f", method="HEAD")
    assert (head.status, head.get("content-length")) == (200, str(FILE.size))


async def test_elsewhere_is_refused(house: OpenHouse, origin: Origin, mirror: Origin) -> None:
    origin.script("/f", to(f"{mirror.url}/g"))
    mirror.serve("/g", FILE)
    running = await house(settings(origin, upstream=OWN))
    got = await running.fetch("/f")
    assert got.status == 502
    assert "destination_ip_prohibited" in (got.get("proxy-status") or "")
    assert mirror.accepted == 0
    assert origin.requests_of("/f") == 1  # asking again would change nothing
    await running.quiet()
    assert running.counts.endings == {"upstream_redirect": 1}


@pytest.mark.option("upstreams.follow_redirects.hosts", "upstreams.follow_redirects.private")
async def test_an_allowed_host_at_an_inner_address_needs_private(
    house: OpenHouse, origin: Origin, mirror: Origin
) -> None:
    """The name may be on the list: where it leads is looked at when it is connected to."""
    origin.script("/f", to(f"http://localhost:{mirror.port}/g"))
    mirror.serve("/g", FILE)
    follow = {"hosts": ["localhost"]}
    strict = await house(settings(origin, upstream={"follow_redirects": follow, "headers": {"X-Key": "secret"}}))
    got = await strict.fetch("/f")
    assert got.status == 502
    assert "destination_ip_prohibited" in (got.get("proxy-status") or "")
    assert mirror.accepted == 0
    upstream = {"follow_redirects": {**follow, "private": True}, "headers": {"X-Key": "secret"}}
    loose = await house(settings(origin, upstream=upstream))
    got = await loose.fetch("/f", "Authorization: Basic eDp5", "Cookie: a=b", "Range: bytes=0-9")
    assert (got.status, got.body) == (206, FILE.read(0, 10))
    assert origin.last.get("x-key") == "secret"
    for name in ("x-key", "authorization", "cookie"):
        assert mirror.last.get(name) is None, name
    assert mirror.last.get("host") == f"localhost:{mirror.port}"


@pytest.mark.parametrize("location", ["http://169.254.169.254/latest/meta-data", "http://[::ffff:a9fe:a9fe]/"])
async def test_cloud_metadata_is_never_reached(house: OpenHouse, origin: Origin, location: str) -> None:
    origin.script("/f", to(location))
    follow = {"hosts": ["169.254.169.254"], "private": True}
    running = await house(settings(origin, upstream={"follow_redirects": follow}))
    got = await running.fetch("/f")
    assert got.status == 502
    assert "destination_ip_prohibited" in (got.get("proxy-status") or "")


async def test_never_from_https_to_http(
    house: OpenHouse, origin: Origin, secure_origin: Origin, authority: Authority
) -> None:
    secure_origin.script("/f", to(f"{origin.url}/g"))
    origin.serve("/g", FILE)
    upstream = {"follow_redirects": {"hosts": ["127.0.0.1"], "private": True}, "tls": {"ca": str(authority.pem)}}
    got = await (await house(settings(secure_origin, upstream=upstream))).fetch("/f")
    assert got.status == 502
    assert origin.accepted == 0


@pytest.mark.option("upstreams.follow_redirects.hops")
async def test_hops(house: OpenHouse, origin: Origin) -> None:
    for number in range(4):
        origin.script(f"/{number}", to(f"/{number + 1}"))
    origin.serve("/4", FILE)
    four = await house(settings(origin, upstream={"follow_redirects": {"hops": 4}}))
    assert (await four.fetch("/0")).sha256 == FILE.sha256()
    three = await house(settings(origin, upstream={"follow_redirects": {"hops": 3}}))
    assert (await three.fetch("/0")).status == 502


async def test_circles_end(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", to("/f"))
    got = await (await house(settings(origin, upstream=OWN))).fetch("/f")
    assert got.status == 502
    assert origin.requests_of("/f") == 6  # the first, and five hops


async def test_only_what_reads_is_followed(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", to("/g", 307))
    origin.serve("/g", FILE)
    running = await house(settings(origin, upstream=OWN, route=WRITABLE))
    got = await running.fetch("/f", method="POST", body=b"x")
    assert (got.status, got.get("location")) == (307, "/g")
    assert origin.requests_of("/g") == 0


async def test_a_failing_goal_is_tried_again_from_the_start(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", to("/g"))
    origin.script("/g", Reply(status=503), Reply(FILE))
    got = await (await house(settings(origin, upstream=OWN))).fetch("/f")
    assert got.sha256 == FILE.sha256()
    assert (origin.requests_of("/f"), origin.requests_of("/g")) == (2, 2)


async def test_a_redirect_without_a_location_is_an_answer(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", Reply(b"where?", status=302))
    got = await (await house(settings(origin, upstream=OWN))).fetch("/f")
    assert (got.status, got.body) == (302, b"where?")


# --- signed links that expire -----------------------------------------------------------------------------------------

GONE = [403, 404, 410]


@pytest.mark.parametrize("status", GONE)
async def test_a_link_that_expires_in_mid_download_is_asked_for_anew(
    house: OpenHouse, origin: Origin, tmp_path: Path, status: int
) -> None:
    """The source gives a link for each time it is asked; each is good once, and the first breaks half way."""
    origin.script("/f", to("/signed/1?sig=a"), to("/signed/2?sig=b"))
    origin.script("/signed/1", Reply(FILE, breaks=reset(at=MIB // 2)), Reply(b"expired", status=status))
    origin.serve("/signed/2", FILE)
    running = await house(cached(origin, folder=tmp_path / "c", upstream=OWN))
    await whole(running, FILE)
    assert [one.target for one in origin.requests] == ["/f", "/signed/1?sig=a", "/f", "/signed/2?sig=b"]
    assert origin.last.get("range") == f"bytes={MIB // 2}-{MIB - 1}"


@pytest.mark.parametrize("status", GONE)
async def test_a_stale_link_is_given_up_for_a_new_one(
    house: OpenHouse, origin: Origin, tmp_path: Path, status: int
) -> None:
    """The source, or who remembers its redirect, still gives the old link when the download goes on."""
    origin.script("/f", *[to("/signed/1?sig=a")] * 2, to("/signed/2?sig=b"))
    origin.script("/signed/1", Reply(FILE, breaks=reset(at=MIB // 2)), Reply(b"expired", status=status))
    origin.serve("/signed/2", FILE)
    running = await house(cached(origin, folder=tmp_path / "c", upstream=OWN))
    await whole(running, FILE)
    assert origin.requests_of("/signed/1") == 2
    assert origin.requests_of("/f") == 3


@pytest.mark.parametrize("status", GONE)
async def test_where_the_source_sends_everybody_is_asked_once(house: OpenHouse, origin: Origin, status: int) -> None:
    """A file that is not there is not looked for again and again."""
    origin.script("/f", to("/g"))
    origin.script("/g", Reply(b"no", status=status))
    got = await (await house(settings(origin, upstream=OWN))).fetch("/f")
    assert (got.status, got.body) == (status, b"no")
    assert (origin.requests_of("/f"), origin.requests_of("/g")) == (1, 1)
