"""The stage that codes a body: equal steps, proved ends, nothing left behind."""

from __future__ import annotations

import os
import zlib
from collections.abc import AsyncIterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fileproxy.errors import FileChanged, Truncated
from fileproxy.http.coding import CODINGS, Coding
from fileproxy.model import FileBody, Piece
from fileproxy.server import coders
from fileproxy.server.compress import INLINE, STEP, Compression, Stage
from tests.house import Watched
from tests.trips.test_compression import prose

TEXT = prose(5 * STEP + 77)


class Pieces:
    """A body in these pieces, that breaks at its end if it is told to."""

    framed = True

    def __init__(self, pieces: Sequence[bytes], breaks: bool = False) -> None:
        self._pieces, self._breaks = pieces, breaks
        self.length = sum(map(len, pieces))

    async def __aiter__(self) -> AsyncIterator[Piece]:
        for piece in self._pieces:
            yield piece
        if self._breaks:
            raise Truncated("cut")

    async def aclose(self) -> None:
        return None


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    ends = [*sorted(places), len(data)]
    return [data[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def compression() -> Compression:
    return Compression(Watched(), budget=lambda: 64 * 1024 * 1024, busy=lambda: 0.0)


async def coded(body: Any, coding: Coding = "gzip", size: int | None = None, rid: bytes | None = None) -> bytes:
    owner = compression()
    stage = Stage(owner, body, coding, 3, size, rid)
    try:
        return b"".join([piece async for piece in stage])
    finally:
        await stage.aclose()
        assert owner.running == 0
        owner.close()


@settings(deadline=None, max_examples=25)  # threads on a busy machine
@given(st.lists(st.integers(0, len(TEXT)), max_size=12), st.sampled_from(CODINGS))
async def test_the_same_bytes_whatever_pieces_they_came_in(places: list[int], coding: Coding) -> None:
    whole = await coded(Pieces([TEXT]), coding, len(TEXT))
    assert await coded(Pieces(cut(TEXT, places)), coding, len(TEXT)) == whole


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, len(TEXT)), max_size=12))
async def test_steps_are_equal(places: list[int]) -> None:
    steps: list[int] = []

    class Noting:
        def push(self, data: bytes | memoryview, *, flush: bool = False) -> bytes:
            steps.append(len(data))
            assert not flush
            return b""

        def end(self) -> bytes:
            return b"end"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coders, "compressor", lambda *given: Noting())
        assert await coded(Pieces(cut(TEXT, places)), size=len(TEXT)) == b"end"
    assert steps == [STEP] * 5 + [77]


@pytest.mark.parametrize("size", [0, 1, INLINE, STEP, 2 * STEP])
@pytest.mark.parametrize("coding", CODINGS)
async def test_lengths_at_the_edges(size: int, coding: Coding) -> None:
    packed = await coded(Pieces([TEXT[:size]]), coding, size)
    assert decode(coding, packed) == TEXT[:size]


@pytest.mark.parametrize("coding", CODINGS)
async def test_each_piece_can_be_decoded_at_once_when_the_length_is_unknown(coding: Coding) -> None:
    owner = compression()
    stage = Stage(owner, Pieces([b"first ", b"second"]), coding, 1, None, None)
    out = b""
    seen = []
    async for piece in stage:
        out += piece
        seen.append(decode(coding, out, whole=False))
    assert seen[0] == b"first "
    assert seen[-1] == decode(coding, out) == b"first second"
    owner.close()


@pytest.mark.parametrize("breaks", [False, True])
async def test_a_copy_is_kept_of_what_proved_its_end(breaks: bool) -> None:
    owner = compression()
    stage = Stage(owner, Pieces([TEXT], breaks), "gzip", 3, len(TEXT), b"rid")
    if breaks:
        with pytest.raises(Truncated):
            [piece async for piece in stage]
    else:
        assert zlib.decompress(b"".join([piece async for piece in stage]), 31) == TEXT
    await stage.aclose()
    assert owner.statistics()["kept"] == (not breaks)
    assert owner.running == 0
    owner.close()


async def test_a_file_that_changes_under_it(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(TEXT)
    status = path.stat()
    body = FileBody(os.open(path, os.O_RDONLY), 0, len(TEXT), (status.st_size, status.st_mtime_ns))
    assert decode("zstd", await coded(body, "zstd", len(TEXT))) == TEXT
    again = FileBody(os.open(path, os.O_RDONLY), 0, len(TEXT), (status.st_size, status.st_mtime_ns + 1))
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileChanged):
        await coded(again, "zstd", len(TEXT))
    await again.aclose()
    assert len(os.listdir("/proc/self/fd")) < before


def decode(coding: Coding, data: bytes, *, whole: bool = True) -> bytes:
    out: bytes
    if coding == "gzip":
        one = zlib.decompressobj(31)
        out, ended = one.decompress(data), one.eof
    elif coding == "br":
        brotli: Any = import_module("brotli").Decompressor()
        out, ended = brotli.process(data), brotli.is_finished()
    else:
        zstd: Any = import_module("backports.zstd").ZstdDecompressor()
        out, ended = zstd.decompress(data), zstd.eof
    assert ended or not whole
    return out
