"""Clients that go away, go silent or are slow: their upstream stops, and nothing grows for them."""

from __future__ import annotations

import asyncio

import pytest

from fileproxy.clock import ManualClock
from tests.clients import Connection
from tests.conftest import OpenHouse
from tests.house import Running, settled
from tests.origin import KIB, MIB, Content, Gate, Origin, Reply, stall
from tests.trips.plays import settings

pytestmark = pytest.mark.loops("asyncio", "uvloop")

BIG = Content(7, 1024 * MIB)


async def leave(client: Connection, how: str) -> None:
    if how == "reset":
        client.reset()
    else:
        await client.close()


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_while_bytes_flow_the_upstream_stops_at_once(house: OpenHouse, origin: Origin, how: str) -> None:
    origin.serve("/f", BIG)
    running = await house(origin)
    async with await running.connect(receive_buffer=32 * KIB) as client:
        await client.request("GET", "/f")
        await client.reader.readexactly(500_000)
        await leave(client, how)
        await origin.wait_for(lambda: origin.closed_by_peer == 1, within=1.0, what="the upstream let go")
    await running.quiet()
    assert running.counts.endings == {"client_gone": 1}
    assert running.counts["downloads.cut"] == 0  # it was the client that left
    assert running.counts["errors"] == 0
    assert origin.sent["/f"] < 64 * MIB


async def test_a_reset_while_waiting_for_the_first_byte_stops_the_upstream(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", Reply(b"late", before_head=Gate()))
    running = await house(origin)
    async with await running.connect() as client:
        await client.request("GET", "/f")
        await origin.wait_for(lambda: len(origin.requests) == 1)
        client.reset()
        await origin.wait_for(lambda: origin.closed_by_peer == 1, within=1.0, what="the upstream let go")
    await running.quiet()
    assert running.counts.endings == {"client_gone": 1}
    assert running.lines.access_lines[0]["ending"] == "client_gone"


async def test_who_half_closes_while_waiting_is_served(house: OpenHouse, origin: Origin) -> None:
    gate = Gate()
    origin.script("/f", Reply(Content(1, MIB), before_head=gate))
    running = await house(origin)
    async with await running.connect() as client:
        await client.request("GET", "/f")
        client.half_close()
        await origin.wait_for(lambda: len(origin.requests) == 1)
        gate.open()
        got = await client.answer()
        assert (got.status, got.sha256, got.ending) == (200, Content(1, MIB).sha256(), "length")
        assert await client.ended()
    await running.quiet()
    assert running.counts.endings == {"completed": 1}


@pytest.mark.option("server.half_close_grace")
async def test_the_grace_of_a_half_closed_client_ends(house: OpenHouse, origin: Origin) -> None:
    clock = ManualClock()
    origin.script("/f", Reply(b"late", before_head=Gate()))
    running = await house(settings(origin, server={"half_close_grace": "3s"}), clock)
    async with await running.connect() as client:
        await client.request("GET", "/f")
        await origin.wait_for(lambda: len(origin.requests) == 1)
        (front,) = running.house._connections._open
        client.half_close()
        await settled(lambda: not front._eof)
        await clock.advance(2)
        assert running.counts["downloads.active"] == 1
        await clock.advance(2)
        await origin.wait_for(lambda: origin.closed_by_peer == 1)
    await running.quiet()
    assert running.counts.endings == {"client_gone": 1}


async def test_pipelined_requests_of_a_half_closed_client_are_all_served(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"file")
    async with await (await house(origin)).connect() as client:
        await client.send(b"GET /f HTTP/1.1\r\nHost: f\r\n\r\n" * 3)
        client.half_close()
        for _ in range(3):
            assert (await client.answer()).body == b"file"
        assert await client.ended()


# --- slow -------------------------------------------------------------------------------------------------------------


def held(running: Running) -> int:
    """Bytes in this process on their way to clients."""
    return sum(front.transport.get_write_buffer_size() for front in running.house._connections._open)


async def test_a_slow_client_makes_the_origin_wait(house: OpenHouse, origin: Origin) -> None:
    """What is held is bounded, however large the file: law 5."""
    origin.serve("/f", BIG)
    running = await house(origin)
    async with await running.connect(receive_buffer=8 * KIB) as client:
        client.reader._limit = 8 * KIB  # type: ignore[attr-defined]
        await client.request("GET", "/f")
        await origin.wait_for(lambda: origin.sent["/f"] > 0)
        # The origin ends up waiting for its kernel, which waits for ours, which waits for us.
        wire = next(iter(origin._wires))
        await settled(lambda: wire._writable.is_set())
        assert not wire._writable.is_set()
        assert held(running) <= MIB
        assert origin.sent["/f"] < 32 * MIB
        assert running.counts["bytes.from_upstreams"] <= 4 * MIB
        await client.reader.readexactly(20 * MIB)  # and goes on when the client does
        assert held(running) <= MIB


async def test_a_slow_client_gets_every_byte(house: OpenHouse, origin: Origin) -> None:
    file = Content(3, 6 * MIB)
    origin.serve("/f", file)
    running = await house(origin)
    async with await running.connect(receive_buffer=8 * KIB) as client:
        await client.request("GET", "/f")
        got = await client.head()
        for _ in range(50):
            got.body += await client.reader.readexactly(1000)
            await asyncio.sleep(0)
        rest = await client.reader.readexactly(file.size - 50_000)
    assert got.body + rest == file.read()
    await running.quiet()
    assert running.counts.endings == {"completed": 1}


@pytest.mark.option("limits.client_idle")
async def test_a_client_that_takes_nothing_is_given_up(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", BIG)
    running = await house(settings(origin, limits={"client_idle": "200ms"}))
    async with await running.connect(receive_buffer=8 * KIB) as client:
        client.reader._limit = 8 * KIB  # type: ignore[attr-defined]
        await client.request("GET", "/f")
        await origin.wait_for(lambda: origin.closed_by_peer == 1)
        await running.quiet()
        assert running.counts.endings == {"client_stalled": 1}
        assert running.counts["downloads.cut"] == 1
        got = await client.answer()
        assert got.ending in ("cut", "reset")


async def test_an_upstream_that_stalls_does_not_keep_who_left(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", Reply(BIG, breaks=stall(at=MIB)))
    running = await house(origin)
    async with await running.connect() as client:
        await client.request("GET", "/f")
        await client.reader.readexactly(MIB)
        client.reset()
        await origin.wait_for(lambda: origin.closed_by_peer == 1, within=1.0, what="the upstream let go")
    await running.quiet()
    assert running.counts.endings == {"client_gone": 1}


async def test_a_hundred_clients_that_leave_in_the_midst_leave_nothing(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", BIG)
    running = await house(origin)

    async def one(number: int) -> None:
        client = await running.connect()
        await client.request("GET", "/f")
        await client.reader.readexactly(1000 * number + 300)
        await leave(client, "reset" if number % 2 else "close")

    await asyncio.gather(*(one(number) for number in range(100)))
    await running.quiet()
    await origin.wait_for(lambda: origin.open == 0)
    assert running.counts.endings == {"client_gone": 100}
