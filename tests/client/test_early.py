"""The request that goes out before the engine is imported: taken over exactly, or forgotten without a trace."""

from __future__ import annotations

import asyncio
import socket
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.client import Client, DownloadFailed
from fileproxy.client import early as module
from fileproxy.client.contact import FIRST
from fileproxy.client.early import AHEAD_BYTES, FAR_BYTES, NEAR_BYTES, NEAR_S, Early, read_url
from fileproxy.client.mirrors import source_of
from fileproxy.client.speed import median
from fileproxy.control.growth import LONG_S
from tests.client.conftest import Get
from tests.origin import MIB, Content, Gate, Origin, Reply, fin, reset

pytestmark = pytest.mark.loops("asyncio", "uvloop")

BIG = Content(seed=51, size=5 * MIB + 321)
HUGE = Content(seed=52, size=40 * MIB)
SMALL = Content(seed=53, size=900)


@pytest.fixture
def begin() -> Iterator[Callable[..., Early]]:
    """``begin(origin)``: the first request for ``/f``, under way. In the end nothing of it is left."""
    made: list[Early] = []

    def one(origin: Origin | str, **options: Any) -> Early:
        found = read_url(origin if isinstance(origin, str) else f"{origin.url}/f")
        assert found is not None
        made.append(Early(*found, **options))
        return made[-1]

    yield one
    for early in made:
        early.drop()
        early.settle()
        assert not early.ready


async def until(condition: Callable[[], Any], what: str) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)
    assert condition(), what


# --- taken over ------------------------------------------------------------------------------------------------------


async def test_it_is_the_first_request_and_the_only_one(origin: Origin, get: Get, begin: Callable[..., Early]) -> None:
    origin.serve("/f", BIG)
    early = begin(origin)
    await until(lambda: sum(map(len, early.pieces)) > BIG.size, "the whole answer")
    result = await get(origin, content=BIG, client=Client(early=early))
    assert (len(origin.requests), origin.accepted) == (1, 1)
    assert origin.requests[0].get("range") == f"bytes=0-{NEAR_BYTES - 1}"
    assert result.fetched == BIG.size == origin.sent["/f"]


async def test_what_is_sent_is_what_the_engine_would_have_sent(
    origin: Origin, get: Get, begin: Callable[..., Early], out: Path
) -> None:
    origin.serve("/f", SMALL)
    await get(origin, content=SMALL)
    await get(origin, content=SMALL, client=Client(early=begin(origin, alone=False)), path=out.with_name("g"))
    without, early = (request.head for request in origin.requests)
    assert without == early


async def test_a_server_that_is_slower_than_the_imports(origin: Origin, get: Get, begin: Callable[..., Early]) -> None:
    gate = Gate()
    origin.script("/f", Reply(BIG, before_head=gate), Reply(BIG))
    client = Client(early=begin(origin))
    await until(lambda: origin.requests, "asked")
    running = asyncio.ensure_future(get(origin, content=BIG, client=client))
    await until(lambda: client._early is None, "taken")
    gate.open()
    await running
    assert origin.requests[0].get("if-range") is None
    assert origin.accepted == 1


async def test_more_than_it_may_hold_waits_in_the_kernel(
    origin: Origin, get: Get, begin: Callable[..., Early], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AHEAD_BYTES", 1 * MIB)
    origin.serve("/f", HUGE)
    early = begin(origin)
    await until(lambda: early.settled, "read enough")
    assert sum(map(len, early.pieces)) == 1 * MIB
    await get(origin, content=HUGE, client=Client(early=early))
    assert AHEAD_BYTES < NEAR_BYTES


@pytest.mark.parametrize("ranges", ["honour", "ignore"])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_every_kind_of_answer(
    origin: Origin, get: Get, begin: Callable[..., Early], ranges: Any, framing: Any
) -> None:
    origin.script("/f", Reply(BIG, ranges=ranges, framing=framing))
    await get(origin, content=BIG, client=Client(early=begin(origin)), accept_unframed=True)


async def test_a_redirect_is_followed(origin: Origin, mirror: Origin, get: Get, begin: Callable[..., Early]) -> None:
    origin.script("/f", Reply(status=302, headers=(("Location", f"{mirror.url}/there"),)))
    mirror.serve("/there", BIG)
    client = Client(early=begin(origin))
    await get(origin, content=BIG, client=client)
    assert len(origin.requests) == 1
    assert client.statistics().redirects >= 1


async def test_an_empty_file_answers_416(origin: Origin, get: Get, begin: Callable[..., Early]) -> None:
    origin.serve("/f", b"")
    result = await get(origin, client=Client(early=begin(origin)))
    assert result.size == 0
    assert [request.status for request in origin.requests] == [416, 200]


@pytest.mark.parametrize("status", [304, 404])
async def test_an_answer_that_is_no_file(
    origin: Origin, get: Get, begin: Callable[..., Early], out: Path, status: int
) -> None:
    origin.script("/f", Reply(status=status))
    with pytest.raises(DownloadFailed, match=f"answered {status}"):
        await get(origin, client=Client(early=begin(origin), timeout=0.5))
    assert not out.exists()


@pytest.mark.parametrize("how", [fin, reset])
async def test_a_break_in_the_body_is_continued(
    origin: Origin, get: Get, begin: Callable[..., Early], how: Any
) -> None:
    origin.script("/f", Reply(BIG, breaks=how(1_000_000)), Reply(BIG))
    early = begin(origin)
    await until(lambda: early.settled, "the end of the connection")
    await get(origin, content=BIG, client=Client(early=early))
    assert all(request.get("if-range") == BIG.etag for request in origin.requests[1:])


async def test_no_http(origin: Origin, get: Get, begin: Callable[..., Early]) -> None:
    origin.script("/f", Reply(raw=b"HELLO\r\n\r\n"), Reply(BIG))
    await get(origin, content=BIG, client=Client(early=begin(origin)))


async def test_tls_begins_on_it(secure_origin: Origin, get: Get, begin: Callable[..., Early], authority: Any) -> None:
    secure_origin.serve("/f", BIG)
    client = Client(early=begin(secure_origin), ca=str(authority.pem), connections=1)
    await get(secure_origin, content=BIG, client=client)
    assert secure_origin.accepted == 1
    assert secure_origin.requests[0].get("range") == f"bytes=0-{FIRST - 1}"


async def test_a_near_server_that_is_slow_is_asked_over_more_connections(
    origin: Origin, get: Get, begin: Callable[..., Early]
) -> None:
    origin.script("/f", Reply(BIG, rate=MIB // 3))
    await get(origin, content=BIG, client=Client(early=begin(origin)))
    assert origin.accepted > 2


# --- thrown away -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [fin, reset])
async def test_closed_before_an_answer(origin: Origin, get: Get, begin: Callable[..., Early], how: Any) -> None:
    origin.script("/f", Reply(BIG, breaks=how()), Reply(BIG))
    early = begin(origin)
    await until(lambda: early.settled, "the end of the connection")
    client = Client(early=early)
    await get(origin, content=BIG, client=client)
    assert client.statistics().failures == 0  # as for a kept connection that turns out closed


async def test_refused_in_the_usual_words(get: Get, begin: Callable[..., Early], free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}/f"
    with pytest.raises(DownloadFailed, match=r"no connection \("):
        await get(url, client=Client(early=begin(url), timeout=0.2))


async def test_another_request_is_never_answered_with_it(origin: Origin, get: Get, begin: Callable[..., Early]) -> None:
    """What was sent has not the header that the engine sends: its answer may be another one."""
    origin.script("/f", Reply(Content(seed=99, size=BIG.size)), Reply(BIG))
    early = begin(origin)
    await until(lambda: early.pieces, "an answer")
    await get(origin, content=BIG, client=Client(early=early, headers={"Accept-Language": "de"}))
    assert origin.requests[0].get("accept-language") is None
    assert origin.requests[1].get("accept-language") == "de"


async def test_another_server(origin: Origin, mirror: Origin, get: Get, begin: Callable[..., Early]) -> None:
    origin.serve("/f", BIG)
    mirror.script("/f", Reply(Content(seed=98, size=BIG.size)))
    await get(origin, content=BIG, client=Client(early=begin(mirror)))


async def test_a_part_file_is_continued_without_it(
    origin: Origin, get: Get, begin: Callable[..., Early], out: Path
) -> None:
    origin.script("/f", Reply(BIG, breaks=reset(2 * MIB)), Reply(status=404))
    with pytest.raises(DownloadFailed):
        await get(origin, timeout=0.5, connections=1)
    origin.script("/f", Reply(BIG))
    result = await get(origin, content=BIG, client=Client(early=begin(origin)), resume=True)
    assert result.resumed > 0


async def test_only_one_download_gets_it(origin: Origin, get: Get, begin: Callable[..., Early], out: Path) -> None:
    origin.serve("/f", SMALL)
    client = Client(early=begin(origin))
    await get(origin, content=SMALL, client=client)
    await get(origin, content=SMALL, client=client, path=out.with_name("g"))
    assert len(origin.requests) == 2


async def test_nobody_wants_it(origin: Origin, begin: Callable[..., Early]) -> None:
    gate = Gate()
    origin.script("/f", Reply(BIG, before_head=gate))
    early = begin(origin)
    await until(lambda: origin.requests, "asked")
    early.drop()
    await until(lambda: early.settled, "the thread has ended")
    assert not early.ready
    gate.open()


async def test_a_server_that_does_not_accept(
    get: Get, begin: Callable[..., Early], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is given up, so that the engine makes one of its own."""
    monkeypatch.setattr(module, "ATTEMPT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        filler = [socket.socket() for _ in range(4)]
        try:
            for one in filler:
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", port))
            early = begin(f"http://127.0.0.1:{port}/f")
            await until(lambda: early.settled, "given up")
            assert not early.ready
        finally:
            for one in filler:
                one.close()


# --- what is plain enough --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://a/", ("http", "a", 80, "/")),
        ("http://a.example:8080/f%20x?y=1&z", ("http", "a.example", 8080, "/f%20x?y=1&z")),
        ("https://10.0.0.1/f", ("https", "10.0.0.1", 443, "/f")),
        ("http://a", None),
        ("http://A/f", None),
        ("http://[::1]/f", None),
        ("http://a:b@c/f", None),
        ("http://a/f#x", None),
        ("http://a/f x", None),
        ("http://a/f\r\nX: y", None),
        ("http://a/f?", None),
        ("http://a:0/f", None),
        ("http://a:99999/f", None),
        ("http://a:/f", None),
        ("ftp://a/f", None),
        ("http:///f", None),
        ("http://a/ä", None),
    ],
)  # fmt: skip
def test_urls(url: str, found: tuple[str, str, int, str] | None) -> None:
    assert read_url(url) == found


@given(st.text(st.sampled_from("ab/:.?%#@-_1[] \r\n"), max_size=12), st.sampled_from(["http://", "https://", ""]))
def test_what_it_reads_the_engine_reads_likewise(rest: str, scheme: str) -> None:
    url = scheme + rest
    if (found := read_url(url)) is None:
        return
    step = source_of(url)
    assert (step.place.scheme, step.place.host, step.place.port, step.path_query) == found
    assert urlsplit(url).fragment == ""


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1))
def test_median(values: list[float]) -> None:
    assert median(values) == statistics.median(values)


def test_it_knows_the_values_it_does_not_import() -> None:
    assert (NEAR_S, FAR_BYTES) == (LONG_S, FIRST)
