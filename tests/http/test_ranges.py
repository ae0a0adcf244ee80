"""Range and Content-Range (RFC 9110 §14)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.http.ranges import (
    GAP,
    MOST_SPANS,
    MOST_SPECS,
    ContentRange,
    RangeSpec,
    Span,
    coalesce,
    format_content_range,
    format_range,
    format_ranges,
    format_unsatisfied,
    forwardable_range,
    parse_content_range,
    parse_ranges,
    parse_unsatisfied,
    ranges_of,
    resolve,
)

HUGE = 2**63 - 1


@pytest.mark.parametrize(
    ("value", "specs"),
    [
        ("bytes=0-9", [(0, 9)]),
        ("bytes=9-", [(9, None)]),
        ("bytes=-9", [(None, 9)]),
        ("BYTES=0-0", [(0, 0)]),
        (" bytes=0-9 ", [(0, 9)]),
        ("bytes=0-9 , 20-", [(0, 9), (20, None)]),
        ("bytes=,,0-9,", [(0, 9)]),
        ("bytes=0007-0009", [(7, 9)]),
        ("bytes=0-" + "9" * 5000, [(0, HUGE)]),
        ("bytes=" + "9" * 5000 + "-", [(HUGE, None)]),
        ("bytes=-0", [(None, 0)]),
    ],
)
def test_what_is_read(value: str, specs: list[tuple[int | None, int | None]]) -> None:
    assert parse_ranges(value) == tuple(RangeSpec(*spec) for spec in specs)


@pytest.mark.parametrize(
    "value",
    [
        "", "bytes", "bytes=", "bytes=,", "bytes=-", "bytes=a-b", "bytes=9-0", "bytes=0-9;20-29", "bytes 0-9",
        "bytes =0-9", "lines=0-9", "bytes=0 - 9", "bytes=+0-9", "bytes=0--9", "bytes=--9", "bytes=0x0-9", "bytes=0-9,x",
        "bytes=²-9", "bytes=0-9\x00", "bytes=1_0-20",
    ],
)  # fmt: skip
def test_what_is_ignored(value: str) -> None:
    assert parse_ranges(value) is None


def test_too_many_ranges_are_ignored() -> None:
    assert parse_ranges("bytes=" + ",".join(["0-0"] * MOST_SPECS)) is not None
    assert parse_ranges("bytes=" + ",".join(["0-0"] * (MOST_SPECS + 1))) is None


def test_several_lines_are_ignored() -> None:
    assert ranges_of(["bytes=0-9"]) is not None
    assert ranges_of(["bytes=0-9", "bytes=0-9"]) is None
    assert ranges_of([]) is None


specs = st.one_of(
    st.builds(lambda a, n: RangeSpec(a, a + n), st.integers(0, 2000), st.integers(0, 500)),
    st.builds(lambda a: RangeSpec(a, None), st.integers(0, 2000)),
    st.builds(lambda n: RangeSpec(None, n), st.integers(0, 2000)),
)


def asked_bytes(some: tuple[RangeSpec, ...], size: int) -> set[int]:
    found: set[int] = set()
    for spec in some:
        if spec.first is None:
            found |= set(range(max(0, size - (spec.last or 0)), size))
        else:
            found |= set(range(spec.first, size if spec.last is None else min(size, spec.last + 1)))
    return found


def covered(spans: tuple[Span, ...]) -> set[int]:
    return {at for offset, length in spans for at in range(offset, offset + length)}


@given(st.lists(specs, min_size=1, max_size=20).map(tuple), st.integers(0, 2000))
def test_resolved_ranges_hold_what_was_asked_and_little_more(some: tuple[RangeSpec, ...], size: int) -> None:
    spans = resolve(some, size)
    wanted, got = asked_bytes(some, size), covered(spans)
    assert got.issuperset(wanted)
    assert all(offset >= 0 and length > 0 and offset + length <= size for offset, length in spans)
    for (a, n), (b, _) in zip(spans, spans[1:], strict=False):  # noqa: RUF007
        assert b - (a + n) >= GAP
    extra = sorted(got - wanted)
    assert all(any(at - back in wanted for back in range(1, GAP + 1)) for at in extra)


@given(st.lists(specs, min_size=1, max_size=20).map(tuple), st.integers(0, 2000))
def test_what_is_forwarded_means_the_same(some: tuple[RangeSpec, ...], size: int) -> None:
    value = forwardable_range([format_ranges(some)])
    if value is None:
        assert len(resolve(some, HUGE)) > MOST_SPANS - 1
        return
    again = parse_ranges(value)
    assert again is not None
    assert len(again) <= MOST_SPANS
    assert resolve(again, size) == resolve(some, size)


@given(specs)
def test_format_and_parse(spec: RangeSpec) -> None:
    assert parse_ranges(format_range(spec)) == (spec,)


def test_only_ranges_nearer_than_a_parts_head_are_joined() -> None:
    assert coalesce([(0, 10), (10 + GAP - 1, 5)]) == ((0, 10 + GAP + 4),)
    assert coalesce([(0, 10), (10 + GAP, 5)]) == ((0, 10), (10 + GAP, 5))
    assert coalesce([(0, 10), (11, 1)], gap=0) == ((0, 10), (11, 1))
    assert coalesce([(0, 10), (10, 1)], gap=0) == ((0, 11),)
    assert coalesce([(5, 1), (0, 100), (3, 4)]) == ((0, 100),)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes 0-9/100", ContentRange(0, 9, 100)),
        ("bytes 0-9/*", ContentRange(0, 9, None)),
        ("Bytes  5-5/6", ContentRange(5, 5, 6)),
        ("bytes 9-0/100", None),
        ("bytes 0-100/100", None),
        ("bytes */100", None),
        ("bytes=0-9/100", None),
        ("bytes 0-9", None),
        ("bytes -9/100", None),
        ("bytes 0-9/x", None),
        ("lines 0-9/100", None),
        ("bytes 0-9/100, bytes 20-29/100", None),
        ("bytes 0-" + "9" * 5000 + "/*", None),
        ("", None),
    ],
)
def test_content_range(value: str, expected: ContentRange | None) -> None:
    assert parse_content_range(value) == expected


@given(st.integers(0, 2**62), st.integers(1, 2**61), st.integers(0, 1000) | st.none())
def test_content_range_round_trip(offset: int, length: int, more: int | None) -> None:
    size = None if more is None else offset + length + more
    part = parse_content_range(format_content_range(offset, length, size))
    assert part == ContentRange(offset, offset + length - 1, size)
    assert part.length == length


def test_unsatisfied() -> None:
    assert parse_unsatisfied(format_unsatisfied(77)) == 77
    assert parse_unsatisfied("bytes 0-9/77") is None
    assert parse_unsatisfied("bytes */x") is None
