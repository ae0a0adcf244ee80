"""Mirrors are asked how they are: those that were shut off each second, all when a health check says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.clock import ManualClock
from fileproxy.settings import schema
from fileproxy.settings.schema import CircuitBreaker, HealthCheck
from fileproxy.upstream.breaker import Breaker
from fileproxy.upstream.pool import Upstream
from fileproxy.upstream.probes import due_in, verdict
from tests.house import Watched
from tests.origin import KIB, Content, Gate, Origin, Reply
from tests.upstream.conftest import MakeUpstream, read, want

OK, BUSY = Reply(b"ok"), Reply(b"busy", status=503)
ONCE: dict[str, Any] = {"retry": {"attempts": 1}, "circuit_breaker": {"failure_threshold": 1, "half_open_max_calls": 1}}
DAY = 86400.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def state(upstream: Upstream, number: int = 0) -> str:
    return str(upstream.describe()["mirrors"][number]["state"])


class Probed:
    """Lets the time of the next probe come, and waits until it has been made."""

    def __init__(self, counts: Watched, clock: ManualClock, one: Origin) -> None:
        self._counts, self._clock, self._label = counts, clock, f"files/{one.authority}"

    @property
    def count(self) -> int:
        return self._counts.of("mirror.probes", self._label)

    async def after(self, seconds: float, upstream: Upstream, expected: str) -> None:
        before = self.count
        await self._clock.advance(seconds * 0.99)
        assert self.count == before  # not a moment earlier
        await self._clock.advance(seconds * 0.01 + 1e-9)
        await self._counts.wait_for(lambda: self.count == before + 1)
        await until(lambda: state(upstream) == expected)


async def until(condition: Callable[[], object]) -> None:
    """Loop turns until the answer of a probe was taken in."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


# --- when (pure) ------------------------------------------------------------------------------------------------------


@pytest.mark.option("upstreams.health_check.interval")
@given(st.floats(0.5, 100.0), st.floats(0.0, 100.0))
def test_a_well_mirror_is_asked_each_interval(interval: float, gone_by: float) -> None:
    well = Breaker(CircuitBreaker())
    check = HealthCheck(interval=interval)
    assert due_in(well, "off", None, DAY) is None
    assert due_in(well, check, None, DAY) == 0.0  # at once when it is new
    wait_s = due_in(well, check, DAY, DAY + gone_by)
    assert wait_s == pytest.approx(max(0.0, interval - gone_by), abs=1e-6)


def test_one_that_is_shut_off_is_asked_each_second_whatever_the_check() -> None:
    shut = Breaker(CircuitBreaker(failure_threshold=1))
    shut.end(shut.begin(DAY), False, DAY)
    assert due_in(shut, "off", None, DAY) == due_in(shut, HealthCheck(interval=60.0), None, DAY) == 1.0


@pytest.mark.option("upstreams.health_check.statuses")
def test_what_an_answer_says() -> None:
    assert [verdict(status, "off") for status in (200, 206, 401, 404, 429, 500, 503)] == [
        *[True] * 4,
        None,
        *[False] * 2,
    ]
    check = HealthCheck(statuses=[200, 418])
    assert [verdict(status, check) for status in (200, 418, 204, 404, 503)] == [True, True, False, False, False]


# --- one that is shut off ---------------------------------------------------------------------------------------------


async def test_it_is_asked_for_what_it_served_last_until_it_is_back(
    origin: Origin, upstream: MakeUpstream, clock: ManualClock, counts: Watched
) -> None:
    origin.script("/good", OK, BUSY, OK)
    origin.script("/f", BUSY)
    one = upstream(origin, clock=clock, **ONCE)
    await read(await one.fetch(want("/good?x=1", headers=(("Authorization", "theirs"),))))
    await read(await one.fetch(want()))
    probed = Probed(counts, clock, origin)
    await probed.after(1.0, one, "open")
    await probed.after(1.0, one, "closed")
    probes = [request for request in origin.requests if request.method == "HEAD"]
    assert [(request.target, request.all("authorization")) for request in probes] == [("/good?x=1", [])] * 2
    await clock.advance(DAY)
    assert probed.count == 2  # it is well: nobody asks any more
    assert counts.of("mirror.probes_failed", f"files/{origin.authority}") == 1


async def test_one_that_is_gone_is_asked_until_it_is_back(
    origin: Origin, upstream: MakeUpstream, clock: ManualClock, counts: Watched
) -> None:
    await origin.refuse()
    one = upstream(origin, clock=clock, **ONCE)
    with pytest.raises(Exception, match="connection"):
        await one.fetch(want())
    probed = Probed(counts, clock, origin)
    for _ in range(3):
        await probed.after(1.0, one, "open")
    await origin.listen()
    await probed.after(1.0, one, "closed")
    assert origin.last.target == "/"  # it has served nothing yet; that it answers is enough


async def test_nothing_is_asked_of_one_that_is_let_go(
    origin: Origin, upstream: MakeUpstream, clock: ManualClock, counts: Watched
) -> None:
    origin.script("/f", BUSY)
    one = upstream(origin, clock=clock, **ONCE)
    await read(await one.fetch(want()))
    await one.close()
    await clock.advance(DAY)
    assert Probed(counts, clock, origin).count == 0


# --- health checks ----------------------------------------------------------------------------------------------------


def checked(one: Origin, **options: Any) -> schema.Upstream:
    check: Mapping[str, Any] = {"path": "/healthz?deep", **options.pop("health_check", {})}
    return schema.Upstream.model_validate({"servers": [one.url], **ONCE, "health_check": check, **options})


@pytest.mark.option("upstreams.health_check", "upstreams.health_check.path", "upstreams.health_check.statuses")
async def test_a_bad_answer_shuts_it_off_before_a_client_asks(
    origin: Origin, upstream: MakeUpstream, clock: ManualClock, counts: Watched
) -> None:
    origin.script("/healthz", OK, Reply(status=404), OK)
    one = upstream(origin, clock=clock, balance="fastest_response", **ONCE)
    settings = checked(origin)
    assert one.takes(settings)
    one.apply(settings)
    probed = Probed(counts, clock, origin)
    await counts.wait_for(lambda: probed.count == 1)
    await until(lambda: clock.sleeping)
    await probed.after(5.0, one, "open")
    await probed.after(1.0, one, "closed")
    await probed.after(5.0, one, "closed")
    assert {(request.method, request.target) for request in origin.requests} == {("GET", "/healthz?deep")}
    assert counts["upstream.connections"] == 1
    one.apply(checked(origin, health_check={"interval": "1h"}))
    await until(lambda: clock.sleeping == 1)
    before = probed.count
    await clock.advance(3000)
    assert probed.count == before
    one.apply(schema.Upstream.model_validate({"servers": [origin.url]}))
    await clock.advance(DAY)
    assert probed.count == before


@pytest.mark.option("upstreams.health_check.timeout")
async def test_one_that_does_not_answer_in_time_is_not_well(
    origin: Origin, upstream: MakeUpstream, clock: ManualClock
) -> None:
    """Of two that were asked, the second is given up first: it has less time."""
    gate = Gate()
    origin.script("/healthz", Reply(b"ok", before_head=gate))
    patient, hasty = upstream(origin, clock=clock, **ONCE), upstream(origin, clock=clock, **ONCE)
    patient.apply(checked(origin, health_check={"timeout": "1h"}))
    await origin.wait_for(lambda: origin.requests_of("/healthz") == 1)
    hasty.apply(checked(origin, health_check={"timeout": "20ms"}))
    await until(lambda: state(hasty) == "open")
    gate.open()
    await until(lambda: clock.sleeping == 2)
    assert state(patient) == "closed"


async def test_a_page_without_end_is_not_read_to_it(
    origin: Origin, upstream: MakeUpstream, clock: ManualClock, counts: Watched
) -> None:
    origin.serve("/healthz", Content(1, 64 * 1024 * KIB))
    one = upstream(origin, clock=clock, **ONCE)
    one.apply(checked(origin))
    await until(lambda: clock.sleeping)
    assert state(one) == "closed"
    assert counts.of("mirror.bytes", f"files/{origin.authority}") < 8 * 1024 * KIB


async def test_the_load_may_be_told_there(
    origin: Origin, upstream: MakeUpstream, clock: ManualClock, counts: Watched
) -> None:
    origin.script("/healthz", Reply(b"ok", headers=(("X-Load", "70%"),)))
    one = upstream(origin, clock=clock, **ONCE)
    one.apply(checked(origin, balance="resource_based"))
    await until(lambda: one.describe()["mirrors"][0]["load"] == 0.7)


@pytest.mark.option("upstreams.health_check.load_field")
async def test_a_mirror_whose_health_page_says_nine_tenths_gets_under_a_fifth_of_an_idle_siblings(
    origin: Origin, mirror: Origin, upstream: MakeUpstream, clock: ManualClock
) -> None:
    for one, load in ((origin, b"0.9"), (mirror, b"0.05")):
        one.script("/healthz", Reply(b'{"status": "ok", "system": {"load": %s}}' % load))
        one.serve("/f", b"x")
    some = upstream(origin, mirror, clock=clock, balance="resource_based")
    options = {"servers": [origin.url, mirror.url], "balance": "resource_based"}

    async def shares(load_field: str | None) -> tuple[int, int]:
        check = {"path": "/healthz", "interval": "20s", "load_field": load_field}
        some.apply(schema.Upstream.model_validate({**options, "health_check": check}))
        await until(lambda: clock.sleeping == 2)
        for one in (origin, mirror):
            one.requests.clear()
        for _ in range(60):
            await read(await some.fetch(want()))
        return origin.requests_of("/f"), mirror.requests_of("/f")

    busy, idle = await shares("system.load")
    assert 0 < busy < idle / 5
    assert [one["load"] for one in some.describe()["mirrors"]] == [0.9, 0.05]
    await clock.advance(19.0)  # still good, and after a page that came to nothing, too
    for one in (origin, mirror):
        one.script("/healthz", Reply(status=500))
    await clock.advance(2.0)
    await until(lambda: clock.sleeping == 2)
    await clock.advance(15.0)
    assert [one["load"] for one in some.describe()["mirrors"]] == [0.9, 0.05]
    await clock.advance(60.0)
    assert await shares(None) == (30, 30)
