"""Cache keys: RFC 9111 §2, §4.1."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.cache.freshness import AUTO, CachePolicy
from fileproxy.cache.key import (
    KEY_BYTES,
    accepted_codings,
    entry_url,
    normalised,
    primary_key,
    variant_key,
    vary_fields,
)
from fileproxy.model import Headers, Target


def headers(*lines: str) -> Headers:
    return tuple((name, value) for name, _, value in (line.partition(": ") for line in lines))


# --- primary ---------------------------------------------------------------------------------------------------------


def test_the_url_names_upstream_host_and_target() -> None:
    assert entry_url("files", "Files.Test", Target("/a/b", "x=1"), AUTO) == "files/files.test/a/b?x=1"
    assert entry_url("files", "", Target("/a"), AUTO) == "files//a"


@pytest.mark.parametrize(
    ("patterns", "query", "kept"),
    [
        ((), "b=2&a=1", "?b=2&a=1"),
        (("a",), "b=2&a=1&c", "?b=2&c"),
        (("utm_*",), "utm_source=x&a=1&utm%5Fid=2", "?a=1"),
        (("utm_*",), "xutm_=1", "?xutm_=1"),
        (("a",), "a=1", ""),
        (("a",), "a", ""),
        (("a",), "A=1", "?A=1"),
        (("*",), "a=1&b", ""),
        (("b",), "", "?"),
    ],
)
def test_ignored_query_parameters(patterns: tuple[str, ...], query: str, kept: str) -> None:
    url = entry_url("u", "h", Target("/f", query), CachePolicy(ignored_query=patterns))
    assert url == f"u/h/f{kept}"


def test_an_empty_query_is_another_target_than_none() -> None:
    assert entry_url("u", "h", Target("/f", ""), AUTO) != entry_url("u", "h", Target("/f"), AUTO)


def key(url: str = "u/h/f", scheme: str = "http", *lines: str, policy: CachePolicy = AUTO) -> bytes:
    return primary_key(url, scheme, headers(*lines), policy)


def test_keys_are_short_and_stable() -> None:
    assert len(key()) == KEY_BYTES == 16
    assert key() == key()
    assert key().hex() == primary_key("u/h/f", "http", (), CachePolicy(mode=60.0)).hex()


def test_keys_tell_targets_and_schemes_apart() -> None:
    assert len({key(), key("u/h/g"), key("u/h/F"), key(scheme="https"), key("u/h/f?"), key("v/h/f")}) == 6


def test_requests_do_not_change_the_key_unless_the_route_says_so() -> None:
    assert key("u", "http", "Authorization: a", "Range: bytes=0-1", "Cookie: c") == key("u", "http")


def test_users_are_kept_apart() -> None:
    policy = CachePolicy(per_user="Authorization")
    alice, bob = (
        key("u", "http", "authorization: a", policy=policy),
        key("u", "http", "Authorization: b", policy=policy),
    )
    nobody, empty = key("u", "http", policy=policy), key("u", "http", "Authorization: ", policy=policy)
    assert len({alice, bob, nobody, empty, key("u", "http")}) == 5


def test_a_secret_makes_other_names() -> None:
    assert primary_key("u", "http", (), AUTO, b"secret") != primary_key("u", "http", (), AUTO)


@given(st.lists(st.text(), min_size=2, max_size=2), st.lists(st.text(), min_size=2, max_size=2))
def test_no_two_identities_read_alike(one: list[str], other: list[str]) -> None:
    policy = CachePolicy(per_user="A")
    keys = {primary_key(url, "http", (("A", user),), policy) for url, user in (one, other)}
    assert len(keys) == len({(one[0], one[1].strip(" \t")), (other[0], other[1].strip(" \t"))})


def test_where_one_part_ends_matters() -> None:
    policy = CachePolicy(per_user="A")
    assert key("u", "http", "A: http+x", policy=policy) != key("uhttp+", "http", "A: x", policy=policy)


def test_bytes_that_are_no_text_have_keys_too() -> None:
    assert key("u/\udcff") != key("u/\udcfe")


# --- Vary ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "fields"),
    [
        ((), ()),
        (("Vary: ",), ()),
        (("Vary: Accept-Encoding",), ("accept-encoding",)),
        (("Vary: b, A", "vary: B"), ("a", "b")),
        (("Vary: *",), None),
        (("Vary: *, *",), None),
        (("Vary: , *",), None),
        (("Vary: ", "Vary: *"), None),
        (("Vary: Foo, *",), None),
        (("Vary: a b",), None),
        (("Vary: a;b",), None),
    ],
)
def test_vary_names_the_fields_and_star_never_matches(lines: tuple[str, ...], fields: tuple[str, ...] | None) -> None:
    assert vary_fields(headers(*lines)) == fields


def variant(vary: str, *lines: str) -> bytes:
    fields = vary_fields(headers(f"Vary: {vary}"))
    assert fields is not None
    return variant_key(b"\0" * 16, fields, headers(*lines))


def test_all_fields_of_vary_must_match() -> None:
    base = variant("A, B", "A: 1", "B: 2")
    assert variant("b,a", "B: 2", "a: 1", "C: 3") == base
    assert len({base, variant("A, B", "A: 1", "B: 3"), variant("A, B", "A: 2", "B: 2"), variant("A, B", "A: 1")}) == 4


def test_an_absent_field_only_matches_an_absent_one() -> None:
    assert variant("A") == variant("A", "B: 1")
    assert variant("A") != variant("A", "A: ")
    assert variant("Accept-Encoding") != variant("Accept-Encoding", "Accept-Encoding: ")


def test_several_lines_are_the_same_as_one_joined() -> None:
    assert variant("A", "A: 1", "A: 2") == variant("A", "A: 1, 2")
    assert variant("A", "A: 1", "A: 2") != variant("A", "A: 2", "A: 1")


def test_white_space_where_the_syntax_allows_it_does_not_matter() -> None:
    assert variant("Accept-Language", "Accept-Language: de , EN;q=0.5") == (
        variant("Accept-Language", "Accept-Language: de,en;q=0.5")
    )
    assert variant("Accept", "Accept: a/b ,c/d") == variant("Accept", "Accept: a/b, c/d")
    assert variant("User-Agent", "User-Agent: \tx ") == variant("User-Agent", "User-Agent: x")


def test_other_values_are_compared_as_they_are() -> None:
    assert variant("User-Agent", "User-Agent: a") != variant("User-Agent", "User-Agent: A")
    assert variant("Foo", "Foo: 1,2") != variant("Foo", "Foo: 1, 2")


@pytest.mark.parametrize(
    ("value", "codings"),
    [
        ("", "identity"),
        ("identity", "identity"),
        ("gzip", "gzip,identity"),
        ("gzip, deflate, br, zstd", "br,deflate,gzip,identity,zstd"),
        ("br;q=1.0, GZIP ; q=0.5", "br,gzip,identity"),
        ("gzip;q=0", "identity"),
        ("x-gzip", "gzip,identity"),
        ("gzip, identity;q=0", "gzip"),
        ("gzip, *;q=0", "gzip"),
        ("*", "*,identity"),
        ("gzip, *", "*,identity"),
        ("*, br;q=0", "!br,*,identity"),
        ("identity, *;q=0.000", "identity"),
        ("gzip;q=2", "=gzip;q=2"),
        ("gzip;q=0.1234", "=gzip;q=0.1234"),
        ("gzip;level=9", "=gzip;level=9"),
        ("a b", "=a b"),
    ],
)
def test_accept_encoding_is_what_the_client_takes(value: str, codings: str) -> None:
    assert accepted_codings(value) == codings


def test_accept_encodings_that_take_the_same_share_a_variant() -> None:
    one = variant("Accept-Encoding", "Accept-Encoding: gzip, br")
    assert variant("accept-encoding", "accept-encoding: br;q=0.9,gzip;q=1") == one
    assert variant("Accept-Encoding", "Accept-Encoding: gzip") != one


CODINGS = st.lists(
    st.tuples(
        st.sampled_from(["gzip", "br", "zstd", "identity", "*"]), st.sampled_from(["", ";q=0", ";q=0.5", ";q=1"])
    ),
    unique_by=lambda pair: pair[0],
)


def takes(pairs: list[tuple[str, str]], coding: str) -> bool:
    """RFC 9110 §12.5.3, rules 1 to 3."""
    said = dict(pairs)
    weight = said.get(coding, said.get("*", "" if coding == "identity" else ";q=0"))
    return weight != ";q=0"


@given(CODINGS, CODINGS)
def test_the_same_variant_takes_the_same_codings(one: list[tuple[str, str]], other: list[tuple[str, str]]) -> None:
    values = [accepted_codings(", ".join(map("".join, pairs))) for pairs in (one, other)]
    if values[0] == values[1]:
        for coding in ("gzip", "br", "zstd", "identity", "other"):
            assert takes(one, coding) == takes(other, coding)


@given(st.text())
def test_any_accept_encoding_is_read(value: str) -> None:
    accepted_codings(value)


def test_absent_fields_have_no_value() -> None:
    assert normalised("Accept-Encoding", ()) is None
