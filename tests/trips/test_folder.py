"""A local folder as the origin: everything in it, and nothing else."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import OpenHouse
from tests.origin import MIB, Content
from tests.trips.plays import settings

pytestmark = pytest.mark.loops("asyncio", "uvloop")


@pytest.fixture
def folder(short_path: Path) -> Iterator[Path]:
    """A served folder with a secret beside it and every kind of bait inside."""
    served = short_path / "served"
    (served / "sub").mkdir(parents=True)
    (short_path / "secret").write_text("hidden words")
    (served / "file.txt").write_bytes(b"hello\n")
    (served / "sub" / "a b.bin").write_bytes(Content(1, 3 * MIB).read())
    (served / "empty").touch()
    (served / ".hidden").write_text("hidden words")
    (served / ".git").mkdir()
    (served / ".git" / "config").write_text("hidden words")
    (served / "escape").symlink_to("../secret")
    (served / "up").symlink_to("..")
    (served / "inside").symlink_to("file.txt")
    os.mkfifo(served / "pipe")
    for file in (served / "file.txt", served / "sub" / "a b.bin"):
        os.utime(file, (1_700_000_000, 1_700_000_000))  # old enough for a strong ETag
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(served / "socket"))
        yield served


async def test_files_arrive_byte_for_byte(house: OpenHouse, folder: Path) -> None:
    running = await house(settings(f"file://{folder}"))
    got = await running.fetch("/sub/a%20b.bin")
    assert (got.status, got.ending, got.sha256) == (200, "length", Content(1, 3 * MIB).sha256())
    assert (got.get("etag") or "").startswith('"')
    assert got.get("last-modified")
    assert got.get("accept-ranges") == "bytes"
    small = await running.fetch("/file.txt")
    assert (small.body, (small.get("content-type") or "").partition(";")[0]) == (b"hello\n", "text/plain")
    empty = await running.fetch("/empty")
    assert (empty.status, empty.get("content-length")) == (200, "0")
    head = await running.fetch("/file.txt", method="HEAD")
    assert (head.status, head.get("content-length")) == (200, "6")


async def test_ranges_and_conditions(house: OpenHouse, folder: Path) -> None:
    content = Content(1, 3 * MIB).read()
    running = await house(settings(f"file://{folder}"))
    part = await running.fetch("/sub/a%20b.bin", "Range: bytes=1000000-1999999")
    assert (part.status, part.body) == (206, content[1_000_000:2_000_000])
    tail = await running.fetch("/sub/a%20b.bin", "Range: bytes=-7")
    assert (tail.status, tail.body) == (206, content[-7:])
    whole = await running.fetch("/file.txt")
    assert (await running.fetch("/file.txt", f"If-None-Match: {whole.get('etag')}")).status == 304
    assert (await running.fetch("/file.txt", 'If-Match: "other"')).status == 412
    assert (await running.fetch("/file.txt", "Range: bytes=6-")).status == 416


@pytest.mark.parametrize(
    "target",
    ["/.hidden", "/.git/config", "/escape", "/up/secret", "/up/served/file.txt", "/pipe", "/socket", "/missing",
     "/file.txt/", "/file.txt/x", "/sub/.../x", "/" + "n" * 300],
)  # fmt: skip
async def test_what_is_not_to_be_seen_is_not_there(house: OpenHouse, folder: Path, target: str) -> None:
    running = await house(settings(f"file://{folder}"))
    got = await running.fetch(target)
    assert got.status in (403, 404)
    assert b"hidden words" not in got.body


@pytest.mark.parametrize(
    "target", ["/../secret", "/sub/../../secret", "/%2e%2e/secret", "/..%2fsecret", "/.%2e/secret", "/x%00y",
               "/sub\\..\\..\\secret", "/sub%5c..%5csecret"]
)  # fmt: skip
async def test_the_way_out_is_closed(house: OpenHouse, folder: Path, target: str) -> None:
    running = await house(settings(f"file://{folder}"))
    got = await running.fetch(target)
    assert got.status in (400, 403, 404)
    assert b"hidden words" not in got.body


async def test_a_link_that_stays_inside_is_no_way_to_guess_what_is_outside(house: OpenHouse, folder: Path) -> None:
    running = await house(settings(f"file://{folder}"))
    outside, nowhere = await running.fetch("/escape"), await running.fetch("/up/nothing")
    assert outside.status == nowhere.status


async def test_a_folder_is_no_file(house: OpenHouse, folder: Path) -> None:
    running = await house(settings(f"file://{folder}"))
    assert (await running.fetch("/sub")).status in (301, 307, 308, 403, 404)
    assert (await running.fetch("/")).status in (403, 404)


async def test_only_reading(house: OpenHouse, folder: Path) -> None:
    running = await house(settings(f"file://{folder}", route={"methods": ["GET", "HEAD", "PUT", "DELETE"]}))
    got = await running.fetch("/file.txt", method="DELETE")
    assert got.status == 405
    assert (folder / "file.txt").read_bytes() == b"hello\n"
    put = await running.fetch("/new", method="PUT", body=b"x")
    assert put.status == 405
    assert not (folder / "new").exists()


async def test_a_file_that_changes_while_it_is_sent_aborts_visibly(house: OpenHouse, folder: Path) -> None:
    big = folder / "big"
    big.write_bytes(Content(4, 64 * MIB).read())
    running = await house(settings(f"file://{folder}"))
    async with await running.connect(receive_buffer=16 * 1024) as client:
        await client.request("GET", "/big")
        got = await client.head()
        with big.open("r+b") as file:
            file.truncate(1 * MIB)
        await client.body(got)
    assert not got.complete
    await running.counts.wait_for(lambda: running.counts["ending.upstream_changed"] == 1)
