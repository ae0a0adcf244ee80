"""What one client or worker may use up, and what happens beyond it: told, closed, counted; the others are served."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable

import pytest

from fileproxy.clock import ManualClock
from tests.clients import Connection
from tests.conftest import OpenHouse
from tests.house import settled
from tests.origin import Gate, Origin, Reply
from tests.service import Service
from tests.trips.plays import late_once, overload, settings

pytestmark = pytest.mark.loops("asyncio", "uvloop")


async def assert_turned_away(client: Connection) -> None:
    """Told why without having asked, and closed."""
    got = await client.answer()
    assert (got.status, got.get("connection"), got.get("retry-after")) == (503, "close", "1")
    assert json.loads(got.body)["status"] == 503
    assert await client.ended()


@pytest.mark.option("limits.connections")
async def test_connections_over_the_limit_are_told_503(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    running = await house(settings(origin, limits={"connections": 2}))
    async with await running.connect() as first, await running.connect() as second:
        assert (await first.ask("GET", "/f")).status == 200
        assert (await second.ask("GET", "/f")).status == 200
        async with await running.connect() as third:
            await assert_turned_away(third)
        assert running.counts["connections.shed"] == 1
        assert (await first.ask("GET", "/f")).status == 200  # those that are here go on
    await running.counts.wait_for(lambda: running.counts["connections.open"] == 0)
    assert (await running.fetch("/f")).status == 200
    assert running.counts.endings == {"completed": 4}


async def test_whoever_comes_in_a_flood_is_told_or_reset_but_nothing_breaks(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    running = await house(settings(origin, limits={"connections": 1}))

    async def flood() -> None:
        async with await running.connect() as client:
            await client.ended()

    async with await running.connect() as first:
        assert (await first.ask("GET", "/f")).status == 200
        await asyncio.gather(*(flood() for _ in range(200)))
        assert (await first.ask("GET", "/f")).status == 200
    assert running.counts["connections.shed"] == 200


@pytest.mark.option("limits.connections_per_client")
async def test_connections_of_one_address(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    limited = settings(origin, limits={"connections_per_client": 1}, server={"trusted_proxies": []})
    running = await house(limited)
    async with await running.connect() as first:
        assert (await first.ask("GET", "/f")).status == 200
        async with await running.connect() as second:
            await assert_turned_away(second)
    await running.counts.wait_for(lambda: running.counts["connections.open"] == 0)
    assert (await running.fetch("/f")).status == 200


async def test_a_trusted_proxy_speaks_for_many_clients(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    running = await house(settings(origin, limits={"connections_per_client": 1}))
    async with await running.connect() as first, await running.connect() as second:
        assert (await first.ask("GET", "/f")).status == 200
        assert (await second.ask("GET", "/f")).status == 200


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.option("limits.head_timeout")
@pytest.mark.parametrize("begun", [b"G", b"GET /f HTTP/1.1\r\nHost: files.test\r\nX: y\r\n"])
async def test_a_head_that_does_not_come_is_408(house: OpenHouse, origin: Origin, begun: bytes) -> None:
    clock = ManualClock()
    running = await house(settings(origin, limits={"head_timeout": "5s"}), clock)
    async with await running.connect() as client:
        await client.send(begun)
        (front,) = await _fronts(running.house._connections._open)
        await settled(lambda: front.phase.name != "HEAD")
        for _ in range(4):  # one more byte now and then renews nothing
            await clock.advance(1)
            await client.send(b"x" if begun.endswith(b"\n") else b"")
        assert running.counts.endings == {}
        await clock.advance(2)
        got = await client.answer()
        assert (got.status, got.get("connection")) == (408, "close")
        assert await client.ended()
    assert running.counts.endings == {"head_timeout": 1}


async def _fronts(opened: set) -> set:  # type: ignore[type-arg]
    await settled(lambda: not opened)
    return opened


@pytest.mark.option("limits.keepalive_idle")
@pytest.mark.parametrize("asked", [False, True])
async def test_an_idle_connection_is_closed(house: OpenHouse, origin: Origin, asked: bool) -> None:
    clock = ManualClock()
    origin.serve("/f", b"x")
    running = await house(settings(origin, limits={"keepalive_idle": "30s"}), clock)
    async with await running.connect() as client:
        if asked:
            assert (await client.ask("GET", "/f")).status == 200
        await settled(lambda: running.counts["connections.open"] == 0)
        await clock.advance(29)
        assert running.counts["connections.open"] == 1
        await clock.advance(2)
        assert await client.ended()
    await running.quiet()
    assert running.counts.endings == ({"completed": 1} if asked else {})


async def test_a_busy_connection_outlives_the_keep_alive_time(house: OpenHouse, origin: Origin) -> None:
    clock, gate = ManualClock(), Gate()
    origin.script("/f", Reply(b"late", before_head=gate))
    running = await house(settings(origin, limits={"keepalive_idle": "5s"}), clock)
    async with await running.connect() as client:
        await client.request("GET", "/f")
        await origin.wait_for(lambda: len(origin.requests) == 1)
        await clock.advance(8)
        gate.open()
        assert (await client.answer()).body == b"late"


# --- overload ---------------------------------------------------------------------------------------------------------


@pytest.mark.option("limits.loop_lag")
async def test_a_loop_that_runs_late_sheds_and_recovers(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    running = await house(settings(origin, limits={"loop_lag": "100ms"}))
    await late_once(running, 0.4)  # a busy machine does that now and then
    assert (await running.fetch("/f")).status == 200
    assert running.counts["workers.lag_sheds"] == 0
    await overload(running)
    got = await running.fetch("/f")
    assert (got.status, got.get("retry-after")) == (503, "1")
    assert "proxy_internal_response" in (got.get("proxy-status") or "")
    assert running.counts["workers.lag_sheds"] >= 1
    async with asyncio.timeout(10):
        while (await running.fetch("/f")).status != 200:
            await asyncio.sleep(0.05)
    assert running.counts.endings["shed"] >= 1
    assert running.counts["errors"] == running.counts.endings["shed"]


async def test_our_own_pages_are_served_while_shedding(house: OpenHouse, origin: Origin) -> None:
    running = await house(settings(origin, limits={"loop_lag": "100ms"}))
    assert (await running.fetch("/livez")).status == 200
    await overload(running)
    assert (await running.fetch("/f")).status == 503
    assert (await running.fetch("/livez")).status == 200


async def test_few_descriptors_shed_and_recover(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    running = await house(origin)
    allowed = running.house._nofile
    lowest_free = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest_free)
    running.house._nofile = lowest_free + 1
    await settled(lambda: not running.house._service.load.descriptors_low)
    got = await running.fetch("/f")
    assert (got.status, got.get("retry-after")) == (503, "1")
    running.house._nofile = allowed
    await settled(lambda: running.house._service.load.descriptors_low)
    assert (await running.fetch("/f")).status == 200
    await running.quiet()
    assert running.counts.endings == {"shed": 1, "completed": 1}


def status_of(one: Service) -> int | None:
    try:
        return one.get("/livez")[0]
    except OSError:
        return None  # reset while the others are being closed


@pytest.mark.loops("asyncio")
async def test_a_worker_out_of_descriptors_stays_alive(service: Callable[..., Service]) -> None:
    """More clients than descriptors: those beyond are turned away, and afterwards all is as before."""
    one = await asyncio.to_thread(lambda: service({"upstreams": {"files": "http://127.0.0.1:1"}}, files_limit=200))
    worker = await asyncio.to_thread(one.worker)
    clients: list[Connection] = []
    told = 0
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(250):
            with contextlib.suppress(ConnectionError):  # reset: too many at once to be told
                clients.append(await stack.enter_async_context(await Connection.open(one.port)))
        for client in clients[70:]:  # half of 200 - 64 are served
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                assert (await client.head()).status == 503
                told += 1
        assert told
        assert (await clients[0].ask("GET", "/livez")).status == 200
    async with asyncio.timeout(10):
        while await asyncio.to_thread(status_of, one) != 200:
            await asyncio.sleep(0.02)
    assert worker.is_running()
    assert (await asyncio.to_thread(one.json, "/stats"))["connections"]["shed"] > 0
