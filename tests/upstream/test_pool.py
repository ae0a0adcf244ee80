"""Choose → try → judge → again, elsewhere, or give up; time stands still unless the test moves it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fileproxy.clock import ManualClock
from fileproxy.errors import ClientGone, ConnectRefused, FirstByteTimeout, Shed, Truncated, UpstreamReset
from fileproxy.model import Answer, Want
from fileproxy.settings import schema
from fileproxy.upstream.pool import Upstream
from tests.house import Watched, settled
from tests.origin import MIB, Content, Gate, Origin, Reply, fin, reset, stall
from tests.upstream.conftest import MakeUpstream, Upload, read, want

OK, BUSY = Reply(b"ok"), Reply(b"busy", status=503)


def resting(seconds: str, status: int = 503) -> Reply:
    return Reply(b"later", status=status, headers=(("Retry-After", seconds),))


class Asking:
    """A fetch under way, and the clock that its pauses are slept by."""

    def __init__(self, upstream: Upstream, clock: ManualClock, wanted: Want | None = None) -> None:
        self.clock = clock
        self.task = asyncio.create_task(upstream.fetch(wanted or want()))

    async def paused(self) -> None:
        await settled(lambda: not (self.clock.sleeping or self.task.done()))
        assert not self.task.done(), self.task
        assert self.clock.sleeping == 1

    async def after(self, seconds: float) -> None:
        """Let time go by that must not be enough, and then what was missing."""
        await self.paused()
        await self.clock.advance(seconds - 0.001)
        assert self.clock.sleeping == 1
        await self.clock.advance(0.001 + 1e-9)

    async def answer(self) -> Answer:
        async with asyncio.timeout(10):
            return await self.task


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def status_and_body(answer: Answer) -> tuple[int, bytes]:
    return answer.status, await read(answer)


async def test_the_next_mirror_is_asked_at_once(
    origin: Origin, mirror: Origin, upstream: MakeUpstream, clock: ManualClock, counts: Watched
) -> None:
    origin.script("/f", BUSY)
    mirror.script("/f", OK)
    one = upstream(origin, mirror, clock=clock)
    answer = await one.fetch(want())
    assert (answer.tries, await read(answer)) == (2, b"ok")
    assert (origin.requests_of("/f"), mirror.requests_of("/f")) == (1, 1)
    assert counts.of("upstream.first_tries", "files") == counts.of("upstream.retries", "files") == 1
    assert counts.of("mirror.failures", f"files/{origin.authority}") == 1


async def test_rounds_and_their_pauses(
    origin: Origin, mirror: Origin, upstream: MakeUpstream, clock: ManualClock
) -> None:
    for one in (origin, mirror):
        one.script("/f", BUSY, BUSY, OK)
    asking = Asking(upstream(origin, mirror, clock=clock, random=0.5, retry={"base": "2s"}), clock)
    await asking.after(1.0)
    await asking.after(2.0)
    answer = await asking.answer()
    assert (answer.tries, await read(answer)) == (5, b"ok")
    assert len(origin.requests) + len(mirror.requests) == 5


async def test_a_mirror_that_said_retry_after_rests_while_others_are_asked(
    origin: Origin, mirror: Origin, upstream: MakeUpstream, clock: ManualClock
) -> None:
    origin.script("/f", resting("30"), OK)
    mirror.script("/f", BUSY)
    asking = Asking(upstream(origin, mirror, clock=clock, random=0.5, retry={"base": "20s"}), clock)
    await asking.after(10.0)
    await asking.paused()
    assert (origin.requests_of("/f"), mirror.requests_of("/f")) == (1, 2)
    await asking.after(20.0)
    assert await status_and_body(await asking.answer()) == (200, b"ok")
    assert origin.requests_of("/f") == 2


@pytest.mark.parametrize(("reply", "seconds"), [(resting("7"), 7.0), (resting("0", 429), 0.0), (BUSY, 0.0)])
async def test_retry_after_is_waited_for_in_full(
    origin: Origin, upstream: MakeUpstream, clock: ManualClock, reply: Reply, seconds: float
) -> None:
    origin.script("/f", reply, OK)
    asking = Asking(upstream(origin, clock=clock), clock)
    if seconds:
        await asking.after(seconds)
    assert await status_and_body(await asking.answer()) == (200, b"ok")


async def test_after_429_the_pause_is_longer(origin: Origin, upstream: MakeUpstream, clock: ManualClock) -> None:
    origin.script("/f", Reply(status=429), Reply(status=429), OK)
    asking = Asking(upstream(origin, clock=clock), clock)
    await asking.after(1.0)
    await asking.after(2.0)
    assert await status_and_body(await asking.answer()) == (200, b"ok")


@pytest.mark.parametrize("seconds", ["61", "999999"])
async def test_a_retry_after_beyond_the_cap_is_the_clients_to_wait_for(
    origin: Origin, upstream: MakeUpstream, clock: ManualClock, counts: Watched, seconds: str
) -> None:
    origin.script("/f", resting(seconds))
    answer = await upstream(origin, clock=clock).fetch(want())
    assert ("Retry-After", seconds) in answer.headers
    assert await status_and_body(answer) == (503, b"later")
    assert counts.of("upstream.failed", "files") == 1


@pytest.mark.option("upstreams.retry.attempts")
async def test_attempts(origin: Origin, upstream: MakeUpstream) -> None:
    origin.script("/f", BUSY)
    answer = await upstream(origin, retry={"attempts": 3}).fetch(want())
    assert (answer.tries, await status_and_body(answer)) == (3, (503, b"busy"))  # the origin's own answer, as it came
    assert origin.requests_of("/f") == 3


@pytest.mark.option("upstreams.retry.within")
async def test_within(origin: Origin, upstream: MakeUpstream, clock: ManualClock) -> None:
    origin.script("/f", BUSY)
    asking = Asking(
        upstream(origin, clock=clock, random=0.9, retry={"base": "4s", "within": "10s", "cap": "4s"}), clock
    )
    await asking.after(3.6)
    await asking.after(3.6)
    assert (await asking.answer()).status == 503  # a third pause would lead past it
    assert origin.requests_of("/f") == 3
    await (await asking.answer()).body.aclose()


@pytest.mark.option("upstreams.retry.budget", "upstreams.retry.budget_floor")
async def test_the_budget(origin: Origin, upstream: MakeUpstream, clock: ManualClock, counts: Watched) -> None:
    origin.script("/f", BUSY)
    one = upstream(origin, clock=clock, retry={"attempts": 100, "budget": 0.0, "budget_floor": 1})
    for _ in range(3):
        await (await one.fetch(want())).body.aclose()
    assert origin.requests_of("/f") == 3 + 10
    assert counts.of("upstream.retries_refused", "files") == 3
    clock.tick(11.0)
    await (await one.fetch(want())).body.aclose()
    assert origin.requests_of("/f") == 14 + 10
    none = upstream(origin, clock=clock, retry={"budget": 0.0, "budget_floor": 0})
    await (await none.fetch(want())).body.aclose()
    assert origin.requests_of("/f") == 25
    share = upstream(origin, clock=clock, retry={"attempts": 100, "budget": 1.0, "budget_floor": 0})
    await (await share.fetch(want())).body.aclose()
    assert origin.requests_of("/f") == 27


@pytest.mark.option("upstreams.retry.statuses")
async def test_statuses(origin: Origin, upstream: MakeUpstream) -> None:
    origin.script("/f", Reply(status=500), OK)
    origin.script("/g", Reply(status=404), OK)
    assert (await upstream(origin, retry={"statuses": [404]}).fetch(want("/f"))).status == 500
    assert (await upstream(origin, retry={"statuses": [404]}).fetch(want("/g"))).status == 200


# --- what must not be sent twice -------------------------------------------------------------------------------------


@pytest.mark.parametrize("reply", [BUSY, Reply(breaks=reset())])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_post_is_sent_once(
    origin: Origin, mirror: Origin, upstream: MakeUpstream, reply: Reply, method: str
) -> None:
    for one in (origin, mirror):
        one.script("/f", reply)
    try:
        answer = await upstream(origin, mirror).fetch(want(method=method, body=Upload([b"x"], 1)))
        assert answer.status == 503
        await answer.body.aclose()
    except UpstreamReset:
        assert reply is not BUSY
    assert len(origin.requests) + len(mirror.requests) == 1


async def test_a_put_is_sent_again_while_its_body_was_not_begun(
    origin: Origin, mirror: Origin, upstream: MakeUpstream
) -> None:
    mirror.script("/f", OK)
    await origin.refuse()
    answer = await upstream(origin, mirror).fetch(want(method="PUT", body=Upload([b"x"], 1)))
    assert (await status_and_body(answer), bytes(mirror.last.body)) == ((200, b"ok"), b"x")


async def test_a_put_whose_body_was_begun_is_not(origin: Origin, mirror: Origin, upstream: MakeUpstream) -> None:
    for one in (origin, mirror):
        one.script("/f", BUSY)
    answer = await upstream(origin, mirror).fetch(want(method="PUT", body=Upload([b"x"], 1)))
    assert await status_and_body(answer) == (503, b"busy")
    assert len(origin.requests) + len(mirror.requests) == 1


async def test_the_clients_failure_is_no_mirrors(
    origin: Origin, mirror: Origin, upstream: MakeUpstream, counts: Watched
) -> None:
    with pytest.raises(ClientGone):
        await upstream(origin, mirror).fetch(want(method="PUT", body=Upload([b"x", ClientGone("left")], 2)))
    assert sum(count for (name, _), count in counts.totals.items() if name == "mirror.tries") == 1
    assert not any(name == "mirror.failures" for name, _ in counts.totals)


# --- what is known of a mirror ---------------------------------------------------------------------------------------


async def test_a_request_is_in_flight_until_its_body_is_over(origin: Origin, upstream: MakeUpstream) -> None:
    origin.serve("/f", Content(1, 10 * MIB))
    one = upstream(origin)

    def in_flight() -> int:
        count: int = one.describe()["mirrors"][0]["in_flight"]
        return count

    answers = [await one.fetch(want()) for _ in range(3)]
    assert in_flight() == 3
    await read(answers[0])
    assert in_flight() == 2
    for answer in answers:
        await answer.body.aclose()
    await (await one.fetch(want(method="HEAD"))).body.aclose()
    assert in_flight() == 0


async def test_a_failed_or_cancelled_try_is_not(origin: Origin, upstream: MakeUpstream) -> None:
    origin.script("/f", Reply(breaks=reset()), Reply(breaks=stall()))
    one = upstream(origin, retry={"attempts": 1})
    with pytest.raises(UpstreamReset):
        await one.fetch(want())
    asking = asyncio.create_task(one.fetch(want()))
    await origin.wait_for(lambda: origin.requests_of("/f") == 2)
    asking.cancel()
    await asyncio.wait([asking])
    said = one.describe()["mirrors"][0]
    assert (said["in_flight"], said["response_s"] > 0.9) == (0, True)


async def test_a_body_that_breaks_counts_against_its_mirror(
    origin: Origin, upstream: MakeUpstream, counts: Watched
) -> None:
    origin.script("/f", Reply(Content(1, MIB), breaks=fin(at=100_000)))
    one = upstream(origin, circuit_breaker={"failure_threshold": 1})
    with pytest.raises(Truncated):
        await read(await one.fetch(want()))
    assert counts.of("mirror.breaks", f"files/{origin.authority}") == 1
    assert (one.describe()["mirrors"][0]["state"], one.describe()["mirrors"][0]["in_flight"]) == ("open", 0)


@pytest.mark.option("upstreams.load_header")
async def test_a_mirror_that_says_it_is_busy_is_spared(origin: Origin, mirror: Origin, upstream: MakeUpstream) -> None:
    origin.script("/f", Reply(b"ok", headers=(("Busy", "0.9"),)))
    mirror.script("/f", Reply(b"ok", headers=(("Busy", "0%"),)))
    one = upstream(origin, mirror, balance="resource_based", load_header="busy")
    for _ in range(60):
        await read(await one.fetch(want()))
    assert 0 < origin.requests_of("/f") < mirror.requests_of("/f") / 5
    deaf = upstream(origin, mirror, balance="resource_based", load_header="other")
    for _ in range(60):
        await read(await deaf.fetch(want()))
    assert mirror.requests_of("/f") < 60 * 2 - 20


async def test_the_mirror_that_answers_sooner_is_asked(origin: Origin, mirror: Origin, upstream: MakeUpstream) -> None:
    origin.script("/f", Reply(b"ok", before_head=0.1))
    mirror.script("/f", OK)
    one = upstream(origin, mirror, balance="fastest_response")
    for _ in range(20):
        await read(await one.fetch(want()))
    assert (origin.requests_of("/f"), mirror.requests_of("/f")) == (1, 19)


# --- other settings ---------------------------------------------------------------------------------------------------


async def test_weights_and_what_else_acts_on_the_mirrors_as_they_are(
    origin: Origin, mirror: Origin, upstream: MakeUpstream, counts: Watched
) -> None:
    for one in (origin, mirror):
        one.script("/f", OK)
    shared = upstream(origin, mirror, balance="weighted_round_robin")

    def with_weights(*weights: int, **options: object) -> schema.Upstream:
        servers = [{"url": one.url, "weight": weight} for one, weight in zip((origin, mirror), weights, strict=True)]
        return schema.Upstream.model_validate({"servers": servers, "balance": "weighted_round_robin", **options})

    for weights, shares in (((1, 1), (5, 5)), ((1, 9), (1, 9)), ((9, 1), (9, 1))):
        for one in (origin, mirror):
            one.requests.clear()
        settings = with_weights(*weights)
        assert shared.takes(settings)
        shared.apply(settings)
        for _ in range(10):
            await read(await shared.fetch(want()))
        assert (origin.requests_of("/f"), mirror.requests_of("/f")) == shares
    assert counts["upstream.connections"] == 2
    shared.apply(with_weights(1, 1, retry={"attempts": 1}))
    origin.script("/g", BUSY)
    mirror.script("/g", BUSY)
    assert (await shared.fetch(want("/g"))).tries == 1
    assert not shared.takes(with_weights(1, 1, timeouts={"idle": "1s"}))
    assert not shared.takes(schema.Upstream.model_validate({"servers": [origin.url]}))


async def test_a_breaker_that_is_turned_off_lets_all_go(
    origin: Origin, upstream: MakeUpstream, counts: Watched
) -> None:
    origin.script("/f", BUSY, Reply(b"ok", before_head=Gate()), OK)
    options: dict[str, Any] = {"retry": {"attempts": 1}, "balance": "round_robin"}
    one = upstream(origin, circuit_breaker={"failure_threshold": 1, "half_open_max_calls": 1}, **options)
    await read(await one.fetch(want()))
    first, second = (asyncio.create_task(one.fetch(want())) for _ in range(2))
    await counts.wait_for(lambda: counts.of("upstream.queued", "files") == 1)
    one.apply(schema.Upstream.model_validate({"servers": [origin.url], "circuit_breaker": "off", **options}))
    assert await read(await second) == b"ok"
    assert counts.of("mirror.shut_off", f"files/{origin.authority}") == 0
    first.cancel()
    await asyncio.wait([first])


# --- mirrors ---------------------------------------------------------------------------------------------------------


async def test_turns_are_taken(origin: Origin, mirror: Origin, upstream: MakeUpstream) -> None:
    for one in (origin, mirror):
        one.script("/f", OK)
    shared = upstream(origin, mirror)
    for _ in range(6):
        await read(await shared.fetch(want()))
    assert (origin.requests_of("/f"), mirror.requests_of("/f")) == (3, 3)


async def test_a_busy_mirror_leaves_room_for_the_others(origin: Origin, mirror: Origin, upstream: MakeUpstream) -> None:
    for one in (origin, mirror):
        one.serve("/f", Content(1, 10 * MIB))
    shared = upstream(origin, mirror, pool={"limit": 2, "per_host": 1})
    for answer in [await shared.fetch(want()), await shared.fetch(want())]:
        await answer.body.aclose()
    assert (origin.accepted, mirror.accepted) == (1, 1)


async def test_a_mirror_that_will_not_mend_itself_is_asked_once(
    origin: Origin, secure_origin: Origin, upstream: MakeUpstream, clock: ManualClock, counts: Watched
) -> None:
    """Its certificate is of an authority we do not know; the other one is only busy."""
    origin.script("/f", BUSY, BUSY, OK)
    asking = Asking(upstream(secure_origin, origin, clock=clock, random=0.5), clock)
    await asking.after(0.05)
    await asking.after(0.1)
    assert await status_and_body(await asking.answer()) == (200, b"ok")
    assert counts.of("mirror.tries", f"files/{secure_origin.authority}") == 1


async def test_nobody_there(upstream: MakeUpstream, origin: Origin, counts: Watched) -> None:
    await origin.refuse()
    with pytest.raises(ConnectRefused, match=origin.authority):
        await upstream(origin, retry={"attempts": 4}).fetch(want())
    assert counts.of("mirror.tries", f"files/{origin.authority}") == 4


@pytest.mark.option("upstreams.timeouts.stall")
async def test_a_silent_mirror_is_left_for_another_after_the_stall_time(
    origin: Origin, mirror: Origin, upstream: MakeUpstream
) -> None:
    origin.script("/f", Reply(breaks=stall()))
    mirror.script("/f", OK)
    one = upstream(origin, mirror, timeouts={"stall": "50ms", "first_byte": "600s"})
    async with asyncio.timeout(10):
        assert await read(await one.fetch(want())) == b"ok"
    await origin.wait_for(lambda: origin.open == 0)


@pytest.mark.parametrize("retry", [{}, {"attempts": 1}])
async def test_the_last_one_gets_the_whole_time(
    origin: Origin, mirror: Origin, upstream: MakeUpstream, retry: dict[str, int]
) -> None:
    """Nobody else will be asked: because there is no other mirror, or no further attempt."""
    for one in (origin, mirror):
        one.script("/f", Reply(b"ok", before_head=0.2))
    servers = (origin, mirror) if retry else (origin,)
    answer = await upstream(*servers, timeouts={"stall": "20ms"}, retry=retry).fetch(want())
    assert (answer.tries, await read(answer)) == (1, b"ok")


async def test_our_own_shortage_is_not_tried_again(
    origin: Origin, mirror: Origin, upstream: MakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> object:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("fileproxy.upstream.connections.Connections._socket", full)
    with pytest.raises(Shed):
        await upstream(origin, mirror).fetch(want())


@pytest.mark.parametrize(
    "broken",
    [Reply(breaks=reset()), Reply(breaks=fin()), Reply(Content(1, MIB), breaks=fin(0)), Reply(raw=b"?\r\n\r\n")],
)
async def test_whatever_breaks_before_the_first_byte_is_tried_elsewhere(
    origin: Origin, mirror: Origin, upstream: MakeUpstream, broken: Reply
) -> None:
    origin.script("/f", broken)
    mirror.script("/f", OK)
    assert await read(await upstream(origin, mirror).fetch(want())) == b"ok"


async def test_a_folder_may_stand_in_for_a_server(
    origin: Origin, upstream: MakeUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("files")
    (folder / "f").write_bytes(b"from disk")
    await origin.refuse()
    answer = await upstream(origin, f"file://{folder}").fetch(want())
    assert (answer.status, answer.body.length) == (200, 9)
    await answer.body.aclose()


async def test_one_file_that_fails_at_every_retry_shuts_no_mirror_off(origin: Origin, upstream: MakeUpstream) -> None:
    origin.script("/f", BUSY)
    one = upstream(origin)
    assert (await one.fetch(want())).tries == 12
    assert one.describe()["mirrors"][0]["state"] == "closed"


async def test_who_is_cancelled_in_a_pause_leaves_nothing(
    origin: Origin, upstream: MakeUpstream, clock: ManualClock
) -> None:
    origin.script("/f", resting("7"))
    asking = Asking(upstream(origin, clock=clock), clock)
    await asking.paused()
    asking.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking.task


async def test_it_says_what_it_is(origin: Origin, upstream: MakeUpstream) -> None:
    said = upstream(origin, timeouts={"connect": "3s", "idle": "4s"}).describe()
    assert said["timeouts"] == {"connect": 3.0, "first_byte": 30.0, "stall": 10.0, "idle": 4.0}
    fresh = {"state": "closed", "in_flight": 0, "response_s": None, "load": None}
    known = {"url": origin.url, "weight": 1, "label": f"files/{origin.authority}", **fresh}
    assert [{name: mirror[name] for name in known} for mirror in said["mirrors"]] == [known]
    assert said["pool"]["limit"] == 200


@pytest.mark.parametrize("kind", [FirstByteTimeout])
async def test_the_last_error_is_the_one_that_is_told(
    origin: Origin, mirror: Origin, upstream: MakeUpstream, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    await origin.refuse()
    mirror.script("/f", Reply(breaks=stall()))
    one = upstream(origin, mirror, timeouts={"first_byte": "50ms"}, retry={"attempts": 2})
    with pytest.raises(kind, match=mirror.authority):
        await one.fetch(want())
