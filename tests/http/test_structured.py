from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.http.structured import (
    Date,
    Display,
    InnerList,
    Item,
    Token,
    parse_dictionary,
    parse_item,
    parse_list,
    sf_bytes,
    sf_string,
    sf_token_or_string,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-7", -7),
        ("0042", 42),
        ("999999999999999", 999999999999999),
        ("1.5", 1.5),
        ("-0.125", -0.125),
        ('"a \\"b\\" \\\\"', 'a "b" \\'),
        ("foo123/456", Token("foo123/456")),
        ("*", Token("*")),
        (":aGVsbG8=:", b"hello"),
        (":aGVsbG8:", b"hello"),
        ("::", b""),
        ("?1", True),
        ("?0", False),
        ("@1659578233", Date(1659578233)),
        ('%"f%c3%bc"', Display("fü")),
        ("  1", 1),
    ],
)
def test_bare_items(text: str, value: object) -> None:
    item = parse_item([text])
    assert item is not None
    assert (item.value, type(item.value)) == (value, type(value))


@pytest.mark.parametrize(
    "text",
    ["", "1000000000000000", "1.", "1.2345", "1234567890123.1", "-", "+1", '"a', '"\\n"', '"ü"', "?2", "?", ":a:b",
     ":a!:", "@1.5", "@", '%"%C3"', '%"%ff"', "&", "a b", "1,", "²"],
)  # fmt: skip
def test_malformed_items_are_nothing(text: str) -> None:
    assert parse_item([text]) is None


def test_dictionary_members_and_parameters() -> None:
    parsed = parse_dictionary(['a=1;x;y="z", b, c=(1 tok);q=0.5', "a=2"])
    assert parsed == {
        "a": Item(2, {}),  # the last value of a key counts
        "b": Item(True, {}),
        "c": InnerList((Item(1, {}), Item(Token("tok"), {})), {"q": 0.5}),
    }


@pytest.mark.parametrize("text", ["A=1", "a=", "a=1,", "a=1,,b", "a=1 b", "a = 1", "a=1; Q=1", "a=(1", "a=(1,2)", ",a"])
def test_a_dictionary_malformed_anywhere_is_nothing(text: str) -> None:
    assert parse_dictionary([text]) is None


def test_empty_dictionary_and_list() -> None:
    assert parse_dictionary([]) == {}
    assert parse_dictionary(["  ", ""]) == {}
    assert parse_list([""]) == []


def test_lists() -> None:
    assert parse_list(["a, (b c);d", "1"]) == [
        Item(Token("a"), {}),
        InnerList((Item(Token("b"), {}), Item(Token("c"), {})), {"d": True}),
        Item(1, {}),
    ]
    assert parse_list(["a,, b"]) is None


def test_too_many_members_are_refused() -> None:
    assert parse_dictionary([",".join(f"k{number}" for number in range(1000))]) is None


@given(st.text())
def test_any_text_is_read_without_raising(text: str) -> None:
    parse_dictionary([text])
    parse_list([text, text])
    parse_item([text])


@given(st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E)))
def test_strings_survive(text: str) -> None:
    assert parse_item([sf_string(text)]) == Item(text, {})


@given(st.binary())
def test_byte_sequences_survive(data: bytes) -> None:
    assert sf_bytes(data) == f":{base64.b64encode(data).decode()}:"
    assert parse_item([sf_bytes(data)]) == Item(data, {})


def test_writing_tokens_and_strings() -> None:
    assert sf_token_or_string("fileproxy") == "fileproxy"
    assert sf_token_or_string("1 a") == '"1 a"'
    assert sf_string("a\nb\u00fc") == '"a b\\\\xfc"'
