"""The client's own HTTP/1.1: what is not exactly framed is refused, however it is cut into pieces."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.client.api import OURS
from fileproxy.client.contact import RETRIED
from fileproxy.client.framing import HEAD_BYTES, Chunks, framing, parse_head
from fileproxy.errors import BadAnswer
from fileproxy.settings.schema import FRAMING, Retry
from tests.service import ROOT


def test_the_client_knows_the_settings_it_does_not_import() -> None:
    assert frozenset(Retry().statuses) == RETRIED
    assert FRAMING | {"accept-encoding"} == OURS


def test_the_client_starts_light() -> None:
    """No wall clock: what takes long to import is not imported."""
    script = "import fileproxy.client.api, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    heavy = {
        "aiohttp",
        "pydantic",
        "typer",
        "rich",
        "yaml",
        "gunicorn",
        "redis",
        "structlog",
        "psutil",
        "aiohappyeyeballs",
    }
    assert not heavy & set(done.stdout.split())


@pytest.mark.parametrize(
    ("lines", "keep"),
    [
        ([b"HTTP/1.1 200 OK"], True),
        ([b"HTTP/1.1 200"], True),
        ([b"HTTP/1.1 200 OK", b"Connection: close"], False),
        ([b"HTTP/1.0 200 OK"], False),
        ([b"HTTP/1.0 200 OK", b"connection: Keep-Alive"], True),
    ],
)
def test_whether_the_connection_stays(lines: list[bytes], keep: bool) -> None:
    assert parse_head(lines, "a:1")[3] is keep


def test_a_head() -> None:
    status, reason, headers, _ = parse_head([b"HTTP/1.1 206 Partial\x01", b'ETag:  "a" ', b"X:\xff"], "a:1")
    assert (status, reason) == (206, "Partial ")
    assert headers == (("ETag", '"a"'), ("X", "\udcff"))


@pytest.mark.parametrize(
    "lines",
    [
        [b"HTTP/2 200 OK"],
        [b"HTTP/1.1 20 OK"],
        [b"HTTP/1.1  200 OK"],
        [b"ICY 200 OK"],
        [b"HTTP/1.1 200 OK", b"no colon"],
        [b"HTTP/1.1 200 OK", b"A : b"],
        [b"HTTP/1.1 200 OK", b" folded: b"],
        [b"HTTP/1.1 200 OK", b"A: b\nContent-Length: 5"],
    ],
)
def test_what_is_no_head(lines: list[bytes]) -> None:
    with pytest.raises(BadAnswer):
        parse_head(lines, "a:1")


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ((("Content-Length", "12"),), (12, False)),
        ((("Transfer-Encoding", "Chunked"),), (None, True)),
        ((), (None, False)),
    ],
)
def test_framing(headers: tuple[tuple[str, str], ...], found: tuple[int | None, bool]) -> None:
    assert framing(200, headers, "a:1") == found
    assert framing(304, headers, "a:1") == (0, False)


@pytest.mark.parametrize(
    "headers",
    [
        (("Content-Length", "1"), ("Content-Length", "1")),
        (("Content-Length", "1"), ("Transfer-Encoding", "chunked")),
        (("Content-Length", "-1"),),
        (("Content-Length", "1, 1"),),
        (("Content-Length", "9" * 30),),
        (("Transfer-Encoding", "gzip, chunked"),),
        (("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")),
    ],
)
def test_a_length_that_is_not_clear_is_refused(headers: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(BadAnswer):
        framing(200, headers, "a:1")


@given(
    parts=st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    cuts=st.lists(st.integers(0, 400), max_size=10),
    after=st.binary(max_size=5),
)
def test_chunks_however_they_are_cut(parts: list[bytes], cuts: list[int], after: bytes) -> None:
    raw = b"".join(b"%X;ext=1\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\nX: y\r\n\r\n" + after
    chunks, content, rest = Chunks("a:1"), b"", b""
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    for first, end in itertools.pairwise(edges):
        if chunks.over:
            rest += raw[first:end]
            continue
        pieces, behind = chunks.feed(raw[first:end])
        content += b"".join(pieces)
        rest += behind
    assert chunks.over
    assert (content, rest) == (b"".join(parts), after)


@pytest.mark.parametrize(
    "raw",
    [
        b"x\r\n",
        b"-1\r\n",
        b"\r\n",
        b"1\n",
        b"1\r\nab\r\n",
        b"0x1\r\n",
        b"1" * 5000,
        b"0\r\n" + b"a: b\r\n" * HEAD_BYTES,
    ],
)
def test_what_are_no_chunks(raw: bytes) -> None:
    with pytest.raises(BadAnswer):
        Chunks("a:1").feed(raw)
