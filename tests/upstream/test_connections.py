"""The tuned connector: its limits, names, addresses and TCP options, as they act on real sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import ResolveResult

from fileproxy.errors import ConfigurationError, ConnectTimeout, DnsFailed, RedirectRefused
from fileproxy.settings.schema import Tls
from fileproxy.upstream.connections import refuse_python_parser, tls_context
from fileproxy.upstream.redirects import forbidden_address
from tests.conftest import Authority
from tests.house import Watched, settled
from tests.origin import MIB, Content, Origin, Reply, blackhole
from tests.upstream.conftest import Known, MakeTransport, read, want

pytestmark = pytest.mark.loops("asyncio", "uvloop")


# --- TCP options -----------------------------------------------------------------------------------------------------


async def granted(origin: Origin, transport: MakeTransport, sockets: dict[str, Any] | None) -> dict[str, Any]:
    origin.serve("/f", b"x")
    made, connections = transport(origin, sockets=sockets)
    await read(await made.fetch(want()))
    found: dict[str, Any] = connections.describe()["sockets"]
    return found


@pytest.mark.option("upstreams.sockets.nodelay")
@pytest.mark.parametrize("nodelay", [True, False])
async def test_nodelay(origin: Origin, transport: MakeTransport, nodelay: bool) -> None:
    """aiohttp switches it on for every connection; ours is what was asked for."""
    assert (await granted(origin, transport, {"nodelay": nodelay}))["granted"]["nodelay"] is nodelay


@pytest.mark.option("upstreams.sockets.keepalive", "upstreams.sockets.send_buffer", "upstreams.sockets.receive_buffer")
@pytest.mark.option("upstreams.sockets.notsent_lowat", "upstreams.sockets.congestion")
async def test_what_is_asked_is_granted(origin: Origin, transport: MakeTransport) -> None:
    found = await granted(
        origin,
        transport,
        {
            "keepalive": {"idle": "33s", "interval": "7s", "count": 3},
            "send_buffer": 50_000,
            "receive_buffer": 60_000,
            "notsent_lowat": 40_000,
            "congestion": "reno",
        },
    )
    assert found["refused"] == {}
    assert found["granted"]["keepalive"] == found["asked"]["keepalive"] == {"idle": 33, "interval": 7, "count": 3}
    assert found["granted"]["send_buffer"] == 2 * found["asked"]["send_buffer"]  # as Linux counts (socket(7))
    assert found["granted"]["receive_buffer"] == 2 * found["asked"]["receive_buffer"]
    assert found["granted"]["notsent_lowat"] == 40_000
    assert found["granted"]["congestion"] == "reno"


async def test_what_the_kernel_refuses_is_said_and_costs_nothing(origin: Origin, transport: MakeTransport) -> None:
    found = await granted(origin, transport, {"congestion": "nosuch"})
    assert set(found["refused"]) == {"congestion"}
    assert found["granted"]["congestion"] not in ("nosuch", None)


@pytest.mark.option("profile")
async def test_the_baseline_leaves_sockets_alone(origin: Origin, transport: MakeTransport) -> None:
    found = await granted(origin, transport, None)
    assert found["asked"] is None
    assert found["granted"]["keepalive"] == "off"


@pytest.mark.option("upstreams.sockets.quickack")
@pytest.mark.parametrize("quickack", [True, False])
async def test_quickack_is_asked_of_every_socket(transport: MakeTransport, quickack: bool) -> None:
    """The kernel leaves that mode by itself, so it is looked at before the connection is used."""
    _, connections = transport("http://127.0.0.1:1", sockets={"quickack": quickack})
    with connections._socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 1))) as sock:
        assert bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK)) is quickack


# --- the pool --------------------------------------------------------------------------------------------------------


@pytest.mark.option("upstreams.pool.limit", "upstreams.pool.per_host")
@pytest.mark.parametrize("limits", [{"limit": 2}, {"per_host": 2}])
async def test_no_more_connections_than_allowed(
    origin: Origin, transport: MakeTransport, limits: dict[str, int]
) -> None:
    origin.serve("/f", Content(1, 10 * MIB))
    made, connections = transport(origin, pool=limits)
    busy = [await made.fetch(want()) for _ in range(2)]
    third = asyncio.create_task(made.fetch(want()))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not third.done()
    assert origin.accepted == connections.describe()["open"] == 2
    await busy[0].body.aclose()
    answer = await third  # its turn has come
    for one in (busy[1], answer):
        await one.body.aclose()


@pytest.mark.option("upstreams.pool.keepalive")
async def test_an_idle_connection_is_closed_after_its_time(origin: Origin, transport: MakeTransport) -> None:
    origin.serve("/f", b"x")
    made, connections = transport(origin, pool={"keepalive": "50ms"})
    await read(await made.fetch(want()))
    await origin.wait_for(lambda: origin.open == 0)
    assert origin.closed_by_peer == 1
    assert connections.describe()["open"] == 0


@pytest.mark.option("upstreams.pool.buffer")
async def test_the_read_buffer(origin: Origin, transport: MakeTransport) -> None:
    origin.script("/f", Reply(Content(1, 64 * MIB), framing="chunked"))  # else nothing is read before it is taken
    sent = []
    for buffer in ("8KiB", "32MiB"):
        made, _ = transport(origin, pool={"buffer": buffer})
        answer = await made.fetch(want())
        await settled(lambda: origin.idle or origin.sent["/f"] < 40 * MIB, within=0.5)
        sent.append(origin.sent["/f"])
        origin.sent.clear()
        await answer.body.aclose()
        await origin.wait_for(lambda: origin.open == 0)
    assert sent[0] < 24 * MIB  # what two kernel buffers take, and no more of ours
    assert sent[1] > 32 * MIB


async def test_closing_closes_everything(origin: Origin, transport: MakeTransport) -> None:
    origin.serve("/f", b"x")
    made, connections = transport(origin)
    await read(await made.fetch(want()))
    assert origin.open == 1
    await connections.close()
    await origin.wait_for(lambda: origin.open == 0)
    await connections.close()


# --- names and addresses ---------------------------------------------------------------------------------------------


@pytest.mark.option("upstreams.pool.dns_cache")
@pytest.mark.parametrize(("kept", "lookups"), [("60s", 1), ("0s", 3)])
async def test_resolved_names_are_kept(
    origin: Origin, transport: MakeTransport, names: tuple[Known, list[str]], kept: str, lookups: int
) -> None:
    names[0]["files.example"] = ["127.0.0.1"]
    origin.script("/f", Reply(b"x", after="close"))
    made, _ = transport(f"http://files.example:{origin.port}", pool={"dns_cache": kept})
    for _ in range(3):
        await read(await made.fetch(want()))
    assert len(names[1]) == lookups
    assert origin.accepted == 3


async def test_an_unknown_name(transport: MakeTransport, names: tuple[Known, list[str]]) -> None:
    made, _ = transport("http://nowhere.example")
    with pytest.raises(DnsFailed, match=r"nowhere\.example:80: .*not known"):
        await made.fetch(want())


async def test_a_resolver_that_hangs_is_given_up(transport: MakeTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: object, **__: object) -> list[ResolveResult]:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", hang)
    made, _ = transport("http://slow.example", timeouts={"connect": "50ms"})
    with pytest.raises(DnsFailed, match=r"no answer within 0\.05 s"):
        await made.fetch(want())


@pytest.mark.option("upstreams.pool.happy_eyeballs")
async def test_a_silent_address_does_not_hold_up_the_next(
    transport: MakeTransport, names: tuple[Known, list[str]]
) -> None:
    names[0]["files.example"] = ["127.0.0.1", "127.0.0.2"]
    with blackhole() as silent:
        async with Origin(host="127.0.0.2") as origin:
            await origin.refuse()
            origin.port = int(silent.rpartition(":")[2])
            await origin.listen()
            origin.serve("/f", b"x")
            url = f"http://files.example:{origin.port}"
            made, connections = transport(url, pool={"happy_eyeballs": "10ms"}, timeouts={"connect": "600s"})
            async with asyncio.timeout(10):
                assert await read(await made.fetch(want())) == b"x"
            await connections.close()
            # Without it each address gets its time, one after the other.
            made, connections = transport(url, pool={"happy_eyeballs": "off"}, timeouts={"connect": "100ms"})
            assert await read(await made.fetch(want())) == b"x"
            await connections.close()
    connector = transport("http://127.0.0.1:1", pool={"happy_eyeballs": "off"})[1].session.connector
    assert connector is not None
    assert connector._happy_eyeballs_delay is None  # type: ignore[attr-defined]


@pytest.mark.option("upstreams.timeouts.connect")
async def test_an_address_that_never_answers(transport: MakeTransport) -> None:
    with blackhole() as silent:
        made, _ = transport(f"http://{silent}", timeouts={"connect": "50ms"})
        with pytest.raises(ConnectTimeout, match=silent):
            await made.fetch(want())


async def test_the_address_is_checked_when_it_is_connected_to(
    origin: Origin, transport: MakeTransport, names: tuple[Known, list[str]]
) -> None:
    """A name that was harmless when somebody looked it up may lead inside when it is connected to."""
    names[0]["rebound.example"] = ["127.0.0.1"]
    made, _ = transport(f"http://rebound.example:{origin.port}", forbidden=private)
    with pytest.raises(RedirectRefused, match=r"127\.0\.0\.1 \(loopback\)"):
        await made.fetch(want())
    assert origin.accepted == 0
    literal, _ = transport(origin, forbidden=private)
    with pytest.raises(RedirectRefused):
        await literal.fetch(want())
    assert origin.accepted == 0


async def test_every_address_of_a_name_is_checked(
    origin: Origin, transport: MakeTransport, names: tuple[Known, list[str]]
) -> None:
    origin.serve("/f", b"x")
    names[0]["both.example"] = ["127.0.0.3", "127.0.0.1"]
    names[0]["bad.example"] = ["127.0.0.3", "::1"]
    checked: list[str] = []

    def check(address: str) -> str | None:
        checked.append(address)
        return None if address == "127.0.0.1" else "not that one"

    made, _ = transport(f"http://both.example:{origin.port}", forbidden=check)
    assert await read(await made.fetch(want())) == b"x"
    assert checked[0] == "127.0.0.3"
    made, _ = transport(f"http://bad.example:{origin.port}", forbidden=check)
    with pytest.raises(RedirectRefused):
        await made.fetch(want())
    assert set(checked) == {"127.0.0.3", "127.0.0.1", "::1"}


def private(address: str) -> str | None:
    return forbidden_address(address, private=False)


# --- what a session must not do by itself ----------------------------------------------------------------------------


async def test_no_proxy_of_the_environment_no_cookies_no_second_try(
    origin: Origin, transport: MakeTransport, monkeypatch: pytest.MonkeyPatch, counts: Watched
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    origin.script("/f", Reply(b"x", headers=(("Set-Cookie", "a=b; Path=/"), ("Content-Encoding", "gzip"))))
    made, _ = transport(origin)
    for _ in range(2):
        assert await read(await made.fetch(want())) == b"x"  # and nothing is inflated
    assert origin.last.get("cookie") is None
    assert {name.lower() for name, _ in origin.last.headers} == {"host"}


def test_no_parser_in_pure_python(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_python_parser()
    monkeypatch.setattr("aiohttp.http_parser.HttpResponseParser", aiohttp.http_parser.HttpResponseParserPy)
    with pytest.raises(ConfigurationError, match="C parser"):
        refuse_python_parser()


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.write_text("no certificate")])
def test_a_ca_file_that_cannot_be_read(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "ca.pem"
    make(path)
    with pytest.raises(ConfigurationError, match=rf"upstreams\.files\.tls\.ca: {path}"):
        tls_context(Tls(ca=str(path)), "upstreams.files")


def test_a_tls_context(authority: Authority) -> None:
    strict = tls_context(Tls(ca=str(authority.pem)), "x")
    assert strict.check_hostname
    assert strict.verify_mode == ssl.CERT_REQUIRED
    assert strict.minimum_version >= ssl.TLSVersion.TLSv1_2
    loose = tls_context(Tls(verify=False), "x")
    assert loose.verify_mode == ssl.CERT_NONE
