"""Relays whose bytes go from socket to socket through a pipe: everything a relay promises holds for them, too."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import Any

import pytest

from fileproxy.server.trip import Trip
from tests.conftest import OpenHouse
from tests.house import Running
from tests.origin import MIB, Content, Origin, Reply, fin, reset, stall
from tests.trips.plays import settings

pytestmark = pytest.mark.loops("asyncio", "uvloop")
FILE = Content(31, 6 * MIB + 77)
AT = 3 * MIB + 5


@pytest.mark.parametrize("etag", ["auto", None])
@pytest.mark.parametrize("modified", [True, False])
async def test_what_nobody_keeps_is_not_copied(
    house: OpenHouse, origin: Origin, etag: str | None, modified: bool
) -> None:
    """Whether it could be continued elsewhere or not. The client's connection and the origin's are used again."""
    reply = Reply(FILE, etag=etag) if modified else Reply(FILE, etag=etag, last_modified=None)
    origin.script("/f", reply)
    running = await house(settings(origin))
    async with await running.connect() as client:
        for _ in range(2):
            got = await client.ask("GET", "/f")
            assert (got.complete, got.sha256, got.get("x-cache")) == (True, FILE.sha256(), "BYPASS")
        got = await client.ask("GET", "/f", f"Range: bytes={MIB}-{AT}")
        assert (got.status, got.body) == (206, FILE.read(MIB, AT - MIB + 1))
    await running.quiet()
    assert origin.accepted == 1
    assert running.counts["bytes.spliced"] > 2 * FILE.size
    assert running.counts["bytes.from_upstreams"] == running.counts["traffic"] == 2 * FILE.size + AT - MIB + 1
    assert running.counts.endings == {"completed": 3}


async def test_what_comes_behind_an_answer_unasked_is_nobodys(house: OpenHouse, origin: Origin) -> None:
    """Bytes that follow the end of a spliced answer are not the next answer's, and not this one's."""
    smuggled = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother"
    head = f"HTTP/1.1 200 OK\r\nETag: {FILE.etag}\r\nContent-Length: {FILE.size}\r\n\r\n".encode()
    origin.script("/f", Reply(raw=head + FILE.read() + smuggled))
    origin.serve("/g", FILE)
    running = await house(settings(origin))
    assert (await running.fetch("/f")).sha256 == FILE.sha256()
    assert running.counts["bytes.spliced"] > 0
    assert (await running.fetch("/g")).sha256 == FILE.sha256()
    assert origin.accepted == 2


@pytest.mark.parametrize("how", [reset, fin, stall])
async def test_a_break_goes_on_at_the_next_missing_byte(house: OpenHouse, origin: Origin, how: Any) -> None:
    origin.script("/f", Reply(FILE, breaks=how(AT)), Reply(FILE))
    running = await house(settings(origin, upstream={"timeouts": {"idle": "200ms"}, "segments": {"parallel": "off"}}))
    got = await running.fetch("/f")
    assert (got.complete, got.sha256) == (True, FILE.sha256())
    first = int(str(origin.last.get("range")).removeprefix("bytes=").partition("-")[0])
    assert first == AT if how is not reset else first <= AT  # a reset may overtake bytes in the kernel
    await running.quiet()
    assert running.counts["relay.resumed"] == 1
    assert running.counts["bytes.spliced"] > first // 2
    assert running.counts.endings == {"completed": 1}


@pytest.mark.parametrize(("how", "ending"), [(reset, "upstream_reset"), (fin, "upstream_truncated")])
async def test_a_break_that_cannot_be_mended_shows(house: OpenHouse, origin: Origin, how: Any, ending: str) -> None:
    origin.script("/f", Reply(FILE, etag=None, last_modified=None, breaks=how(AT)))
    running = await house(settings(origin))
    got = await running.fetch("/f")
    assert not got.complete
    assert got.body == FILE.read(0, got.size)
    await running.quiet()
    assert running.counts.endings == {ending: 1}
    await origin.wait_for(lambda: origin.open == 0)


async def test_silence_is_given_up(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", Reply(FILE, etag=None, last_modified=None, breaks=stall(AT)))
    running = await house(settings(origin, upstream={"timeouts": {"idle": "200ms"}}))
    got = await running.fetch("/f")
    assert (got.complete, got.body) == (False, FILE.read(0, AT))
    await running.quiet()
    assert running.counts.endings == {"upstream_idle_timeout": 1}


async def test_where_one_connection_is_too_slow_others_help(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", Reply(FILE, rate=900_000.0))
    running = await house(settings(origin))
    got = await running.fetch("/f")
    assert (got.complete, got.sha256) == (True, FILE.sha256())
    assert running.counts["stream.shared_out"] == 1
    assert running.counts["bytes.spliced"] > 0


@pytest.mark.parametrize("framing", ["chunked", "close"])
async def test_other_framings_are_copied(house: OpenHouse, origin: Origin, framing: Any) -> None:
    origin.script("/f", Reply(FILE, framing=framing))
    running = await house(settings(origin))
    got = await running.fetch("/f")
    assert got.sha256 == FILE.sha256()
    assert running.counts["bytes.spliced"] == 0


async def test_tls_is_copied(house: OpenHouse, secure_origin: Origin, authority: Any) -> None:
    secure_origin.serve("/f", FILE)
    running = await house(settings(secure_origin, upstream={"tls": {"ca": str(authority.pem)}}))
    assert (await running.fetch("/f")).sha256 == FILE.sha256()
    assert running.counts["bytes.spliced"] == 0


@pytest.mark.parametrize("side", ["in", "out"])
async def test_a_kernel_that_refuses(
    house: OpenHouse, origin: Origin, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    """On either side, after it has worked for a while."""
    splice, calls, seen = os.splice, [0], []

    def refusing(source: int, target: int, *rest: Any, **named: Any) -> int:
        is_in = os.readlink(f"/proc/self/fd/{source}").startswith("socket:")
        if is_in == (side == "in"):
            calls[0] += 1
            if calls[0] > 2:
                seen.append(side)
                raise OSError(errno.EINVAL, "Invalid argument")
        return splice(source, target, *rest, **named)

    monkeypatch.setattr(os, "splice", refusing)
    origin.serve("/f", FILE)
    running = await house(settings(origin))
    async with await running.connect() as client:
        for _ in range(2):
            assert (await client.ask("GET", "/f")).sha256 == FILE.sha256()
    assert seen
    assert origin.accepted == 1


async def test_no_descriptors_for_pipes(house: OpenHouse, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_flags: int) -> tuple[int, int]:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pipe2", none_left)
    origin.serve("/f", FILE)
    running = await house(settings(origin))
    assert (await running.fetch("/f")).sha256 == FILE.sha256()
    assert running.counts["bytes.spliced"] == 0


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_client_that_leaves_lets_the_origin_go(house: OpenHouse, origin: Origin, how: str) -> None:
    big = Content(5, 64 * MIB)
    origin.serve("/f", big)
    running = await house(settings(origin))
    client = await running.connect()
    await client.request("GET", "/f")
    await running.counts.wait_for(lambda: running.counts["bytes.spliced"] > MIB)
    client.reset() if how == "reset" else await client.close()
    await running.quiet()
    assert running.counts.endings == {"client_gone": 1}
    await origin.wait_for(lambda: origin.open == 0)
    assert origin.sent["/f"] < big.size


async def test_a_client_that_takes_nothing_is_given_up(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", Content(5, 64 * MIB))
    running = await house(settings(origin, limits={"client_idle": "200ms"}))
    async with await running.connect(receive_buffer=64 * 1024) as client:
        await client.request("GET", "/f")
        await running.counts.wait_for(lambda: running.counts["bytes.spliced"] > 0)
        await running.quiet()
    assert running.counts.endings == {"client_stalled": 1}
    await origin.wait_for(lambda: origin.open == 0)


async def test_a_client_that_waits_gets_every_byte(house: OpenHouse, origin: Origin) -> None:
    """It reads only once the pipe, its socket and ours are full. What it costs is a pipe, not memory of ours."""
    big = Content(5, 24 * MIB)
    origin.serve("/f", big)
    running = await house(settings(origin))
    async with await running.connect(receive_buffer=64 * 1024) as client:
        await client.request("GET", "/f")
        trip = await _held_by_client(running)
        assert trip.held.by_client
        got = await client.answer()
    assert (got.complete, got.sha256) == (True, big.sha256())
    await running.quiet()
    assert running.counts.endings == {"completed": 1}
    assert running.counts["traffic"] == big.size


async def _held_by_client(running: Running) -> Trip:
    """The one download there is, once it waits for its client."""
    async with asyncio.timeout(10):
        while True:
            for trip in running.house._service.downloads._trips:
                if trip.held.by_client and running.counts["bytes.spliced"]:
                    return trip
            await asyncio.sleep(0)
