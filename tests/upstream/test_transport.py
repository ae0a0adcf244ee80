"""One try with one HTTP server: exactly what was asked goes out, only what is sound comes in."""

from __future__ import annotations

import asyncio

import pytest

from fileproxy.errors import (
    BadAnswer,
    ClientGone,
    FirstByteTimeout,
    IdleTimeout,
    Shed,
    Truncated,
    UpstreamError,
    UpstreamReset,
)
from fileproxy.upstream.attempt import Patience
from tests.house import Watched, settled
from tests.origin import MIB, Content, Gate, Origin, Reply, fin, reset, stall
from tests.upstream.conftest import MakeTransport, Upload, read, want

pytestmark = pytest.mark.loops("asyncio", "uvloop")


async def test_an_answer(origin: Origin, transport: MakeTransport, counts: Watched) -> None:
    file = Content(1, 2 * MIB)
    origin.script("/f", Reply(file, headers=(("X-A", "1"), ("x-a", "2"), ("Keep-Alive", "timeout=9"))))
    made, _ = transport(origin)
    answer = await made.fetch(want("/f?q=%20"))
    assert (answer.status, answer.reason, answer.mirror) == (200, "OK", made.label)
    assert [pair for pair in answer.headers if pair[0].lower() == "x-a"] == [("X-A", "1"), ("x-a", "2")]
    assert "keep-alive" not in {name.lower() for name, _ in answer.headers}
    assert set(answer.timings) == {"queue", "connect", "first_byte"}
    assert await read(answer) == file.read()
    assert counts["bytes.from_upstreams"] == counts.of("mirror.bytes", made.label) == file.size
    assert counts.of("mirror.first_byte", made.label) == 1


@pytest.mark.parametrize("size", [0, 10, 2 * MIB])
async def test_an_answer_knows_the_path_it_came_over(origin: Origin, transport: MakeTransport, size: int) -> None:
    origin.script("/f", Reply(Content(1, size)))
    made, _ = transport(origin)
    answer = await made.fetch(want("/f"))
    path = answer.path
    assert path is not None
    assert path.mirror == made.label
    assert path.rtt_s is not None
    assert 0 < path.rtt_s < 5
    await read(answer)
    info = path.tcp()  # the connection is kept
    assert info is not None
    assert info.bytes_received >= size


async def test_the_request_is_exactly_what_was_wanted(origin: Origin, transport: MakeTransport) -> None:
    made, _ = transport(f"{origin.url}", prefix="/base/", headers={"X-Key": "k", "authorization": "ours"})
    headers = (("Accept", "a"), ("accept", "b"), ("Authorization", "theirs"), ("Host", "evil"), ("Range", "bytes=0-"))
    await read(await made.fetch(want("/a%2fb/?x?&%zz", headers=headers)))
    assert origin.last.head == (
        f"GET /base/a%2fb/?x?&%zz HTTP/1.1\r\nHost: {origin.authority}\r\nAccept: a\r\nAccept: b\r\n"
        "Range: bytes=0-\r\nX-Key: k\r\nauthorization: ours\r\n\r\n"
    ).encode("latin-1")


async def test_bytes_outside_utf8_arrive_as_they_were(origin: Origin, transport: MakeTransport) -> None:
    made, _ = transport(origin)
    await read(await made.fetch(want("/f", headers=(("X-Name", "\udce4\udcf6ä"),))))
    assert b"X-Name: \xe4\xf6\xc3\xa4\r\n" in origin.last.head


@pytest.mark.option("upstreams.host")
@pytest.mark.parametrize(("host", "sent"), [("preserve", "client.example:81"), ("fixed.example", "fixed.example")])
async def test_host(origin: Origin, transport: MakeTransport, host: str, sent: str) -> None:
    made, _ = transport(origin, host=host)
    await read(await made.fetch(want("/f", authority="client.example:81")))
    assert origin.last.all("host") == [sent]


# --- request bodies --------------------------------------------------------------------------------------------------


async def test_an_upload_is_framed_by_its_length_or_by_chunks(origin: Origin, transport: MakeTransport) -> None:
    made, _ = transport(origin)
    await read(await made.fetch(want("/f", method="POST", body=Upload([b"ab", b"c"], length=3))))
    assert (bytes(origin.last.body), origin.last.get("content-length")) == (b"abc", "3")
    assert origin.last.get("transfer-encoding") is None
    await read(await made.fetch(want("/f", method="POST", body=Upload([b"ab", b"c"]))))
    assert (bytes(origin.last.body), origin.last.get("transfer-encoding")) == (b"abc", "chunked")


async def test_when_the_clients_body_fails_that_is_the_error(origin: Origin, transport: MakeTransport) -> None:
    made, _ = transport(origin)
    with pytest.raises(ClientGone):
        await made.fetch(want("/f", method="POST", body=Upload([b"ab", ClientGone("left")], length=3)))
    await origin.wait_for(lambda: origin.open == 0)
    assert not origin.last.complete


async def test_an_origin_that_breaks_inside_an_upload(origin: Origin, transport: MakeTransport) -> None:
    origin.script("/f", Reply(reads="none", breaks=reset()))
    made, _ = transport(origin)
    with pytest.raises(UpstreamReset):
        await made.fetch(want("/f", method="POST", body=Upload([b"x" * 65536] * 400, length=65536 * 400)))


async def test_an_answer_before_the_upload_ends_it(origin: Origin, transport: MakeTransport) -> None:
    origin.script("/f", Reply(b"too much", status=413, reads="none", after="close"))
    made, _ = transport(origin)
    answer = await made.fetch(want("/f", method="POST", body=Upload([b"x" * 65536] * 400, length=65536 * 400)))
    assert answer.status == 413
    await answer.body.aclose()


async def test_an_origin_that_takes_no_more_of_an_upload(origin: Origin, transport: MakeTransport) -> None:
    gate = Gate()
    origin.script("/f", Reply(reads=gate))
    made, _ = transport(origin, timeouts={"idle": "100ms"})
    with pytest.raises(IdleTimeout, match="request body"):
        await made.fetch(want("/f", method="POST", body=Upload([b"x" * 65536] * 400, length=65536 * 400)))
    gate.open()


# --- deadlines -------------------------------------------------------------------------------------------------------


@pytest.mark.option("upstreams.timeouts.first_byte")
@pytest.mark.parametrize("at", [None, 0])
async def test_no_first_byte_in_time(origin: Origin, transport: MakeTransport, at: int | None) -> None:
    """Whether the head is missing or the first byte of a body that was announced."""
    origin.script("/f", Reply(b"x" * 100, breaks=stall(at)))
    made, _ = transport(origin, timeouts={"first_byte": "50ms"})
    with pytest.raises(FirstByteTimeout, match=r"0\.05 s"):
        await made.fetch(want())
    await origin.wait_for(lambda: origin.open == 0)


async def test_a_caller_may_be_less_patient(origin: Origin, transport: MakeTransport) -> None:
    origin.script("/f", Reply(breaks=stall()))
    made, _ = transport(origin)
    with pytest.raises(FirstByteTimeout):
        await made.fetch(want(), Patience(queue_s=30.0, first_byte_s=0.05, idle_s=30.0))


async def test_no_free_connection_in_time_is_our_own_shortage(
    origin: Origin, transport: MakeTransport, counts: Watched
) -> None:
    origin.script("/f", Reply(Content(1, 10 * MIB)))
    made, _ = transport(origin, pool={"limit": 1})
    busy = await made.fetch(want())
    with pytest.raises(Shed, match="no free connection"):
        await made.fetch(want(), Patience(queue_s=0.05, first_byte_s=30.0, idle_s=30.0))
    await busy.body.aclose()
    assert origin.accepted == 1


async def test_whoever_is_cancelled_closes_the_connection(origin: Origin, transport: MakeTransport) -> None:
    origin.script("/f", Reply(breaks=stall()))
    made, _ = transport(origin)
    asking = asyncio.create_task(made.fetch(want()))
    await origin.wait_for(lambda: origin.requests_of("/f") == 1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await origin.wait_for(lambda: origin.open == 0)


# --- kept connections ------------------------------------------------------------------------------------------------


async def test_connections_are_kept(origin: Origin, transport: MakeTransport, counts: Watched) -> None:
    origin.serve("/f", b"x")
    made, _ = transport(origin)
    for _ in range(3):
        assert await read(await made.fetch(want())) == b"x"
    assert origin.accepted == counts["upstream.connections"] == 1
    assert counts["upstream.reused"] == 2


async def test_a_kept_connection_that_was_closed_meanwhile_is_replaced(
    origin: Origin, transport: MakeTransport
) -> None:
    """The other side answers a reused connection with a reset: the same try goes on with a new one."""
    origin.script("/f", Reply(b"x"), Reply(breaks=reset()), Reply(b"y"))
    made, _ = transport(origin)
    assert await read(await made.fetch(want())) == b"x"
    assert await read(await made.fetch(want())) == b"y"
    assert origin.accepted == 2


async def test_but_not_for_what_must_not_be_sent_twice(origin: Origin, transport: MakeTransport) -> None:
    origin.script("/f", Reply(b"x"), Reply(breaks=reset()), Reply(b"y"))
    made, _ = transport(origin)
    assert await read(await made.fetch(want())) == b"x"
    with pytest.raises(UpstreamReset):
        await made.fetch(want(method="POST", body=Upload([b"a"], length=1)))
    assert origin.requests_of("/f") == 2


async def test_a_fresh_connection_that_breaks_is_a_failed_try(origin: Origin, transport: MakeTransport) -> None:
    origin.script("/f", Reply(breaks=fin()))
    made, _ = transport(origin)
    with pytest.raises(UpstreamReset):
        await made.fetch(want())
    assert origin.requests_of("/f") == 1


async def test_an_answer_nobody_asked_for_is_never_taken(origin: Origin, transport: MakeTransport) -> None:
    """A mirror that sends two answers to one request could put its bytes under any name."""
    unasked = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    origin.script("/f", Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx" + unasked))
    origin.serve("/g", b"good")
    made, _ = transport(origin)
    assert await read(await made.fetch(want("/f"))) == b"x"
    assert await read(await made.fetch(want("/g"))) == b"good"
    assert origin.accepted == 2


async def test_nor_one_that_comes_while_the_connection_is_idle(transport: MakeTransport) -> None:
    """aiohttp would take it for the answer to the next request."""
    push = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
        await push.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        made, connections = transport(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert await read(await made.fetch(want("/f"))) == b"good"
        (protocol,) = connections._known
        push.set()
        await settled(lambda: not protocol.should_close)
        assert await read(await made.fetch(want("/g"))) == b"good"
        assert len(connections._known) == 2
        await connections.close()


# --- answers that are none -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nx",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\0c\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\rc\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    ],
)
async def test_what_is_not_sound_is_refused(origin: Origin, transport: MakeTransport, raw: bytes) -> None:
    origin.script("/f", Reply(raw=raw, after="fin"))
    made, _ = transport(origin)
    with pytest.raises(BadAnswer, match=origin.authority):
        await made.fetch(want())
    await origin.wait_for(lambda: origin.open == 0)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b"X: b\r\n\t c", "b\t c"),  # obs-fold (RFC 9112 §5.2)
        (b"X: b\x01c\x7f", "b c "),
        (b"X:\tb\tc \t", "b\tc"),
    ],
)
async def test_what_a_value_must_not_hold_becomes_a_space(
    origin: Origin, transport: MakeTransport, line: bytes, value: str
) -> None:
    origin.script("/f", Reply(raw=b"HTTP/1.1 200 O\x01K\r\n" + line + b"\r\nContent-Length: 1\r\n\r\nx"))
    made, _ = transport(origin)
    answer = await made.fetch(want())
    assert (answer.reason, [found for name, found in answer.headers if name == "X"]) == ("O K", [value])
    assert await read(answer) == b"x"


@pytest.mark.option("limits.response_head")
async def test_a_head_that_is_too_long(origin: Origin, transport: MakeTransport) -> None:
    origin.script("/f", Reply(b"x", headers=(("X-Long", "y" * 900),)))
    wide, _ = transport(origin, response_head=4096)
    assert await read(await wide.fetch(want())) == b"x"
    narrow, _ = transport(origin, response_head=1024)
    with pytest.raises(BadAnswer, match="response_head"):
        await narrow.fetch(want())
    origin.script("/f", Reply(b"x", headers=tuple((f"X-{number}", "y") for number in range(200))))
    with pytest.raises(BadAnswer):
        await narrow.fetch(want())


async def test_an_endless_head_is_not_read_to_its_end(origin: Origin, transport: MakeTransport) -> None:
    origin.script("/f", Reply(raw=b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 10 * MIB))
    made, _ = transport(origin)
    with pytest.raises(UpstreamError):
        await made.fetch(want())
    await origin.wait_for(lambda: origin.open == 0)


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body(origin: Origin, transport: MakeTransport, status: int) -> None:
    origin.script("/f", Reply(status=status))
    made, _ = transport(origin)
    for _ in range(2):
        answer = await made.fetch(want())
        assert (answer.status, answer.body.length, await read(answer)) == (status, 0, b"")
    assert origin.accepted == 1


async def test_head_has_a_length_and_no_body(origin: Origin, transport: MakeTransport) -> None:
    origin.serve("/f", Content(1, MIB))
    made, _ = transport(origin)
    answer = await made.fetch(want(method="HEAD"))
    assert ("Content-Length", str(MIB)) in answer.headers
    assert await read(answer) == b""


async def test_interim_answers_are_skipped(origin: Origin, transport: MakeTransport) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    origin.script("/f", Reply(b"x", interim=(hints, b"HTTP/1.1 100 Continue\r\n\r\n")))
    made, _ = transport(origin)
    assert await read(await made.fetch(want())) == b"x"


async def test_a_body_cut_before_its_first_byte_fails_the_try(origin: Origin, transport: MakeTransport) -> None:
    origin.script("/f", Reply(b"x" * 100, breaks=fin(at=0)))
    made, _ = transport(origin)
    with pytest.raises((Truncated, UpstreamReset)):
        await made.fetch(want())
