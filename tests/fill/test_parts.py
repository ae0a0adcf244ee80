"""Parts of one file: what joins comes back, another version is asked for elsewhere, and believed in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from fileproxy.clock import ManualClock
from fileproxy.errors import BadAnswer, ConnectRefused, FileChanged
from fileproxy.fill import insist
from fileproxy.fill.parts import NoParts, Parts
from fileproxy.model import Answer, Body, Headers, Meta, Target, Want, header
from tests.fill.kit import ETAG, Feed, Kit

SIZE = 1_000_000
OTHER = (("ETag", '"two"'),)
DATED = "Mon, 23 Nov 2026 10:00:00 GMT"
Play = Callable[[Want], Answer]


class Upstream:
    """Answers as told, one after the other; the last one again and again."""

    def __init__(self, *plays: Play) -> None:
        self.plays = list(plays)
        self.wants: list[Want] = []
        self.bodies: list[Feed] = []

    async def fetch(self, want: Want) -> Answer:
        self.wants.append(want)
        answer = (self.plays.pop(0) if len(self.plays) > 1 else self.plays[0])(want)
        assert isinstance(answer.body, Feed)
        self.bodies.append(answer.body)
        return answer


def part(mirror: str = "a", headers: Headers = (ETAG,), *, span: str | None = None) -> Play:
    """The 206 that was asked for, or another one."""

    def play(want: Want) -> Answer:
        asked = (header(want.headers, "Range") or "").removeprefix("bytes=")
        said = ("Content-Range", f"bytes {span or asked}/{SIZE}")
        return Answer(206, "Partial Content", (said, *headers), Feed(end=True), mirror=mirror)

    return play


def whole(mirror: str = "a", headers: Headers = (ETAG,)) -> Play:
    return lambda want: Answer(200, "OK", headers, Feed(end=True, length=SIZE), mirror=mirror)


def status(number: int, mirror: str = "a") -> Play:
    return lambda want: Answer(number, "", (), Feed(end=True), mirror=mirror)


def parts(upstream: Upstream, clock: ManualClock, *, pinned: bool = True, time_too: Headers = ()) -> Parts:
    meta: Meta = replace(Kit(size=SIZE, pinned=pinned).meta, headers=(ETAG, *time_too), received_at=clock.time())
    want = Want("GET", Target("/f"), (("Accept", "*/*"),))
    return Parts(upstream, want, meta, clock, size_and_time=bool(time_too))


async def through(clock: ManualClock, asked: asyncio.Task[tuple[Body, int]]) -> float:
    """Time until it is settled, in steps that are shorter than any pause."""
    began = clock.now()
    while not asked.done():
        assert clock.now() - began < 60.0
        await clock.advance(0.01)
    return clock.now() - began


async def test_a_part_comes_back_as_it_is() -> None:
    upstream = Upstream(part())
    body, skip = await parts(upstream, ManualClock()).ask(1000, 2000)
    assert (body, skip) == (upstream.bodies[0], 0)
    assert upstream.bodies[0].closed == 0
    [want] = upstream.wants
    assert header(want.headers, "Range") == "bytes=1000-1999"
    assert header(want.headers, "If-Range") == '"one"'
    assert header(want.headers, "Accept") == "*/*"


async def test_without_a_validator_none_is_sent() -> None:
    upstream = Upstream(part())
    with pytest.raises(BadAnswer):  # nothing shows that it is the same
        await parts(upstream, ManualClock(), pinned=False).ask(0, 10)
    assert header(upstream.wants[0].headers, "If-Range") is None


async def test_the_date_is_the_validator_where_mirrors_make_etags_of_their_own() -> None:
    times = (("Last-Modified", DATED),)
    upstream = Upstream(part("b", (("ETag", '"its own"'), *times)))
    body, _ = await parts(upstream, ManualClock(), time_too=times).ask(0, 10)
    assert body is upstream.bodies[0]
    assert header(upstream.wants[0].headers, "If-Range") == DATED


async def test_the_whole_file_will_do_and_says_what_to_skip() -> None:
    upstream = Upstream(whole())
    body, skip = await parts(upstream, ManualClock()).ask(1000, 2000)
    assert (body, skip) == (upstream.bodies[0], 1000)


async def test_the_whole_file_will_not_do_where_a_part_is_needed() -> None:
    upstream = Upstream(whole())
    with pytest.raises(NoParts) as raised:
        await parts(upstream, ManualClock()).ask(1000, 2000, whole=False)
    assert not raised.value.retryable
    assert upstream.bodies[0].closed == 1
    assert len(upstream.wants) == 1


async def test_another_version_on_one_mirror_is_asked_for_on_another() -> None:
    clock, upstream = ManualClock(), Upstream(part("a", OTHER), part("b"))
    asker = parts(upstream, clock)
    asked = asyncio.create_task(asker.ask(0, 10, avoid=frozenset({"slow"})))
    took_s = await through(clock, asked)
    body, _ = asked.result()
    assert body is upstream.bodies[1]
    assert upstream.bodies[0].closed == 1
    assert took_s == pytest.approx(insist.FIRST_PAUSE_S, abs=0.011)
    assert [want.avoid for want in upstream.wants] == [{"slow"}, {"slow", "a"}]
    await asker.ask(10, 20)
    assert upstream.wants[-1].avoid == {"a"}  # it is known from now on


async def test_both_mirrors_may_be_wrong_for_a_moment() -> None:
    clock, upstream = ManualClock(), Upstream(whole("a", OTHER), status(404, "b"), part("a"))
    asked = asyncio.create_task(parts(upstream, clock).ask(0, 10))
    await through(clock, asked)
    assert asked.result()[0] is upstream.bodies[2]
    assert upstream.wants[2].avoid == {"a", "b"}


@pytest.mark.parametrize("play", [part("a", OTHER), whole("a", OTHER), status(404), status(416)])
async def test_that_it_changed_is_believed_after_several_answers(play: Play) -> None:
    clock, upstream = ManualClock(), Upstream(play)
    asked = asyncio.create_task(parts(upstream, clock).ask(0, 10))
    took_s = await through(clock, asked)
    with pytest.raises(FileChanged):
        asked.result()
    assert len(upstream.wants) == insist.MOST
    assert took_s == pytest.approx(sum(insist.pauses_s()), abs=0.011 * insist.MOST)
    assert [body.closed for body in upstream.bodies] == [1] * insist.MOST


@pytest.mark.parametrize("play", [status(406), part(span="5-9"), part(headers=())])
async def test_what_says_nothing_of_the_file_ends_it_at_once(play: Play) -> None:
    upstream = Upstream(play)
    with pytest.raises(BadAnswer) as raised:
        await parts(upstream, ManualClock()).ask(0, 10)
    assert not isinstance(raised.value, FileChanged)
    assert len(upstream.wants) == 1
    assert upstream.bodies[0].closed == 1


async def test_what_the_upstream_raises_passes() -> None:
    class Down(Upstream):
        async def fetch(self, want: Want) -> Answer:
            raise ConnectRefused("nobody is there")

    with pytest.raises(ConnectRefused):
        await parts(Down(), ManualClock()).ask(0, 10)
