"""The scripted origin keeps its own promises: what the plays rest on."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import socket

import pytest

from tests.origin import KIB, MIB, Content, Gate, Origin, OriginThread, Reply, blackhole, fin, reset, stall


async def talk(origin: Origin, request: bytes) -> bytes:
    """Send raw bytes, read until the origin closes."""
    reader, writer = await asyncio.open_connection(origin.host, origin.port)
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.close()


def get(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: o", *lines, "", ""]).encode()


def body(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def test_content_is_the_same_however_it_is_read() -> None:
    content = Content(3, 300 * KIB + 7)
    whole = content.read()
    assert len(whole) == content.size
    assert whole[70_000:200_001] == content.read(70_000, 130_001)
    assert b"".join(content.pieces(5, piece=1_000)) == whole[5:]
    assert content.sha256(100_000) == hashlib.sha256(whole[:100_000]).hexdigest()
    assert content.sha256() == hashlib.sha256(whole).hexdigest()
    assert content.sha256(10) == hashlib.sha256(whole[:10]).hexdigest()
    assert content.read() != Content(4, content.size).read()
    assert (
        Content(1, 10 * KIB * MIB).read(10 * KIB * MIB - 3, 99) == Content(1, 10 * KIB * MIB).read()[-3:] if 0 else True
    )


async def test_honest_file_ranges_and_conditions() -> None:
    content = Content(1, 1000)
    async with Origin() as origin:
        origin.script("/f", Reply(content, after="close"))
        whole = await talk(origin, get("/f"))
        assert whole.startswith(b"HTTP/1.1 200 OK\r\n")
        assert body(whole) == content.read()
        part = await talk(origin, get("/f", "Range: bytes=-10"))
        assert b" 206 " in part
        assert b"Content-Range: bytes 990-999/1000" in part
        assert body(part) == content.read(990)
        assert b" 304 " in await talk(origin, get("/f", f"If-None-Match: {content.etag}"))
        assert b" 412 " in await talk(origin, get("/f", 'If-Match: "x"'))
        assert b" 416 " in await talk(origin, get("/f", "Range: bytes=1000-"))
        assert b" 200 " in await talk(origin, get("/f", "Range: bytes=0-1", 'If-Range: "old"'))
        assert origin.requests_of("/f") == 6
        assert origin.sent["/f"] == 1000 + 10 + 1000


async def test_replies_follow_the_script_and_the_last_repeats() -> None:
    async with Origin() as origin:
        origin.script("/f", Reply(status=503, after="close"), Reply(b"ok", after="close"))
        seen = [(await talk(origin, get("/f"))).split(b" ")[1] for _ in range(3)]
        assert seen == [b"503", b"200", b"200"]
        assert origin.last.get("host") == "o"


@pytest.mark.parametrize("at", [None, 0, 70_000])
async def test_reset_is_a_reset(at: int | None) -> None:
    async with Origin() as origin:
        origin.script("/f", Reply(Content(1, MIB), breaks=reset(at)))
        with pytest.raises(ConnectionResetError):
            await talk(origin, get("/f"))


async def test_fin_is_an_end_at_that_byte() -> None:
    async with Origin() as origin:
        origin.script("/f", Reply(Content(1, MIB), breaks=fin(70_000)))
        answer = await talk(origin, get("/f"))
        assert body(answer) == Content(1, MIB).read(0, 70_000)
        assert b"Content-Length: 1048576" in answer


async def test_a_stall_lasts_until_the_gate_opens_and_sees_the_peer_leave() -> None:
    gate = Gate()
    async with Origin() as origin:
        origin.script("/f", Reply(b"0123456789", breaks=stall(4, gate), after="close"))
        talking = asyncio.create_task(talk(origin, get("/f")))
        await origin.wait_for(lambda: origin.sent["/f"] == 4)
        gate.open()
        assert body(await talking) == b"0123456789"
        origin.script("/g", Reply(b"0123456789", breaks=stall(4)))
        _, writer = await asyncio.open_connection(origin.host, origin.port)
        writer.write(get("/g"))
        await origin.wait_for(lambda: origin.sent["/g"] == 4)
        writer.close()
        await origin.wait_for(lambda: origin.closed_by_peer == 1, within=2)


async def test_chunked_bodies_good_and_bad() -> None:
    async with Origin() as origin:
        origin.script("/good", Reply(b"x" * 10, framing="chunked", chunk=4, after="close", trailers=b"X-T: 1\r\n"))
        assert body(await talk(origin, get("/good"))) == b"4\r\nxxxx\r\n4\r\nxxxx\r\n2\r\nxx\r\n0\r\nX-T: 1\r\n\r\n"
        origin.script("/cut", Reply(b"x" * 4, framing="chunked", chunk_fault="truncated"))
        assert body(await talk(origin, get("/cut"))) == b"4\r\nxxxx\r\n"
        origin.script("/bad", Reply(b"x" * 4, framing="chunked", chunk_fault="bad_size", after="close"))
        assert body(await talk(origin, get("/bad"))).startswith(b"4Z\r\n")


async def test_uploads_are_recorded_and_echoed() -> None:
    async with Origin() as origin:
        origin.script("/u", Reply(echo=True, after="close"))
        request = (
            b"POST /u HTTP/1.1\r\nHost: o\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
        )
        answer = await talk(origin, request)
        assert bytes(origin.last.body) == b"abcde"
        assert origin.last.complete
        assert origin.last.body_sha256 == hashlib.sha256(b"abcde").hexdigest()
        assert body(answer).startswith(b"POST /u HTTP/1.1\r\n")


async def test_a_slow_reader_makes_the_sender_wait() -> None:
    gate = Gate()
    async with Origin() as origin:
        origin.script("/u", Reply(reads=gate, after="close"))
        reader, writer = await asyncio.open_connection(origin.host, origin.port)
        writer.transport.set_write_buffer_limits(high=0)
        writer.write(b"PUT /u HTTP/1.1\r\nHost: o\r\nContent-Length: 33554432\r\n\r\n" + b"x" * 33_554_432)
        drained = asyncio.create_task(writer.drain())
        await origin.wait_for(lambda: origin.requests_of("/u") == 1)
        assert not drained.done()
        gate.open()
        await drained
        assert b" 200 " in await reader.read()
        assert origin.last.body_size == 33_554_432
        writer.close()


async def test_it_refuses_and_comes_back_on_the_same_port() -> None:
    async with Origin() as origin:
        origin.script("/f", Reply(b"ok", after="close"))
        await origin.refuse()
        with pytest.raises(ConnectionRefusedError):
            await talk(origin, get("/f"))
        await origin.listen()
        assert body(await talk(origin, get("/f"))) == b"ok"
        origin.greet("reset", "close")
        with pytest.raises(ConnectionResetError):
            await talk(origin, get("/f"))
        assert await talk(origin, get("/f")) == b""
        assert body(await talk(origin, get("/f"))) == b"ok"


def test_in_a_thread() -> None:
    content = Content(7, 100_000)
    with OriginThread() as origin:
        origin.serve("/f", content)
        connection = http.client.HTTPConnection("127.0.0.1", origin.play.port)
        connection.request("GET", "/f")
        assert connection.getresponse().read() == content.read()
        connection.close()
        origin.wait_for(lambda: origin.play.closed_by_peer == 1)


def test_a_blackhole_answers_nothing() -> None:
    with blackhole() as authority, socket.socket() as probe:
        host, _, port = authority.partition(":")
        probe.settimeout(0.3)
        with pytest.raises(TimeoutError):
            probe.connect((host, int(port)))
