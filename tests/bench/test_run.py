"""Whole loads on real sockets: scripted origins that misbehave, and a house."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fileproxy.bench.hosts import targets
from fileproxy.bench.plan import Plan
from fileproxy.bench.run import Result, Seen, run
from tests.conftest import OpenHouse
from tests.origin import Content, Origin, Reply, fin, reset, stall

pytestmark = [pytest.mark.loops("asyncio", "uvloop"), pytest.mark.usefixtures("tidy")]
SMALL = Content(seed=1, size=1000)
BIG = Content(seed=2, size=300_000)


async def load(*urls: str, until: Any = None, plan: Plan, **options: Any) -> Result:
    """Until ``until(seen)`` is true (the time of the plan is only a bound)."""
    stop = asyncio.Event()

    def watch(seen: Seen) -> None:
        if until is not None and until(seen):
            stop.set()

    async with asyncio.timeout(30):
        return await run(plan, targets(urls, vouched=False), stop=stop, watch=watch, **options)


async def test_a_house_gives_the_same_bytes_whole_and_in_parts(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/small", SMALL)
    origin.serve("/big", BIG)
    running = await house({"upstreams": {"files": origin.url}, "cache": {"disk": "off"},
                           "routes": [{"upstream": "files", "cache": "1h"}]})  # fmt: skip
    plan = Plan(clients=4, seconds=20, ranges=0.5, range_size=50_000)
    urls = (f"{running.url}/small", f"{running.url}/big")
    result = await load(*urls, plan=plan, until=lambda seen: seen.requests >= 100)
    figures = result.figures
    assert result.tally.errors == {}
    assert figures["requests"] >= 100
    assert set(figures["statuses"]) == {"200", "206"}
    assert figures["connections_opened"] == 4
    assert figures["interrupted"] is True
    assert 0 < figures["whole_ms"]["p50"] <= figures["whole_ms"]["p99"] <= figures["whole_ms"]["max"]
    await running.quiet()
    assert running.counts.endings["completed"] >= figures["requests"]


async def test_without_keep_alive_each_has_its_connection(origin: Origin) -> None:
    origin.serve("/small", SMALL)
    plan = Plan(clients=2, seconds=20, keep_alive=False)
    result = await load(f"{origin.url}/small", plan=plan, until=lambda seen: seen.requests >= 10)
    assert result.tally.errors == {}
    assert result.tally.connections >= result.tally.requests
    assert origin.requests[0].get("connection") == "close"


async def test_other_bytes_for_the_same_url_are_errors(origin: Origin) -> None:
    same = '"same"'
    origin.script("/lies", *[Reply(Content(seed=seed, size=500), etag=same) for seed in range(5)])
    result = await load(f"{origin.url}/lies", plan=Plan(clients=1, seconds=20), until=lambda seen: seen.requests >= 5)
    assert result.tally.errors["other bytes than before"] >= 4
    origin.script("/lies", *[Reply(Content(seed=seed, size=500)) for seed in range(5)])
    result = await load(f"{origin.url}/lies", plan=Plan(clients=1, seconds=20), until=lambda seen: seen.requests >= 5)
    assert (result.tally.errors, result.tally.changed) == ({}, 4)


async def test_lengths_are_compared_without_digests_too(origin: Origin) -> None:
    origin.script("/lies", *[Reply(Content(seed=1, size=size), etag='"same"') for size in (500, 501)])
    plan = Plan(clients=1, seconds=20, verify=False)
    result = await load(f"{origin.url}/lies", plan=plan, until=lambda seen: seen.requests >= 2)
    assert result.tally.errors["other bytes than before"] >= 1


async def test_a_wrong_part_is_an_error(origin: Origin) -> None:
    origin.script("/part", Reply(BIG, content_range="bytes 7-9/300000"))
    plan = Plan(clients=1, seconds=20, ranges=1.0, range_size=1000)
    result = await load(f"{origin.url}/part", plan=plan, until=lambda seen: seen.requests >= 2)
    assert result.tally.errors["another part than asked for"] == result.tally.requests


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(SMALL, status=503), "status 503"),
        (Reply(SMALL, breaks=fin(at=500)), "cut short"),
        (Reply(SMALL, breaks=reset(at=500)), "reset in the answer"),
        (Reply(SMALL, breaks=fin()), "closed before an answer"),
        (Reply(raw=b"SSH-2.0-nonsense\r\n"), "bad answer: no HTTP/1.x head"),
        (Reply(SMALL, breaks=stall(at=500)), "no byte for 0.3 s"),
        (Reply(SMALL, breaks=stall()), "no byte for 0.3 s"),
    ],
    ids=["status", "cut", "reset", "closed", "nonsense", "stall", "silence"],
)
async def test_errors_by_kind(origin: Origin, reply: Reply, kind: str) -> None:
    origin.script("/bad", reply)
    result = await load(
        f"{origin.url}/bad", plan=Plan(clients=1, seconds=20, timeout=0.3), until=lambda seen: seen.errors
    )
    assert set(result.tally.errors) == {kind}


async def test_nobody_listens(free_port: int) -> None:
    plan = Plan(clients=2, seconds=20)
    result = await load(f"http://127.0.0.1:{free_port}/", plan=plan, until=lambda seen: seen.errors)
    assert set(result.tally.errors) == {"connection refused"}
    assert result.figures["whole_ms"]["p99"] is None


async def test_a_kept_connection_that_was_closed_is_no_error(origin: Origin) -> None:
    origin.script("/file", Reply(SMALL, after="fin"))
    result = await load(f"{origin.url}/file", plan=Plan(clients=1, seconds=20), until=lambda seen: seen.requests >= 5)
    assert result.tally.errors == {}
    assert result.tally.connections >= 5


async def test_chunked_and_close_delimited(origin: Origin) -> None:
    origin.script("/chunked", Reply(BIG, framing="chunked"))
    origin.script("/close", Reply(BIG, framing="close"))
    urls = (f"{origin.url}/chunked", f"{origin.url}/close")
    result = await load(*urls, plan=Plan(clients=2, seconds=20), until=lambda seen: seen.requests >= 8)
    assert result.tally.errors == {}


async def test_slow_readers_are_slow(origin: Origin) -> None:
    """A tenth of a second for 300 kB at 3 MB/s, whatever the machine does."""
    origin.serve("/big", BIG)
    plan = Plan(clients=1, seconds=20, slow=1.0, slow_rate=3e6)
    result = await load(f"{origin.url}/big", plan=plan, until=lambda seen: seen.requests >= 1)
    assert result.tally.errors == {}
    least = result.figures["whole_ms"]["p50"]
    assert least > 40  # what comes in one piece at the end is not waited for


async def test_headers_are_sent_and_the_query_too(origin: Origin) -> None:
    origin.serve("/file", SMALL)
    plan = Plan(clients=1, seconds=20)
    await load(f"{origin.url}/file?a=1", plan=plan, until=lambda seen: seen.requests, headers=["X-Load: yes"])
    assert origin.requests[0].get("x-load") == "yes"
    assert origin.requests[0].target == "/file?a=1"


async def test_open_loop_times_begin_when_they_were_due(origin: Origin) -> None:
    """One client, an origin that takes a quarter of a second: at 100 a second the queue grows, and the times with it.

    Measured from sending, each would take a quarter of a second: that would be coordinated omission.
    """
    origin.script("/slow", Reply(SMALL, before_head=0.25))
    result = await load(f"{origin.url}/slow", plan=Plan(clients=1, seconds=1.5, rate=100))
    figures = result.figures
    assert figures["requests"] <= 7
    assert figures["unsent"] >= 130
    assert figures["unsent"] + figures["requests"] + figures["unfinished"] >= 149
    assert figures["whole_ms"]["p50"] > 500
    assert figures["whole_ms"]["p99"] > 1200


async def test_open_loop_keeps_its_rate(origin: Origin) -> None:
    origin.serve("/small", SMALL)
    result = await load(f"{origin.url}/small", plan=Plan(clients=8, seconds=1.0, rate=50))
    assert abs(result.tally.requests + result.tally.unsent - 50 * result.seconds) <= 2
    assert not result.interrupted


async def test_what_is_under_way_at_the_end_may_end(origin: Origin) -> None:
    origin.script("/slow", Reply(SMALL, before_head=0.6))
    result = await load(f"{origin.url}/slow", plan=Plan(clients=3, seconds=1))
    assert result.tally.unfinished == 0
    assert result.tally.requests > result.figures["requests_per_s"] * result.seconds
    origin.script("/slow", Reply(SMALL, breaks=stall()))
    result = await load(f"{origin.url}/slow", plan=Plan(clients=3, seconds=0.3, timeout=20))
    assert (result.tally.unfinished, result.tally.requests) == (3, 0)


async def test_redirects_are_not_followed(origin: Origin, mirror: Origin) -> None:
    origin.script("/there", Reply(b"", status=302, headers=(("Location", f"{mirror.url}/"),)))
    result = await load(f"{origin.url}/there", plan=Plan(clients=1, seconds=20), until=lambda seen: seen.requests >= 2)
    assert set(result.tally.statuses) == {302}
    assert mirror.accepted == 0


async def test_over_tls(secure_origin: Origin) -> None:
    import ssl

    context = ssl.create_default_context()
    secure_origin.serve("/small", SMALL)
    url = f"https://localhost:{secure_origin.port}/small"
    plan = Plan(clients=1, seconds=20)
    result = await load(url, plan=plan, tls=context, until=lambda seen: seen.errors)
    assert set(result.tally.errors) == {"TLS: CERTIFICATE_VERIFY_FAILED"}
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    result = await load(url, plan=plan, tls=context, until=lambda seen: seen.requests >= 3)
    assert result.tally.errors == {}
    assert secure_origin.sni[-1] == "localhost"
