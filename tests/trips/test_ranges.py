"""Parts of files, from origins that can and origins that cannot (RFC 9110 §14)."""

from __future__ import annotations

import re

import pytest

from tests.clients import Got
from tests.conftest import OpenHouse
from tests.origin import MIB, Content, Origin, Reply

pytestmark = pytest.mark.loops("uvloop")

SIZE = 3 * MIB + 123
FILE = Content(9, SIZE)

SINGLE = {
    "first": ("bytes=0-0", 0, 1),
    "start": ("bytes=0-999999", 0, 1_000_000),
    "middle": ("bytes=1000000-1999999", 1_000_000, 1_000_000),
    "last byte": (f"bytes={SIZE - 1}-{SIZE - 1}", SIZE - 1, 1),
    "open": ("bytes=3000000-", 3_000_000, SIZE - 3_000_000),
    "suffix": ("bytes=-500", SIZE - 500, 500),
    "suffix longer than the file": ("bytes=-99999999", 0, SIZE),
    "end beyond the file": (f"bytes={SIZE - 10}-99999999", SIZE - 10, 10),
    "all": (f"bytes=0-{SIZE - 1}", 0, SIZE),
}


@pytest.mark.parametrize("ranges", ["honour", "ignore"])
@pytest.mark.parametrize("name", SINGLE)
async def test_one_range(house: OpenHouse, origin: Origin, ranges: str, name: str) -> None:
    asked, start, length = SINGLE[name]
    origin.script("/f", Reply(FILE, ranges="honour" if ranges == "honour" else "ignore"))
    got = await (await house(origin)).fetch("/f", f"Range: {asked}")
    assert got.status == 206
    assert got.get("content-range") == f"bytes {start}-{start + length - 1}/{SIZE}"
    assert got.get("content-length") == str(length)
    assert got.body == FILE.read(start, length)
    assert got.ending == "length"
    assert got.get("etag") == FILE.etag


async def test_the_range_is_passed_on_so_that_a_small_ask_stays_small(house: OpenHouse, origin: Origin) -> None:
    huge = Content(1, 10 * 1024 * MIB)
    origin.serve("/huge", huge)
    got = await (await house(origin)).fetch("/huge", "Range: bytes=9000000000-9000001023")
    assert got.body == huge.read(9_000_000_000, 1024)
    assert origin.sent["/huge"] == 1024


def parts(got: Got) -> list[tuple[str, bytes]]:
    """Content-Range and bytes of every part of a multipart/byteranges body."""
    match = re.fullmatch(r"multipart/byteranges; ?boundary=\"?([^\"]+)\"?", got.get("content-type") or "")
    assert match, got.get("content-type")
    first, *rest, last = got.body.split(b"--" + match[1].encode())
    assert first.strip() == b""
    assert last.strip() == b"--"
    found = []
    for part in rest:
        head, _, body = part.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().strip().split("\r\n"))
        found.append(({name.lower(): value for name, value in fields.items()}["content-range"], body[:-2]))
    return found


@pytest.mark.parametrize("ranges", ["honour", "ignore"])
async def test_several_ranges(house: OpenHouse, origin: Origin, ranges: str) -> None:
    origin.script("/f", Reply(FILE, ranges="honour" if ranges == "honour" else "ignore"))
    got = await (await house(origin)).fetch("/f", "Range: bytes=0-9, 1000000-1000099, -5")
    assert got.status == 206
    assert len(got.body) == int(got.get("content-length") or -1)
    assert parts(got) == [
        (f"bytes 0-9/{SIZE}", FILE.read(0, 10)),
        (f"bytes 1000000-1000099/{SIZE}", FILE.read(1_000_000, 100)),
        (f"bytes {SIZE - 5}-{SIZE - 1}/{SIZE}", FILE.read(SIZE - 5)),
    ]


async def test_overlapping_and_touching_ranges_become_one(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", FILE)
    got = await (await house(origin)).fetch("/f", "Range: bytes=0-9,5-19,20-29")
    assert (got.status, got.get("content-range"), got.body) == (206, f"bytes 0-29/{SIZE}", FILE.read(0, 30))


async def test_too_many_ranges_get_the_whole_file(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", FILE)
    running = await house(origin)
    sixteen = ",".join(f"{1000 * number}-{1000 * number + 9}" for number in range(16))
    got = await running.fetch("/f", f"Range: bytes={sixteen}")
    assert (got.status, len(parts(got))) == (206, 16)
    got = await running.fetch("/f", f"Range: bytes={sixteen},50000-50009")
    assert (got.status, got.sha256) == (200, FILE.sha256())


@pytest.mark.parametrize(
    "asked", ["bytes=", "bytes=-", "bytes=5-2", "bytes=a-b", "lines=0-1", "bytes 0-1", "bytes=0-1,x", "bytes=1--2"]
)
async def test_a_range_that_means_nothing_is_ignored(house: OpenHouse, origin: Origin, asked: str) -> None:
    origin.serve("/f", FILE)
    got = await (await house(origin)).fetch("/f", f"Range: {asked}")
    assert (got.status, got.sha256) == (200, FILE.sha256())


@pytest.mark.parametrize("ranges", ["honour", "ignore"])
@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", "bytes=99999999-100000000", "bytes=-0"])
async def test_a_range_beyond_the_end_is_416(house: OpenHouse, origin: Origin, ranges: str, asked: str) -> None:
    origin.script("/f", Reply(FILE, ranges="honour" if ranges == "honour" else "ignore"))
    async with await (await house(origin)).connect() as client:
        got = await client.ask("GET", "/f", f"Range: {asked}")
        assert (got.status, got.get("content-range")) == (416, f"bytes */{SIZE}")
        assert got.complete


async def test_range_on_head_is_ignored(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", FILE)
    got = await (await house(origin)).fetch("/f", "Range: bytes=0-9", method="HEAD")
    assert (got.status, got.get("content-length")) == (200, str(SIZE))


@pytest.mark.parametrize(
    "lie",
    [
        f"bytes 1-10/{SIZE}",
        "bytes 0-9/5",
        "bytes 9-0/100",
        "bytes */100",
        "chunks 0-9/100",
        "bytes 0-8/100",
        "nonsense",
    ],
)
async def test_a_lying_content_range_is_never_passed_on(house: OpenHouse, origin: Origin, lie: str) -> None:
    origin.script("/f", Reply(FILE, content_range=lie))
    running = await house(origin)
    got = await running.fetch("/f", "Range: bytes=0-9")
    assert got.status == 502 or not got.complete or (got.status == 206 and got.body == FILE.read(0, 10))
    assert got.status == 502
    await running.quiet()
    assert running.counts.endings == {"upstream_bad_answer": 1}


async def test_an_unasked_206_is_a_bad_answer(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", Reply(b"0123456789", status=206, content_range="bytes 0-9/100"))
    got = await (await house(origin)).fetch("/f")
    assert got.status == 502


@pytest.mark.parametrize(
    ("validator", "status"),
    [
        (FILE.etag, 206),
        ('"other"', 200),
        (f"W/{FILE.etag}", 200),
        ("Sun, 01 Nov 2026 12:00:00 GMT", 206),
        ("Sat, 31 Oct 2026 12:00:00 GMT", 200),
    ],
)
@pytest.mark.parametrize("ranges", ["honour", "ignore"])
async def test_if_range(house: OpenHouse, origin: Origin, validator: str, status: int, ranges: str) -> None:
    origin.script("/f", Reply(FILE, ranges="honour" if ranges == "honour" else "ignore"))
    got = await (await house(origin)).fetch("/f", "Range: bytes=0-9", f"If-Range: {validator}")
    assert got.status == status
    assert got.body == (FILE.read(0, 10) if status == 206 else FILE.read())
