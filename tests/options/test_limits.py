"""limits.*: what one client or worker may use up."""

from __future__ import annotations

import asyncio

import pytest

from fileproxy.guard.load import SUSTAINED
from tests.clients import Connection
from tests.conftest import OpenHouse
from tests.origin import Gate, Origin, Reply
from tests.trips.plays import WRITABLE, late_once, overload, settings

SOON = 7.0  # seconds in which what an option says must have happened; the defaults take longer


@pytest.mark.option("limits.head_timeout")
async def test_head_timeout(house: OpenHouse, origin: Origin) -> None:
    running = await house(settings(origin, limits={"head_timeout": "100ms"}))
    async with asyncio.timeout(SOON), await running.connect() as client:
        await client.send(b"GET /f HTTP/1.1\r\nHo")
        assert (await client.answer()).status == 408
    assert running.counts.endings == {"head_timeout": 1}


@pytest.mark.option("limits.keepalive_idle")
async def test_keepalive_idle(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    running = await house(settings(origin, limits={"keepalive_idle": "100ms"}))
    async with asyncio.timeout(SOON), await running.connect() as client:
        assert (await client.ask("GET", "/f")).status == 200
        assert await client.ended()


@pytest.mark.option("limits.client_idle")
async def test_client_idle_while_it_sends(house: OpenHouse, origin: Origin) -> None:
    running = await house(settings(origin, route=WRITABLE, limits={"client_idle": "100ms"}))
    async with asyncio.timeout(SOON), await running.connect() as client:
        await client.send(b"PUT /f HTTP/1.1\r\nHost: f\r\nContent-Length: 10\r\n\r\n123")
        await client.ended()
    await running.quiet()
    assert running.counts.endings == {"client_stalled": 1}


@pytest.mark.option("limits.request_body")
@pytest.mark.parametrize(("size", "status"), [(1000, 200), (1001, 413)])
async def test_request_body(house: OpenHouse, origin: Origin, size: int, status: int) -> None:
    origin.script("/f", Reply(b"taken"))
    running = await house(settings(origin, route=WRITABLE, limits={"request_body": 1000}))
    assert (await running.fetch("/f", method="PUT", body=b"x" * size)).status == status


@pytest.mark.option("limits.request_line", "limits.headers", "limits.header_line", "limits.head")
@pytest.mark.parametrize(
    ("limit", "within", "beyond", "status"),
    [
        ({"request_line": 100}, ["/" + "a" * 86], ["/" + "a" * 87], 414),
        ({"headers": 3}, ["/", "A: a", "B: b"], ["/", "A: a", "B: b", "C: c"], 431),
        ({"header_line": 64}, ["/", "A: " + "a" * 61], ["/", "A: " + "a" * 62], 431),
        ({"head": 200}, ["/", "A: " + "a" * 159], ["/", "A: " + "a" * 160], 431),
    ],
)
async def test_heads(
    house: OpenHouse, origin: Origin, limit: dict[str, int], within: list[str], beyond: list[str], status: int
) -> None:
    origin.otherwise(Reply(b"x"))
    running = await house(settings(origin, limits=limit))
    assert (await running.fetch(within[0], *within[1:])).status == 200
    assert (await running.fetch(beyond[0], *beyond[1:])).status == status


@pytest.mark.option("limits.connections")
async def test_connections(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    running = await house(settings(origin, limits={"connections": 2}))
    async with await running.connect() as first, await running.connect() as second:
        assert [(await one.ask("GET", "/f")).status for one in (first, second)] == [200, 200]
        async with asyncio.timeout(SOON), await running.connect() as third:
            assert (await third.answer()).status == 503
    assert running.counts["connections.shed"] == 1


@pytest.mark.option("limits.connections_per_client")
async def test_connections_per_client(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    limits = {"connections_per_client": 1}
    running = await house(settings(origin, limits=limits, server={"trusted_proxies": []}))
    async with await running.connect() as first:
        assert (await first.ask("GET", "/f")).status == 200
        async with asyncio.timeout(SOON), await running.connect() as second:
            assert (await second.answer()).status == 503
        elsewhere = await asyncio.open_connection("127.0.0.1", running.port, local_addr=("127.0.0.2", 0))
        async with Connection(*elsewhere) as other:
            assert (await other.ask("GET", "/f")).status == 200


@pytest.mark.option("limits.loop_lag")
async def test_loop_lag(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    running = await house(settings(origin, limits={"loop_lag": "50ms"}))
    statuses: list[int] = []
    while len(statuses) < 5 and 503 not in statuses:  # a slow machine may see the loop catch up before it is asked
        await overload(running, seconds=0.3)  # under the default limit, over this one
        statuses.append((await running.fetch("/f")).status)
    assert statuses[-1] == 503
    assert running.counts["workers.lag_sheds"] > 0


@pytest.mark.option("limits.loop_lag")
async def test_loop_lag_off(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    running = await house(settings(origin, limits={"loop_lag": "off"}))
    for _ in range(SUSTAINED + 1):
        await late_once(running, 1.3)
    assert (await running.fetch("/f")).status == 200
    assert running.counts["workers.lag_sheds"] == 0


@pytest.mark.option("limits.response_head")
async def test_response_head(house: OpenHouse, origin: Origin) -> None:
    origin.otherwise(Reply(b"x", headers=(("X-Long", "a" * 3000),)))
    for limit, status in (("4KiB", 200), ("2KiB", 502)):
        running = await house(settings(origin, upstream={"retry": {"attempts": 1}}, limits={"response_head": limit}))
        assert (await running.fetch("/f")).status == status


@pytest.mark.option("server.half_close_grace")
async def test_half_close_grace(house: OpenHouse, origin: Origin) -> None:
    gate = Gate()
    origin.script("/f", Reply(b"x", before_head=gate))
    running = await house(settings(origin, server={"half_close_grace": "100ms"}))
    async with asyncio.timeout(4), await running.connect() as client:  # by default it would be waited for 5 s
        await client.request("GET", "/f")
        await origin.wait_for(lambda: origin.requests_of("/f") == 1)
        client.half_close()
        await client.ended()
    gate.open()
    await running.quiet()
    assert running.counts.endings == {"client_gone": 1}
