"""Directives as they are read (RFC 9111 §5.2, RFC 9213). What is unclear means less caching."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.http.cache_control import (
    LONGEST,
    RequestDirectives,
    ResponseDirectives,
    request_directives,
    response_directives,
)
from fileproxy.model import Headers


def response(*values: str) -> ResponseDirectives:
    return response_directives(tuple(("Cache-Control", value) for value in values))


def request(*values: str) -> RequestDirectives:
    return request_directives(tuple(("cache-control", value) for value in values))


# --- grammar ---------------------------------------------------------------------------------------------------------


def test_all_response_directives() -> None:
    assert response(
        "max-age=1, s-maxage=2, no-store, no-cache, private, public, must-revalidate, proxy-revalidate",
        "must-understand, no-transform, immutable, stale-while-revalidate=3, stale-if-error=4",
    ) == ResponseDirectives(
        max_age=1,
        s_maxage=2,
        no_store=True,
        no_cache=True,
        private=True,
        public=True,
        must_revalidate=True,
        proxy_revalidate=True,
        must_understand=True,
        no_transform=True,
        immutable=True,
        stale_while_revalidate=3,
        stale_if_error=4,
    )


def test_names_have_no_case() -> None:
    assert response("No-StOrE, MAX-AGE=5") == ResponseDirectives(no_store=True, max_age=5)


def test_both_forms_of_arguments_are_read() -> None:
    assert response('max-age="3600"').max_age == 3600
    assert response("max-age=3600").max_age == 3600


def test_unknown_directives_are_ignored() -> None:
    assert response('foo, max-age=5, bar=baz, ext="a, b"') == ResponseDirectives(max_age=5)


def test_what_is_quoted_is_no_directive() -> None:
    assert response('ext="no-store, max-age=3600", max-age=1') == ResponseDirectives(max_age=1)


def test_no_argument_is_needed_where_none_is_defined() -> None:
    assert response("no-store=1, must-revalidate=x") == ResponseDirectives(no_store=True, must_revalidate=True)


@pytest.mark.parametrize("value", ["003600", "3600"])
def test_leading_zeros(value: str) -> None:
    assert response(f"max-age={value}").max_age == 3600


@pytest.mark.parametrize("value", ["2147483648", "2147483649", "99999999999", "1" + "0" * 400])
def test_seconds_too_large_to_hold_become_the_largest(value: str) -> None:
    assert response(f"max-age={value}").max_age == LONGEST == 2147483648


# --- what is unclear -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    ["a3600", "3600a", "3600.0", "'3600'", "-1", "", '""', "²", "1e3", " 3600", "3600 1"],
)
def test_an_unreadable_lifetime_is_zero(value: str) -> None:
    assert response(f"max-age={value}").max_age == 0
    assert response(f"s-maxage={value}, max-age=9").s_maxage == 0


def test_a_lifetime_without_a_value_is_zero() -> None:
    assert response("max-age").max_age == 0


def test_lifetimes_that_differ_are_zero() -> None:
    assert response("max-age=1800, max-age=1").max_age == 0
    assert response("max-age=1", "max-age=1800").max_age == 0
    assert response('max-age=5, max-age="5"').max_age == 5


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("max-age=60; no-store", ResponseDirectives(max_age=0, no_store=True)),
        ("no-store; max-age=60", ResponseDirectives(max_age=0, no_store=True)),
        ("public; max-age=60", ResponseDirectives(max_age=0)),
        ("max-age =60", ResponseDirectives(max_age=0)),
        ('ext="open, private', ResponseDirectives(private=True)),
        ("must-revalidate max-age=60", ResponseDirectives(max_age=0, must_revalidate=True)),
        ("no-cache no-transform", ResponseDirectives(no_cache=True, no_transform=True)),
        ("must-understand immutable public", ResponseDirectives()),
    ],
)
def test_a_broken_element_counts_only_where_it_restricts(value: str, seen: ResponseDirectives) -> None:
    assert response(value) == seen


def test_one_broken_line_does_not_hide_the_next() -> None:
    assert response('ext="open', "max-age=60, private") == ResponseDirectives(max_age=60, private=True)


# --- lists of fields -------------------------------------------------------------------------------------------------


def test_no_cache_and_private_with_fields() -> None:
    seen = response('no-cache="Set-Cookie, X-A"', "private=x-b")
    assert (seen.no_cache, seen.no_cache_fields) == (False, frozenset({"set-cookie", "x-a"}))
    assert (seen.private, seen.private_fields) == (False, frozenset({"x-b"}))


@pytest.mark.parametrize("argument", ['""', '"a b"', '"("', '"Content-Type"', '"x, ETag"', '"vary"'])
def test_a_list_we_cannot_follow_means_the_whole_response(argument: str) -> None:
    assert response(f"no-cache={argument}").no_cache
    assert response(f"private={argument}").private


def test_the_form_without_a_list_wins() -> None:
    assert response('no-cache="a", no-cache').no_cache
    assert response('private, private="a"').private


# --- requests --------------------------------------------------------------------------------------------------------


def test_all_request_directives() -> None:
    assert request("max-age=1, min-fresh=2, max-stale=3, no-cache, no-store", "no-transform, only-if-cached") == (
        RequestDirectives(
            max_age=1, min_fresh=2, max_stale=3, no_cache=True, no_store=True, no_transform=True, only_if_cached=True
        )
    )


def test_max_stale_without_a_value_has_no_limit() -> None:
    assert request("max-stale").max_stale == math.inf
    assert request("max-stale, max-stale=5").max_stale is None
    assert request("max-stale=abc").max_stale is None


def test_unclear_request_limits_are_the_strictest() -> None:
    assert request("max-age=x").max_age == 0
    assert request("max-age=5, max-age=3").max_age == 3
    assert request("min-fresh=x").min_fresh == LONGEST
    assert request("min-fresh=5, min-fresh=9").min_fresh == 9
    assert request("max-stale=9, max-stale=5").max_stale == 5
    assert request("max-age=5; no-store").no_store


def test_pragma_no_cache_counts_only_without_cache_control() -> None:
    assert request_directives((("Pragma", "No-Cache"),)).no_cache
    assert not request_directives((("Pragma", "foo"),)).no_cache
    assert not request_directives((("Pragma", "no-cache"), ("Cache-Control", "max-age=5"))).no_cache


def test_pragma_of_a_response_means_nothing() -> None:
    assert response_directives((("Pragma", "no-cache"),)) == ResponseDirectives()


# --- targeted fields (RFC 9213) --------------------------------------------------------------------------------------


def targeted(value: str, *more: tuple[str, str]) -> ResponseDirectives:
    return response_directives((("CDN-Cache-Control", value), *more))


CC = ("Cache-Control", "no-store")


def test_a_targeted_field_replaces_cache_control() -> None:
    assert targeted("max-age=100", CC) == ResponseDirectives(max_age=100, targeted=True)


@pytest.mark.parametrize(
    "value",
    ["", "max-age=10000, &&&&&", 'max-age="10000"', "max-age=1.5", "max-age=-1", "max-age", "max-age = 5", "MaX-aGe=5",
     "no-store=1", "max-age=(1 2)", "private=5"],
)  # fmt: skip
def test_a_targeted_field_that_is_empty_or_malformed_is_ignored(value: str) -> None:
    assert targeted(value, CC) == ResponseDirectives(no_store=True)


def test_the_first_valid_field_of_the_target_list_counts() -> None:
    headers: Headers = (("B-Cache-Control", "max-age=2"), ("A-Cache-Control", "max-age=1"), CC)
    assert response_directives(headers, ("a-cache-control", "b-cache-control")).max_age == 1
    assert (
        response_directives(
            (*headers[:1], ("A-Cache-Control", "x, !"), CC), ("a-cache-control", "b-cache-control")
        ).max_age
        == 2
    )
    assert response_directives(headers, ()).no_store


def test_targeted_fields_of_others_change_nothing() -> None:
    assert response_directives((("Other-Cache-Control", "max-age=9"), CC)) == ResponseDirectives(no_store=True)


def test_directives_that_targeted_fields_must_support() -> None:
    seen = targeted("max-age=7, must-revalidate, no-store, no-cache, private")
    assert seen == ResponseDirectives(
        max_age=7, must_revalidate=True, no_store=True, no_cache=True, private=True, targeted=True
    )


def test_unknown_members_and_parameters_of_targeted_fields_are_ignored() -> None:
    assert targeted("foo=(a b), max-age=5;x=1, bar") == ResponseDirectives(max_age=5, targeted=True)


def test_of_a_member_given_twice_the_last_counts() -> None:
    assert targeted("max-age=5, max-age=7").max_age == 7


def test_a_member_that_is_false_does_not_apply() -> None:
    assert not targeted("no-store=?0, max-age=5").no_store


def test_targeted_fields_with_lists() -> None:
    assert targeted('no-cache="x-a", max-age=5').no_cache_fields == {"x-a"}


def test_surrogate_control_comes_after_cdn_cache_control() -> None:
    headers: Headers = (("Surrogate-Control", 'max-age=9, content="ESI/1.0"'), CC)
    assert response_directives(headers).max_age == 9
    assert response_directives((("CDN-Cache-Control", "max-age=1"), *headers)).max_age == 1


# --- anything --------------------------------------------------------------------------------------------------------


WORDS = st.sampled_from(
    ["max-age", "s-maxage", "no-store", "no-cache", "private", "public", "=", "5", ",", " ", '"', "\\", ";", "x", "\t"]
)


@given(st.lists(WORDS).map("".join), st.text())
def test_any_text_is_read_and_means_something(value: str, other: str) -> None:
    for seen in (response(value, other), targeted(value), targeted(other)):
        for seconds in (seen.max_age, seen.s_maxage, seen.stale_while_revalidate, seen.stale_if_error):
            assert seconds is None or 0 <= seconds <= LONGEST
    request(value, other)


@given(st.lists(WORDS).map("".join))
def test_no_store_is_never_lost(noise: str) -> None:
    """Whatever stands around it, as long as no pair of quotes closes around it."""
    if '"' not in noise:
        assert response(f"{noise},no-store").no_store
        assert response(f"no-store,{noise}").no_store


def test_directives_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        response("no-store").no_store = False  # type: ignore[misc]
