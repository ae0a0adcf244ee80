"""Entity tags (RFC 9110 §8.8.3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.http.etags import (
    ANY,
    ETag,
    EtagList,
    parse_etag,
    parse_etags,
    strong_equal,
    strong_match,
    weak_equal,
    weak_match,
)


@pytest.mark.parametrize(
    ("value", "tag"),
    [
        ('"a"', ETag("a")),
        ('W/"a"', ETag("a", True)),
        ('""', ETag("")),
        (' "a" ', ETag("a")),
        ('"a,b"', ETag("a,b")),
        ('"a\\"', ETag("a\\")),  # no escapes
        ('"\xe4"', ETag("\xe4")),
        ("a", None),
        ("'a'", None),
        ('w/"a"', None),
        ('W/ "a"', None),
        ('"a', None),
        ('"a"b"', None),
        ('"a b"', None),
        ('"a", "b"', None),
        ('"\x00"', None),
        ("*", None),
        ("", None),
        (None, None),
    ],
)
def test_one_tag(value: str | None, tag: ETag | None) -> None:
    assert parse_etag(value) == tag


@pytest.mark.parametrize(
    ("value", "tags"),
    [
        ("*", ANY),
        (" * ", ANY),
        ('"a"', (ETag("a"),)),
        ('"a","b"', (ETag("a"), ETag("b"))),
        ('"a" , W/"b"\t,"c"', (ETag("a"), ETag("b", True), ETag("c"))),
        (',, "a" ,,', (ETag("a"),)),
        ('"a,b", "c"', (ETag("a,b"), ETag("c"))),
        ("", None),
        (",", None),
        ('*, "a"', None),
        ('"a", *', None),
        ('"a" "b"', None),
        ('"a""b"', None),
        ('"a", b', None),
        ("a", None),
    ],
)
def test_lists(value: str, tags: EtagList | None) -> None:
    assert parse_etags(value) == tags


def test_comparison_is_the_table_of_8_8_3_2() -> None:
    table = [
        (ETag("1", True), ETag("1", True), False, True),
        (ETag("1", True), ETag("2", True), False, False),
        (ETag("1", True), ETag("1"), False, True),
        (ETag("1"), ETag("1"), True, True),
    ]
    for one, other, strong, weak in table:
        assert strong_equal(one, other) == strong_equal(other, one) == strong
        assert weak_equal(one, other) == weak_equal(other, one) == weak
        assert strong_match([other], one) == strong
        assert weak_match([ETag("x"), other], one) == weak


def test_nothing_equals_nothing() -> None:
    assert not strong_equal(None, None)
    assert not weak_equal(None, None)
    assert not weak_match([ETag("a")], None)


opaque = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x2FF, exclude_characters='"\x7f'), max_size=10)
tags = st.builds(ETag, opaque, st.booleans())


@given(st.lists(tags, min_size=1), st.sampled_from([",", ", ", " ,\t", ",,"]))
def test_a_list_round_trips(some: list[ETag], separator: str) -> None:
    assert parse_etags(separator.join(map(str, some))) == tuple(some)


@given(st.text(st.sampled_from('"aW/, *\\\t'), max_size=30))
def test_reading_never_fails(text: str) -> None:
    found = parse_etags(text)
    if found is not None and found != ANY:
        assert parse_etags(", ".join(map(str, found))) == found
