"""Files that a site keeps packed beside others (``/f.gz`` beside ``/f``), on real sockets."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import random
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from fileproxy.clock import ManualClock
from fileproxy.server import siblings
from tests.clients import Got
from tests.conftest import OpenHouse
from tests.house import Running
from tests.origin import Origin, Reply, fin
from tests.trips.plays import settings
from tests.trips.test_compression import ALL, HOUR, LARGE, MEDIUM, START, UNSHARED, decoded, page

pytestmark = pytest.mark.loops("asyncio", "uvloop")

OLDER = "Sun, 01 Nov 2026 11:59:59 GMT"
NEWER = "Sun, 01 Nov 2026 12:00:01 GMT"
GZIP = ("Content-Type", "application/gzip")
PACKED = gzip.compress(MEDIUM, 9, mtime=0)


def packed(content: bytes = PACKED, kind: str = GZIP[1], *headers: tuple[str, str], **options: Any) -> Reply:
    return Reply(content, headers=(("Content-Type", kind), HOUR, *headers), **options)


class Play:
    def __init__(self, running: Running, origin: Origin, clock: ManualClock) -> None:
        self.running, self.origin, self.clock = running, origin, clock
        running.house._service.compression._busy = lambda: 0.0  # type: ignore[union-attr]

    async def get(self, accept: str = ALL, *lines: str, path: str = "/f", method: str = "GET") -> Got:
        got = await self.running.fetch(path, accept, *lines, method=method)
        await self.running.quiet()
        return got

    def asked(self, path: str) -> int:
        return self.origin.requests_of(path)


@pytest.fixture
def play(house: OpenHouse, origin: Origin) -> Any:
    async def start(codings: list[str] | None = None, *, route: Any = None, **paths: Reply) -> Play:
        for name, reply in paths.items():
            origin.script("/" + name.replace("_", "."), reply)
        origin.otherwise(Reply(b"nothing here", status=404))
        compress = {"siblings": ["br", "gzip"] if codings is None else codings}
        values = settings(origin, route={"compress": compress, **(route or {})}, redis={"url": "off"}, cache=UNSHARED)
        clock = ManualClock(epoch=START + 0.25)
        return Play(await house(values, clock), origin, clock)

    return start


@pytest.mark.option("routes.compress.siblings")
@pytest.mark.parametrize(("codings", "coding"), [(["gzip"], "gzip"), ([], "zstd")])
async def test_the_origins_bytes_in_the_place_of_ours(play: Any, codings: list[str], coding: str) -> None:
    one: Play = await play(codings, f=page(MEDIUM, ("X-Kept", "yes")), f_gz=packed())
    plain = await one.get("Accept-Encoding: identity")
    tags = set()
    for _ in range(3):
        got = await one.get()
        assert (got.status, got.complete, got.get("content-encoding")) == (200, True, coding)
        assert hashlib.sha256(decoded(got)).digest() == hashlib.sha256(MEDIUM).digest()
        assert (got.body == PACKED) == (coding == "gzip")
        assert got.get("content-type") == plain.get("content-type") == "text/plain; charset=utf-8"
        assert (got.get("x-kept"), got.get("accept-ranges")) == ("yes", "none")
        assert "accept-encoding" in (got.get("vary") or "").lower()
        tags.add(got.get("etag"))
    assert len(tags) == 1
    assert plain.get("etag") not in tags
    assert one.asked("/f") == 1
    assert one.asked("/f.gz") == len(codings)
    assert one.running.counts.of("coding.siblings", "gzip") == 3 * len(codings)


async def test_once_from_the_first_ask_on(play: Any) -> None:
    """Nothing stored: the file is asked for once, although nobody reads what came."""
    one: Play = await play(["gzip"], f=page(MEDIUM), f_gz=packed())
    for _ in range(3):
        assert (await one.get()).body == PACKED
    assert (await one.get("Accept-Encoding: identity")).body == MEDIUM
    assert (one.asked("/f"), one.asked("/f.gz")) == (1, 1)


async def test_many_at_once(play: Any) -> None:
    one: Play = await play(["gzip"], f=page(MEDIUM), f_gz=packed())
    got = await asyncio.gather(*(one.running.fetch("/f", ALL) for _ in range(16)))
    assert {hashlib.sha256(decoded(each)).digest() for each in got} == {hashlib.sha256(MEDIUM).digest()}
    await one.running.quiet()
    assert (one.asked("/f"), one.asked("/f.gz")) == (1, 1)


async def test_the_clients_wish_decides_between_siblings(play: Any) -> None:
    br = bytes(import_module("brotli").compress(MEDIUM))
    one: Play = await play(f=page(MEDIUM), f_gz=packed(), f_br=packed(br, "application/octet-stream"))
    for accept, body in {"gzip, br": br, "gzip, br;q=0.5": PACKED, "gzip;q=0, br": br, "x-gzip": PACKED}.items():
        assert (await one.get(f"Accept-Encoding: {accept}")).body == body, accept
    assert (await one.get("Accept-Encoding: zstd")).get("content-encoding") == "zstd"
    assert (await one.get("Accept-Encoding: identity, gzip;q=0.5, br;q=0.1")).body == MEDIUM


@pytest.mark.parametrize(
    "reply",
    [
        page(b"<html>our start page</html>"),
        packed(b"<html>our start page</html>", "text/html"),
        packed(last_modified=OLDER),
        packed(last_modified=None),
        packed(MEDIUM + b"more"),
        packed(b""),
        packed(PACKED, GZIP[1], ("Content-Encoding", "br")),
        packed(PACKED, "application/zstd"),
        packed(framing="close"),
        Reply(PACKED, headers=(GZIP, ("Cache-Control", "no-store"))),
        Reply(PACKED, status=403, headers=(GZIP,)),
    ],
    ids=["page", "html", "older", "undated", "larger", "empty", "coding", "type", "close", "no-store", "403"],
)
async def test_what_is_not_proved_to_be_the_file_is_not_used(play: Any, reply: Reply) -> None:
    one: Play = await play(["gzip"], f=page(MEDIUM), f_gz=reply)
    for _ in range(2):
        got = await one.get()
        assert (got.get("content-encoding"), decoded(got)) == ("zstd", MEDIUM)
    assert one.asked("/f.gz") == 1
    assert one.running.counts.of("coding.siblings", "gzip") == 0


@pytest.mark.parametrize("said", ["gzip", "x-gzip"])
async def test_a_server_that_says_the_coding_of_the_packed_file(play: Any, said: str) -> None:
    """As Apache does with AddEncoding."""
    one: Play = await play(["gzip"], f=page(MEDIUM), f_gz=packed(PACKED, "text/plain", ("Content-Encoding", said)))
    got = await one.get()
    assert (got.body, got.all("content-encoding")) == (PACKED, ["gzip"])
    assert one.origin.last.all("accept-encoding") == ["identity"]


async def test_ranges_and_conditions(play: Any) -> None:
    one: Play = await play(["gzip"], f=page(MEDIUM, etag='"same"'), f_gz=packed(etag='"same"', last_modified=NEWER))
    coded, plain = await one.get(), await one.get("Accept-Encoding: identity")
    tag, own = coded.get("etag") or "", plain.get("etag") or ""
    assert own == '"same"'
    assert tag not in ("", own)  # although the origin has the same for both
    again = await one.get(ALL, f"If-None-Match: {tag}")
    assert (again.status, again.get("etag")) == (304, tag)
    part = await one.get(ALL, "Range: bytes=100-199")
    assert (part.status, part.body, part.get("content-encoding")) == (206, MEDIUM[100:200], None)
    whole = await one.get(ALL, "Range: bytes=100-", f"If-Range: {tag}")  # never the file's end behind its beginning
    assert (whole.status, decoded(whole)) == (200, MEDIUM)
    head = await one.get(method="HEAD")
    for name in ("content-encoding", "content-length", "etag", "content-type"):
        assert head.get(name) == coded.get(name) is not None, name


async def test_another_version_has_another_tag(play: Any) -> None:
    one: Play = await play(["gzip"], f=page(MEDIUM), f_gz=packed())
    before = (await one.get()).get("etag")
    await one.clock.advance(4000.0)
    changed = MEDIUM[::-1]
    one.origin.script("/f", page(changed, last_modified=NEWER))  # and nobody has packed it again
    between = await one.get()
    assert (between.get("content-encoding"), decoded(between)) == ("zstd", changed)
    await one.clock.advance(4000.0)
    again = gzip.compress(changed, mtime=0)
    one.origin.script("/f.gz", packed(again, last_modified=NEWER))
    after = await one.get()
    assert after.body == again
    assert len({before, between.get("etag"), after.get("etag")}) == 3


# --- what it costs ----------------------------------------------------------------------------------------------------


async def test_an_origin_without_siblings_is_asked_a_few_times_and_no_more(play: Any) -> None:
    one: Play = await play(["gzip"])
    paths = [f"/{number}.txt" for number in range(8)]
    for path in paths:
        one.origin.script(path, page(MEDIUM))
        assert (await one.get(path=path)).get("content-encoding") == "zstd"
    assert sum(one.asked(f"{path}.gz") for path in paths) == siblings.MISSES
    one.origin.script("/a.css", page(MEDIUM))
    one.origin.script("/a.css.gz", packed())
    assert (await one.get(path="/a.css")).body == PACKED  # another kind
    await one.clock.advance(siblings.ABSENT_S + 1)
    one.origin.script("/0.txt.gz", packed())
    assert (await one.get(path="/0.txt")).body == PACKED


@pytest.mark.parametrize(
    ("path", "reply", "lines"),
    [
        ("/f", replace(page(MEDIUM), headers=(("Content-Type", "image/png"), HOUR)), ()),
        ("/f", page(MEDIUM[:1000]), ()),
        ("/f", page(MEDIUM, ("Cache-Control", "no-transform")), ()),
        ("/f", page(MEDIUM), ("Cache-Control: no-transform",)),
        ("/f", page(MEDIUM), ("Range: bytes=0-9",)),
        ("/f", Reply(MEDIUM, headers=(("Content-Type", "text/plain"), ("Cache-Control", "no-store"))), ()),
        ("/f?version=1", page(MEDIUM), ()),
        ("/folder/", page(MEDIUM), ()),
    ],
    ids=["type", "small", "no-transform", "asked-no-transform", "range", "no-store", "query", "folder"],
)
async def test_no_request_for_what_would_not_be_used(
    play: Any, path: str, reply: Reply, lines: tuple[str, ...]
) -> None:
    one: Play = await play(["gzip"])
    one.origin.script(path.partition("?")[0], reply)
    assert (await one.get(ALL, *lines, path=path)).status in (200, 206)
    assert len(one.origin.requests) == 1


async def test_a_sibling_that_does_not_come_is_not_waited_for(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(siblings, "WAIT_S", 0.05)
    one: Play = await play(["gzip"], f=page(MEDIUM), f_gz=packed(before_head=5.0))
    got = await one.running.fetch("/f", ALL)
    assert (got.get("content-encoding"), decoded(got)) == ("zstd", MEDIUM)


async def test_a_sibling_that_breaks_is_healed(play: Any) -> None:
    content = gzip.compress(random.Random(1).randbytes(600_000), mtime=0)
    one: Play = await play(["gzip"], f=page(LARGE))
    one.origin.script("/f.gz", packed(content, breaks=fin(300_000)), packed(content))
    fetching = asyncio.create_task(one.running.fetch("/f", ALL))
    while not fetching.done():
        await one.clock.advance(0.1)  # what it waits before it asks again
        await asyncio.sleep(0.001)
    got = fetching.result()
    assert (got.complete, hashlib.sha256(got.body).digest()) == (True, hashlib.sha256(content).digest())
    assert one.asked("/f.gz") == 2


# --- folders ----------------------------------------------------------------------------------------------------------


async def test_a_folder(house: OpenHouse, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for name, content in {"a.txt": MEDIUM, "a.txt.gz": PACKED, "b.txt": MEDIUM}.items():
        (files / name).write_bytes(content)
        os.utime(files / name, (START - 100, START - 100))
    running = await house(
        {
            "upstreams": {"files": files.as_uri()},
            "routes": [{"path": "/", "upstream": "files", "compress": {"siblings": ["gzip"]}}],
            "cache": UNSHARED,
            "redis": {"url": "off"},
        }
    )
    running.house._service.compression._busy = lambda: 0.0  # type: ignore[union-attr]
    got = await running.fetch("/a.txt", ALL)
    assert (got.body, got.get("content-encoding")) == (PACKED, "gzip")
    other = await running.fetch("/b.txt", ALL)
    assert (decoded(other), other.get("content-encoding")) == (MEDIUM, "zstd")
    assert (await running.fetch("/a.txt")).body == MEDIUM
