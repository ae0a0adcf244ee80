"""The parts of a load that decide: what is asked, where it may go, how an answer is read, what figures say."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fileproxy.bench.consistent import Bytes, Consistency
from fileproxy.bench.hosts import VOUCH, Refused, is_loopback, targets
from fileproxy.bench.plan import SPOTS, Draw, Plan, span
from fileproxy.bench.tally import Histogram, Outcome, Tally, difference
from fileproxy.bench.wire import Answer, BadAnswer, parse_head

# --- plan ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [{"clients": 0}, {"clients": 10**6}, {"seconds": 0}, {"seconds": 1e9}, {"rate": 0}, {"ranges": 1.1}, {"slow": -1}],
)
def test_a_load_is_bounded(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must lie between"):
        Plan(**wrong)  # type: ignore[arg-type]


def test_urls_come_one_after_the_other_or_by_popularity() -> None:
    assert [Draw(Plan(), 3)().url for _ in range(1)] == [0]
    draw = Draw(Plan(), 3)
    assert [draw().url for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    popular = Draw(Plan(zipf=1.0), 100)
    seen = Counter(popular().url for _ in range(20_000))
    assert 1.6 < seen[0] / seen[1] < 2.5  # 2 of Zipf's law
    assert max(seen) < 100


@settings(deadline=None)
@given(st.floats(0, 1), st.integers(0, 2**32))
def test_the_share_of_ranges(share: float, seed: int) -> None:
    draw = Draw(Plan(ranges=share, seed=seed), 1)
    parts = sum(draw().spot is not None for _ in range(400))
    assert abs(parts - 400 * share) <= 5 * math.sqrt(400 * share * (1 - share)) + 1


@settings(deadline=None)
@given(st.integers(0, SPOTS - 1), st.integers(1, 1 << 30), st.none() | st.integers(0, 1 << 40))
def test_a_part_lies_in_the_file(spot: int, length: int, size: int | None) -> None:
    first, last = span(spot, length, size)
    assert 0 <= first <= last
    if size is not None and size >= length:
        assert last < size
        assert last - first + 1 == length
    if size is not None and size > length and spot in (0, SPOTS - 1):
        assert first == 0 if spot == 0 else last == size - 1


@settings(deadline=None)
@given(st.floats(0, 1), st.integers(1, 500))
def test_the_share_of_slow_clients_is_rounded_up(share: float, clients: int) -> None:
    plan = Plan(slow=share, clients=clients)
    assert sum(plan.is_slow(number) for number in range(clients)) == math.ceil(share * clients)


# --- hosts -----------------------------------------------------------------------------------------------------------


def test_another_machine_only_when_somebody_vouches() -> None:
    def resolve(name: str, port: int) -> str:
        return {"here.test": "127.0.0.2", "there.test": "192.0.2.1"}[name]

    (one,) = targets(["http://here.test:81/a b?q=ü"], vouched=False, resolve=resolve)
    assert (one.address, one.port, one.host, one.path) == ("127.0.0.2", 81, "here.test:81", "/a%20b?q=%C3%BC")
    with pytest.raises(Refused, match=VOUCH):
        targets(["http://here.test/", "https://there.test/"], vouched=False, resolve=resolve)
    (other,) = targets(["https://there.test/%2F"], vouched=True, resolve=resolve)
    assert (other.tls, other.port, other.host, other.path) == (True, 443, "there.test", "/%2F")


def test_a_name_is_looked_up_once() -> None:
    answers = iter(["127.0.0.1", "192.0.2.1"])
    found = targets(["http://x.test/1", "http://x.test/2"], vouched=False, resolve=lambda *_: next(answers))
    assert {one.address for one in found} == {"127.0.0.1"}


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "127.0.0.1", "http://", "http://u:p@127.0.0.1/", "http://[::1/"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(Refused):
        targets([url], vouched=True, resolve=lambda *_: "127.0.0.1")


@pytest.mark.parametrize(
    ("address", "local"),
    [("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True), ("10.0.0.1", False), ("0.0.0.0", False)],
)
def test_loopback(address: str, local: bool) -> None:
    assert is_loopback(address) is local


# --- wire ------------------------------------------------------------------------------------------------------------

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def read(raw: bytes, cuts: list[int]) -> tuple[Answer, bytes]:
    answer, body, last = Answer(), b"", 0
    for cut in sorted({*(one % (len(raw) + 1) for one in cuts), len(raw)}):
        body += b"".join(answer.feed(raw[last:cut]))
        last = cut
    return answer, body


@settings(deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0, 10_000), max_size=20), st.booleans())
def test_framing_by_length_however_it_is_cut(body: bytes, cuts: list[int], interim: bool) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" if interim else b""
    raw = early + b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: %d\r\n\r\n' % len(body) + body
    answer, got = read(raw, cuts)
    assert (answer.done, got, answer.size, answer.rest) == (True, body, len(body), b"")
    assert answer.head is not None
    assert answer.head.validator == b'"x"'


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=60), max_size=6), st.lists(st.integers(0, 10_000), max_size=30))
def test_framing_by_chunks_however_it_is_cut(chunks: list[bytes], cuts: list[int]) -> None:
    raw = CHUNKED + b"".join(b"%x;a=b\r\n%b\r\n" % (len(one), one) for one in chunks) + b"0\r\nTrailer: x\r\n\r\n"
    answer, got = read(raw, cuts)
    assert (answer.done, got, answer.rest) == (True, b"".join(chunks), b"")
    short, _ = read(raw[:-1], cuts)
    assert not short.done
    assert not short.end()


def test_up_to_the_close_only_the_close_ends_it() -> None:
    answer, got = read(b"HTTP/1.0 200 OK\r\n\r\nabc", [])
    assert (answer.done, got) == (False, b"abc")
    assert answer.head is not None
    assert answer.head.close
    assert answer.end()
    cut, _ = read(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc", [])
    assert not cut.end()


def test_bytes_behind_an_answer_are_seen() -> None:
    assert read(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", [])[0].rest == b"b"
    assert read(b"HTTP/1.1 304 OK\r\nContent-Length: 9\r\n\r\nb", [])[0].rest == b"b"


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-x\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
        CHUNKED + b"1\r\nabc",
        CHUNKED + b"g\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b"1" * 300,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
    ],
)
def test_what_is_no_answer(raw: bytes) -> None:
    with pytest.raises(BadAnswer):
        read(raw, [])


def test_what_a_head_says() -> None:
    head = parse_head(
        b"HTTP/1.1 206 Partial Content\r\ncontent-range:  bytes 5-9/20 \r\nLAST-MODIFIED: x\r\nConnection: Close\r\n"
        b"Content-Length: 5\r\n\r\n"
    )
    assert head == (206, 5, False, True, b"x", (5, 9, 20))


# --- the same bytes --------------------------------------------------------------------------------------------------


def test_other_bytes_under_the_same_validator() -> None:
    seen = Consistency()
    one, two = Bytes(3, b"1"), Bytes(3, b"2")
    assert seen.judge(0, None, b'"a"', one) == "first"
    assert seen.judge(0, None, b'"a"', one) == "same"
    assert seen.judge(0, None, b'"a"', two) == "different"
    assert seen.judge(0, (0, 2), b'"a"', two) == "first"  # a part is something else
    assert seen.judge(1, None, b"", one) == "first"
    assert seen.judge(1, None, b"", two) == "different"  # nothing says that it is new
    assert seen.judge(0, None, b'"b"', two) == "changed"
    assert seen.judge(0, None, b'"b"', two) == "same"


# --- figures ---------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=200), st.floats(0, 100))
def test_percentiles_are_right_within_a_percent(times: list[float], percent: float) -> None:
    histogram = Histogram()
    for one in times:
        histogram.add(one)
    exact = sorted(times)[max(1, math.ceil(len(times) * percent / 100)) - 1]
    found = histogram.percentile(percent)
    assert found is not None
    assert exact * 0.999999 <= found <= exact * 1.0101
    assert histogram.percentile(100) == max(times) == histogram.most


def test_errors_do_not_make_the_times_look_good() -> None:
    tally = Tally()
    tally.add(Outcome(200, 0.010, 0.020, None))
    tally.add(Outcome(None, None, 0.000001, "connection refused"))
    tally.add(Outcome(503, 0.001, 0.001, "status 503"))
    figures = tally.figures(2.0)
    assert (figures["requests"], figures["errors"], figures["good_per_s"]) == (3, 2, 0.5)
    assert figures["whole_ms"]["p50"] == pytest.approx(20, rel=0.01)
    assert figures["statuses"] == {"200": 1, "503": 1}
    assert figures["errors_by_kind"] == {"connection refused": 1, "status 503": 1}


def test_rates_are_of_what_ended_in_time() -> None:
    tally = Tally()
    for _ in range(10):
        tally.add(Outcome(200, 0.1, 0.1, None))
    tally.time_is_up()
    tally.add(Outcome(200, 5.0, 5.0, None))
    figures = tally.figures(1.0)
    assert (figures["requests_per_s"], figures["requests"], figures["whole_ms"]["max"]) == (10.0, 11, 5000.0)


COUNTERS = st.recursive(
    st.integers(0, 9) | st.floats(0, 9) | st.none(),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), COUNTERS))
def test_nothing_moved_nothing_told(counters: dict[str, object]) -> None:
    assert difference(counters, counters) == {}


def test_what_counters_grew_by() -> None:
    before = {"a": 1, "b": {"x": 2}, "c": 1.5, "gone": 3, "flag": True}
    after = {"a": 4, "b": {"x": 2, "new": 5}, "c": 9.5, "flag": False}
    assert difference(before, after) == {"a": 3, "b": {"new": 5}}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_the_same_dice_ask_for_the_same(seed: int) -> None:
    plan = Plan(zipf=0.9, ranges=0.5)
    one, two = (Draw(plan, 50, random.Random(seed)) for _ in range(2))
    assert [one() for _ in range(50)] == [two() for _ in range(50)]
