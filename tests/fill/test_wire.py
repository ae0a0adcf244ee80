"""How workers speak: frames, messages, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.errors import UpstreamReset
from fileproxy.fill import wire
from fileproxy.http.ranges import RangeSpec


def reader_of(data: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return reader


@pytest.mark.parametrize("kind", [wire.HEAD, wire.DATA, wire.END, wire.ALIVE, wire.ERROR])
async def test_frames_come_as_they_were_sent(kind: bytes) -> None:
    reader = reader_of(wire.frame(kind, b"some") + wire.frame(kind) + wire.frame(kind, bytes(wire.LARGEST_DATA)))
    assert await wire.read_frame(reader) == (kind, b"some")
    assert await wire.read_frame(reader) == (kind, b"")
    assert await wire.read_frame(reader) == (kind, bytes(wire.LARGEST_DATA))
    with pytest.raises(UpstreamReset):
        await wire.read_frame(reader)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"D\0\0",
        wire.frame(wire.DATA, b"abc")[:-1],
        b"Z" + wire.frame(wire.DATA, b"abc")[1:],
        b"D\xff\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
async def test_an_end_within_a_frame_and_anything_else_is_a_break(data: bytes) -> None:
    with pytest.raises(UpstreamReset):
        await wire.read_frame(reader_of(data))


@given(st.binary(max_size=200))
def test_no_bytes_do_harm(data: bytes) -> None:
    for kind in (wire.PeerAsk, wire.PeerHead, wire.PeerError):
        with contextlib.suppress(UpstreamReset):
            assert isinstance(wire.decode(data, kind), kind)


@given(st.lists(st.tuples(st.text(), st.text())))
def test_header_text_survives_whatever_it_is(headers: list[tuple[str, str]]) -> None:
    clean = tuple((name.encode("utf-8", "replace").decode(), value.encode("utf-8", "replace").decode()) for name, value in headers)  # fmt: skip # noqa: E501
    assert wire.unpacked(wire.packed(clean)) == clean


def test_bytes_that_are_no_text_survive() -> None:
    odd = (("X-Odd", b"\xff\xfe".decode("utf-8", "surrogateescape")),)
    assert wire.unpacked(wire.packed(odd)) == odd


def test_ranges_survive() -> None:
    assert wire.specs_of(None) is None
    assert wire.specs_of(((1, 2), (3, None), (None, 4))) == (RangeSpec(1, 2), RangeSpec(3, None), RangeSpec(None, 4))
