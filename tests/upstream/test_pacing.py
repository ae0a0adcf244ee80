"""The limits of an upstream by what comes of its tries: each place is given back, each outcome is counted."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from fileproxy.clock import ManualClock
from fileproxy.errors import ConnectRefused, FileProxyError, ShutOff, UpstreamError
from fileproxy.model import Answer, BytesBody
from fileproxy.tcpinfo import NetPath
from fileproxy.upstream.pool import Upstream
from tests.house import Watched, settled
from tests.origin import KIB, Content, Gate, Origin, Reply, fin, reset, stall
from tests.upstream.conftest import MakeUpstream, read, want

ONCE: dict[str, Any] = {"retry": {"attempts": 1}, "circuit_breaker": "off", "concurrency": 1}


def in_flight(one: Upstream) -> int:
    found: int = one.describe()["limits"]["in_flight"]
    return found


def outcomes(counts: Watched) -> tuple[int, int]:
    """Answers, and errors among them."""
    return counts.of("upstream.answers", "files"), counts.of("upstream.errors", "files")


async def test_a_place_is_held_until_the_body_is_over(origin: Origin, upstream: MakeUpstream) -> None:
    origin.serve("/f", Content(1, 300 * KIB))
    one = upstream(origin, **ONCE)
    answer = await one.fetch(want())
    assert in_flight(one) == 1
    second = asyncio.create_task(one.fetch(want()))
    await settled(lambda: one.describe()["limits"]["waiting"] != 1)
    assert not second.done()
    assert len(await read(answer)) == 300 * KIB
    await (await second).body.aclose()  # not read, it is over, too
    assert in_flight(one) == 0


@pytest.mark.parametrize(
    ("reply", "errors"),
    [
        (Reply(b"x"), 0),
        (Reply(status=404), 0),
        (Reply(status=500), 1),
        (Reply(status=429), 1),
        (Reply(b"x", breaks=reset()), 1),
        (Reply(b"x", breaks=fin()), 1),
        (Reply(b"x", breaks=stall()), 1),
        (Reply(Content(1, 300 * KIB), breaks=reset(at=200 * KIB)), 1),
        (Reply(raw=b"nonsense\r\n\r\n"), 1),
    ],
    ids=["200", "404", "500", "429", "reset", "closed", "time-out", "broken inside the body", "no HTTP"],
)
async def test_every_outcome_gives_its_place_back_and_counts(
    origin: Origin, upstream: MakeUpstream, counts: Watched, reply: Reply, errors: int
) -> None:
    origin.script("/f", reply)
    origin.serve("/g", b"x")
    one = upstream(origin, **ONCE, timeouts={"first_byte": "100ms"})
    try:
        await read(await one.fetch(want()))
    except UpstreamError:
        assert errors
    assert in_flight(one) == 0
    assert outcomes(counts) == (1, errors)
    assert await read(await one.fetch(want("/g"))) == b"x"
    assert in_flight(one) == 0


async def test_each_try_counts(origin: Origin, upstream: MakeUpstream, counts: Watched) -> None:
    origin.script("/f", Reply(status=503), Reply(status=503), Reply(b"ok"))
    one = upstream(origin, concurrency=1, retry={"base": 0, "cap": 0})
    assert await read(await one.fetch(want())) == b"ok"
    assert outcomes(counts) == (3, 2)
    assert in_flight(one) == 0


async def test_who_leaves_gives_its_place_back(origin: Origin, upstream: MakeUpstream, counts: Watched) -> None:
    origin.script("/f", Reply(b"x", before_head=Gate()))
    one = upstream(origin, **ONCE)
    asking = asyncio.create_task(one.fetch(want()))
    await origin.wait_for(lambda: origin.requests_of("/f") == 1)
    assert in_flight(one) == 1
    asking.cancel()
    await asyncio.wait([asking])
    assert in_flight(one) == 0
    assert outcomes(counts) == (0, 0)


async def test_who_finds_all_mirrors_shut_off_gives_its_place_back(origin: Origin, upstream: MakeUpstream) -> None:
    origin.script("/held", Reply(b"x", before_head=Gate()))
    breaker = {"failure_threshold": 1, "half_open_max_calls": 1}
    one = upstream(origin, concurrency=2, retry={"attempts": 1, "within": "50ms"}, circuit_breaker=breaker)
    await origin.refuse()
    with pytest.raises(ConnectRefused):
        await one.fetch(want())
    await origin.listen()
    trial = asyncio.create_task(one.fetch(want("/held")))
    await origin.wait_for(lambda: origin.requests_of("/held") == 1)
    with pytest.raises(ShutOff):
        await one.fetch(want())
    assert in_flight(one) == 1
    trial.cancel()
    await asyncio.wait([trial])
    assert in_flight(one) == 0


async def test_a_long_way_is_no_queue_at_the_origin(
    origin: Origin, upstream: MakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = upstream(origin)
    heard: list[tuple[bool, float | None]] = []
    monkeypatch.setattr(one._gate, "answered", lambda good, first_byte_s=None: heard.append((good, first_byte_s)))
    path = NetPath("files/a")
    path.rtt_s = 0.3
    answer = Answer(200, "OK", (), BytesBody(), timings={"first_byte": 0.35}, path=path)
    one._pace(answer, None)
    one._pace(replace(answer, path=None), None)
    assert heard == [(True, pytest.approx(0.05)), (True, 0.35)]


async def test_a_file_upstream_has_no_limits(tmp_path: Any, upstream: MakeUpstream) -> None:
    (tmp_path / "f").write_bytes(b"x")
    one = upstream(f"file://{tmp_path}", rate_limit=1, concurrency=1)
    answers = [await one.fetch(want()) for _ in range(5)]
    assert one.describe()["limits"] == {"rate": None, "workers": 1, "concurrency": None, "in_flight": 0, "waiting": 0}
    for answer in answers:
        await answer.body.aclose()


async def test_retries_wait_for_the_rate_like_everybody(
    origin: Origin, upstream: MakeUpstream, counts: Watched
) -> None:
    clock = ManualClock()
    origin.script("/f", Reply(status=503), Reply(b"ok"))
    one = upstream(origin, clock=clock, rate_limit=1, retry={"base": 0, "cap": 0})
    asking = asyncio.create_task(one.fetch(want()))
    await settled(lambda: not (clock.sleeping or asking.done()))
    assert counts.of("upstream.waiting", "files") == 1
    await clock.advance(1.01)
    assert await read(await asking) == b"ok"


async def test_a_retry_that_would_wait_too_long_is_told(origin: Origin, upstream: MakeUpstream) -> None:
    origin.script("/f", Reply(status=503), Reply(b"ok"))
    one = upstream(origin, clock=ManualClock(), rate_limit=1, retry={"base": 0, "cap": 0, "within": "500ms"})
    with pytest.raises(FileProxyError) as caught:
        await one.fetch(want())
    assert (caught.value.status, caught.value.retry_after_s) == (503, 1)
    assert in_flight(one) == 0
