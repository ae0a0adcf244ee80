from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.http.fields import (
    END_TO_END,
    HOP_BY_HOP,
    connection_options,
    end_to_end,
    is_token,
    parse_parameters,
    quote,
    split_list,
    token_or_quoted,
    unquote,
)

TEXT = st.text(
    st.characters(exclude_categories=(), exclude_characters=[chr(c) for c in (*range(32), 127)]), max_size=30
)
TOKENS = st.from_regex(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", fullmatch=True)


def test_hop_by_hop_fields_go_whatever_their_case() -> None:
    headers = (
        ("Connection", "close, X-Mine"),
        ("keep-alive", "5"),
        ("TE", "trailers"),
        ("Trailer", "Digest"),
        ("Transfer-Encoding", "chunked"),
        ("Upgrade", "h2c"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authenticate", "Basic"),
        ("Proxy-Authorization", "Basic eA=="),
        ("x-mine", "secret"),
        ("X-Other", "kept"),
        ("X-Other", "twice"),
    )
    assert end_to_end(headers) == (("X-Other", "kept"), ("X-Other", "twice"))


@pytest.mark.parametrize(
    "name", ["Authorization", "Host", "Content-Length", "Cache-Control", "ETag", "Date", "X-Forwarded-For", "CDN-Loop",
             "Access-Control-Allow-Origin"]
)  # fmt: skip
def test_connection_cannot_take_away_what_everybody_needs(name: str) -> None:
    assert end_to_end(((name, "1"), ("Connection", f"close, {name.lower()}"))) == ((name, "1"),)


def test_the_two_lists_do_not_contradict() -> None:
    assert not HOP_BY_HOP & END_TO_END


@given(st.lists(st.tuples(TOKENS, TEXT), max_size=8), st.lists(TOKENS, max_size=4))
def test_what_is_left_is_a_subsequence_without_named_fields(pairs: list[tuple[str, str]], named: list[str]) -> None:
    headers = (*pairs, ("Connection", ",".join(named)))
    kept = end_to_end(headers)
    rest = iter(headers)
    assert all(pair in rest for pair in kept)  # in order, nothing invented
    gone = {name.lower() for name in named} - END_TO_END | HOP_BY_HOP
    assert all(name.lower() not in gone or name.lower().startswith("access-control-") for name, _ in kept)
    assert all(pair in kept for pair in pairs if pair[0].lower() not in gone | connection_options(headers))


@pytest.mark.parametrize(
    ("value", "elements"),
    [
        ("", []),
        (" , ,\t,", []),
        ("a,b , c", ["a", "b", "c"]),
        ('"a,b", c', ['"a,b"', "c"]),
        (r'"a\",b",c', [r'"a\",b"', "c"]),
        ('for="x, for=1.2.3.4', ['for="x, for=1.2.3.4']),  # never closed: one element that fits nothing
        (r'"a\"', [r'"a\"']),
        ('a="x,y";b=z,c', ['a="x,y";b=z', "c"]),
    ],
)
def test_split_list(value: str, elements: list[str]) -> None:
    assert split_list(value) == elements


@given(st.lists(TEXT, max_size=5))
def test_quoted_elements_survive_a_list(texts: list[str]) -> None:
    assert [unquote(element) for element in split_list(", ".join(map(quote, texts)))] == texts


@given(TEXT)
def test_quoting_is_undone_by_unquoting(text: str) -> None:
    assert unquote(quote(text)) == text
    assert unquote(token_or_quoted(text)) == text


@pytest.mark.parametrize("text", ["", '"', '"a', 'a"b"', '"a"b', '"a"b"', "a b", '"a\r\nb"', '"\\'])
def test_neither_token_nor_quoted_string(text: str) -> None:
    assert unquote(text) is None


def test_control_characters_cannot_be_quoted() -> None:
    with pytest.raises(ValueError, match="control"):
        quote("a\r\nSet-Cookie: b")


def test_tokens() -> None:
    assert is_token("GET")
    assert not any(is_token(text) for text in ("", "a b", "a/b", "é", "a\n"))


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", ()),
        ("a=b", (("a", "b"),)),
        ('; A="b;c" ;; d=e;', (("a", "b;c"), ("d", "e"))),
        ("a", None),
        ("a=", None),
        ("a = b", None),
        ("a=b c=d", None),
        ('a="b', None),
        ('a="b"c', None),
        ("=b", None),
    ],
)
def test_parameters(text: str, pairs: tuple[tuple[str, str], ...] | None) -> None:
    assert parse_parameters(text) == pairs


@given(st.lists(st.tuples(TOKENS, TEXT), max_size=5))
def test_parameters_round_trip(pairs: list[tuple[str, str]]) -> None:
    text = "; ".join(f"{name}={token_or_quoted(value)}" for name, value in pairs)
    assert parse_parameters(text) == tuple((name.lower(), value) for name, value in pairs)
