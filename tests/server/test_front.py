"""The protocol that owns a client connection, over a transport in memory: every chopping, every ending, no sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from fileproxy.clock import ManualClock
from fileproxy.http.forwarded import Networks
from fileproxy.server.connections import TOLD, Connections, FrontPolicy
from fileproxy.server.ends import LINGER_S, Phase
from fileproxy.server.front import HELD, Front, front_of
from fileproxy.server.heads import HeadLimits
from tests.house import Watched, settled

POLICY = FrontPolicy(
    head=HeadLimits(),
    head_timeout=10.0,
    keepalive_idle=75.0,
    client_idle=60.0,
    half_close_grace=5.0,
    connections=10,
    connections_per_client=None,
    unlimited=Networks([]),
    last_descriptor=10_000,
)
GET = b"GET /f HTTP/1.1\r\nHost: a\r\n\r\n"


class Wire(asyncio.Transport):
    """A transport in memory. ``room`` False: what is written stays in the buffer; the client reads nothing."""

    def __init__(self, peer: str = "192.0.2.1") -> None:
        super().__init__({"peername": (peer, 4000)})
        self.written = b""
        self.buffer = 0
        self.room = True
        self.reading = True
        self.eof = self.closed = self.aborted = False
        self.protocol: Front

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.eof
        assert not self.closed
        self.written += data
        if not self.room:
            self.buffer += len(data)

    def write_eof(self) -> None:
        self.eof = True

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return self.buffer

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            if not self.buffer:
                asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        if not self.aborted:
            self.closed = self.aborted = True
            self.buffer = 0
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    @property
    def statuses(self) -> list[int]:
        return [int(part[:3]) for part in self.written.split(b"HTTP/1.1 ")[1:]]


class Place:
    """Connections with a handler that notes requests and answers ``ok`` once ``go`` is set."""

    def __init__(self, policy: FrontPolicy = POLICY) -> None:
        self.clock = ManualClock()
        self.counts = Watched()
        self.seen: list[tuple[str, bytes | None]] = []
        self.cancelled = 0
        self.go = asyncio.Event()
        self.go.set()
        self.reads_body = True
        server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        self.connections = Connections(server, policy, counters=self.counts, clock=self.clock)
        self.counts.settle = self.connections.count

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        target = front_of(request).head.target
        try:
            body = await request.read() if self.reads_body else None
            self.seen.append((target, body))
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return web.Response(text="ok")

    def connect(self, peer: str = "192.0.2.1") -> tuple[Front, Wire]:
        front, wire = self.connections(), Wire(peer)
        wire.protocol = front
        front.connection_made(wire)
        return front, wire

    @property
    def endings(self) -> dict[str, int]:
        return self.counts.endings


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    one = Place()
    yield one
    await one.connections.close()
    assert one.counts["connections.open"] == 0
    assert len(one.connections) == 0


async def until(condition: Callable[[], object]) -> None:
    await settled(lambda: not condition())
    assert condition()


# --- one request at a time, however the stream is chopped -------------------------------------------------------------

_INNER = b"GET /x HTTP/1.1\r\nHost: evil\r\n\r\n"
MESSAGES: list[tuple[bytes, tuple[str, bytes]]] = [
    (b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n", ("/a", b"")),
    (b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(_INNER), _INNER), ("/b", _INNER)),
    (
        b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: u\r\n\r\n",
        ("/c", b"hello"),
    ),
    (b"\r\nHEAD /d HTTP/1.1\r\nHost: a\r\n\r\n", ("/d", b"")),
    (b"PUT /e HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", ("/e", b"")),
]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, len(MESSAGES) - 1), min_size=1, max_size=6),
    st.lists(st.integers(0, 10_000), max_size=15),
    st.integers(1, 4),
    st.booleans(),
)
async def test_the_handler_sees_the_same_requests_however_they_come(
    picks: list[int], cuts: list[int], turn_every: int, reads_body: bool
) -> None:
    place = Place()
    place.reads_body = reads_body
    front, wire = place.connect()
    stream = b"".join(MESSAGES[pick][0] for pick in picks)
    edges = [0, *sorted(cut % len(stream) for cut in cuts), len(stream)]
    for number, (begin, end) in enumerate(zip(edges, edges[1:], strict=False)):  # noqa: RUF007
        if begin != end:
            front.data_received(stream[begin:end])
        if number % turn_every == 0:
            for _ in range(10):
                await asyncio.sleep(0)
    await until(lambda: len(wire.statuses) == len(picks))
    wanted = [MESSAGES[pick][1] for pick in picks]
    assert place.seen == (wanted if reads_body else [(target, None) for target, _ in wanted])
    assert set(wire.statuses) == {200}
    await until(lambda: front.phase is Phase.IDLE)
    await place.connections.close()


async def test_what_comes_behind_waits_for_the_answer(place: Place) -> None:
    front, wire = place.connect()
    place.go.clear()
    front.data_received(GET + GET)
    await until(lambda: place.seen)
    await asyncio.sleep(0)
    assert len(place.seen) == 1
    assert wire.written == b""
    place.go.set()
    await until(lambda: wire.statuses == [200, 200])


async def test_too_much_behind_pauses_reading(place: Place) -> None:
    front, wire = place.connect()
    place.go.clear()
    large = GET[:-2] + b"X: " + b"y" * 8000 + b"\r\n\r\n"
    count = HELD // len(large) + 3
    front.data_received(large * count)
    assert not wire.reading
    place.go.set()
    await until(lambda: len(wire.statuses) == count)
    assert wire.reading


async def test_a_body_nobody_reads_does_not_become_a_request(place: Place) -> None:
    place.reads_body = False
    front, wire = place.connect()
    front.data_received(b"POST /f HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(GET))
    await until(lambda: wire.statuses == [200])
    assert front.phase is Phase.SERVING  # its body is still to come
    front.data_received(GET + GET)
    await until(lambda: wire.statuses == [200, 200])
    assert len(place.seen) == 2


# --- ends -------------------------------------------------------------------------------------------------------------


async def test_a_bad_head_is_answered_then_lingers_then_closes(place: Place) -> None:
    front, wire = place.connect()
    front.data_received(b"nonsense\r\n\r\n")
    assert (wire.statuses, wire.eof, wire.closed) == ([400], True, False)
    assert front.phase is Phase.LINGERING
    front.data_received(GET)  # thrown away
    await place.clock.advance(LINGER_S)
    place.connections.sweep()
    assert wire.closed
    assert place.seen == []
    assert place.endings == {"malformed": 1}


async def test_lingering_has_a_bound_in_bytes(place: Place) -> None:
    front, wire = place.connect()
    front.data_received(b"nonsense\r\n\r\n")
    for _ in range(20):
        front.data_received(b"x" * 65_536)
    assert wire.closed


async def test_eof_between_requests_closes(place: Place) -> None:
    front, wire = place.connect()
    front.data_received(GET)
    await until(lambda: wire.statuses == [200])
    assert front.eof_received()
    assert wire.closed
    assert not wire.aborted
    assert place.endings == {}


async def test_eof_in_a_head_is_malformed(place: Place) -> None:
    front, wire = place.connect()
    front.data_received(GET[:10])
    front.eof_received()
    assert wire.closed
    assert place.endings == {"malformed": 1}


async def test_eof_in_a_body_cancels_the_handler(place: Place) -> None:
    front, wire = place.connect()
    front.data_received(b"POST /f HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe")
    await asyncio.sleep(0)
    front.eof_received()
    assert wire.aborted
    await until(lambda: place.cancelled == 1)


async def test_eof_while_waiting_is_served_and_then_closed(place: Place) -> None:
    front, wire = place.connect()
    place.go.clear()
    front.data_received(GET + GET)
    await until(lambda: place.seen)
    front.eof_received()
    place.go.set()
    await until(lambda: wire.closed)
    assert wire.statuses == [200, 200]
    assert not wire.aborted


async def test_the_grace_after_eof_ends(place: Place) -> None:
    front, wire = place.connect()
    place.go.clear()
    front.data_received(GET)
    await until(lambda: place.seen)
    front.eof_received()
    await place.clock.advance(4.9)
    place.connections.sweep()
    assert [wire.aborted] == [False]
    await place.clock.advance(0.1)
    place.connections.sweep()
    assert (wire.aborted, front.ending) == (True, "client_gone")
    await until(lambda: place.cancelled == 1)


async def test_a_lost_connection_cancels_the_handler_at_once(place: Place) -> None:
    front, _ = place.connect()
    place.go.clear()
    front.data_received(GET)
    await until(lambda: place.seen)
    front.connection_lost(ConnectionResetError())
    await until(lambda: place.cancelled == 1)


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "after", "status", "ending"),
    [(b"", 75.0, None, None), (GET[:5], 10.0, 408, "head_timeout")],
)
async def test_silence_has_an_end(
    place: Place, sent: bytes, after: float, status: int | None, ending: str | None
) -> None:
    front, wire = place.connect()
    if sent:
        front.data_received(sent)
    await place.clock.advance(after - 0.1)
    place.connections.sweep()
    assert not wire.closed
    assert wire.written == b""
    await place.clock.advance(0.1)
    place.connections.sweep()
    assert wire.statuses == ([] if status is None else [status])
    assert wire.closed or wire.eof
    assert place.endings == ({} if ending is None else {ending: 1})


async def test_a_client_that_does_not_take_the_last_bytes_is_given_up(place: Place) -> None:
    front, wire = place.connect()
    wire.room = False
    front.data_received(GET)
    await until(lambda: wire.statuses == [200])
    assert front.busy
    place.connections.sweep()
    await place.clock.advance(59)
    wire.buffer -= 1  # one byte of progress renews the time
    place.connections.sweep()
    await place.clock.advance(59)
    place.connections.sweep()
    assert [wire.aborted, front.busy] == [False, True]
    await place.clock.advance(1)
    place.connections.sweep()
    assert [wire.aborted, front.busy] == [True, False]


async def test_a_body_that_stops_coming_is_told_to_whoever_reads_it(place: Place) -> None:
    front, wire = place.connect()
    front.data_received(b"POST /f HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n" + b"x" * 2000)
    place.connections.sweep()
    await place.clock.advance(60)
    place.connections.sweep()
    await until(lambda: wire.statuses)
    assert front.last
    assert place.seen == []


# --- how many ---------------------------------------------------------------------------------------------------------


async def test_beyond_the_limit_some_are_told_and_the_rest_reset() -> None:
    place = Place()
    kept = [place.connect() for _ in range(POLICY.connections)]
    told = [place.connect()[1] for _ in range(TOLD)]
    assert all(wire.statuses == [503] and wire.eof and not wire.aborted for wire in told)
    _, last = place.connect()
    assert last.aborted
    assert last.written == b""
    assert place.counts["connections.shed"] == TOLD + 1
    kept[0][0].connection_lost(None)
    front, wire = place.connect()
    front.data_received(GET)
    await until(lambda: wire.statuses == [200])
    await place.connections.close()
    assert place.counts["connections.open"] == 0


async def test_draining_closes_the_idle_and_lets_the_busy_end(place: Place) -> None:
    idle, idle_wire = place.connect()
    idle.data_received(GET)
    await until(lambda: idle_wire.statuses == [200])
    place.go.clear()
    busy, busy_wire = place.connect()
    busy.data_received(GET)
    await until(lambda: len(place.seen) == 2)
    _, new_wire = place.connect()  # has just come, and is about to ask
    place.connections.drain()
    assert idle_wire.closed
    assert not busy_wire.closed
    assert not new_wire.closed
    assert busy.last
    place.go.set()
    await until(lambda: busy_wire.statuses == [200] and busy_wire.eof)
    await place.clock.advance(1)
    place.connections.sweep()
    assert new_wire.closed


@pytest.mark.parametrize(
    ("peername", "peer"),
    [
        (("192.0.2.1", 1), "192.0.2.1"),
        (("::ffff:192.0.2.1", 1, 0, 0), "192.0.2.1"),
        (("::1", 1, 0, 0), "::1"),
        ("", ""),
    ],
)
async def test_the_peers_address(place: Place, peername: Any, peer: str) -> None:
    front, wire = place.connections(), Wire()
    wire._extra["peername"] = peername  # type: ignore[attr-defined]
    wire.protocol = front
    front.connection_made(wire)
    assert front.peer == peer
