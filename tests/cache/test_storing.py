"""What is stored: RFC 9111 §3, one function for each rule of docs/caching-rules.md."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.cache.freshness import AUTO, HEURISTIC, CachePolicy
from fileproxy.cache.storing import NEVER, Storable, Why, has_strong_validator, may_queue, storable, stored_headers
from fileproxy.http.dates import format_date
from fileproxy.model import Headers, header, header_values

NOW = 1_800_000_000.0
DATE = format_date(NOW)
OLD = format_date(NOW - 1000)


def headers(*lines: str) -> Headers:
    return tuple((name, value) for name, _, value in (line.partition(": ") for line in lines))


def verdict(
    *response: str,
    status: int = 200,
    method: str = "GET",
    request: tuple[str, ...] = (),
    policy: CachePolicy = AUTO,
) -> Storable:
    lines = headers(f"Date: {DATE}", *response)
    return storable(method, headers(*request), status, lines, policy, received_at=NOW)


def why(*response: str, **options: object) -> Why:
    return verdict(*response, **options).why  # type: ignore[arg-type]


def test_a_plain_file_is_stored_and_shared() -> None:
    assert verdict('ETag: "a"') == Storable(True, True, Why.STORED)


# --- the request -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "get"])
def test_only_get_is_stored(method: str) -> None:
    assert why("Cache-Control: public, max-age=60", method=method) is Why.METHOD


def test_a_get_with_a_body_is_not_stored() -> None:
    for line in ("Content-Length: 5", "Transfer-Encoding: chunked"):
        assert why("Cache-Control: max-age=60", request=(line,)) is Why.REQUEST_BODY
    assert why("Cache-Control: max-age=60", request=("Content-Length: 0",)) is Why.STORED


def test_request_no_store_is_obeyed() -> None:
    request = ("Cache-Control: no-store",)
    assert why("Cache-Control: public, max-age=60", request=request) is Why.REQUEST_NO_STORE
    assert why("Cache-Control: max-age=60", request=request, policy=CachePolicy(ignore_request=True)) is Why.STORED


def test_authorization_keeps_a_response_from_being_stored() -> None:
    assert why("Cache-Control: max-age=60", request=("Authorization: Basic YQ==",)) is Why.AUTHORIZATION


@pytest.mark.parametrize("directive", ["public", "s-maxage=60", "must-revalidate"])
def test_what_allows_storing_in_spite_of_authorization(directive: str) -> None:
    assert why(f"Cache-Control: max-age=60, {directive}", request=("Authorization: Basic YQ==",)) is Why.STORED


@pytest.mark.parametrize("directive", ["proxy-revalidate", "immutable", "no-transform", "stale-if-error=5"])
def test_what_does_not_allow_it(directive: str) -> None:
    assert why(f"Cache-Control: max-age=60, {directive}", request=("Authorization: x",)) is Why.AUTHORIZATION


# --- the response ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["no-store", "max-age=60, no-store", "No-StOrE", "max-age=60; no-store"])
def test_no_store_is_obeyed(value: str) -> None:
    assert verdict(f"Cache-Control: {value}") == Storable(False, False, Why.NO_STORE, AUTO.hit_for_miss_s)


def test_private_is_obeyed() -> None:
    assert verdict("Cache-Control: private, max-age=60") == Storable(False, False, Why.PRIVATE, AUTO.hit_for_miss_s)
    assert why("Cache-Control: private, public, s-maxage=60") is Why.PRIVATE


def test_private_with_fields_stores_the_rest() -> None:
    assert why('Cache-Control: private="x-a", max-age=60') is Why.STORED


def test_must_understand_stores_only_statuses_that_are_understood() -> None:
    assert why("Cache-Control: must-understand, max-age=60", status=299) is Why.STATUS
    assert why("Cache-Control: max-age=60", status=299) is Why.STORED
    assert why("Cache-Control: must-understand, max-age=60") is Why.STORED


def test_must_understand_overrides_no_store_where_understood() -> None:
    assert why("Cache-Control: must-understand, no-store, max-age=60") is Why.STORED
    assert why("Cache-Control: must-understand, no-store, max-age=60", status=299) is Why.STATUS


@pytest.mark.parametrize("status", [100, 101, 103, 199])
def test_interim_responses_are_not_stored(status: int) -> None:
    assert why("Cache-Control: max-age=60", status=status) is Why.STATUS


@pytest.mark.parametrize("status", [304, 412, 416, *sorted(NEVER)])
def test_answers_to_one_request_are_not_stored(status: int) -> None:
    assert why("Cache-Control: public, max-age=60", status=status) is Why.STATUS


@pytest.mark.parametrize("status", [428, 429, 431, 511])
def test_statuses_that_must_not_be_stored(status: int) -> None:
    assert why("Cache-Control: public, max-age=60", status=status) is Why.STATUS


@pytest.mark.parametrize("status", [200, 203, 204, 300, 301, 308])
def test_successes_are_stored_without_a_lifetime(status: int) -> None:
    assert why(status=status) is Why.STORED


@pytest.mark.parametrize("status", [201, 202, 299, 302, 303, 307, 400, 403, 451, 500, 502, 503, 504, 599])
def test_other_statuses_need_a_reason(status: int) -> None:
    assert why(status=status) is Why.NO_LIFETIME
    for line in (
        "Cache-Control: max-age=60",
        "Cache-Control: s-maxage=60",
        f"Expires: {DATE}",
        "Cache-Control: public",
    ):
        assert why(line, status=status) is Why.STORED


@pytest.mark.parametrize("status", [404, 405, 410, 414, 501])
def test_negative_answers_are_stored_when_somebody_says_so(status: int) -> None:
    assert why(status=status) is Why.NO_LIFETIME
    assert why(status=status, policy=CachePolicy(negative_ttl_s=5)) is Why.STORED
    assert why("Cache-Control: max-age=60", status=status) is Why.STORED


def test_errors_are_not_remembered_as_not_to_be_shared() -> None:
    assert verdict(status=500).hit_for_miss_s == 0
    assert verdict("Cache-Control: no-store", status=404).hit_for_miss_s == 0


def test_what_lies_in_one_request_is_not_remembered_for_others() -> None:
    assert verdict("Cache-Control: max-age=60", request=("Authorization: x",)).hit_for_miss_s == 0
    assert verdict(request=("Cache-Control: no-store",)).hit_for_miss_s == 0


def test_set_cookie_is_stored_only_when_it_is_said_to_be_for_everybody() -> None:
    assert why("Set-Cookie: a=b", "Cache-Control: max-age=60") is Why.SET_COOKIE
    assert why("Set-Cookie: a=b", "Cache-Control: max-age=60, public") is Why.STORED
    assert why("Set-Cookie: a=b", "Cache-Control: s-maxage=60") is Why.STORED
    assert why("Set-Cookie: a=b", 'Cache-Control: max-age=60, no-cache="set-cookie"') is Why.STORED


@pytest.mark.parametrize("value", ["*", "*, *", ", *", "Foo, *", "*, Foo", "Accept Encoding"])
def test_vary_that_never_matches_is_not_stored(value: str) -> None:
    assert why(f"Vary: {value}", "Cache-Control: max-age=60") is Why.VARY


def test_what_is_stale_at_once_is_stored_but_not_shared() -> None:
    for line in ("Cache-Control: max-age=0", "Cache-Control: no-cache", f"Expires: {OLD}"):
        assert verdict(line, 'ETag: "a"') == Storable(True, False, Why.STORED)
    assert verdict("Cache-Control: max-age=60", "Age: 60") == Storable(True, False, Why.STORED)


# --- parts -----------------------------------------------------------------------------------------------------------

PART = "Content-Range: bytes 0-9/100"


def test_a_206_with_a_strong_validator_is_stored() -> None:
    assert why(PART, 'ETag: "a"', status=206) is Why.STORED
    assert why(PART, f"Last-Modified: {OLD}", status=206) is Why.STORED


@pytest.mark.parametrize(
    "lines",
    [
        (PART,),
        (PART, 'ETag: W/"a"'),
        (PART, 'ETag: W/"a"', f"Last-Modified: {OLD}"),
        (PART, "ETag: a"),
        (PART, f"Last-Modified: {DATE}"),
        ("Content-Range: bytes 0-9/*", 'ETag: "a"'),
        ("Content-Range: bytes 9-0/100", 'ETag: "a"'),
        ("Content-Range: lines 0-9/100", 'ETag: "a"'),
        (PART, PART, 'ETag: "a"'),
        ("Content-Type: multipart/byteranges; boundary=x", 'ETag: "a"'),
    ],
)
def test_a_206_that_cannot_be_combined_is_not_stored(lines: tuple[str, ...]) -> None:
    assert why("Cache-Control: max-age=60", *lines, status=206) is Why.PARTIAL


@pytest.mark.parametrize(
    ("lines", "strong"),
    [
        (('ETag: "a"',), True),
        (('ETag: W/"a"',), False),
        ((f"Last-Modified: {OLD}",), True),
        ((f"Last-Modified: {DATE}",), False),
        (("Last-Modified: x",), False),
        ((), False),
    ],
)
def test_strong_validators(lines: tuple[str, ...], strong: bool) -> None:
    assert has_strong_validator(headers(f"Date: {DATE}", *lines), NOW) is strong


# --- the route -------------------------------------------------------------------------------------------------------


def test_caching_can_be_switched_off() -> None:
    assert why("Cache-Control: max-age=60", policy=CachePolicy(mode="off")) is Why.OFF


def test_a_route_s_lifetime_wins_over_no_store_but_not_over_privacy() -> None:
    policy = CachePolicy(mode=60.0)
    assert verdict("Cache-Control: no-store", policy=policy) == Storable(True, True, Why.STORED)
    assert verdict("Cache-Control: no-cache, max-age=0", policy=policy).share
    assert why("Cache-Control: private", policy=policy) is Why.PRIVATE
    assert why("Set-Cookie: a=b", policy=policy) is Why.SET_COOKIE
    assert why("Vary: *", policy=policy) is Why.VARY
    assert why(request=("Authorization: x",), policy=policy) is Why.AUTHORIZATION
    assert why("Cache-Control: no-store", status=404, policy=policy) is Why.NO_STORE


def test_files_larger_than_the_route_wants_are_not_stored() -> None:
    policy = CachePolicy(max_object=99)
    assert why("Content-Length: 99", policy=policy) is Why.STORED
    assert why("Content-Length: 100", policy=policy) is Why.TOO_LARGE
    assert why(PART, 'ETag: "a"', "Content-Length: 10", status=206, policy=policy) is Why.TOO_LARGE


def test_keys_for_each_user_make_private_answers_storable() -> None:
    policy = CachePolicy(per_user="Authorization")
    alice = ("Authorization: Basic YQ==",)
    assert why("Cache-Control: private, max-age=60", request=alice, policy=policy) is Why.STORED
    assert why("Cache-Control: max-age=60", request=alice, policy=policy) is Why.STORED
    assert (
        why("Cache-Control: private, max-age=60", policy=policy) is Why.PRIVATE
    )  # nobody named: shared by all of them


def test_who_may_wait_for_another_s_response() -> None:
    assert may_queue("GET", ())
    assert may_queue("GET", headers("Authorization: x"))  # the response may turn out to be public
    assert not may_queue("HEAD", ())
    assert not may_queue("GET", headers("Cache-Control: no-store"))
    assert not may_queue("GET", (), CachePolicy(mode="off"))


@given(st.integers(100, 599), st.lists(st.sampled_from(
    ["Cache-Control: public", "Cache-Control: max-age=60", "Cache-Control: private", "Cache-Control: no-store",
     "Cache-Control: must-understand", "Vary: *", "Vary: a", "Set-Cookie: a", "ETag: \"a\"", "Age: 99"])))  # fmt: skip
def test_what_is_not_stored_is_not_shared(status: int, lines: list[str]) -> None:
    one = verdict(*lines, status=status)
    assert one.store or not one.share
    assert one.store == (one.why is Why.STORED)
    if one.store:
        assert "Cache-Control: private" not in lines
        assert "Vary: *" not in lines
        assert status in HEURISTIC or any("Cache-Control" in line for line in lines)


# --- how -------------------------------------------------------------------------------------------------------------


def stored(*lines: str) -> Headers:
    return stored_headers(headers(*lines), NOW)


def test_all_fields_are_stored_unknown_ones_too() -> None:
    lines = ("Date: " + DATE, "X-Unknown: 1", "x-unknown: 2", "Content-Type: a/b", "Cache-Status: Origin; hit")
    assert stored(*lines) == headers(*lines)


def test_hop_by_hop_fields_are_not_stored() -> None:
    kept = stored(
        "Connection: close, X-Hop", "X-Hop: 1", "Keep-Alive: 5", "Transfer-Encoding: chunked", "Upgrade: x", "A: b"
    )
    assert kept == headers("A: b", f"Date: {DATE}")


@pytest.mark.parametrize("name", ["Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Authorization"])
def test_fields_of_one_client_s_proxy_are_not_stored(name: str) -> None:
    assert stored(f"{name}: Basic", f"Date: {DATE}") == headers(f"Date: {DATE}")


def test_age_is_not_stored() -> None:
    assert header(stored("Age: 5"), "Age") is None


@pytest.mark.parametrize("directive", ["no-cache", "private"])
def test_fields_named_by_no_cache_or_private_are_not_stored(directive: str) -> None:
    kept = stored(f'Cache-Control: max-age=60, {directive}="Set-Cookie, X-A"', "Set-Cookie: a", "x-a: 1", "X-B: 2")
    assert header(kept, "Set-Cookie") is None
    assert header(kept, "X-A") is None
    assert header(kept, "X-B") == "2"


@pytest.mark.parametrize("line", ["A: b", "Date: yesterday"])
def test_a_missing_date_becomes_the_time_of_receipt(line: str) -> None:
    assert header_values(stored(line), "Date") == [DATE]
