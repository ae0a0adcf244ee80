"""multipart/byteranges, read back by the standard library's parser (RFC 9110 §14.6)."""

from __future__ import annotations

from email import policy
from email.parser import BytesParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.http.multipart import byteranges

BOUNDARY = "0123456789abcdef"
DATA = bytes(range(256)) * 4


@given(st.lists(st.tuples(st.integers(0, 1023), st.integers(1, 50)), min_size=1, max_size=16))
def test_the_parts_come_back_and_the_length_is_exact(spans: list[tuple[int, int]]) -> None:
    spans = [(offset, min(length, len(DATA) - offset)) for offset, length in spans]
    framing = byteranges(BOUNDARY, "application/octet-stream", len(DATA), spans)
    body = b"".join(
        head + DATA[offset : offset + length] for head, (offset, length) in zip(framing.heads, spans, strict=True)
    )
    body += framing.tail
    assert len(body) == framing.length
    raw = f"Content-Type: {framing.content_type}\r\n\r\n".encode() + body
    message = BytesParser(policy=policy.HTTP).parsebytes(raw)
    assert [part["content-range"] for part in message.iter_parts()] == [
        f"bytes {offset}-{offset + length - 1}/{len(DATA)}" for offset, length in spans
    ]
    assert all(part.get_content_type() == "application/octet-stream" for part in message.iter_parts())
    assert body.startswith(b"--" + BOUNDARY.encode())


def test_without_a_type_no_type_is_made_up() -> None:
    assert b"Content-Type" not in byteranges(BOUNDARY, None, 10, [(0, 1)]).heads[0]


def test_bytes_of_a_type_that_are_no_utf_8_survive() -> None:
    assert b'x="\xff"' in byteranges(BOUNDARY, 'a/b; x="\udcff"', 10, [(0, 1)]).heads[0]


@pytest.mark.parametrize("boundary", ["short", "a" * 71, "0123456789abcde\n", "0123456789 abcdef", '"0123456789abcdef'])
def test_an_unsafe_boundary_is_an_error(boundary: str) -> None:
    with pytest.raises(ValueError, match="boundary"):
        byteranges(boundary, None, 10, [(0, 1)])


@pytest.mark.parametrize("kind", ["a/b\r\nX: y", "a/b\n", "a\0b"])
def test_a_type_cannot_forge_a_line(kind: str) -> None:
    with pytest.raises(ValueError, match="control"):
        byteranges(BOUNDARY, kind, 10, [(0, 1)])


def test_no_spans_are_an_error() -> None:
    with pytest.raises(ValueError, match="no parts"):
        byteranges(BOUNDARY, None, 10, [])
