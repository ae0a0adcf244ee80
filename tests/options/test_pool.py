"""upstreams.*.pool.* and timeouts.connect: the connections to mirrors, and what the profile makes of ``auto``."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from typing import Any

import pytest

from tests.conftest import OpenHouse
from tests.house import Running, settled
from tests.origin import KIB, MIB, Content, Gate, Origin, Reply, blackhole
from tests.trips.plays import settings


async def at_once(running: Running, count: int, least: int, *origins: Origin) -> int:
    """How many of ``count`` requests reach the origins while none is answered; ``least`` of them are waited for."""
    gate = Gate()
    for one in origins:
        one.script("/f", Reply(b"x", before_head=gate))

    def reached() -> int:
        return sum(len(one.requests) for one in origins)

    tasks = [asyncio.ensure_future(running.fetch("/f")) for _ in range(count)]
    await running.counts.wait_for(lambda: running.counts["downloads.active"] == count)
    await settled(lambda: reached() < least)
    for _ in range(1000):  # whoever is not held back arrives in these turns of the loop
        await asyncio.sleep(0)
    found = reached()
    gate.open()
    assert {got.status for got in await asyncio.gather(*tasks)} == {200}
    return found


@pytest.mark.option("upstreams.pool.limit")
async def test_limit(house: OpenHouse, origin: Origin, mirror: Origin) -> None:
    running = await house(settings(origin, mirror, upstream={"pool": {"limit": 3}}))
    assert await at_once(running, 8, 3, origin, mirror) == 3


@pytest.mark.option("upstreams.pool.per_host")
async def test_per_host(house: OpenHouse, origin: Origin, mirror: Origin) -> None:
    running = await house(settings(origin, mirror, upstream={"pool": {"per_host": 2}}))
    assert await at_once(running, 8, 4, origin, mirror) == 4


@pytest.mark.option("profile")
@pytest.mark.parametrize(("profile", "most"), [("optimized", 50), ("baseline", 30)])
async def test_profile(house: OpenHouse, origin: Origin, profile: str, most: int) -> None:
    running = await house(settings(origin, profile=profile))
    assert await at_once(running, 60, most, origin) == most


@pytest.mark.option("upstreams.pool.keepalive")
async def test_keepalive(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    running = await house(settings(origin, upstream={"pool": {"keepalive": "100ms"}}))
    await running.fetch("/f")
    await origin.wait_for(lambda: origin.closed_by_peer == 1, within=8)


@pytest.mark.option("upstreams.pool.dns_cache")
@pytest.mark.parametrize(("dns_cache", "lookups"), [("off", 3), ("1h", 1)])
async def test_dns_cache(
    house: OpenHouse, origin: Origin, monkeypatch: pytest.MonkeyPatch, dns_cache: str, lookups: int
) -> None:
    asked: list[Any] = []
    real = socket.getaddrinfo

    def counted(host: Any, *more: Any, **options: Any) -> Any:
        asked.append(host)
        return real("127.0.0.1" if host == "files.example" else host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", counted)
    origin.script("/f", Reply(b"x", after="close"))
    url = f"http://files.example:{origin.port}"
    running = await house(settings(url, upstream={"pool": {"dns_cache": 0 if dns_cache == "off" else dns_cache}}))
    for _ in range(3):
        assert (await running.fetch("/f")).status == 200
    assert asked.count("files.example") == lookups


@pytest.mark.option("upstreams.pool.buffer")
async def test_buffer(house: OpenHouse, origin: Origin) -> None:
    """A client takes nothing; the origin can send on until the buffers between them are full."""
    # Without a length: what has one is not read ahead of the client (``upstream/tube.py``).
    origin.script("/f", Reply(Content(1, 200 * MIB), framing="chunked"))
    upstream = {"pool": {"buffer": "40MiB"}, "sockets": {"receive_buffer": "64KiB"}}
    running = await house(settings(origin, upstream=upstream, server={"sockets": {"send_buffer": "64KiB"}}))
    async with await running.connect(receive_buffer=4 * KIB) as client:
        await client.request("GET", "/f")
        await origin.wait_for(lambda: origin.sent["/f"] > 40 * MIB)
    await running.quiet()


@pytest.mark.option("upstreams.pool.happy_eyeballs")
@pytest.mark.parametrize("head_start", ["off", "10ms"])
async def test_happy_eyeballs(
    house: OpenHouse, origin: Origin, monkeypatch: pytest.MonkeyPatch, head_start: str
) -> None:
    """A name has two addresses, the first of which does not answer."""
    real = socket.getaddrinfo
    with blackhole() as silent:
        first = ("127.0.0.1", int(silent.rpartition(":")[2]))

        def two(host: Any, port: Any, *more: Any, **options: Any) -> Any:
            if host != "files.example":
                return real(host, port, *more, **options)
            tcp = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
            return [(*tcp, first), (*tcp, ("127.0.0.1", origin.port))]

        monkeypatch.setattr(socket, "getaddrinfo", two)
        origin.serve("/f", b"x")
        upstream = {"pool": {"happy_eyeballs": head_start}, "timeouts": {"connect": "1s"}, "retry": {"attempts": 1}}
        running = await house(settings(f"http://files.example:{origin.port}", upstream=upstream))
        got = await running.fetch("/f")
        assert got.status == 200
        timing = re.search(r"connect;dur=([0-9.]+)", got.get("server-timing") or "")
        assert timing is not None
        # One after the other: the first must be given up before the second is tried.
        assert (float(timing[1]) >= 990) is (head_start == "off")


@pytest.mark.option("upstreams.timeouts.connect")
async def test_connect(house: OpenHouse) -> None:
    with blackhole() as silent:
        upstream = {"timeouts": {"connect": "100ms"}, "retry": {"attempts": 1}}
        running = await house(settings(f"http://{silent}", upstream=upstream))
        async with asyncio.timeout(7):  # by default it would be waited for 15 s
            assert (await running.fetch("/f")).status == 504


async def test_health_tells_the_pool(house: OpenHouse, origin: Origin) -> None:
    running = await house(settings(origin, profile="baseline", upstream={"pool": {"limit": 7}}))
    parts = json.loads((await running.fetch("/health")).body)["parts"]
    pool = parts["upstreams"]["upstreams"]["files"]["pool"]
    assert (pool["limit"], pool["per_host"], pool["connect_s"]) == (7, 30, 8.0)
