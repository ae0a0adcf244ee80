"""HTTPS origins: verified, asked by the right name."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.conftest import Authority, OpenHouse
from tests.origin import MIB, Content, Origin
from tests.trips.plays import settings

pytestmark = pytest.mark.loops("asyncio", "uvloop")


@pytest.mark.option("upstreams.tls.ca")
async def test_a_private_authority(house: OpenHouse, secure_origin: Origin, authority: Authority) -> None:
    file = Content(5, 3 * MIB)
    secure_origin.serve("/f", file)
    running = await house(settings(secure_origin, upstream={"tls": {"ca": str(authority.pem)}}))
    got = await running.fetch("/f")
    assert (got.status, got.sha256) == (200, file.sha256())
    assert secure_origin.last.get("host") == secure_origin.authority


async def test_sni_and_host_are_the_name_of_the_url(
    house: OpenHouse, secure_origin: Origin, authority: Authority
) -> None:
    secure_origin.serve("/f", b"x")
    url = f"https://localhost:{secure_origin.port}"
    running = await house(settings(url, upstream={"tls": {"ca": str(authority.pem)}}))
    assert (await running.fetch("/f")).status == 200
    assert secure_origin.sni == ["localhost"]
    assert secure_origin.last.get("host") == f"localhost:{secure_origin.port}"


@pytest.mark.option("upstreams.tls.server_name")
async def test_another_name_for_sni_and_verification(house: OpenHouse, authority: Authority) -> None:
    async with Origin(authority.context("files.example")) as origin:
        origin.serve("/f", b"x")
        tls = {"ca": str(authority.pem), "server_name": "files.example"}
        running = await house(settings(origin, upstream={"tls": tls}))
        assert (await running.fetch("/f")).body == b"x"
        assert origin.sni == ["files.example"]


@pytest.mark.option("upstreams.tls.verify")
async def test_an_unknown_authority_is_refused_unless_verification_is_off(
    house: OpenHouse, secure_origin: Origin
) -> None:
    secure_origin.serve("/f", b"x")
    strict = await house(settings(secure_origin))
    got = await strict.fetch("/f")
    assert got.status == 502
    assert "tls_certificate_error" in (got.get("proxy-status") or "")
    await strict.quiet()
    assert strict.counts.endings == {"upstream_tls": 1}
    assert secure_origin.requests == []
    loose = await house(settings(secure_origin, upstream={"tls": {"verify": False}}))
    assert (await loose.fetch("/f")).body == b"x"


async def test_a_certificate_for_another_name_is_refused(house: OpenHouse, authority: Authority) -> None:
    async with Origin(authority.context("other.example")) as origin:
        origin.serve("/f", b"x")
        running = await house(settings(origin, upstream={"tls": {"ca": str(authority.pem)}}))
        got = await running.fetch("/f")
        assert got.status == 502
        assert "tls_certificate_error" in (got.get("proxy-status") or "")
        assert origin.requests == []
        # A certificate does not mend itself: it was not tried again.
        assert running.counts.of("mirror.tries", f"files/{origin.authority}") == 1


async def test_plain_http_on_the_tls_port_is_an_error_with_a_name(house: OpenHouse) -> None:
    """A server that does not speak TLS objects to the ClientHello in plain text, as nginx and Apache do."""
    async with plain_server() as port:
        running = await house(settings(f"https://127.0.0.1:{port}"))
        got = await running.fetch("/f")
        assert got.status == 502
        assert "tls_protocol_error" in (got.get("proxy-status") or "")
        await running.quiet()
        assert running.counts.endings == {"upstream_tls": 1}


async def test_a_mirror_without_tls_does_not_stop_the_others(
    house: OpenHouse, secure_origin: Origin, authority: Authority
) -> None:
    secure_origin.serve("/f", b"x")
    async with plain_server() as port:
        tls = {"ca": str(authority.pem)}
        running = await house(settings(f"https://127.0.0.1:{port}", secure_origin, upstream={"tls": tls}))
        for _ in range(2):
            assert (await running.fetch("/f")).body == b"x"
    assert running.counts.of("upstream.retries", "files") == 1  # one of the two began at the broken mirror


@pytest.mark.option("upstreams.timeouts.connect")
async def test_a_tls_port_that_says_nothing_is_given_up_after_the_connect_timeout(
    house: OpenHouse, origin: Origin
) -> None:
    """The scripted origin waits for the end of a head that never comes: nothing tells it from a slow server."""
    upstream = {"timeouts": {"connect": "50ms"}, "retry": {"attempts": 2}}
    running = await house(settings(origin.url.replace("http:", "https:"), upstream=upstream))
    got = await running.fetch("/f")
    assert got.status == 504
    assert "connection_timeout" in (got.get("proxy-status") or "")
    assert origin.accepted == 2


@contextlib.asynccontextmanager
async def plain_server() -> AsyncIterator[int]:
    """The port of a server that answers whatever it gets with a plain 400."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
