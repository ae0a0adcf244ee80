"""Where a request's body ends, however the stream is chopped (RFC 9112 §6, §7)."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.server.framing import (
    LONGEST_CHUNK_LINE,
    LONGEST_TRAILERS,
    BodyScanner,
    ChunkedScanner,
    LengthScanner,
    scanner,
)
from fileproxy.server.heads import BadHead, HeadLimits, check_head

NEXT = b"GET /next HTTP/1.1\r\n\r\n"
cuts = st.lists(st.integers(0, 10_000), max_size=12)


def chop(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in zip(edges, edges[1:], strict=False)]  # noqa: RUF007  (empty pieces belong to it)


def feed_all(one: BodyScanner, pieces: list[bytes]) -> tuple[bytes, bytes]:
    """What was handed on, and what was left for the next request."""
    handed_on = rest = b""
    for piece in pieces:
        if one.done:
            rest += piece
            continue
        out, used = one.feed(piece)
        assert used == len(piece) or one.done
        handed_on += out
        rest += piece[used:]
    return handed_on, rest


def chunked(chunks: list[bytes], extension: bytes = b"", trailers: bytes = b"") -> bytes:
    lines = [b"%x" % len(chunk) + extension + b"\r\n" + chunk + b"\r\n" for chunk in chunks]
    return b"".join(lines) + b"0" + extension + b"\r\n" + trailers + b"\r\n"


@given(st.binary(min_size=1, max_size=100), cuts)
def test_a_body_with_a_length_ends_there(body: bytes, cuts: list[int]) -> None:
    one = LengthScanner(len(body))
    assert feed_all(one, chop(body + NEXT, cuts)) == (body, NEXT)
    assert one.done


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    st.sampled_from([b"", b";a", b";a=b", b';a="x;y"']),
    st.sampled_from([b"", b"X: y\r\n", b"X: y\r\nContent-Length: 5\r\n"]),
    cuts,
)
def test_a_chunked_body_ends_at_its_last_line(
    chunks: list[bytes], extension: bytes, trailers: bytes, cuts: list[int]
) -> None:
    one = ChunkedScanner()
    handed_on, rest = feed_all(one, chop(chunked(chunks, extension, trailers) + NEXT, cuts))
    assert one.done
    assert rest == NEXT
    assert handed_on == chunked(chunks)  # neither extensions nor trailers reach the parser behind


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=4), st.integers(0, 200), cuts)
def test_a_body_cut_short_is_never_done(chunks: list[bytes], keep: int, cuts: list[int]) -> None:
    whole = chunked(chunks)
    one = ChunkedScanner()
    feed_all(one, chop(whole[: keep % len(whole)], cuts))
    assert not one.done


BAD = {
    "no size": b"\r\n",
    "not hex": b"g\r\n",
    "sign": b"+5\r\nhello\r\n",
    "minus": b"-1\r\n",
    "0x": b"0x5\r\nhello\r\n",
    "space before": b" 5\r\nhello\r\n",
    "space after": b"5 \r\nhello\r\n",
    "bare LF after the size": b"5\nhello\r\n0\r\n\r\n",
    "bare CR in the line": b"5\r;x\r\nhello\r\n",
    "too large": b"8000000000000000\r\n",
    "17 digits": b"00000000000000005\r\nhello\r\n",
    "longer than it says": b"5\r\nhello!\r\n",
    "shorter than it says": b"5\r\nhell\r\n0\r\n\r\n",
    "LF instead of CRLF after the data": b"5\r\nhello\n0\r\n\r\n",
    "CR without LF after the data": b"5\r\nhello\r0\r\n\r\n",
    "NUL in an extension": b"5;\0\r\nhello\r\n",
    "trailer without colon": b"0\r\nnonsense\r\n\r\n",
    "trailer folded": b"0\r\nX: a\r\n b\r\n\r\n",
    "trailer with space before the colon": b"0\r\nX : a\r\n\r\n",
    "trailer with NUL": b"0\r\nX: \0\r\n\r\n",
    "bare LF ends the trailers": b"0\r\n\n",
}


@pytest.mark.parametrize("name", BAD)
@given(cuts=cuts)
def test_a_bad_chunk_is_refused_however_it_is_chopped(name: str, cuts: list[int]) -> None:
    with pytest.raises(BadHead) as caught:
        feed_all(ChunkedScanner(), chop(BAD[name], cuts))
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "endless", [b"5;" + b"x" * LONGEST_CHUNK_LINE, b"0\r\n" + b"X: y\r\n" * (LONGEST_TRAILERS // 6 + 1)]
)
@pytest.mark.parametrize("step", [1, 1000, 100_000])
def test_extensions_and_trailers_are_bounded(endless: bytes, step: int) -> None:
    with pytest.raises(BadHead, match="too long"):
        feed_all(ChunkedScanner(), [endless[at : at + step] for at in range(0, len(endless), step)])


@given(st.binary(max_size=100), cuts)
def test_no_bytes_raise_anything_else(data: bytes, cuts: list[int]) -> None:
    with contextlib.suppress(BadHead):
        feed_all(ChunkedScanner(), chop(data, cuts))


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("Content-Length: 5", LengthScanner),
        ("Content-Length: 0", type(None)),
        ("Transfer-Encoding: chunked", ChunkedScanner),
        ("X: y", type(None)),
    ],
)
def test_the_head_chooses_the_scanner(line: str, kind: type) -> None:
    head = check_head(f"POST / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n".encode(), HeadLimits())
    assert type(scanner(head)) is kind
