"""Answers in a coding the client takes, on real sockets: the same bytes for everybody, however they travel."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
import random
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from fileproxy.clock import ManualClock
from fileproxy.http.coding import BUSIEST, CODINGS
from fileproxy.http.dates import parse_date
from fileproxy.server import coders, compress
from tests.clients import Got, program, run
from tests.conftest import OpenHouse
from tests.house import Running
from tests.origin import KIB, MIB, Origin, Reply, fin
from tests.origin.play import DATE, LAST_MODIFIED
from tests.trips.plays import settings

pytestmark = pytest.mark.loops("asyncio", "uvloop")

START = parse_date(DATE, 0.0) or 0
HOUR = ("Cache-Control", "max-age=3600")
TEXT = ("Content-Type", "text/plain; charset=utf-8")
UNSHARED = {"disk": "off", "redis": "off"}
ALL = "Accept-Encoding: gzip, deflate, br, zstd"


def prose(size: int) -> bytes:
    """Text that compresses to about a third; the same each time."""
    chance = random.Random(7)
    words = [hashlib.md5(str(number).encode()).hexdigest()[: chance.randint(2, 9)] for number in range(2000)]
    text = " ".join(chance.choice(words) for _ in range(size // 4)).encode()
    while len(text) < size:
        text += text
    return text[:size]


SMALL, MEDIUM, LARGE = prose(5 * KIB), prose(300 * KIB), prose(3 * MIB)


def decoded(got: Got) -> bytes:
    match got.get("content-encoding"):
        case "gzip":
            return gzip.decompress(got.body)
        case "br":
            return bytes(import_module("brotli").decompress(got.body))
        case "zstd":
            return bytes(import_module("backports.zstd").decompress(got.body))
    return got.body


def page(content: bytes, *headers: tuple[str, str], **options: Any) -> Reply:
    return Reply(content, headers=(TEXT, HOUR, *headers), **options)


class Play:
    def __init__(self, running: Running, origin: Origin) -> None:
        self.running, self.origin = running, origin
        assert running.house._service.compression is not None
        self.compression = running.house._service.compression

    async def get(self, *lines: str, method: str = "GET", path: str = "/f") -> Got:
        got = await self.running.fetch(path, *lines, method=method)
        await self.running.quiet()
        return got

    def busy(self, share: float) -> None:
        self.compression._busy = lambda: share


@pytest.fixture
def play(house: OpenHouse, origin: Origin) -> Any:
    async def start(*replies: Reply, cached: bool = True, route: Any = None, **rest: Any) -> Play:
        origin.script("/f", *replies)
        cache = {"cache": UNSHARED} if cached else {}
        values = settings(
            origin, route=route or ({} if cached else {"cache": "off"}), redis={"url": "off"}, **cache, **rest
        )
        one = Play(await house(values, ManualClock(epoch=START + 0.25)), origin)
        one.busy(0.0)
        return one

    return start


# --- the bytes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [SMALL, MEDIUM, LARGE], ids=["inline", "kept", "streamed"])
@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("cached", [True, False])
async def test_the_same_bytes_in_each_coding(play: Any, content: bytes, coding: str, cached: bool) -> None:
    one: Play = await play(page(content), cached=cached)
    plain = await one.get()
    assert (plain.body, plain.get("content-encoding")) == (content, None)
    assert "accept-encoding" in (plain.get("vary") or "").lower()
    tags = set()
    for _ in range(3):
        got = await one.get(f"Accept-Encoding: {coding}")
        assert (got.status, got.complete, got.get("content-encoding")) == (200, True, coding)
        assert hashlib.sha256(decoded(got)).digest() == hashlib.sha256(content).digest()
        assert len(got.body) < len(content) * 0.6
        assert got.get("content-length") in (None, str(len(got.body)))
        assert got.get("accept-ranges") == "none"
        assert "accept-encoding" in (got.get("vary") or "").lower()
        tags.add((got.get("etag"), got.sha256))
    assert len(tags) == 1  # a strong tag: the same bytes each time
    assert next(iter(tags))[0] != plain.get("etag")
    assert one.compression.running == 0


async def test_our_preference_and_the_clients(play: Any) -> None:
    one: Play = await play(page(SMALL))
    for accept, coding in {
        "gzip, deflate, br, zstd": "zstd",
        "gzip, br": "br",
        "x-gzip": "gzip",
        "gzip;q=1, br;q=0.5": "gzip",
        "identity": None,
        "deflate": None,
        "gzip;q=0": None,
        "": None,
        "zstd;q=0, *;q=0.1, identity;q=0": "br",
        "identity;q=1, gzip;q=0.5": None,
        "nonsense;q": None,
    }.items():
        got = await one.get(f"Accept-Encoding: {accept}")
        assert (got.get("content-encoding"), decoded(got)) == (coding, SMALL), accept


# --- what is never coded ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "lines"),
    [
        (page(SMALL, ("Cache-Control", "no-transform")), ()),
        (page(SMALL), ("Cache-Control: no-transform",)),
        (page(SMALL, ("Content-Encoding", "x-own")), ()),
        (page(SMALL, ("Set-Cookie", "a=b")), ()),
        (Reply(SMALL, headers=(TEXT, ("Cache-Control", "private, max-age=60"))), ()),
        (page(SMALL), ("Authorization: Basic eDp5",)),
        (page(SMALL[:1023]), ()),
        (Reply(SMALL, headers=(HOUR, ("Content-Type", "application/zip"))), ()),
        (Reply(SMALL, headers=(HOUR, ("Content-Type", "text/event-stream"))), ()),
        (page(SMALL, status=404), ()),
        (page(SMALL, framing="close"), ()),  # nothing proves where it ends
        (page(SMALL), ("Range: bytes=0-",)),
        (page(SMALL), ("Range: nonsense",)),
    ],
)
@pytest.mark.parametrize("cached", [True, False])
async def test_what_is_sent_as_it_is(play: Any, reply: Reply, lines: tuple[str, ...], cached: bool) -> None:
    one: Play = await play(reply, cached=cached)
    for _ in range(2):
        got = await one.get(ALL, *lines)
        assert got.get("content-encoding") in (None, "x-own")
        assert got.body == reply.content


@pytest.mark.parametrize("cached", [True, False])
async def test_the_origins_own_coding_is_preferred(play: Any, cached: bool) -> None:
    packed = gzip.compress(SMALL, mtime=0)
    vary = ("Vary", "Accept-Encoding")
    one: Play = await play(page(packed, ("Content-Encoding", "gzip"), vary, etag='"of-gzip"'), cached=cached)
    got = await one.get(ALL)
    assert (got.body, got.get("content-encoding"), got.get("etag")) == (packed, "gzip", '"of-gzip"')
    assert got.all("vary") == ["Accept-Encoding"]


async def test_without_a_tag_it_is_coded_where_nobody_can_join_it_to_a_range(play: Any) -> None:
    one: Play = await play(page(SMALL, etag=None))
    coded = await one.get(ALL)
    assert (coded.get("content-encoding"), coded.get("etag")) == ("zstd", None)
    # Whoever has the beginning of that must not get the end of the file.
    whole = await one.get(ALL, "Range: bytes=100-", f"If-Range: {LAST_MODIFIED}")
    assert (whole.status, whole.body, whole.get("content-encoding")) == (200, SMALL, None)
    part = await one.get("Range: bytes=100-", f"If-Range: {LAST_MODIFIED}")
    assert (part.status, part.body) == (206, SMALL[100:])


async def test_without_a_tag_what_is_not_stored_is_sent_as_it_is(play: Any) -> None:
    one: Play = await play(page(SMALL, etag=None), cached=False)
    assert (await one.get(ALL)).get("content-encoding") is None


# --- heads, conditions, ranges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("content", [SMALL, MEDIUM], ids=["inline", "streamed"])
async def test_head_says_what_get_says(play: Any, cached: bool, content: bytes) -> None:
    one: Play = await play(page(content, ("Repr-Digest", "sha-256=:AAAA:"), ("Content-MD5", "x")), cached=cached)
    before = await one.get(ALL, method="HEAD")
    got = await one.get(ALL)
    after = await one.get(ALL, method="HEAD")
    for head in (before, after):
        for name in ("content-encoding", "etag", "vary", "accept-ranges", "content-type"):
            assert head.get(name) == got.get(name) is not None, name
        assert head.get("content-length") in (None, str(len(got.body)))
    assert got.names.isdisjoint({"repr-digest", "content-md5"})
    assert (await one.get("Accept-Encoding: identity")).get("content-md5") == "x" or not cached


@pytest.mark.parametrize("cached", [True, False])
async def test_conditions_know_the_tags_of_coded_answers(play: Any, cached: bool) -> None:
    one: Play = await play(page(SMALL), cached=cached)
    plain, gzipped, br = [await one.get(f"Accept-Encoding: {coding}") for coding in ("identity", "gzip", "br")]
    tags = [got.get("etag") or "" for got in (plain, gzipped, br)]
    assert len(set(tags)) == 3
    one.busy(0.5)  # another level now: what the client has is as good
    for accept, held, answered in [
        ("gzip", tags[1], tags[1]),
        ("br, gzip", f"{tags[2]}, {tags[0]}", tags[2]),
        ("gzip", f"W/{tags[1]}", tags[1]),
        ("gzip", tags[0], tags[0]),
        ("identity", tags[0], tags[0]),
    ]:
        got = await one.get(f"Accept-Encoding: {accept}", f"If-None-Match: {held}")
        assert (got.status, got.get("etag"), got.size) == (304, answered, 0), (accept, held)
        assert "accept-encoding" in (got.get("vary") or "").lower() or not cached
    for accept, held in [
        ("br", tags[1]),
        ("identity", tags[1]),
        ("gzip", '"other+fp.gzip.6"'),
        ("gzip", tags[1][:-1] + '0"'),
    ]:
        got = await one.get(f"Accept-Encoding: {accept}", f"If-None-Match: {held}")
        assert (got.status, decoded(got)) == (200, SMALL), (accept, held)
    assert (await one.get("Accept-Encoding: gzip", f"If-Match: {tags[1]}")).status == 200
    assert (await one.get("Accept-Encoding: gzip", 'If-Match: "z"')).status == 412


async def test_a_date_alone_gets_the_tag_of_what_would_be_sent(play: Any) -> None:
    one: Play = await play(page(SMALL))
    got = await one.get("Accept-Encoding: gzip")
    known = await one.get("Accept-Encoding: gzip", f"If-Modified-Since: {LAST_MODIFIED}")
    assert (known.status, known.get("etag")) == (304, got.get("etag"))
    assert "content-encoding" not in known.names


@pytest.mark.parametrize("cached", [True, False])
async def test_ranges_are_of_the_bytes_as_they_are(play: Any, cached: bool) -> None:
    """Law 1: the beginning of a coded answer is never joined to the end of the file."""
    one: Play = await play(page(MEDIUM), cached=cached)
    plain, coded = await one.get(), await one.get("Accept-Encoding: gzip")
    part = await one.get("Accept-Encoding: gzip", "Range: bytes=1000-1999", f"If-Range: {plain.get('etag')}")
    assert (part.status, part.body, part.get("etag")) == (206, MEDIUM[1000:2000], plain.get("etag"))
    assert "accept-encoding" in (part.get("vary") or "").lower()
    resumed = await one.get("Accept-Encoding: gzip", "Range: bytes=1000-", f"If-Range: {coded.get('etag')}")
    assert (resumed.status, resumed.body, resumed.get("content-encoding")) == (200, MEDIUM, None)
    refused = await one.get("Accept-Encoding: gzip", "Range: bytes=1000-", f"If-Match: {coded.get('etag')}")
    assert refused.status == 412


async def test_a_weak_tag_stays(play: Any) -> None:
    one: Play = await play(page(SMALL, etag='W/"a"'))
    got = await one.get(ALL)
    assert (got.get("content-encoding"), got.get("etag")) == ("zstd", 'W/"a"')
    assert (await one.get(ALL, 'If-None-Match: W/"a"')).status == 304


@pytest.mark.parametrize("coding", CODINGS)
async def test_an_unknown_length_flows_on_as_it_comes_under_a_weak_tag(play: Any, coding: str) -> None:
    one: Play = await play(page(MEDIUM, framing="chunked", etag='"a"'), cached=False)
    got = await one.get(f"Accept-Encoding: {coding}")
    assert (got.get("content-encoding"), got.get("etag"), got.complete) == (coding, 'W/"a"', True)
    assert decoded(got) == MEDIUM


# --- endings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_source_that_breaks_never_looks_whole(play: Any, coding: str) -> None:
    broken = page(LARGE, etag=None, last_modified=None, breaks=fin(2 * MIB))
    one: Play = await play(broken, cached=False)
    got = await one.get(f"Accept-Encoding: {coding}")
    assert got.get("content-encoding") == coding
    assert not got.complete
    assert one.running.counts["downloads.cut"] == 1
    assert one.compression.running == 0
    assert one.running.counts.of("coding.answers", coding) == 0


@pytest.mark.parametrize("at", [0, 2])
async def test_a_compressor_that_fails_ends_the_download_visibly(
    play: Any, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    one: Play = await play(page(LARGE))
    await one.get()
    made = coders.compressor
    pushed = 0

    class Failing:
        def __init__(self, inner: coders.Compressor) -> None:
            self.inner = inner

        def push(self, data: bytes | memoryview, *, flush: bool = False) -> bytes:
            nonlocal pushed
            pushed += 1
            if pushed > at:
                raise MemoryError("none left")
            return self.inner.push(data, flush=True)

        def end(self) -> bytes:
            return self.inner.end()

    monkeypatch.setattr(coders, "compressor", lambda *given: Failing(made(*given)))
    got = await one.get("Accept-Encoding: gzip")
    assert not got.complete if at else got.status == 500
    assert one.running.counts.endings["coding_failed"] == 1
    monkeypatch.undo()
    one.busy(0.0)
    assert decoded(await one.get("Accept-Encoding: gzip")) == LARGE
    assert one.compression.running == 0


async def test_a_client_that_leaves_gives_its_place_back(play: Any) -> None:
    one: Play = await play(page(LARGE))
    await one.get()
    connection = await one.running.connect(receive_buffer=4096)
    async with connection:
        await connection.request("GET", "/f", "Accept-Encoding: gzip")
        await connection.head()
        assert one.compression.running == 1
        connection.reset()
    await one.running.quiet()
    assert one.compression.running == 0


# --- how much ---------------------------------------------------------------------------------------------------------


async def test_less_effort_with_less_cpu_and_none_without(play: Any) -> None:
    sizes = []
    for share in (0.0, 0.7):
        one: Play = await play(page(MEDIUM))
        one.busy(share)
        got = await one.get("Accept-Encoding: gzip")
        assert decoded(got) == MEDIUM
        sizes.append(got.size)
    assert sizes[0] < sizes[1]
    one.busy(BUSIEST)
    assert (await one.get("Accept-Encoding: gzip")).get("content-encoding") == "gzip"  # kept: it costs nothing
    assert (await one.get("Accept-Encoding: br")).body == MEDIUM
    assert one.running.counts["compression.skipped"] == 1


async def test_only_so_many_at_a_time(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compress, "MOST_RUNNING", 1)
    one: Play = await play(page(LARGE))
    await one.get()
    async with await one.running.connect(receive_buffer=4096) as slow:
        await slow.request("GET", "/f", "Accept-Encoding: gzip")
        first = await slow.head()
        async with await one.running.connect() as other:
            assert (await other.ask("GET", "/f", "Accept-Encoding: gzip")).body == LARGE
        await slow.body(first)
        assert decoded(first) == LARGE
    assert (await one.get("Accept-Encoding: gzip")).get("content-encoding") == "gzip"


async def test_copies_are_kept_and_counted(play: Any) -> None:
    one: Play = await play(page(MEDIUM))
    gots = [await one.get("Accept-Encoding: br") for _ in range(3)]
    counts = one.running.counts
    assert len({got.sha256 for got in gots}) == 1
    assert [counts.of(f"coding.{name}", "br") for name in ("answers", "kept")] == [3, 2]
    assert counts.of("coding.bytes_in", "br") == 3 * len(MEDIUM)
    assert counts.of("coding.bytes_out", "br") == 3 * gots[0].size == counts["traffic"]
    assert one.compression.statistics()["kept"] == 1
    assert len(one.origin.requests) == 1


async def test_a_kept_copy_goes_with_its_file(play: Any) -> None:
    one: Play = await play(page(SMALL), page(MEDIUM))
    first = await one.get("Accept-Encoding: br")
    assert decoded(first) == SMALL
    changed = await one.get("Accept-Encoding: br", "Cache-Control: no-cache")
    assert decoded(changed) == MEDIUM
    assert decoded(await one.get("Accept-Encoding: br")) == MEDIUM


async def test_two_clients_one_with_gzip_and_one_without_by_the_fast_front(play: Any) -> None:
    one: Play = await play(page(SMALL))
    fast: Any = one.running.house._service.fast
    async with await one.running.connect() as plain, await one.running.connect() as packed:
        for _ in range(6):
            got = await plain.ask("GET", "/f")
            assert (got.body, got.get("content-encoding")) == (SMALL, None)
            coded = await packed.ask("GET", "/f", "Accept-Encoding: gzip")
            assert (coded.get("content-encoding"), decoded(coded)) == ("gzip", SMALL)
            assert coded.get("etag") != got.get("etag")
    assert fast.statistics()["request_lines"] == 1
    one.busy(BUSIEST)
    for _ in range(3):  # sent as it is for want of CPU: that is not for ever
        assert (await one.get("Accept-Encoding: br")).body == SMALL
    one.busy(0.0)
    assert (await one.get("Accept-Encoding: br")).get("content-encoding") == "br"


async def test_many_at_once_get_the_same_file(play: Any) -> None:
    one: Play = await play(page(MEDIUM))
    accepts = ("gzip", "br", "zstd", "identity") * 6
    gots = await asyncio.gather(*[one.running.fetch("/f", f"Accept-Encoding: {accept}") for accept in accepts])
    assert {hashlib.sha256(decoded(got)).hexdigest() for got in gots} == {hashlib.sha256(MEDIUM).hexdigest()}
    assert len(one.origin.requests) == 1


async def test_it_is_shown(play: Any) -> None:
    one: Play = await play(page(SMALL))
    got = await one.get("Accept-Encoding: br")
    stats = json.loads((await one.get(path="/stats")).body)
    expected = {"answers": 1, "kept": 0, "siblings": 0, "bytes_in": len(SMALL), "bytes_out": got.size}
    assert stats["codings"] == {"br": expected}
    health = json.loads((await one.get(path="/health")).body)
    assert health["parts"]["compression"] == {"status": "ok", "codings": ["zstd", "br", "gzip"]}


async def test_it_goes_by_how_busy_the_loop_is(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one: Play = await play(page(SMALL))
    one.compression._busy = lambda: one.running.house._busy.share
    clock: Any = one.running.clock
    assert (await one.get("Accept-Encoding: gzip")).get("content-encoding") == "gzip"
    monkeypatch.setattr("fileproxy.app.worked_s", clock.now)  # always at work
    await clock.advance(3.0)
    assert (await one.get("Accept-Encoding: br")).get("content-encoding") is None
    monkeypatch.setattr("fileproxy.app.worked_s", lambda: 0.0)
    await clock.advance(3.0)
    assert (await one.get("Accept-Encoding: br")).get("content-encoding") == "br"


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.option("routes.compress", "profile")
@pytest.mark.parametrize("off", [{"route": {"compress": "off"}}, {"profile": "baseline"}])
async def test_off(play: Any, off: dict[str, Any]) -> None:
    one: Play = await play(page(SMALL), **off)
    got = await one.get(ALL)
    assert (got.body, got.get("vary"), got.get("content-encoding")) == (SMALL, None, None)


@pytest.mark.option("routes.compress.codings")
async def test_codings_and_their_order(play: Any) -> None:
    one: Play = await play(page(SMALL), route={"compress": {"codings": ["gzip", "br"]}})
    assert (await one.get(ALL)).get("content-encoding") == "gzip"
    assert (await one.get("Accept-Encoding: zstd")).get("content-encoding") is None


@pytest.mark.option("routes.compress.types")
async def test_types(play: Any) -> None:
    one: Play = await play(
        Reply(SMALL, headers=(("Content-Type", "application/X-Own"), HOUR)),
        route={"compress": {"types": ["application/x-OWN"]}},
    )
    assert (await one.get(ALL)).get("content-encoding") == "zstd"


@pytest.mark.option("routes.compress.min_size")
@pytest.mark.parametrize(("least", "coding"), [("5KiB", "zstd"), ("5121B", None), ("1KiB", "zstd")])
async def test_min_size(play: Any, least: str, coding: str | None) -> None:
    one: Play = await play(page(SMALL), route={"compress": {"min_size": least}})
    assert (await one.get(ALL)).get("content-encoding") == coding


async def test_a_coding_whose_package_is_missing_is_not_offered(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coders, "missing", lambda: {"zstd": "No module named 'backports'"})
    one: Play = await play(page(SMALL))
    assert (await one.get(ALL)).get("content-encoding") == "br"


# --- real programs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
async def test_curl_compressed(play: Any, tmp_path: Path, content: bytes) -> None:
    curl = program("curl")
    one: Play = await play(page(content))
    for _ in range(2):
        ran = await run(
            curl,
            "-sSf",
            "--compressed",
            "-D",
            str(tmp_path / "head"),
            "-o",
            str(tmp_path / "f"),
            f"{one.running.url}/f",
        )
        assert ran.code == 0, ran.err
        assert (tmp_path / "f").read_bytes() == content
        assert "content-encoding:" in (tmp_path / "head").read_text().lower()


async def test_a_folder(house: OpenHouse, tmp_path: Path) -> None:
    """Slices of files are read and coded in threads."""
    files = tmp_path / "files"
    files.mkdir()
    (files / "a.txt").write_bytes(LARGE)
    running = await house({"upstreams": {"files": files.as_uri()}, "cache": UNSHARED, "redis": {"url": "off"}})
    running.house._service.compression._busy = lambda: 0.0  # type: ignore[union-attr]
    for coding in CODINGS:
        got = await running.fetch("/a.txt", f"Accept-Encoding: {coding}")
        assert (got.get("content-encoding"), decoded(got)) == (coding, LARGE)
    tags = set()
    for number, content in enumerate((MEDIUM, MEDIUM, MEDIUM[::-1], MEDIUM[::-1])):
        if number in (0, 2):
            (files / "new").write_bytes(content)
            os.utime(files / "new", (START + number, START + number))  # a new file's tag is weak
            (files / "new").rename(files / "b.txt")
        got = await running.fetch("/b.txt", "Accept-Encoding: br")
        await running.quiet()
        assert decoded(got) == content
        tags.add(got.get("etag"))
    assert len(tags) == 2
    assert running.counts.of("coding.kept", "br") == 2
