"""Ranges cut out of a stream or a file: the same bytes, however the stream is chopped."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.errors import Truncated
from fileproxy.model import FileBody, FileSlice, Piece
from fileproxy.server.ranged import Ranged, skipped

DATA = bytes(range(256)) * 2


class Stream:
    framed = True

    def __init__(self, data: bytes, cuts: list[int]) -> None:
        self.length = len(data)
        edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
        self._pieces = [data[a:b] for a, b in itertools.pairwise(edges) if a != b]
        self.closed = 0
        self.read = 0

    async def __aiter__(self) -> AsyncIterator[Piece]:
        for piece in self._pieces:
            self.read += len(piece)
            yield piece

    async def aclose(self) -> None:
        self.closed += 1


spans_within = st.lists(st.integers(0, len(DATA)), min_size=2, max_size=8, unique=True).map(
    lambda edges: [(a, b - a) for a, b in zip(*[iter(sorted(edges)[: len(edges) // 2 * 2])] * 2, strict=True)]
)


async def collect(body: Ranged) -> bytes:
    out = b""
    async for piece in body:
        if isinstance(piece, FileSlice):
            out += os.pread(piece.descriptor, piece.length, piece.offset)
        else:
            out += piece
    return out


@given(spans_within, st.lists(st.integers(0, 10_000), max_size=12))
async def test_a_stream_yields_the_spans_with_their_heads(spans: list[tuple[int, int]], cuts: list[int]) -> None:
    heads = [f"<{number}>".encode() for number in range(len(spans))]
    expected = b"".join(h + DATA[o : o + n] for h, (o, n) in zip(heads, spans, strict=True)) + b"<end>"
    stream = Stream(DATA, cuts)
    body = Ranged(stream, spans, heads, b"<end>")
    assert await collect(body) == expected
    assert body.length == len(expected)
    await body.aclose()
    assert stream.closed == 1


async def test_nothing_is_read_past_the_last_span() -> None:
    stream = Stream(DATA, list(range(len(DATA))))
    assert await collect(Ranged(stream, [(3, 4)])) == DATA[3:7]
    assert stream.read == 7


async def test_a_stream_that_ends_too_early_is_truncated_not_complete() -> None:
    with pytest.raises(Truncated):
        await collect(Ranged(Stream(DATA[:10], []), [(5, 20)]))


@given(spans_within)
async def test_a_file_yields_slices_of_its_descriptor(spans: list[tuple[int, int]]) -> None:
    descriptor = os.memfd_create("ranged")
    os.write(descriptor, DATA)
    status = os.fstat(descriptor)
    file = FileBody(descriptor, 0, len(DATA), (status.st_size, status.st_mtime_ns))
    body = Ranged(file, spans)
    assert await collect(body) == b"".join(DATA[o : o + n] for o, n in spans)
    await body.aclose()


def test_skipped_counts_what_lies_before_and_between() -> None:
    assert skipped([(0, 10)]) == 0
    assert skipped([(5, 10), (20, 1)]) == 10


def test_a_slice_outside_the_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    file = FileBody(os.open(path, os.O_RDONLY), 0, 5, (5, 0))
    with pytest.raises(ValueError, match="outside"):
        file.slice(3, 3)
    os.close(file.slice(0, 1).descriptor)
