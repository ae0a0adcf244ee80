"""A body ends with its end proved, or raises; and what came in time is handed on first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fileproxy.errors import BadAnswer, FileProxyError, IdleTimeout, Truncated, UpstreamReset
from fileproxy.model import Answer, BytesBody, has_landed
from fileproxy.upstream import body as upstream_body
from fileproxy.upstream.body import READS, HttpBody
from tests.house import Watched, settled
from tests.origin import KIB, MIB, Content, Gate, Origin, Reply, fin, reset, stall
from tests.upstream.conftest import MakeTransport, read, want

pytestmark = pytest.mark.loops("asyncio", "uvloop")
FILE = Content(6, 3 * MIB)


async def taken(asked: Awaitable[Answer]) -> tuple[bytes, FileProxyError | None]:
    """What came, and how it ended."""
    data = bytearray()
    try:
        answer = await asked
    except FileProxyError as error:
        return b"", error
    try:
        async for piece in answer.body:
            assert isinstance(piece, bytes)
            data += piece
    except FileProxyError as error:
        return bytes(data), error
    finally:
        await answer.body.aclose()
    return bytes(data), None


async def _ready(answer: Answer) -> Answer:
    return answer


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_whole(origin: Origin, transport: MakeTransport, framing: str) -> None:
    origin.script("/f", Reply(FILE, framing=framing))  # type: ignore[arg-type]
    made, _ = transport(origin)
    answer = await made.fetch(want())
    assert answer.body.framed == (framing != "close")
    assert answer.body.length == (FILE.size if framing == "length" else None)
    assert await taken(_ready(answer)) == (FILE.read(), None)


@pytest.mark.parametrize("at", [1, 70_000, MIB + 1])
@pytest.mark.parametrize(
    ("framing", "how", "kinds"),
    [
        ("length", fin, (Truncated,)),
        ("length", reset, (UpstreamReset, Truncated)),
        ("chunked", fin, (Truncated,)),
        ("chunked", reset, (UpstreamReset, Truncated)),
        ("close", reset, (UpstreamReset,)),
    ],
)
async def test_cut(
    origin: Origin,
    transport: MakeTransport,
    framing: str,
    how: Callable[[int], object],
    kinds: tuple[type[FileProxyError], ...],
    at: int,
) -> None:
    origin.script("/f", Reply(FILE, framing=framing, breaks=how(at)))  # type: ignore[arg-type]
    made, _ = transport(origin)
    data, error = await taken(made.fetch(want()))
    assert isinstance(error, kinds)
    assert FILE.read(0, at).startswith(data)
    if how is fin:
        assert len(data) == at  # nothing of what came is lost (a reset may overtake bytes in the kernel)


async def test_what_came_before_the_break_is_handed_on(origin: Origin, transport: MakeTransport) -> None:
    """aiohttp forgets what is in its buffer when the connection breaks before it was read."""
    origin.script("/f", Reply(FILE, framing="chunked", breaks=fin(at=100 * KIB)))  # chunked: no byte is awaited
    made, _ = transport(origin)
    answer = await made.fetch(want())
    assert isinstance(answer.body, HttpBody)
    content = answer.body._content
    await settled(lambda: content.exception() is None)
    data, error = await taken(_ready(answer))
    assert data == FILE.read(0, 100 * KIB)
    assert isinstance(error, Truncated)


@pytest.mark.parametrize("fault", ["bad_size", "no_crlf", "truncated"])
async def test_chunks_that_break_the_rules(origin: Origin, transport: MakeTransport, fault: str) -> None:
    origin.script("/f", Reply(FILE, framing="chunked", chunk_fault=fault, chunk=1 * MIB))  # type: ignore[arg-type]
    made, _ = transport(origin)
    async with asyncio.timeout(10):  # none may hang
        data, error = await taken(made.fetch(want()))
    assert isinstance(error, BadAnswer | Truncated | UpstreamReset)
    assert FILE.read().startswith(data)
    await origin.wait_for(lambda: origin.open == 0)


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("after", ["close", "fin"])
async def test_a_slow_reader_gets_every_byte(
    origin: Origin, transport: MakeTransport, framing: str, after: str
) -> None:
    """aiohttp issue 13348: all bytes are here and the origin has closed before the reader is through."""
    origin.script("/f", Reply(FILE, framing=framing, after=after))  # type: ignore[arg-type]
    made, _ = transport(origin, pool={"buffer": "1KiB"})
    answer = await made.fetch(want())
    data = bytearray()
    async for piece in answer.body:
        assert isinstance(piece, bytes)
        data += piece
        for _ in range(3):
            await asyncio.sleep(0)  # the loop goes on reading, the buffer fills and pauses it
    await answer.body.aclose()
    assert bytes(data) == FILE.read()


async def test_the_last_bytes_and_the_reset_come_together(origin: Origin, transport: MakeTransport) -> None:
    origin.script("/f", Reply(b"x" * 3000, after="fin"))
    made, _ = transport(origin)
    answer = await made.fetch(want())
    await origin.wait_for(lambda: origin.open == 0)
    assert await taken(_ready(answer)) == (b"x" * 3000, None)


@pytest.mark.option("upstreams.timeouts.idle")
@pytest.mark.parametrize("at", [1, 5000])
async def test_silence_is_given_up_after_the_idle_time(origin: Origin, transport: MakeTransport, at: int) -> None:
    origin.script("/f", Reply(FILE, breaks=stall(at)))
    made, _ = transport(origin, timeouts={"idle": "50ms"})
    data, error = await taken(made.fetch(want()))
    assert data == FILE.read(0, at)
    assert isinstance(error, IdleTimeout)
    assert f"after byte {at}" in error.detail
    await origin.wait_for(lambda: origin.open == 0)


async def test_a_drip_is_given_up_too(origin: Origin, transport: MakeTransport) -> None:
    origin.script("/f", Reply(b"x" * 3000, framing="chunked", chunk=1, rate=200.0))
    made, _ = transport(origin, timeouts={"idle": "200ms"})
    data, error = await taken(made.fetch(want()))
    assert isinstance(error, IdleTimeout)
    assert 0 < len(data) < 1024


async def test_progress_goes_on_for_longer_than_every_timeout(origin: Origin, transport: MakeTransport) -> None:
    """1 KiB each 20 ms: twenty idle times long, and never given up."""
    origin.script("/f", Reply(Content(1, 64 * KIB), framing="chunked", chunk=KIB, rate=50.0 * KIB))
    made, _ = transport(origin, timeouts={"idle": "400ms", "first_byte": "400ms"})
    assert await read(await made.fetch(want())) == Content(1, 64 * KIB).read()


async def test_a_slow_reader_is_not_the_origins_fault(origin: Origin, transport: MakeTransport) -> None:
    origin.script("/f", Reply(FILE))
    made, _ = transport(origin, timeouts={"idle": "50ms"})
    answer = await made.fetch(want())
    iterator = aiter(answer.body)
    data = bytearray()
    for _ in range(2):
        piece = await anext(iterator)
        assert isinstance(piece, bytes)
        data += piece
        await asyncio.sleep(0.1)  # longer than idle
    async for piece in iterator:
        assert isinstance(piece, bytes)
        data += piece
    await answer.body.aclose()
    assert bytes(data) == FILE.read()


async def test_little_is_read_ahead(origin: Origin, transport: MakeTransport, counts: Watched) -> None:
    file = Content(1, 64 * MIB)
    origin.serve("/f", file)
    made, _ = transport(origin, pool={"buffer": "64KiB"}, sockets={"receive_buffer": "64KiB"})
    answer = await made.fetch(want())
    await anext(aiter(answer.body))
    for _ in range(1000):
        await asyncio.sleep(0)
    assert origin.sent["/f"] < 16 * MIB
    await answer.body.aclose()


# --- closing ---------------------------------------------------------------------------------------------------------


async def test_a_body_that_is_given_up_closes_its_connection(origin: Origin, transport: MakeTransport) -> None:
    origin.serve("/f", Content(1, 64 * MIB))
    made, _ = transport(origin)
    answer = await made.fetch(want())
    await answer.body.aclose()
    await answer.body.aclose()
    await origin.wait_for(lambda: origin.open == 0)
    with pytest.raises(UpstreamReset, match="closed"):
        await anext(aiter(answer.body))


async def test_an_answer_that_is_here_unread_keeps_the_connection(origin: Origin, transport: MakeTransport) -> None:
    origin.script("/f", Reply(b"x" * 1000, status=503, framing="chunked"), Reply(b"y"))
    made, _ = transport(origin)
    answer = await made.fetch(want())
    assert isinstance(answer.body, HttpBody)
    content = answer.body._content
    await settled(lambda: not content.is_eof())
    await answer.body.aclose()
    assert await read(await made.fetch(want())) == b"y"
    assert origin.accepted == 1


async def test_it_has_landed_once_all_of_it_is_here(origin: Origin, transport: MakeTransport) -> None:
    origin.script(
        "/f", Reply(b"x" * 1000, framing="chunked"), Reply(b"x" * 1000, breaks=stall(500)), Reply(b"x" * 1000)
    )
    made, _ = transport(origin)
    chunked, part, whole = [await made.fetch(want()) for _ in range(3)]
    await settled(lambda: not has_landed(whole.body))
    assert [has_landed(one.body) for one in (chunked, part, whole)] == [False, False, True]
    assert not has_landed(BytesBody(b"x"))  # it never was on its way
    assert await read(whole) == b"x" * 1000
    assert has_landed(whole.body)
    for one in (chunked, part):
        await one.body.aclose()


async def test_a_rest_that_is_not_here_is_not_waited_for(origin: Origin, transport: MakeTransport) -> None:
    gate = Gate()
    origin.script("/f", Reply(b"x" * 1000, breaks=stall(500, gate)))
    made, _ = transport(origin)
    answer = await made.fetch(want())
    await answer.body.aclose()
    await origin.wait_for(lambda: origin.open == 0)


async def test_pieces_of_a_long_answer_end_where_blocks_do(
    origin: Origin, transport: MakeTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else their ends would have to be joined to blocks."""
    monkeypatch.setattr(upstream_body, "SOON_S", 3600.0)  # however busy this machine is
    monkeypatch.setattr(upstream_body, "LATE_S", 3600.0)
    file = Content(6, 9 * MIB)
    origin.script("/f", Reply(file))
    made, _ = transport(origin)
    answer = await made.fetch(want())
    at, longest = 0, 0
    async for piece in answer.body:
        assert isinstance(piece, bytes)
        if longest:  # the first one came with the head
            assert at // READS[1] == (at + len(piece) - 1) // READS[1]
        longest = max(longest, len(piece))
        at += len(piece)
        await asyncio.sleep(0.002)  # so much waits in the socket that it could be more
    await answer.body.aclose()
    assert at == file.size
    assert longest >= 4 * READS[0]  # how much waits is the kernel's matter


@pytest.mark.parametrize("length", [FILE.size, 100 * KIB])
async def test_of_a_long_answer_nothing_is_read_ahead_of_who_takes_it(
    origin: Origin, transport: MakeTransport, length: int
) -> None:
    """What came with the head is enough to begin with; a short answer is read on as it comes."""
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode()
    origin.script("/f", Reply(raw=head + FILE.read(0, length)), Reply(FILE))
    made, _ = transport(origin)
    answer = await made.fetch(want())
    body = answer.body
    assert isinstance(body, HttpBody)
    came = body._content.total_bytes
    assert (body._paused is not None) == (length == FILE.size)
    if body._paused is not None:
        assert not body._paused.is_reading()
        await origin.wait_for(lambda: origin.open == 1)
        assert body._content.total_bytes == came
    assert await taken(_ready(answer)) == (FILE.read(0, length), None)
    assert await taken(made.fetch(want())) == (FILE.read(), None)


async def test_an_answer_that_nobody_takes_lets_its_connection_go(origin: Origin, transport: MakeTransport) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {FILE.size}\r\n\r\n".encode()
    origin.script("/f", Reply(raw=head + FILE.read()))
    made, _ = transport(origin)
    await (await made.fetch(want())).body.aclose()
    await origin.wait_for(lambda: origin.open == 0)
