"""Answers that nobody keeps survive their connection, too: the rest is asked for, and joined only under law 1."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import OpenHouse
from tests.origin import MIB, Content, Origin, Reply, fin, reset, stall
from tests.trips.plays import settings

pytestmark = pytest.mark.loops("asyncio", "uvloop")
FILE = Content(21, 2 * MIB + 77)
AT = MIB + 5


@pytest.mark.parametrize("how", [reset, fin, stall])
@pytest.mark.parametrize("etag", ["auto", None])
async def test_it_goes_on_at_the_next_missing_byte(
    house: OpenHouse, origin: Origin, how: Any, etag: str | None
) -> None:
    origin.script("/f", Reply(FILE, etag=etag, breaks=how(AT)), Reply(FILE, etag=etag))
    running = await house(settings(origin, upstream={"timeouts": {"idle": "200ms"}}))
    got = await running.fetch("/f", 'If-None-Match: "other"', "Authorization: Bearer me")
    assert (got.complete, got.sha256, got.get("x-cache")) == (True, FILE.sha256(), "BYPASS")
    rest = origin.last
    assert rest.get("range") == f"bytes={AT}-{FILE.size - 1}"
    assert rest.get("if-range") == (FILE.etag if etag else "Sun, 01 Nov 2026 12:00:00 GMT")
    assert (rest.get("if-none-match"), rest.get("authorization")) == (None, "Bearer me")
    await running.quiet()
    assert running.counts["relay.resumed"] == 1
    assert running.counts.endings == {"completed": 1}


async def test_a_part_goes_on_to_its_own_end(house: OpenHouse, origin: Origin, mirror: Origin) -> None:
    """On another mirror, which ignores the range."""
    origin.script("/f", Reply(FILE, breaks=reset(1000)), Reply(b"", status=503))
    mirror.script("/f", Reply(FILE, ranges="ignore"))
    running = await house(settings(origin, mirror))
    got = await running.fetch("/f", f"Range: bytes=100-{AT}")
    assert (got.status, got.body) == (206, FILE.read(100, AT - 99))
    assert mirror.last.get("range") == f"bytes=1100-{AT}"


async def test_another_version_cuts_it(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", Reply(FILE, breaks=reset(AT)), Reply(Content(22, FILE.size)))
    running = await house(settings(origin))
    got = await running.fetch("/f")
    assert not got.complete
    assert got.body == FILE.read(0, got.size)
    await running.quiet()
    assert running.counts.endings == {"upstream_changed": 1}


async def test_what_breaks_before_its_first_byte_begins_anew(house: OpenHouse, origin: Origin) -> None:
    """An answer whose length nobody said was not waited for: it is here, and none of it went out."""
    broken = Reply(FILE, framing="chunked", chunk_fault="bad_size")
    origin.script("/f", broken, broken, Reply(FILE))
    running = await house(settings(origin))
    async with await running.connect() as client:
        for _ in range(2):
            got = await client.ask("GET", "/f")
            assert (got.complete, got.sha256) == (True, FILE.sha256())
    await running.quiet()
    assert running.counts.endings == {"completed": 2}


async def test_an_error_after_an_answer_that_never_left_is_framed_well(house: OpenHouse, origin: Origin) -> None:
    """The next answer of the connection begins where the error's length says."""
    origin.script("/f", Reply(FILE, framing="chunked", chunk_fault="bad_size"))
    origin.serve("/good", FILE)
    running = await house(settings(origin, upstream={"retry": {"attempts": 1}}))
    async with await running.connect() as client:
        for _ in range(2):
            got = await client.ask("GET", "/f")
            assert (got.status, got.body[:1], got.body[-1:]) == (502, b"{", b"}")
            assert (await client.ask("GET", "/good")).sha256 == FILE.sha256()


async def test_where_one_connection_is_too_slow_others_help(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", Reply(FILE, rate=300_000.0))
    running = await house(settings(origin))
    got = await running.fetch("/f", "Authorization: Bearer me")
    assert (got.complete, got.sha256) == (True, FILE.sha256())
    assert running.counts["stream.shared_out"] == 1
    assert {one.get("authorization") for one in origin.requests} == {"Bearer me"}
    assert all(one.get("if-range") == FILE.etag for one in origin.requests[1:])
    got = await running.fetch("/f", f"Range: bytes={AT}-")
    assert got.body == FILE.read(AT, FILE.size - AT)


@pytest.mark.parametrize("framing", ["chunked", "close"])
async def test_a_part_says_its_length_however_it_is_framed(house: OpenHouse, origin: Origin, framing: Any) -> None:
    origin.script("/f", Reply(FILE, framing=framing, breaks=fin(1000)), Reply(FILE, framing=framing, after="reset"))
    running = await house(settings(origin))
    async with await running.connect() as client:
        for _ in range(2):
            got = await client.ask("GET", "/f", f"Range: bytes=100-{AT}")
            assert (got.status, got.complete, got.body) == (206, True, FILE.read(100, AT - 99))
    assert origin.requests[1].get("range") == f"bytes=1100-{AT}"
