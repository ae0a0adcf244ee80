"""Preconditions in their order, If-Range and ranges (RFC 9110 §13, §14)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.http.dates import format_date
from fileproxy.model import Headers
from fileproxy.server.conditions import Decision, denies_if_range, evaluate, precondition, select_ranges

NOW = 1_800_000_000.0
MODIFIED = NOW - 1000
AT, BEFORE, AFTER = (format_date(MODIFIED + shift) for shift in (0, -1, 1))
FILE: Headers = (("ETag", '"v1"'), ("Last-Modified", AT), ("Date", format_date(NOW)))
SIZE = 1000


def status(*request: tuple[str, str], method: str = "GET", response: Headers = FILE) -> int:
    return evaluate(method, request, response, SIZE, NOW).status


MATCH, UNMODIFIED, NONE, SINCE = "If-Match", "If-Unmodified-Since", "If-None-Match", "If-Modified-Since"

TABLE = [
    # If-Match compares strongly
    ([(MATCH, '"v1"')], 200),
    ([(MATCH, '"v0", "v1"')], 200),
    ([(MATCH, '"v0"'), (MATCH, '"v1"')], 200),  # two lines are one list
    ([(MATCH, "*")], 200),
    ([(MATCH, '"v0"')], 412),
    ([(MATCH, 'W/"v1"')], 412),
    ([(MATCH, "v1")], 412),  # malformed matches nothing
    ([(MATCH, "")], 412),
    # If-Unmodified-Since, only without If-Match
    ([(UNMODIFIED, AT)], 200),
    ([(UNMODIFIED, AFTER)], 200),
    ([(UNMODIFIED, BEFORE)], 412),
    ([(UNMODIFIED, "yesterday")], 200),
    ([(UNMODIFIED, BEFORE), (UNMODIFIED, BEFORE)], 200),
    ([(MATCH, '"v1"'), (UNMODIFIED, BEFORE)], 200),
    ([(MATCH, '"v0"'), (UNMODIFIED, AFTER)], 412),
    # If-None-Match compares weakly
    ([(NONE, '"v1"')], 304),
    ([(NONE, 'W/"v1"')], 304),
    ([(NONE, '"v0" , "v1"')], 304),
    ([(NONE, "*")], 304),
    ([(NONE, '"v0"')], 200),
    ([(NONE, "v1")], 200),
    # If-Modified-Since, only without If-None-Match
    ([(SINCE, AT)], 304),
    ([(SINCE, AFTER)], 304),
    ([(SINCE, BEFORE)], 200),
    ([(SINCE, "0")], 200),
    ([(NONE, '"v0"'), (SINCE, AFTER)], 200),
    ([(NONE, '"v1"'), (SINCE, BEFORE)], 304),
    # the first step that fails decides
    ([(MATCH, '"v0"'), (NONE, '"v1"')], 412),
    ([(MATCH, '"v1"'), (NONE, '"v1"')], 304),
    ([(UNMODIFIED, BEFORE), (SINCE, AFTER)], 412),
    ([(NONE, '"v1"'), ("Range", "bytes=0-9")], 304),
    ([(MATCH, '"v1"'), ("Range", "bytes=0-9")], 206),
]


@pytest.mark.parametrize(("request_headers", "expected"), TABLE)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_order_of_13_2_2(request_headers: list[tuple[str, str]], expected: int, method: str) -> None:
    if method == "HEAD" and expected == 206:
        expected = 200  # a Range of a HEAD is ignored
    assert status(*request_headers, method=method) == expected


def test_other_methods_get_412_for_what_they_know_and_no_dates() -> None:
    assert status((NONE, '"v1"'), method="PUT") == 412
    assert status((SINCE, AFTER), method="PUT") == 200


def test_without_validators_dates_decide_nothing_and_tags_match_nothing() -> None:
    assert status((SINCE, AFTER), response=()) == 200
    assert status((UNMODIFIED, BEFORE), response=()) == 200
    assert status((NONE, '"v1"'), response=()) == 200
    assert status((MATCH, '"v1"'), response=()) == 412
    assert status((MATCH, "*"), response=()) == 200


def test_precondition_is_none_when_the_request_goes_on() -> None:
    assert precondition("GET", ((NONE, '"v0"'),), FILE, NOW) is None
    assert precondition("GET", ((NONE, '"v1"'),), FILE, NOW) == Decision(304)


RANGES = [
    ("bytes=0-9", 206, ((0, 10),)),
    ("bytes=990-", 206, ((990, 10),)),
    ("bytes=-10", 206, ((990, 10),)),
    ("bytes=990-5000", 206, ((990, 10),)),
    ("bytes=-5000", 206, ((0, 1000),)),
    ("bytes=0-0,999-999", 206, ((0, 1), (999, 1))),
    ("bytes=500-599,0-9", 206, ((0, 10), (500, 100))),
    ("bytes=0-9,5000-", 206, ((0, 10),)),
    ("bytes=1000-", 416, ()),
    ("bytes=-0", 416, ()),
    ("bytes=9-0", 200, ()),
    ("lines=0-9", 200, ()),
    ("bytes=a-b", 200, ()),
    ("bytes=", 200, ()),
]


@pytest.mark.parametrize(("value", "code", "spans"), RANGES)
def test_ranges(value: str, code: int, spans: tuple[tuple[int, int], ...]) -> None:
    assert select_ranges("GET", (("Range", value),), FILE, SIZE, NOW) == Decision(code, spans)


def test_more_than_sixteen_ranges_get_the_whole() -> None:
    def many(count: int) -> Headers:
        return (("Range", "bytes=" + ",".join(f"{1000 * n}-{1000 * n + 9}" for n in range(count))),)

    assert select_ranges("GET", many(16), FILE, 100_000, NOW).status == 206
    assert select_ranges("GET", many(17), FILE, 100_000, NOW).status == 200


def test_stacked_range_lines_are_ignored() -> None:
    assert select_ranges("GET", (("Range", "bytes=0-9"), ("Range", "bytes=20-29")), FILE, SIZE, NOW).status == 200


def test_ranges_of_an_empty_file() -> None:
    assert select_ranges("GET", (("Range", "bytes=-5"),), FILE, 0, NOW).status == 200
    assert select_ranges("GET", (("Range", "bytes=0-"),), FILE, 0, NOW).status == 416


IF_RANGE = [
    ('"v1"', FILE, 206),
    ('"v0"', FILE, 200),
    ('W/"v1"', FILE, 200),
    ('"v1"', (("ETag", 'W/"v1"'),), 200),
    ('"v1"', (), 200),
    (AT, FILE, 206),
    (BEFORE, FILE, 200),
    (AFTER, FILE, 200),  # exactly the same, not "not newer"
    (AT, (("Last-Modified", AT), ("Date", AT)), 200),  # it may have changed again within that second
    (AT, (("Last-Modified", AT), ("Date", AFTER)), 206),
    (AT, (("Last-Modified", AT),), 206),
    (AT, (("ETag", '"v1"'),), 200),
    ("nonsense", FILE, 200),
]


@pytest.mark.parametrize(("value", "response", "code"), IF_RANGE)
def test_if_range(value: str, response: Headers, code: int) -> None:
    request = (("Range", "bytes=0-9"), ("If-Range", value))
    assert select_ranges("GET", request, response, SIZE, NOW).status == code


def test_two_if_range_lines_hold_never() -> None:
    request = (("Range", "bytes=0-9"), ("If-Range", '"v1"'), ("If-Range", '"v1"'))
    assert select_ranges("GET", request, FILE, SIZE, NOW).status == 200


@pytest.mark.parametrize(
    ("value", "response", "denied"),
    [
        ('"v1"', FILE, False),
        ('"v0"', FILE, True),
        ('W/"v1"', FILE, False),  # lenient, but the same version
        ('"v0"', (("Last-Modified", AT),), False),
        (AT, FILE, False),
        (BEFORE, FILE, True),
        (BEFORE, (("ETag", '"v1"'),), False),
        ("nonsense", FILE, False),
    ],
)
def test_a_206_of_another_version_is_known_by_its_validators(value: str, response: Headers, denied: bool) -> None:
    assert denies_if_range((("If-Range", value),), response, NOW) is denied


def test_without_if_range_nothing_is_denied() -> None:
    assert not denies_if_range((), FILE, NOW)


headers = st.lists(
    st.tuples(
        st.sampled_from([MATCH, UNMODIFIED, NONE, SINCE, "Range", "If-Range"]),
        st.sampled_from(['"v1"', 'W/"v1"', '"v0"', "*", AT, BEFORE, AFTER, "bytes=0-9", "bytes=-1", "x", "", '"']),
    ),
    max_size=5,
).map(tuple)


@given(headers, st.sampled_from(["GET", "HEAD", "PUT"]), st.integers(0, 50))
def test_spans_always_lie_within_the_file(request_headers: Headers, method: str, size: int) -> None:
    decision = evaluate(method, request_headers, FILE, size, NOW)
    assert decision.status in (200, 206, 304, 412, 416)
    assert bool(decision.spans) == (decision.status == 206)
    end = 0
    for offset, length in decision.spans:
        assert end <= offset
        assert length > 0
        end = offset + length
    assert end <= size
