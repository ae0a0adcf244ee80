"""upstreams.*: how mirrors are asked, waited for and asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.conftest import OpenHouse
from tests.house import Running
from tests.origin import KIB, Content, Origin, Reply, stall
from tests.trips.plays import settings

SOON = 8.0  # seconds in which what an option says must have happened; the defaults take longer
AT_ONCE = {"base": "1ms", "cap": "1ms"}


async def asked(house: OpenHouse, origin: Origin, retry: Mapping[str, Any], reply: Reply | None = None) -> Running:
    """A house that was asked once for a file which fails every time."""
    origin.script("/f", reply or Reply(status=503))
    running = await house(settings(origin, upstream={"retry": {**AT_ONCE, **retry}}))
    assert (await running.fetch("/f")).status == (reply or Reply(status=503)).status
    return running


# --- upstreams.*.timeouts ---------------------------------------------------------------------------------------------


@pytest.mark.option("upstreams.timeouts.first_byte")
async def test_first_byte(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", Reply(b"x", breaks=stall()))
    options = {"timeouts": {"first_byte": "100ms"}, "retry": {"attempts": 1}}
    running = await house(settings(origin, upstream=options))
    async with asyncio.timeout(SOON):
        assert (await running.fetch("/f")).status == 504


@pytest.mark.option("upstreams.timeouts.stall")
async def test_stall(house: OpenHouse, origin: Origin, mirror: Origin) -> None:
    origin.script("/f", Reply(b"late", breaks=stall()))
    mirror.serve("/f", b"here")
    running = await house(settings(origin, mirror, upstream={"timeouts": {"stall": "100ms"}, "balance": "round_robin"}))
    for _ in range(2):  # whichever is asked first
        async with asyncio.timeout(SOON):
            assert (await running.fetch("/f")).body == b"here"
    assert origin.requests_of("/f") == 1


@pytest.mark.option("upstreams.timeouts.idle")
async def test_idle(house: OpenHouse, origin: Origin) -> None:
    nameless = Reply(Content(1, 100 * KIB), etag=None, last_modified=None)  # what has a validator goes on
    origin.script("/f", replace(nameless, breaks=stall(at=50 * KIB)))
    running = await house(settings(origin, upstream={"timeouts": {"idle": "100ms"}}))
    async with asyncio.timeout(SOON):
        got = await running.fetch("/f")
    assert (got.status, got.complete) == (200, False)
    await running.quiet()
    assert running.counts.endings == {"upstream_idle_timeout": 1}


# --- upstreams.*.retry ------------------------------------------------------------------------------------------------


@pytest.mark.option("upstreams.retry.attempts")
@pytest.mark.parametrize("attempts", [1, 3])
async def test_attempts(house: OpenHouse, origin: Origin, attempts: int) -> None:
    await asked(house, origin, {"attempts": attempts})
    assert origin.requests_of("/f") == attempts


@pytest.mark.option("upstreams.retry.within")
async def test_within(house: OpenHouse, origin: Origin) -> None:
    await asked(house, origin, {"within": 0})
    assert origin.requests_of("/f") == 1


@pytest.mark.option("upstreams.retry.statuses")
async def test_statuses(house: OpenHouse, origin: Origin) -> None:
    await asked(house, origin, {"statuses": [418], "attempts": 3}, Reply(status=418))
    assert origin.requests_of("/f") == 3
    origin.requests.clear()
    await asked(house, origin, {"statuses": [418], "attempts": 3}, Reply(status=503))
    assert origin.requests_of("/f") == 1


@pytest.mark.option("upstreams.retry.budget")
@pytest.mark.parametrize(("budget", "requests"), [(0.0, 1), (1.0, 2)])
async def test_budget(house: OpenHouse, origin: Origin, budget: float, requests: int) -> None:
    running = await asked(house, origin, {"budget": budget, "budget_floor": 0})
    assert origin.requests_of("/f") == requests
    assert running.counts.of("upstream.retries_refused", "files") == 1


@pytest.mark.option("upstreams.retry.budget_floor")
async def test_budget_floor(house: OpenHouse, origin: Origin) -> None:
    running = await asked(house, origin, {"budget": 0.0, "budget_floor": 1, "attempts": 50})
    assert origin.requests_of("/f") == 11  # one a second, counted over 10 s, and the first try
    assert running.counts.of("upstream.retries_refused", "files") == 1


@pytest.mark.option("upstreams.retry.base")
async def test_base(house: OpenHouse, origin: Origin) -> None:
    """A pause that cannot end within ``within`` is not begun."""
    origin.script("/f", Reply(status=503))
    running = await house(settings(origin, upstream={"retry": {"base": "1h", "cap": "2h", "within": "10s"}}))
    assert (await running.fetch("/f")).status == 503
    # With full jitter a pause of at most 10 s of an hour has a chance of 1 in 360.
    assert origin.requests_of("/f") <= 2


@pytest.mark.option("upstreams.retry.cap")
async def test_cap_of_retry_after(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", Reply(status=503, headers=(("Retry-After", "1"),)), Reply(b"x"))
    running = await house(settings(origin, upstream={"retry": {"cap": "500ms"}}))
    assert (await running.fetch("/f")).status == 503  # not waited for; by default it would be
    origin.script("/f", Reply(status=503, headers=(("Retry-After", "1"),)), Reply(b"x"))
    running = await house(settings(origin, upstream={"retry": {"cap": "2s"}}))
    assert (await running.fetch("/f")).status == 200


# --- upstreams.*.servers, balance, headers, host ----------------------------------------------------------------------


@pytest.mark.option("upstreams.servers.weight", "upstreams.balance")
@pytest.mark.parametrize(("balance", "first"), [("weighted_round_robin", 6), ("round_robin", 4)])
async def test_weight(house: OpenHouse, origin: Origin, mirror: Origin, balance: str, first: int) -> None:
    for one in (origin, mirror):
        one.serve("/f", b"x")
    servers = [{"url": origin.url, "weight": 3}, {"url": mirror.url}]
    running = await house({"upstreams": {"files": {"servers": servers, "balance": balance}}})
    for _ in range(8):
        await running.fetch("/f")
    assert (origin.requests_of("/f"), mirror.requests_of("/f")) == (first, 8 - first)


@pytest.mark.option("upstreams.servers.url")
async def test_url(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/pub/f", b"x")
    running = await house({"upstreams": {"files": {"servers": [{"url": f"{origin.url}/pub"}]}}})
    assert (await running.fetch("/f")).body == b"x"


@pytest.mark.option("upstreams.headers")
async def test_headers(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    running = await house(settings(origin, upstream={"headers": {"Authorization": "Bearer ours", "X-A": "b"}}))
    await running.fetch("/f", "Authorization: Bearer theirs")
    assert origin.last.all("authorization") == ["Bearer ours"]
    assert origin.last.all("x-a") == ["b"]


@pytest.mark.option("upstreams.host")
@pytest.mark.parametrize("host", ["upstream", "preserve", "mirror.example:8080"])
async def test_host(house: OpenHouse, origin: Origin, host: str) -> None:
    origin.serve("/f", b"x")
    running = await house(settings(origin, upstream={"host": host}))
    await running.fetch("/f", host="asked.example")
    assert origin.last.all("host") == [{"upstream": origin.authority, "preserve": "asked.example"}.get(host, host)]


# --- upstreams.*.follow_redirects -------------------------------------------------------------------------------------


def moved(to: str) -> Reply:
    return Reply(status=302, headers=(("Location", to),))


@pytest.mark.option("upstreams.follow_redirects")
async def test_follow_redirects(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", moved("/g"))
    origin.serve("/g", b"x")
    passed_on = await (await house(origin)).fetch("/f")
    assert (passed_on.status, passed_on.get("location")) == (302, "/g")
    followed = await (await house(settings(origin, upstream={"follow_redirects": {}}))).fetch("/f")
    assert (followed.status, followed.body) == (200, b"x")


@pytest.mark.option("upstreams.follow_redirects.hops")
@pytest.mark.parametrize(("hops", "status"), [(2, 502), (3, 200)])
async def test_hops(house: OpenHouse, origin: Origin, hops: int, status: int) -> None:
    for number in range(3):
        origin.script(f"/{number}", moved(f"/{number + 1}"))
    origin.serve("/3", b"x")
    running = await house(settings(origin, upstream={"follow_redirects": {"hops": hops}}))
    assert (await running.fetch("/0")).status == status


@pytest.mark.option("upstreams.follow_redirects.hosts", "upstreams.follow_redirects.private")
@pytest.mark.parametrize(
    ("hosts", "private", "status"),
    [([], True, 502), (["127.0.0.1"], False, 502), (["127.0.0.1"], True, 200), (["other.example"], True, 502)],
)
async def test_hosts(
    house: OpenHouse, origin: Origin, mirror: Origin, hosts: list[str], private: bool, status: int
) -> None:
    origin.script("/f", moved(f"{mirror.url}/f"))
    mirror.serve("/f", b"x")
    redirects = {"hosts": hosts, "private": private}
    running = await house(settings(origin, upstream={"follow_redirects": redirects, "retry": {"attempts": 1}}))
    assert (await running.fetch("/f")).status == status
    assert mirror.requests_of("/f") == (status == 200)
