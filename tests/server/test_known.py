"""What may be known by heart (pure): header blocks, ids, places in heads, the bounded table."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.http.forwarded import request_id
from fileproxy.server import known
from fileproxy.server.bounded import Bounded
from fileproxy.server.heads import HeadLimits, check_head
from fileproxy.server.known import Frame

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nage: 7\r\nCache-Status: other; hit\r\nCache-Status: me; hit; ttl=9\r\n"
    b"Date: then\r\nX-Request-Id: abc\r\nVia: 1.1 me\r\n\r\n"
)


def test_the_changing_places_of_a_head_are_filled() -> None:
    before, after = Frame(HEAD, dated=True).render("8", "me; hit; ttl=8", "now")
    assert before + b"xyz" + after == HEAD.replace(b"age: 7", b"Age: 8").replace(b"ttl=9", b"ttl=8").replace(
        b"abc", b"xyz"
    )
    before, after = Frame(HEAD, dated=False).render("8", "me; hit; ttl=8", "now")
    assert b"\r\nDate: now\r\n" in before


@pytest.mark.parametrize("line", [b"age: 7\r\n", b"X-Request-Id: abc\r\n", b"Date: then\r\n"])
def test_a_head_without_its_places_cannot_be_known(line: bytes) -> None:
    with pytest.raises(ValueError, match="no"):
        Frame(HEAD.replace(line, b""), dated=False)
    with pytest.raises(ValueError, match="more than one"):
        Frame(HEAD.replace(line, line + line), dated=False)


def test_one_id_is_taken_from_a_block() -> None:
    block = b"Host: a\r\nx-REQUEST-id: i-1\r\nA: b\r\n\r\n"
    assert known.without_id(block) == (b"Host: a\r\nA: b\r\n\r\n", b"i-1")
    assert known.without_id(b"X-Request-Id: i\r\nA: b\r\n\r\n") == (b"A: b\r\n\r\n", b"i")
    for value in (b"", b" i", b"i j", b"i" * 129, b'"'):
        other = block.replace(b"i-1", value)
        assert known.without_id(other) == (other, b"")
    assert known.without_id(b"A: X-Request-Id: i\r\n\r\n")[1] == b""


@given(st.text(alphabet=[chr(n) for n in range(33, 127)], min_size=1, max_size=140))
def test_ids_are_those_that_the_long_way_takes_over(value: str) -> None:
    long_way = request_id((("X-Request-Id", value),), True, lambda: "")
    assert known.without_id(f"X-Request-Id: {value}\r\n\r\n".encode())[1].decode() == long_way


def test_a_line_and_a_block_that_fit_are_never_too_long_together() -> None:
    most = 1000
    line, block = b"l" * 248, b"b" * 750
    assert known.fits(line, block, most)
    assert len(line + b"\r\n" + block) == most
    assert not known.fits(line + b"l", b"", most)
    assert not known.fits(b"", block + b"b", most)


def test_a_head_is_cut_around_its_id() -> None:
    head = b"HTTP/1.1 200 OK\r\nA: 1\r\nConnection: close\r\nX-Request-Id: i-1\r\nDate: d\r\n\r\n"
    assert known.around_id(head) == (b"HTTP/1.1 200 OK\r\nA: 1\r\nX-Request-Id: ", b"\r\nDate: d\r\n\r\n")
    assert known.around_id(b"HTTP/1.1 200 OK\r\nX-Request-Id: i\r\n\r\n")[1] == b"\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "plain"),
    [
        (b"GET /f HTTP/1.1\r\nHost: a\r\n\r\n", True),
        (b"GET /f HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", True),
        (b"HEAD /f HTTP/1.1\r\nHost: a\r\n\r\n", False),
        (b"GET http://a/f HTTP/1.1\r\nHost: a\r\n\r\n", False),
        (b"GET /f HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", False),
        (b"GET /f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", True),
        (b"GET /f HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", False),
        (b"GET /f HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", False),
        (b"GET /f HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", False),
        (b"GET /f HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n", False),
    ],
)
def test_plain_heads(head: bytes, plain: bool) -> None:
    assert known.is_plain(check_head(head, HeadLimits())) is plain


@pytest.mark.parametrize(
    "name",
    ["Range", "If-None-Match", "If-Match", "If-Range", "If-Modified-Since", "If-Unmodified-Since", "Authorization",
     "Cache-Control", "Pragma", "Origin", "Content-Length", "Transfer-Encoding", "Expect", "Upgrade", "TE", "CDN-Loop",
     "X-Anything"],
)  # fmt: skip
def test_fields_that_say_something_are_not_inert(name: str) -> None:
    assert not known.all_inert((("Host", "a"), (name, "x")))


@pytest.mark.parametrize(
    ("value", "inert", "closes"), [("keep-alive", True, False), ("Close", True, True), ("close, te", False, False)]
)
def test_what_connection_may_say(value: str, inert: bool, closes: bool) -> None:
    headers = (("Host", "a"), ("Connection", value))
    assert known.all_inert(headers) is inert
    assert known.closes(headers) is closes


def test_what_vary_may_name() -> None:
    assert known.may_vary(())
    assert known.may_vary(("accept-encoding", "origin", "x-anything"))  # no known block has the last two
    for field in ("cookie", "user-agent", "host", "x-forwarded-for", "sec-fetch-mode", "accept"):
        assert not known.may_vary(("accept-encoding", field))


@given(st.floats(0, 1e6), st.floats(0.001, 1e6), st.floats(1e9, 2e9), st.floats(0, 1))
def test_a_head_lasts_while_it_says_the_same(age: float, ttl: float, epoch: float, part: float) -> None:
    lasts = known.lasts(age, ttl, epoch)
    assert 0 <= lasts <= 1
    later = lasts * part * 0.99
    if lasts > 1e-6:
        assert math.ceil(age + later) == math.ceil(age)
        assert math.floor(ttl - later) == math.floor(ttl)
        assert int(epoch + later) == int(epoch)


@dataclass
class Weight:
    weight: int
    told: int = 0  # how often that it is gone

    def gone(self) -> None:
        self.told += 1


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 40))), st.integers(0, 100))
def test_a_bounded_table_keeps_within_its_bytes(added: list[tuple[int, int]], most: int) -> None:
    table: Bounded[int, Weight] = Bounded(most)
    rows: list[Weight] = []
    for key, weight in added:
        table.add(key, row := Weight(weight))
        rows.append(row)
        assert table.bytes <= most
        assert (table.get(key) is row) == (weight <= most)
    left = [kept for key in range(10) if (kept := table.get(key))]
    assert table.bytes == sum(kept.weight for kept in left)
    assert [row.told for row in rows] == [0 if any(row is kept for kept in left) else 1 for row in rows]
    table.clear()
    assert all(row.told == 1 for row in rows)
    assert (len(table), table.bytes) == (0, 0)


def test_the_oldest_goes_first_unless_it_was_refreshed() -> None:
    table: Bounded[str, Weight] = Bounded(3)
    for key in "abc":
        table.add(key, Weight(1))
    table.refresh("a")
    table.add("d", Weight(1))
    assert [key for key in "abcd" if table.get(key)] == ["a", "c", "d"]
    table.drop("c")
    table.drop("x")
    assert table.bytes == 2
