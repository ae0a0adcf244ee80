"""How a client connection is adapted to its path: real sockets, with readings that say how far the client is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from fileproxy import sockets, tcpinfo
from fileproxy.control.quality import Quality
from fileproxy.server.pace import ClientPace, Granted, PacePolicy, paced
from fileproxy.settings import Settings
from fileproxy.tcpinfo import TcpInfo
from tests.clients import Connection
from tests.conftest import OpenHouse
from tests.control.test_quality import NONE
from tests.house import Watched
from tests.origin import MIB, Content, Origin, Reply

pytestmark = pytest.mark.loops("asyncio", "uvloop")

ADAPTS = PacePolicy(adapts=True, congestion=True, unsent=True)
NEAR = NONE._replace(rtt_s=0.02, min_rtt_s=0.02)
FAR = NONE._replace(rtt_s=0.16, min_rtt_s=0.15, delivery_rate=1_250_000)


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> Callable[[TcpInfo], None]:
    """``say(reading)``: what the kernel tells of every connection from now on."""

    def say(reading: TcpInfo) -> None:
        monkeypatch.setattr(tcpinfo, "of_transport", lambda transport: None if transport is None else reading)

    return say


@pytest.fixture
async def client() -> AsyncIterator[asyncio.Transport]:
    """Our side of a connection whose congestion control is reno."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
    assert sockets.set_congestion(transport.get_extra_info("socket"), "reno") is None
    yield transport
    transport.close()
    server.close()
    await server.wait_closed()


def held(transport: asyncio.Transport) -> tuple[str | None, Any]:
    found = sockets.granted(transport.get_extra_info("socket"))
    return found["congestion"], found["notsent_lowat"]


def made(transport: asyncio.Transport, granted: Granted | None = None) -> ClientPace:
    pace = paced(transport, granted or Granted(Watched()), lambda pace: pace.look(ADAPTS, 0.0))
    assert pace is not None
    return pace


def needs_bbr(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    if (why := sockets.set_congestion(sock, "bbr")) is not None:
        pytest.skip(f"this kernel has no bbr: {why}")
    sockets.set_congestion(sock, "reno")


async def test_a_far_client_gets_bbr_at_the_first_look_and_small_writes(
    client: asyncio.Transport, say: Callable[[TcpInfo], None]
) -> None:
    needs_bbr(client)
    granted = Granted(Watched())
    pace = made(client, granted)
    say(FAR)
    pace.ended()
    assert held(client) == ("bbr", 512 * 1024)  # a quarter of a second of what arrives
    assert pace.write == 32 * 1024
    assert granted.newest is not None
    assert granted.newest["congestion"] == "bbr"


async def test_a_near_client_keeps_the_systems_until_packets_are_lost(
    client: asyncio.Transport, say: Callable[[TcpInfo], None]
) -> None:
    needs_bbr(client)
    pace = made(client)
    say(NEAR)
    pace.look(ADAPTS, 0.0)
    assert held(client) == ("reno", "unlimited")
    assert pace.write is None
    say(NEAR._replace(data_segs_out=2000, retransmitted=41))  # the round trip is what it was
    pace.look(ADAPTS, 1.0)
    assert pace.path.quality is Quality.VERY_POOR
    assert held(client) == ("bbr", 128 * 1024)
    assert pace.write == 64 * 1024


async def test_the_baseline_puts_back_what_was_set(client: asyncio.Transport, say: Callable[[TcpInfo], None]) -> None:
    needs_bbr(client)
    pace = made(client)
    say(FAR)
    pace.look(ADAPTS, 0.0)
    pace.look(PacePolicy(), 1.0)
    assert held(client) == ("reno", "unlimited")
    assert pace.write is None
    pace.look(ADAPTS, 2.0)
    assert held(client)[0] == "bbr"


async def test_what_is_configured_is_left_alone(client: asyncio.Transport, say: Callable[[TcpInfo], None]) -> None:
    pace = made(client)
    say(FAR)
    pace.look(PacePolicy(adapts=True), 0.0)
    assert held(client) == ("reno", "unlimited")


async def test_a_kernel_without_bbr_is_asked_once(
    client: asyncio.Transport, say: Callable[[TcpInfo], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def refuses(_sock: object, name: str) -> str:
        asked.append(name)
        return "No such file or directory"

    monkeypatch.setattr(sockets, "set_congestion", refuses)
    granted = Granted(Watched())
    say(FAR)
    for _ in range(3):
        made(client, granted).look(ADAPTS, 0.0)
    assert asked == ["bbr"]
    assert granted.refused == {"congestion": "No such file or directory"}


@pytest.mark.parametrize(
    ("settings", "policy"),
    [
        ({}, ADAPTS),
        ({"profile": "baseline"}, PacePolicy()),
        ({"server": {"sockets": {"congestion": "system"}}}, PacePolicy(adapts=True, unsent=True)),
        (
            {"server": {"sockets": {"congestion": "reno", "notsent_lowat": "32KiB"}}},
            PacePolicy(adapts=True),
        ),
    ],
)
async def test_what_is_left_to_us(settings: dict[str, Any], policy: PacePolicy) -> None:
    given = Settings.model_validate({"upstreams": {"files": "http://127.0.0.1:1"}, **settings})
    assert PacePolicy.from_settings(given) == policy


async def test_a_far_client_of_a_running_service(
    origin: Origin, house: OpenHouse, say: Callable[[TcpInfo], None]
) -> None:
    """From its first request on; /health tells, and the bytes are right in small writes, too."""
    file = Content(1, 3 * MIB + 17)
    origin.script("/f", Reply(file))
    say(FAR)
    running = await house(origin)
    assert (await running.fetch("/f")).body == file.read()
    granted = json.loads((await running.fetch("/health")).body)["parts"]["client_sockets"]["granted"]
    if not granted["far_or_lossy_refused"]:
        assert granted["far_or_lossy"]["congestion"] == "bbr"
        assert granted["far_or_lossy"]["notsent_lowat"] == 512 * 1024


async def test_the_profile_is_switched_under_a_running_download(
    origin: Origin, house: OpenHouse, say: Callable[[TcpInfo], None]
) -> None:
    origin.script("/f", Reply(Content(1, 64 * MIB)))
    say(FAR)
    running = await house(origin)
    connections = running.house._connections
    async with await Connection.open(running.port, receive_buffer=4096) as connection:
        await connection.request("GET", "/f")
        await running.counts.wait_for(lambda: running.counts["traffic"] > 0)
        (pace,) = connections._paces.values()

        def writes() -> int | None:
            return pace.write

        assert writes() == 32 * 1024
        sock = pace.transport.get_extra_info("socket")
        before = sockets.granted(sock)["notsent_lowat"]
        assert before == 512 * 1024
        await running.house.apply(running.settings.model_copy(update={"profile": "baseline"}), 1)
        connections.sweep()
        assert writes() is None
        assert sockets.granted(sock)["notsent_lowat"] == "unlimited"
        await running.house.apply(running.settings, 2)
        connections.sweep()
        assert writes() == 32 * 1024
        assert sockets.granted(sock)["notsent_lowat"] == before
