"""The fast front on real sockets: what it answers is what the long way would answer, and all else goes the long way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Mapping
from typing import Any

import pytest

from benchmarks.hit_path import Deaf
from fileproxy.clock import ManualClock
from fileproxy.http.dates import parse_date
from fileproxy.server import connections, fast, pages
from fileproxy.server.fast import LARGEST, REPORT_LASTS_S, REPORT_RENEWS_S
from fileproxy.server.rows import Again
from fileproxy.settings import Settings
from tests.clients import Connection, Got
from tests.conftest import OpenHouse
from tests.house import Running
from tests.origin import KIB, MIB, Content, Origin, Reply
from tests.origin.play import DATE
from tests.trips.plays import settings

pytestmark = [pytest.mark.loops("asyncio", "uvloop"), pytest.mark.usefixtures("tidy")]

START = parse_date(DATE, 0.0) or 0
FILE = Content(7, 20 * KIB)
NEWER = Content(8, 20 * KIB)
OTHER = Content(9, 3 * KIB)
HOUR = ("Cache-Control", "max-age=3600")
HEAD = b"GET /f HTTP/1.1\r\nHost: files.test\r\n\r\n"
UNSHARED = {"disk": "off", "redis": "off"}
INNER = {"cache.memory_misses", "cache.memory_bytes", "cache.memory_budget"}  # how the cache came to its answer
PER_REQUEST = {"id", "seconds", "first_byte"}


class Play:
    """A house with files in memory, and how many answers came from its tables."""

    def __init__(self, running: Running, clock: ManualClock, origin: Origin, values: dict[str, Any]) -> None:
        self.running = running
        self.clock = clock
        self.origin = origin
        self.values = values
        self.known = 0
        fast: Any = running.house._service.fast
        self.fast = fast
        answer = fast.answer

        def spied(raw: bytes, front: Any) -> float | None:
            answered_at: float | None = answer(raw, front)
            self.known += answered_at is not None
            return answered_at

        running.house._connections.answer = spied

    async def get(self, *lines: str, path: str = "/f", method: str = "GET", host: str = "files.test") -> Got:
        got = await self.running.fetch(path, *lines, method=method, host=host)
        await self.running.quiet()
        return got

    async def warm(self, *lines: str, path: str = "/f") -> None:
        """Let a head become known."""
        for _ in range(3):
            assert (await self.get(*lines, path=path)).complete
        assert self.known == 1
        self.known = 0

    async def is_known(self, *lines: str, **options: Any) -> bool:
        """Whether this head is answered from the tables (it is asked twice before)."""
        for _ in range(2):
            await self.get(*lines, **options)
        before = self.known
        await self.get(*lines, **options)
        return self.known > before

    async def reload(self, **changes: Any) -> None:
        """Take over these settings instead of those that the house has."""
        values = {**self.running.settings.model_dump(exclude_unset=True), **changes}
        await self.running.house.apply(Settings.model_validate(values), 1)


@pytest.fixture
def play(house: OpenHouse, origin: Origin) -> Any:
    """``await play(reply, …)``: what the origin answers for /f."""

    async def start(*replies: Reply, route: Mapping[str, Any] | None = None, **rest: Any) -> Play:
        clock = ManualClock(epoch=START + 0.25)
        origin.script("/f", *(replies or (Reply(FILE, headers=(HOUR,)),)))
        origin.script("/g", Reply(OTHER, headers=(HOUR,)))
        values = settings(origin, route=route, redis={"url": "off"}, **{"cache": UNSHARED, **rest})
        return Play(await house(values, clock), clock, origin, values)

    return start


def shown(got: Got) -> tuple[Any, ...]:
    """All of an answer but its id."""
    fields = [(name, value) for name, value in got.headers if name != "X-Request-Id"]
    return got.status, got.reason, got.version, fields, got.sha256, got.ending


async def gone_by(connection: Connection) -> bool:
    async with asyncio.timeout(5):
        return await connection.ended()


# --- the same answer, counted the same --------------------------------------------------------------------------------


@pytest.mark.option("server.fast")
async def test_it_is_the_same_with_the_switch_off_but_for_the_way(play: Any) -> None:
    answers: list[Any] = []
    totals: list[Any] = []
    lines: list[Any] = []
    for switch in ("on", "off"):
        one: Play = await play(server={"fast": switch})
        gots: list[Got] = []
        for seconds in (0, 0, 0, 0.5, 0.3, 0.2, 7, 100.4, 0, 3400, 0, 0, 200, 0):
            one.clock.tick(seconds)
            gots += [await one.get("User-Agent: x"), await one.get(path="/g"), await one.get("Range: bytes=5-9")]
        assert (one.known >= 20) == (switch == "on")
        logged = one.running.lines.access_lines
        assert all(set(line) >= PER_REQUEST for line in logged)
        ids = [got.get("x-request-id") for got in gots]
        assert ids == [line["id"] for line in logged]
        assert len(set(ids)) == len(ids)
        answers.append([shown(got) for got in gots])
        totals.append({key: count for key, count in one.running.counts.totals.items() if key[0] not in INNER})
        lines.append([{name: line[name] for name in line if name not in PER_REQUEST} for line in logged])
    assert answers[0] == answers[1]
    assert totals[0] == totals[1]
    assert lines[0] == lines[1]


async def test_m_files_and_n_clients_need_m_plus_n_rows(play: Any) -> None:
    one: Play = await play()
    for path in ("/f", "/g"):
        for _ in range(2):
            await one.get("User-Agent: a", path=path)
    for agent in "bcd":
        await one.get(f"User-Agent: {agent}")
    one.known = 0
    for agent in "abcd":
        for path in ("/f", "/g"):
            await one.get(f"User-Agent: {agent}", path=path)
    assert one.known == 8
    shown = one.fast.statistics()
    assert (shown["request_lines"], shown["header_blocks"], shown["hits"]) == (2, 4, 8)


async def test_stats_tells_of_the_tables(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "COUNT_S", 3600)  # what is told is counted before
    one: Play = await play()
    await one.warm()
    async with await one.running.connect() as connection:
        for _ in range(5):
            await connection.ask("GET", "/f")
        got = await connection.ask("GET", "/stats")
    told = json.loads(got.body)
    assert {**told["fast_front"], "bytes": 0} == {
        "hits": 6, "request_lines": 1, "header_blocks": 1, "bodies": 0, "bytes": 0,
    }  # fmt: skip
    assert told["counters"]["cache.hit"] == 7
    assert (told["connections"]["accepted"], told["connections"]["open"]) == (4, 1)


async def test_a_target_with_percent_signs_and_secrets_is_logged_as_always(play: Any) -> None:
    one: Play = await play()
    path = "/f?a=%20%s&token=secret"
    assert await one.is_known(path=path)
    targets = [line["target"] for line in one.running.lines.access_lines]
    assert len(set(targets)) == 1


async def test_what_is_settled_together_is_exact_in_sum(play: Any) -> None:
    one: Play = await play()
    assert await one.is_known()
    assert await one.is_known(path="/g")
    assert await one.is_known("User-Agent: x")
    one.known = 0
    counts, lines = one.running.counts.totals, one.running.lines.access_lines
    before = {name: counts[name, None] for name in ("requests", "traffic", "cache.hit", "response_time")}
    logged = len(lines)
    asked = [("/f",), ("/g",), ("/f", "User-Agent: x"), ("/f",), ("/f",)]
    async with await one.running.connect() as connection:
        gots = [await connection.ask("GET", *one_ask) for one_ask in asked]
    assert one.known == len(asked)
    await one.running.quiet()
    counts, lines = one.running.counts.totals, one.running.lines.access_lines
    grown = {name: counts[name, None] - before[name] for name in before}
    assert grown == {"requests": 5, "traffic": 4 * FILE.size + OTHER.size, "cache.hit": 5, "response_time": 5}
    assert sorted(line["id"] for line in lines[logged:]) == sorted(str(got.get("x-request-id")) for got in gots)
    assert sum(line["bytes"] for line in lines[logged:]) == grown["traffic"]


async def test_a_crowd_that_asks_the_same_at_once_gets_an_answer_each(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one: Play = await play()
    same, closes, given = ("/g",), ("/g", "Connection: close"), ("/g", "X-Request-Id: given")
    asked = [same, same, ("/f",), same, given, same, closes, given, closes, ("/f",), same]
    for path, *lines in set(asked):
        assert await one.is_known(*lines, path=path)
    repeated: list[bytes] = []

    def noted(raw: bytes, *values: Any) -> Again:
        repeated.append(raw)
        return Again(raw, *values)

    monkeypatch.setattr(fast, "Again", noted)
    one.known, logged, counted = 0, len(one.running.lines.access_lines), one.running.counts["requests"]
    async with contextlib.AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(await one.running.connect()) for _ in asked]
        gots = [await connection.ask("GET", "/f") for connection in crowd]  # from now on they wait for more
        repeated.clear()
        for connection, (path, *lines) in zip(crowd, asked, strict=True):
            text = "".join(f"{line}\r\n" for line in lines)
            await connection.send(f"GET {path} HTTP/1.1\r\nHost: files.test\r\n{text}\r\n".encode())
        for connection, (path, *lines) in zip(crowd, asked, strict=True):
            got = await connection.answer("GET")
            assert (got.complete, got.sha256) == (True, (OTHER if path == "/g" else FILE).sha256())
            assert (got.get("connection") == "close") == ("Connection: close" in lines)
            assert (got.get("x-request-id") == "given") == (lines == ["X-Request-Id: given"])
            gots.append(got)
    assert one.known == len(gots)
    assert repeated == [HEAD.replace(b"/f", b"/g")]
    await one.running.quiet()
    ids = [line["id"] for line in one.running.lines.access_lines[logged:]]
    assert sorted(ids) == sorted(str(got.get("x-request-id")) for got in gots)
    assert len(set(ids)) == len(ids) - 1
    assert one.running.counts["requests"] - counted == len(ids)


async def test_another_peer_of_the_same_turn_is_another_client(play: Any) -> None:
    one: Play = await play()
    await one.warm(path="/g")
    head = HEAD.replace(b"/f", b"/g")
    for turn, answered in ((True, 4), (False, 4)):
        one.fast.turn(turn)
        askers = [Deaf(-1) for _ in range(5)]
        askers[3].peer = "192.0.2.7"
        assert [one.fast.answer(head, asker) is not None for asker in askers].count(True) == answered
        assert [asker.taken > OTHER.size for asker in askers] == [True, True, True, False, True]
    one.fast.turn(False)


@pytest.mark.parametrize("another_turn", [True, False])
async def test_what_several_asked_is_looked_up_again_after_the_turn(play: Any, another_turn: bool) -> None:
    one: Play = await play()
    await one.warm(path="/g")
    head, asker = HEAD.replace(b"/f", b"/g"), Deaf(-1)
    one.fast.turn(True)
    for _ in range(3):
        assert one.fast.answer(head, asker) is not None
    one.fast.turn(another_turn)
    one.running.house._caching.store.memory.resize(0)
    assert one.fast.answer(head, asker) is None
    one.fast.turn(False)


async def test_it_needs_no_handler(play: Any) -> None:
    one: Play = await play()
    await one.warm()
    async with await one.running.connect() as connection:
        await connection.ask("GET", "/f")
        connections = one.running.house._connections
        assert (one.known, len(connections.bare), len(connections)) == (1, 1, 1)


async def test_the_age_is_right_to_the_second(play: Any) -> None:
    one: Play = await play()
    await one.warm()
    ages = []
    for _ in range(8):
        one.clock.tick(0.5)
        got = await one.get()
        ages.append((got.get("age"), got.get("cache-status")))
    assert one.known == 8
    # Stored 0.25 s after its Date.
    assert [age for age, _ in ages] == ["1", "2", "2", "3", "3", "4", "4", "5"]
    assert [status for _, status in ages] == [
        f"fileproxy; hit; ttl={ttl}" for ttl in (3599, 3598, 3598, 3597, 3597, 3596, 3596, 3595)
    ]


async def test_a_missing_date_is_the_time_now(play: Any) -> None:
    one: Play = await play(Reply(FILE, headers=(HOUR, ("Date", "x"))))
    await one.get()
    known = []
    for _ in range(3):
        got = await one.get()
        known.append(got.all("date"))
    assert known[0] == known[1] == known[2]


# --- whose request it is ----------------------------------------------------------------------------------------------


async def test_a_front_may_add_another_request_id_to_every_request(play: Any) -> None:
    one: Play = await play()
    await one.warm("X-Request-Id: a-1", "User-Agent: x")
    for name, value in (("X-Request-Id", "b-2"), ("x-request-ID", "c:3"), ("X-REQUEST-ID", "d" * 128)):
        got = await one.get(f"{name}: {value}", "User-Agent: x")
        assert got.get("x-request-id") == value
        assert one.running.lines.access_lines[-1]["id"] == value
    assert one.known == 3
    assert (await one.get("User-Agent: x", "X-Request-Id: e")).get("x-request-id") == "e"  # in another place: the same
    assert one.known == 4
    assert len((await one.get("User-Agent: x")).get("x-request-id") or "") == 16  # and without
    assert one.known == 5
    for wrong in ("f g", "", "<", "h" * 129):
        assert (await one.get(f"X-Request-Id: {wrong}", "User-Agent: x")).get("x-request-id") != wrong
    assert (await one.get("X-Request-Id: i", "X-Request-Id: j", "User-Agent: x")).get("x-request-id") not in ("i", "j")
    assert one.known == 5


async def test_an_id_from_whom_we_do_not_trust_is_not_taken_over(play: Any) -> None:
    one: Play = await play(server={"trusted_proxies": []})
    await one.warm("X-Request-Id: a-1")
    assert (await one.get("X-Request-Id: b-2")).get("x-request-id") not in ("a-1", "b-2")
    assert one.known == 1


async def test_clients_behind_a_front_are_told_apart(play: Any) -> None:
    one: Play = await play()
    for client in ("192.0.2.1", "192.0.2.2"):
        assert await one.is_known(f"X-Forwarded-For: {client}", "X-Forwarded-Proto: https")
        assert one.running.lines.access_lines[-1]["client"] == client
    one.known = 0
    assert not await one.is_known("X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https", "Range: bytes=0-1")
    await one.get("X-Forwarded-For: 192.0.2.1")  # http is another site: it redirects, perhaps
    assert one.known == 0


async def test_hosts_are_told_apart(play: Any) -> None:
    one: Play = await play(upstream={"host": "preserve"})
    assert await one.is_known(host="a.test")
    one.known = 0
    assert (await one.get(host="b.test")).get("x-cache") == "MISS"
    assert one.known == 0


# --- never known ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "Content-Length: 0",
        "Expect: 100-continue",
        "Upgrade: h2c",
        "Connection: keep-alive, te",
        "Connection: close, te",
        "Authorization: Basic eDp5",
        "Range: bytes=0-4",
        "Range: nonsense",
        'If-None-Match: "x"',
        'If-Match: "x"',
        "If-Modified-Since: Sun, 01 Nov 2026 12:00:00 GMT",
        "If-Unmodified-Since: Sun, 01 Nov 2026 12:00:00 GMT",
        'If-Range: "x"',
        "Cache-Control: max-age=0",
        "Pragma: no-cache",
        "Origin: https://a.test",
        "CDN-Loop: other",
        "X-Unknown: 1",
        "TE: trailers",
    ],
)
async def test_a_request_that_says_more_goes_the_long_way(play: Any, line: str) -> None:
    one: Play = await play()
    await one.warm()
    assert not await one.is_known(line)
    assert one.known == 0


@pytest.mark.parametrize("head", ["HEAD /f HTTP/1.1", "GET /f HTTP/1.0", "GET http://files.test/f HTTP/1.1"])
async def test_other_request_lines_go_the_long_way(play: Any, head: str) -> None:
    one: Play = await play()
    await one.warm()
    for _ in range(3):
        async with await one.running.connect() as connection:
            await connection.send(f"{head}\r\nHost: files.test\r\n\r\n".encode())
            assert (await connection.answer(head.split(maxsplit=1)[0])).status == 200
        await one.running.quiet()
    assert one.known == 0


@pytest.mark.parametrize(
    "reply",
    [
        Reply(FILE, headers=(("Cache-Control", "no-cache"),)),
        Reply(FILE, headers=(("Cache-Control", "no-store"),)),
        Reply(FILE, headers=(HOUR, ("Vary", "User-Agent"))),
        Reply(FILE, headers=(HOUR, ("Vary", "Accept-Encoding, Cookie"))),
        Reply(FILE, headers=(HOUR, ("Vary", "Sec-Fetch-Dest"))),
        Reply(b"", headers=(HOUR,)),
        Reply(b"gone", status=404, headers=(HOUR,)),
        Reply(Content(3, LARGEST + 1), headers=(HOUR,)),
        Reply(Content(4, 3 * MIB), headers=(HOUR,)),
    ],
)
async def test_other_answers_are_not_known(play: Any, reply: Reply) -> None:
    one: Play = await play(reply)
    assert not await one.is_known("User-Agent: x", "Cookie: y", "Sec-Fetch-Dest: z")


async def test_a_route_that_keeps_users_apart_is_not_known(play: Any) -> None:
    one: Play = await play(route={"key": {"per_user": "Cookie"}})
    assert (await one.get("Cookie: a")).get("x-cache") == "MISS"
    assert not await one.is_known("Cookie: a")
    assert (await one.get("Cookie: b")).get("x-cache") == "MISS"


async def test_accept_encoding_may_choose(play: Any) -> None:
    vary = (HOUR, ("Vary", "Accept-Encoding"))
    one: Play = await play(Reply(FILE, headers=vary), Reply(NEWER, headers=(*vary, ("Content-Encoding", "gzip"))))
    await one.get()
    await one.get("Accept-Encoding: gzip")
    for _ in range(2):
        assert (await one.get()).sha256 == FILE.sha256()
        assert (await one.get("Accept-Encoding: gzip")).sha256 == NEWER.sha256()
    assert one.known >= 2
    one.known = 0
    assert (await one.get("Accept-Encoding: br", "Cache-Control: only-if-cached")).status == 504
    assert (await one.get("Accept-Encoding: gzip")).sha256 == NEWER.sha256()
    assert one.known == 1


# --- the boundary -----------------------------------------------------------------------------------------------------


async def test_a_body_that_looks_like_a_known_head_is_a_body(play: Any) -> None:
    """A known GET with Content-Length, then a body that equals a known head, as a segment of its own."""
    one: Play = await play()
    await one.warm()
    async with await one.running.connect() as connection:
        await connection.send(b"GET /f HTTP/1.1\r\nHost: files.test\r\nContent-Length: %d\r\n\r\n" % len(HEAD))
        assert (await connection.answer()).status == 200
        await connection.send(HEAD)
        await connection.send(b"GET /g HTTP/1.1\r\nHost: files.test\r\n\r\n")
        assert (await connection.answer()).sha256 == OTHER.sha256()
        assert one.known == 0
        await connection.send(HEAD)
        assert (await connection.answer()).sha256 == FILE.sha256()
        assert one.known == 1


async def test_a_body_of_chunks_that_looks_like_a_known_head_is_a_body(play: Any) -> None:
    one: Play = await play()
    await one.warm()
    async with await one.running.connect() as connection:
        await connection.send(b"GET /f HTTP/1.1\r\nHost: files.test\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert (await connection.answer()).status == 200
        await connection.send(b"%x\r\n" % len(HEAD))
        await connection.send(HEAD)
        await connection.send(b"\r\n0\r\n\r\n")
        await connection.send(HEAD)
        assert (await connection.answer()).sha256 == FILE.sha256()
    await one.running.quiet()
    assert one.running.counts["requests"] == 5


async def test_a_known_head_inside_of_a_head_is_a_part_of_it(play: Any) -> None:
    """A partial head, then a known head as a segment of its own."""
    one: Play = await play()
    await one.warm()
    async with await one.running.connect() as connection:
        await connection.send(b"GET /g HTTP/1.1\r\nX-Inside: ")
        await one.running.counts.wait_for(lambda: one.running.counts["connections.open"] == 1)
        for _ in range(20):
            await asyncio.sleep(0)  # so that it comes as two segments
        await connection.send(HEAD)
        assert (await connection.answer()).sha256 == OTHER.sha256()
        assert one.known == 0


async def test_a_connection_in_use_outlives_the_keep_alive_time(play: Any) -> None:
    one: Play = await play()
    await one.warm()
    async with await one.running.connect() as connection:
        for _ in range(5):
            await connection.ask("GET", "/f")
            await one.clock.advance(50)
            one.running.house._connections.sweep()
        assert one.known == 5
        await one.clock.advance(30)
        one.running.house._connections.sweep()
        assert await gone_by(connection)


async def test_who_wants_to_close_gets_the_close(play: Any) -> None:
    """The first from the long way, the next ones from the tables; those who keep theirs do not notice."""
    one: Play = await play()
    await one.warm()
    heads = []
    for number in range(4):
        async with await one.running.connect() as connection:
            assert (await connection.ask("GET", "/f")).get("connection") is None
            got = await connection.ask("GET", "/f", "Connection: close")
            assert (got.complete, got.get("connection"), got.sha256) == (True, "close", FILE.sha256())
            assert one.known == number + 1 + max(0, number)
            assert await gone_by(connection)
        heads.append(sorted(name for name, _ in got.headers))
        await one.running.quiet()
    assert all(names == heads[0] for names in heads)
    assert len(one.running.lines.access_lines) == 3 + 8


async def test_who_closes_and_asks_on_gets_one_answer(play: Any) -> None:
    one: Play = await play()
    await one.warm()
    assert await one.is_known("Connection: close")
    async with await one.running.connect() as connection:
        head = b"GET /f HTTP/1.1\r\nHost: files.test\r\nConnection: close\r\n\r\n"
        await connection.send(head)
        assert (await connection.answer("GET")).complete
        await connection.send(head)
        assert await gone_by(connection)


async def test_several_heads_at_once_are_answered_in_order(play: Any) -> None:
    one: Play = await play()
    await one.warm()
    await one.warm(path="/g")
    known, other = HEAD, HEAD.replace(b"/f", b"/g")
    unknown = other.replace(b"\r\n\r\n", b"\r\nRange: bytes=0-9\r\n\r\n")
    async with await one.running.connect() as connection:
        await connection.send(known + other + unknown + known + unknown + other + known[:-5])
        sizes = [(await connection.answer()).size for _ in range(6)]
        assert sizes == [FILE.size, OTHER.size, 10, FILE.size, 10, OTHER.size]
        await connection.send(known[-5:])
        assert (await connection.answer()).size == FILE.size
    assert one.known == 4  # and the last one came in two parts


async def test_who_does_not_read_is_not_written_to(play: Any) -> None:
    file = Content(5, 200 * KIB)
    one: Play = await play(Reply(file, headers=(HOUR,)))
    await one.warm()
    async with await one.running.connect(receive_buffer=4096) as connection:
        await connection.send(HEAD * 300)
        await one.running.counts.wait_for(lambda: one.running.counts["downloads.active"] == 1)
        assert one.known < 100
        for _ in range(300):
            assert (await connection.answer()).sha256 == file.sha256()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What was asked of sendfile, and what it took: of each call."""
    calls: list[tuple[int, int]] = []

    def spied(target: int, source: int, offset: int, count: int) -> int:
        calls.append((count, 0))
        took = os.sendfile(target, source, offset, count)
        calls[-1] = count, took
        return took

    monkeypatch.setattr(pages, "sendfile", spied)
    return calls


async def test_a_larger_body_asked_for_often_goes_out_by_sendfile(play: Any, sent: list[tuple[int, int]]) -> None:
    one: Play = await play()
    await one.warm()
    before = shown(await one.get())
    for _ in range(8):
        await one.get()
    assert not sent
    one.clock.tick(0.9)
    after = shown(await one.get())
    assert sent == [(FILE.size, FILE.size)]
    assert (after[0], after[4], after[5]) == (before[0], before[4], before[5])
    assert one.fast.statistics()["bodies"] == 1
    await one.running.house._caching.bans.announce([("key", "files//f", False)])
    assert (await one.get()).complete
    assert len(sent) == 1


async def test_sendfile_overtakes_nothing(play: Any, sent: list[tuple[int, int]]) -> None:
    one: Play = await play()
    await one.warm()
    for _ in range(9):
        await one.get()
        await one.get(path="/g")
    one.clock.tick(0.9)
    await one.get()
    one.known, before = 0, len(sent)
    async with await one.running.connect() as connection:
        await connection.send((HEAD.replace(b"/f", b"/g") + HEAD) * 5)
        for _ in range(5):
            assert (await connection.answer()).sha256 == OTHER.sha256()
            assert (await connection.answer()).sha256 == FILE.sha256()
        assert one.known == 10
        await connection.send(HEAD)
        assert (await connection.answer()).sha256 == FILE.sha256()
    assert len(sent) > before


async def test_what_sendfile_leaves_is_sent_as_well(play: Any, sent: list[tuple[int, int]]) -> None:
    file = Content(5, 200 * KIB)
    one: Play = await play(Reply(file, headers=(HOUR,)))
    await one.warm()
    for _ in range(9):
        await one.get()
    one.clock.tick(0.9)
    async with await one.running.connect(receive_buffer=4096) as connection:
        await connection.send(HEAD * 200)
        await one.running.counts.wait_for(lambda: one.running.counts["downloads.active"] == 1)
        for _ in range(200):
            assert (await connection.answer()).sha256 == file.sha256()
    assert any(took < asked for asked, took in sent)


async def test_a_client_that_has_ended_its_side_gets_its_answer(play: Any) -> None:
    one: Play = await play()
    await one.warm()
    async with await one.running.connect() as connection:
        await connection.send(HEAD)
        connection.half_close()
        assert (await connection.answer()).sha256 == FILE.sha256()
        assert await gone_by(connection)
    assert one.known == 1


# --- when the answer is no longer that --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["key", "all"])
async def test_a_purge_acts_at_once(play: Any, kind: Any) -> None:
    one: Play = await play(Reply(FILE, headers=(HOUR,)), Reply(NEWER, headers=(HOUR,)))
    await one.warm()
    await one.running.house._caching.bans.announce([(kind, "files//f", False)])
    got = await one.get()
    assert (got.get("x-cache"), got.sha256, one.known) == ("MISS", NEWER.sha256(), 0)


async def test_a_purge_of_something_else_changes_nothing(play: Any) -> None:
    one: Play = await play()
    await one.warm()
    await one.running.house._caching.bans.announce([("key", "files//g", False)])
    assert (await one.get()).get("x-cache") == "HIT"
    assert one.known == 1


async def test_a_soft_purge_acts_at_once(play: Any) -> None:
    one: Play = await play(Reply(FILE, headers=(HOUR,)), Reply(NEWER, headers=(HOUR,)))
    await one.warm()
    await one.running.house._caching.bans.announce([("key", "files//f", True)])
    assert (await one.get()).get("x-cache") == "STALE"
    assert one.known == 0


async def test_what_is_not_fresh_any_more_goes_the_long_way(play: Any) -> None:
    one: Play = await play(Reply(FILE, headers=(("Cache-Control", "max-age=60"),)), Reply(NEWER, headers=(HOUR,)))
    await one.warm()
    one.clock.tick(59.7)
    assert (await one.get()).get("cache-status") == "fileproxy; hit; ttl=0"
    assert one.known == 1
    one.clock.tick(0.1)
    assert (await one.get()).sha256 == NEWER.sha256()
    assert one.known == 1


async def test_a_newer_file_is_seen_at_once(play: Any) -> None:
    one: Play = await play(Reply(FILE, headers=(HOUR,)), Reply(NEWER, headers=(HOUR,)))
    await one.warm()
    assert (await one.get("Cache-Control: no-cache")).sha256 == NEWER.sha256()
    assert (await one.get()).sha256 == NEWER.sha256()
    assert one.known == 0


async def test_what_leaves_memory_is_not_known(play: Any) -> None:
    one: Play = await play()
    await one.warm()
    one.running.house._caching.store.memory.resize(0)
    assert (await one.get()).get("x-cache") == "MISS"
    assert one.known == 0


async def test_what_a_connection_knew_ends_with_its_configuration(play: Any) -> None:
    one: Play = await play()
    line = "X-Forwarded-For: 192.0.2.7"
    async with await one.running.connect() as connection:
        for _ in range(4):
            await connection.ask("GET", "/f", line)
        assert one.known == 2
        await one.reload(server={"trusted_proxies": []})
        for _ in range(3):
            await connection.ask("GET", "/f", line)
    await one.running.quiet()
    clients = [entry["client"] for entry in one.running.lines.access_lines]
    assert sorted(clients) == ["127.0.0.1"] * 3 + ["192.0.2.7"] * 4


async def test_another_configuration_begins_anew(play: Any) -> None:
    one: Play = await play()
    await one.warm()
    await one.reload(server={**one.running.settings.server.model_dump(exclude_unset=True), "name": "renamed"})
    assert (await one.get()).get("cache-status") == "renamed; hit; ttl=3599"
    assert one.known == 0
    assert await one.is_known()


@pytest.mark.parametrize("load", ["lagging", "descriptors_low", "draining"])
async def test_a_worker_that_sheds_or_leaves_answers_nothing_fast(play: Any, load: str) -> None:
    from dataclasses import replace

    one: Play = await play()
    await one.warm()
    service = one.running.house._service
    calm = service.load
    service.load = replace(calm, **{load: True})
    got = await one.get()
    assert (got.status, one.known) == (200 if load == "draining" else 503, 0)
    service.load = replace(calm)
    assert (await one.get()).status == 200
    assert one.known == 1


async def test_a_longer_head_than_is_allowed_is_refused(play: Any) -> None:
    """Lines and blocks are known from heads that were short enough, and so short that all of them fit together."""
    one: Play = await play(limits={"head": 400})
    room = 400 - len(HEAD)
    path, agent = "/f?" + "x" * 80, "User-Agent: " + "y" * 250
    assert await one.is_known(path=path)
    assert await one.is_known(agent)
    assert await one.is_known(agent, path=path)
    path, agent = "/f?" + "x" * (room // 2 + 10), "User-Agent: " + "y" * (room // 2)
    assert not await one.is_known(path=path)
    assert (await one.get(path=path)).status == 200
    assert (await one.get(agent, path=path)).status == 431
    front_id = "X-Request-Id: " + "i" * 100
    assert await one.is_known("User-Agent: " + "y" * 200, path="/f?" + "x" * 70)
    assert (await one.get("User-Agent: " + "y" * 200, front_id, path="/f?" + "x" * 70)).status == 431


async def test_one_header_line_too_many_is_refused(play: Any) -> None:
    one: Play = await play(limits={"headers": 3})
    await one.warm("User-Agent: x")
    assert (await one.get("User-Agent: x", "X-Request-Id: a")).status == 200
    one.known = 0
    assert not await one.is_known("User-Agent: x", "Accept: y")  # one more would be too many, and could be left out
    assert (await one.get("User-Agent: x", "Accept: y", "X-Request-Id: a")).status == 431


async def test_the_tables_are_bounded(play: Any) -> None:
    one: Play = await play(cache={**UNSHARED, "memory": MIB})
    for number in range(40):
        await one.get(path=f"/g?{number}")
        await one.get(f"User-Agent: {number}" + "z" * 2000)
        await one.get(f"User-Agent: {number}" + "z" * 2000)
    budget = one.running.house._caching.store.memory.budget
    kept = one.fast.statistics()
    assert 0 < kept["bytes"] <= budget // 8
    assert kept["header_blocks"] < 40


# --- our own pages ----------------------------------------------------------------------------------------------------

STRANGER = "X-Forwarded-For: 203.0.113.9"  # believed, because the peer is a trusted proxy; no operator
PAGES = ("/health", "/-/health", "/livez", "/readyz")


@pytest.mark.parametrize("path", PAGES)
async def test_what_watchers_ask_is_answered_counted_and_logged_as_always(play: Any, path: str) -> None:
    answers: list[Any] = []
    for switch in ("on", "off"):
        one: Play = await play(server={"fast": switch})
        gots = [await one.get(*lines, path=path) for lines in ((), (), (STRANGER,), (), (STRANGER,))]
        assert one.known == (3 if switch == "on" else 0)
        bodies = [json.loads(got.body) for got in gots]
        await one.running.counts.wait_for(lambda: one.running.counts["connections.open"] == 0)  # noqa: B023
        logged = one.running.lines.access_lines
        assert [got.get("x-request-id") for got in gots] == [line["id"] for line in logged]
        answers.append(
            (
                [(set(body), body["status"]) for body in bodies],
                [[name for name, _ in got.headers] for got in gots],
                [(got.status, got.reason, got.ending) for got in gots],
                [{name: line[name] for name in line if name not in {*PER_REQUEST, "bytes"}} for line in logged],
                {key: count for key, count in one.running.counts.totals.items() if key[0] not in {*INNER, "traffic"}},
            )
        )
    assert answers[0] == answers[1]


async def test_what_a_watcher_is_told_is_a_quarter_of_a_second_old_at_most(play: Any) -> None:
    one: Play = await play()
    service = one.running.house._service
    told, made = {"status": "ok"}, 0

    async def health() -> dict[str, Any]:
        nonlocal made
        made += 1
        return told

    service.health = health
    for _ in range(3):
        assert (await one.get(path="/health")).status == 200
    assert (one.known, made) == (2, 1)
    told = {"status": "degraded"}
    one.clock.tick(REPORT_LASTS_S - 0.01)
    assert json.loads((await one.get(path="/health")).body) == {"status": "ok"}
    one.clock.tick(0.01)
    assert json.loads((await one.get(path="/health")).body) == {"status": "degraded"}
    assert made == 2
    told = {"status": "failing"}
    one.clock.tick(REPORT_LASTS_S)
    for _ in range(2):
        assert (await one.get(path="/health")).status == 503  # is made anew each time
    assert made == 4


async def test_one_asker_makes_the_next_report_and_the_others_wait_a_moment_at_most(play: Any) -> None:
    one: Play = await play()
    service = one.running.house._service
    gate, made = asyncio.Event(), 0

    async def health() -> dict[str, Any]:
        nonlocal made
        made += 1
        await gate.wait()
        return {"status": "ok"}

    await one.get(path="/health")
    service.health = health
    one.clock.tick(REPORT_LASTS_S)
    async with asyncio.timeout(10), asyncio.TaskGroup() as askers:
        askers.create_task(one.running.fetch("/health"))
        while made < 1:
            await asyncio.sleep(0)
        assert (await one.running.fetch("/health")).status == 200
        assert (one.known, made) == (1, 1)
        one.clock.tick(REPORT_RENEWS_S)
        askers.create_task(one.running.fetch("/health"))
        while made < 2:
            await asyncio.sleep(0)
        gate.set()
    assert one.known == 1


@pytest.mark.parametrize("load", ["lagging", "descriptors_low", "draining"])
async def test_a_worker_that_is_not_well_says_so_at_once(play: Any, load: str) -> None:
    from dataclasses import replace

    one: Play = await play()
    for path in PAGES:
        assert await one.is_known(path=path)
    one.known = 0
    service = one.running.house._service
    service.load = replace(service.load, **{load: True})
    assert (await one.get(path="/readyz")).status == (503 if load == "draining" else 200)
    for _ in range(3):
        assert (await one.get(path="/health")).status == 200
    assert one.known == 0


async def test_a_report_ends_with_its_configuration(play: Any) -> None:
    one: Play = await play()
    assert await one.is_known(path="/health")
    assert await one.is_known(path="/health")
    await one.reload(server={"operators": ["10.0.0.0/8"]})
    one.known = 0
    for _ in range(3):
        assert set(json.loads((await one.get(path="/health")).body)) == {"status"}
    assert one.known == 2
    await one.reload(server={"short_names": "off"})
    origin_says = await one.get(path="/health")
    assert origin_says.get("content-type") != "application/json"


async def test_what_only_operators_may_read_is_told_to_them_alone(play: Any) -> None:
    one: Play = await play()
    for lines in ((), (STRANGER,), (), (STRANGER,)):
        report = json.loads((await one.get(*lines, path="/health")).body)
        assert (set(report) == {"status"}) == bool(lines)
    assert one.known == 2


@pytest.mark.parametrize(
    ("lines", "options"),
    [
        ((), {"path": "/stats"}),
        ((), {"path": "/readyz?verbose"}),
        ((), {"path": "/health", "method": "HEAD"}),
        (("Authorization: Bearer x",), {"path": "/health"}),
        (("X-Unknown: x",), {"path": "/health"}),
    ],
)
async def test_other_asks_for_our_pages_go_the_long_way(play: Any, lines: tuple[str, ...], options: Any) -> None:
    assert not await (await play()).is_known(*lines, **options)


async def test_a_watcher_that_wants_to_close_gets_the_close(play: Any) -> None:
    one: Play = await play()
    for _ in range(3):
        got = await one.get("Connection: close", path="/health")
        assert (got.status, got.all("connection")) == (200, ["close"])
    assert one.known == 2
    assert (await one.get(path="/health")).all("connection") == []
