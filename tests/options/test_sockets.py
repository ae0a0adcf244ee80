"""server.sockets.*, upstreams.*.sockets.*: what the kernel says of real connections, as /health reports it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import OpenHouse
from tests.origin import Origin
from tests.trips.plays import settings

pytestmark = pytest.mark.loops("asyncio", "uvloop")

# Options → what a socket then says; each value differs from what it says without them.
CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"nodelay": False}, {"nodelay": False}),
    ({"quickack": False}, {"quickack": False}),
    ({"keepalive": "off"}, {"keepalive": "off"}),
    (
        {"keepalive": {"idle": "33s", "interval": "7s", "count": 3}},
        {"keepalive": {"idle": 33, "interval": 7, "count": 3}},
    ),
    ({"send_buffer": 50_000}, {"send_buffer": 100_000}),  # Linux doubles what it is asked for (socket(7))
    ({"receive_buffer": 60_000}, {"receive_buffer": 120_000}),
    ({"notsent_lowat": "32KiB"}, {"notsent_lowat": 32768}),
    ({"congestion": "reno"}, {"congestion": "reno"}),
]


async def granted(house: OpenHouse, origin: Origin, **options: Any) -> dict[str, dict[str, Any]]:
    """``client`` and ``upstream``: what the newest connection of each side got."""
    origin.serve("/f", b"x")
    running = await house(settings(origin, **options))
    assert (await running.fetch("/f")).status == 200
    parts = json.loads((await running.fetch("/health")).body)["parts"]
    return {
        "client": parts["client_sockets"]["granted"],
        "upstream": parts["upstreams"]["upstreams"]["files"]["pool"]["sockets"]["granted"],
    }


@pytest.mark.option("server.sockets.nodelay", "server.sockets.quickack", "server.sockets.keepalive")
@pytest.mark.option("server.sockets.keepalive.idle", "server.sockets.keepalive.interval")
@pytest.mark.option("server.sockets.keepalive.count", "server.sockets.send_buffer", "server.sockets.receive_buffer")
@pytest.mark.option("server.sockets.notsent_lowat", "server.sockets.congestion")
@pytest.mark.parametrize(("asked", "told"), CASES, ids=lambda one: next(iter(one)))
async def test_sockets_towards_clients(
    house: OpenHouse, origin: Origin, asked: dict[str, Any], told: dict[str, Any]
) -> None:
    usual = await granted(house, origin)
    ours = await granted(house, origin, server={"sockets": asked})
    assert {name: ours["client"][name] for name in told} == told
    assert {name: usual["client"][name] for name in told} != told
    assert ours["upstream"] == usual["upstream"]  # the other side is another matter


@pytest.mark.option("upstreams.sockets.nodelay", "upstreams.sockets.quickack", "upstreams.sockets.keepalive")
@pytest.mark.option("upstreams.sockets.keepalive.idle", "upstreams.sockets.keepalive.interval")
@pytest.mark.option("upstreams.sockets.keepalive.count", "upstreams.sockets.send_buffer")
@pytest.mark.option("upstreams.sockets.receive_buffer", "upstreams.sockets.notsent_lowat")
@pytest.mark.option("upstreams.sockets.congestion")
@pytest.mark.parametrize(("asked", "told"), CASES, ids=lambda one: next(iter(one)))
async def test_sockets_towards_mirrors(
    house: OpenHouse, origin: Origin, asked: dict[str, Any], told: dict[str, Any]
) -> None:
    usual = await granted(house, origin)
    ours = await granted(house, origin, upstream={"sockets": asked})
    assert {name: ours["upstream"][name] for name in told} == told
    assert {name: usual["upstream"][name] for name in told} != told
    assert ours["client"] == usual["client"]


@pytest.mark.option("profile")
async def test_the_baselines_sockets_are_plain(house: OpenHouse, origin: Origin) -> None:
    usual = await granted(house, origin)
    plain = await granted(house, origin, profile="baseline")
    assert usual["client"]["keepalive"] == usual["upstream"]["keepalive"] == {"idle": 60, "interval": 10, "count": 6}
    assert plain["client"]["keepalive"] == plain["upstream"]["keepalive"] == "off"
