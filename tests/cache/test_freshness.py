"""How long and how old: RFC 9111 §4.2, RFC 5861, RFC 8246, one function for each rule of docs/caching-rules.md."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.cache.freshness import (
    AUTO,
    HEURISTIC,
    NEGATIVE,
    CachePolicy,
    Decision,
    Serve,
    Times,
    age_at_receipt,
    age_header,
    cache_date,
    current_age,
    decide,
    lifetime,
    reuse_of,
)
from fileproxy.http.cache_control import LONGEST
from fileproxy.http.dates import format_date
from fileproxy.model import Headers

NOW = 1_800_000_000.0
DAY = 86_400.0


def at(offset: float) -> str:
    """An HTTP-date ``offset`` seconds from NOW."""
    return format_date(NOW + offset)


def headers(*lines: str) -> Headers:
    return tuple((name, value) for name, _, value in (line.partition(": ") for line in lines))


def lasts(*lines: str, status: int = 200, policy: CachePolicy = AUTO) -> float:
    return lifetime(status, headers(f"Date: {at(0)}", *lines), NOW, policy)


# --- lifetime --------------------------------------------------------------------------------------------------------


def test_s_maxage_wins_over_max_age_and_expires() -> None:
    assert lasts("Cache-Control: max-age=1, s-maxage=50", f"Expires: {at(9)}") == 50
    assert lasts("Cache-Control: max-age=100, s-maxage=0") == 0


def test_max_age_wins_over_expires() -> None:
    assert lasts("Cache-Control: max-age=100", f"Expires: {at(-9)}") == 100
    assert lasts("Cache-Control: max-age=0", f"Expires: {at(1000)}") == 0


def test_an_unreadable_max_age_is_not_replaced_by_expires() -> None:
    assert lasts("Cache-Control: max-age=x", f"Expires: {at(1000)}") == 0


def test_expires_counts_from_date() -> None:
    assert lifetime(200, headers(f"Date: {at(-500)}", f"Expires: {at(100)}"), NOW) == 600


def test_expires_without_date_counts_from_receipt() -> None:
    assert lifetime(200, headers(f"Expires: {at(100)}"), NOW) == 100
    assert lifetime(200, headers("Date: yesterday", f"Expires: {at(100)}"), NOW) == 100


@pytest.mark.parametrize(
    "value", ["0", "-1", "never", "", "Thu, 18 Aug 2050 02:01:18 UTC", "Thu 18 Aug 2050 02:01:18 GMT"]
)
def test_an_invalid_expires_is_in_the_past(value: str) -> None:
    assert lasts(f"Expires: {value}", f"Last-Modified: {at(-100 * DAY)}") == 0


def test_an_expires_before_date_is_no_negative_lifetime() -> None:
    assert lasts(f"Expires: {at(-50)}") == 0


def test_expires_lines_that_differ_are_stale() -> None:
    assert lasts(f"Expires: {at(50)}", f"Expires: {at(60)}") == 0
    assert lasts(f"Expires: {at(50)}", f"Expires: {at(50)}") == 50


@pytest.mark.parametrize("value", ["THU, 18 aug 2050 02:01:18 gmt", "thu, 18 AUG 2050 02:01:18 GMT"])
def test_dates_are_read_in_any_case(value: str) -> None:
    assert cache_date(value, NOW) == cache_date("Thu, 18 Aug 2050 02:01:18 GMT", NOW) is not None


@pytest.mark.parametrize("zone", ["UTC", "PST", "+0000", "Z", ""])
def test_zones_other_than_gmt_are_no_dates(zone: str) -> None:
    assert cache_date(f"Thu, 18 Aug 2050 02:01:18 {zone}", NOW) is None


def test_local_time_zones_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    expires = headers(f"Date: {at(0)}", f"Expires: {at(100)}")
    for zone in ("Asia/Tokyo", "America/New_York", "UTC"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert lifetime(200, expires, NOW) == 100
        assert age_at_receipt(headers(f"Date: {at(-30)}"), NOW, NOW) == 30
    monkeypatch.undo()
    time.tzset()


def test_a_targeted_field_replaces_expires_too() -> None:
    assert lasts("CDN-Cache-Control: max-age=7", "Cache-Control: max-age=1", f"Expires: {at(99)}") == 7
    assert lasts("CDN-Cache-Control: public", f"Expires: {at(99)}") == 0


# --- heuristics ------------------------------------------------------------------------------------------------------


def test_heuristic_is_a_tenth_of_the_time_since_last_modified() -> None:
    assert lasts(f"Last-Modified: {at(-1000)}") == 100


def test_heuristic_has_a_cap() -> None:
    assert lasts(f"Last-Modified: {at(-1000 * DAY)}") == DAY
    assert lasts(f"Last-Modified: {at(-1000 * DAY)}", policy=CachePolicy(heuristic_cap_s=5)) == 5


def test_no_heuristic_without_a_last_modified_in_the_past() -> None:
    assert lasts() == 0
    assert lasts(f"Last-Modified: {at(60)}") == 0
    assert lasts("Last-Modified: yesterday") == 0


@pytest.mark.parametrize("line", ["Cache-Control: max-age=5", "Cache-Control: s-maxage=5", "Cache-Control: max-age=a"])
def test_no_heuristic_where_a_lifetime_is_named(line: str) -> None:
    assert lasts(line, f"Last-Modified: {at(-100 * DAY)}") <= 5


@pytest.mark.parametrize("status", range(200, 600))
def test_heuristics_only_for_the_statuses_meant_for_it(status: int) -> None:
    expected = 100 if status in HEURISTIC - NEGATIVE else 0
    assert lasts(f"Last-Modified: {at(-1000)}", status=status) == expected


def test_heuristically_cacheable_statuses() -> None:
    assert {200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501} == HEURISTIC


def test_public_allows_a_heuristic_for_any_status() -> None:
    assert lasts("Cache-Control: public", f"Last-Modified: {at(-1000)}", status=302) == 100


# --- the route's word ------------------------------------------------------------------------------------------------


def test_a_route_may_set_the_lifetime() -> None:
    policy = CachePolicy(mode=900.0)
    assert lasts("Cache-Control: max-age=1", policy=policy) == 900
    reuse = reuse_of(200, headers("Cache-Control: no-cache, must-revalidate, s-maxage=1"), NOW, policy)
    assert (reuse.lifetime_s, reuse.validate, reuse.validate_stale) == (900, False, False)


@pytest.mark.parametrize("status", [404, 410, 500, 503, 302])
def test_a_route_s_lifetime_is_not_for_errors(status: int) -> None:
    assert lasts(status=status, policy=CachePolicy(mode=900.0)) == 0


@pytest.mark.parametrize("status", sorted(NEGATIVE))
def test_negative_lifetime(status: int) -> None:
    policy = CachePolicy(negative_ttl_s=30)
    assert lasts(status=status, policy=policy) == 30
    assert lasts("Cache-Control: max-age=5", status=status, policy=policy) == 5
    assert lasts(status=status) == 0


def test_errors_of_servers_do_not_last() -> None:
    assert lasts("Cache-Control: max-age=31536000", status=503) == AUTO.error_cap_s
    assert lasts("Cache-Control: max-age=5", status=503) == 5


# --- age -------------------------------------------------------------------------------------------------------------


def test_age_of_a_response_straight_from_the_origin() -> None:
    assert age_at_receipt(headers(f"Date: {at(0)}"), NOW, NOW) == 0


def test_apparent_age_when_there_is_no_age_field() -> None:
    assert age_at_receipt(headers(f"Date: {at(-40)}"), NOW, NOW) == 40


def test_age_counts_from_the_request_not_the_response() -> None:
    assert age_at_receipt(headers(f"Date: {at(0)}", "Age: 10"), NOW - 5, NOW) == 15


def test_the_larger_of_both_ages_counts() -> None:
    assert age_at_receipt(headers(f"Date: {at(-40)}", "Age: 10"), NOW - 5, NOW) == 40
    assert age_at_receipt(headers(f"Date: {at(-10)}", "Age: 40"), NOW - 5, NOW) == 45


def test_a_date_in_the_future_is_no_negative_age() -> None:
    assert age_at_receipt(headers(f"Date: {at(1000)}"), NOW, NOW) == 0
    assert age_at_receipt(headers(f"Date: {at(1000)}", "Age: 7"), NOW, NOW) == 7


@pytest.mark.parametrize("line", ["X: y", "Date: yesterday", "Date: "])
def test_no_date_means_the_time_of_receipt(line: str) -> None:
    assert age_at_receipt(headers(line), NOW - 2, NOW) == 2


def test_the_first_age_line_counts() -> None:
    assert age_at_receipt(headers(f"Date: {at(0)}", "Age: 7200", "Age: 0"), NOW, NOW) == 7200
    assert age_at_receipt(headers(f"Date: {at(0)}", "Age: 0", "Age: 7200"), NOW, NOW) == 0


@pytest.mark.parametrize("value", ["abc", "-7200", "7200.0", "7200, 0", "0, 0", "", "²", "+5"])
def test_an_invalid_age_is_stale(value: str) -> None:
    answer = headers(f"Date: {at(0)}", "Cache-Control: max-age=2147483648", f"Age: {value}")
    age = age_at_receipt(answer, NOW, NOW)
    assert decide(reuse_of(200, answer, NOW), Times(NOW, age), (), NOW).serve is Serve.REVALIDATE


def test_ages_too_large_to_hold_become_the_largest() -> None:
    assert age_at_receipt(headers(f"Date: {at(0)}", "Age: 99999999999999999999"), NOW, NOW) == LONGEST
    assert current_age(LONGEST - 5, NOW, NOW + 10) == LONGEST
    assert age_header(LONGEST * 4.0) == str(LONGEST)


def test_current_age_adds_the_time_it_was_here() -> None:
    assert current_age(10, NOW, NOW + 25.5) == 35.5


def test_a_clock_that_goes_back_makes_nothing_younger() -> None:
    assert current_age(10, NOW, NOW - 1000) == 10


@pytest.mark.parametrize(("age", "text"), [(0.0, "0"), (0.1, "1"), (59.0, "59"), (-3.0, "0")])
def test_age_is_written_rounded_up(age: float, text: str) -> None:
    assert age_header(age) == text


@given(st.floats(0, 1e9), st.floats(-1e6, 1e6), st.integers(0, 2**40), st.floats(0, 1e6))
def test_ages_are_never_negative_and_never_shrink(delay: float, skew: float, age: int, later: float) -> None:
    answer = headers(f"Date: {format_date(max(0.0, NOW + skew))}", f"Age: {age}")
    initial = age_at_receipt(answer, NOW - delay, NOW)
    assert min(age, LONGEST) <= initial <= LONGEST
    assert current_age(initial, NOW, NOW + later) >= initial


# --- what may be done ------------------------------------------------------------------------------------------------


def ask(
    control: str, age: float, *request: str, policy: CachePolicy = AUTO, expired_at: float | None = None
) -> Decision:
    """A 200 with this Cache-Control, ``age`` seconds old now, and a request."""
    answer = headers(f"Date: {at(-age)}", f"Cache-Control: {control}")
    reuse = reuse_of(200, answer, NOW - age, policy)
    return decide(reuse, Times(NOW - age, 0, expired_at), headers(*request), NOW, policy)


def test_fresh_is_served() -> None:
    decision = ask("max-age=60", 59)
    assert decision == Decision(Serve.FRESH, 59, 1, if_error=True, if_disconnected=True)


@pytest.mark.parametrize("age", [60, 61, 1e6])
def test_stale_is_revalidated(age: float) -> None:
    assert ask("max-age=60", age).serve is Serve.REVALIDATE


def test_fresh_only_while_the_lifetime_is_greater_than_the_age() -> None:
    assert ask("max-age=60", 60).serve is Serve.REVALIDATE
    assert ask("max-age=60", 59.999).serve is Serve.FRESH


def test_no_cache_is_never_served_unvalidated() -> None:
    for request in ((), ("Cache-Control: max-stale",)):
        decision = ask("max-age=60, no-cache, stale-while-revalidate=60, stale-if-error=60", 1, *request)
        assert decision.serve is Serve.REVALIDATE
        assert not decision.if_error
        assert not decision.if_disconnected


@pytest.mark.parametrize("control", ["no-store", "private", "no-store, max-age=60"])
def test_what_a_304_forbids_afterwards_is_not_served_unvalidated(control: str) -> None:
    assert ask(control, 1).serve is Serve.REVALIDATE
    assert not ask(control, 1).if_disconnected


def test_no_cache_with_fields_may_be_served() -> None:
    assert ask('max-age=60, no-cache="x-a"', 1).serve is Serve.FRESH


@pytest.mark.parametrize("directive", ["must-revalidate", "proxy-revalidate", "s-maxage=60"])
def test_what_must_be_revalidated_is_never_served_stale(directive: str) -> None:
    control = f"max-age=60, stale-while-revalidate=600, stale-if-error=600, {directive}"
    assert ask(control, 59).serve is Serve.FRESH
    for request in ((), ("Cache-Control: max-stale",), ("Cache-Control: stale-if-error=999",)):
        decision = ask(control, 61, *request)
        assert decision.serve is Serve.REVALIDATE
        assert not decision.if_error
        assert not decision.if_disconnected


def test_what_must_be_revalidated_is_not_served_stale_after_a_soft_purge() -> None:
    assert ask("max-age=60, must-revalidate", 10, expired_at=NOW - 1).serve is Serve.REVALIDATE


def test_stale_while_revalidate() -> None:
    assert ask("max-age=60, stale-while-revalidate=30", 90) == Decision(
        Serve.STALE, 90, -30, refresh=True, if_error=False, if_disconnected=True
    )
    assert ask("max-age=60, stale-while-revalidate=30", 91).serve is Serve.REVALIDATE


def test_stale_if_error() -> None:
    assert ask("max-age=60, stale-if-error=30", 90).if_error
    assert not ask("max-age=60, stale-if-error=30", 91).if_error
    assert not ask("max-age=60", 61).if_error


def test_stale_if_error_of_the_request() -> None:
    assert ask("max-age=60", 90, "Cache-Control: stale-if-error=30").if_error
    assert not ask("max-age=60", 91, "Cache-Control: stale-if-error=30").if_error


def test_a_stale_file_serves_while_no_mirror_can_be_reached() -> None:
    policy = CachePolicy(disconnected_s=100)
    assert ask("max-age=60", 160, policy=policy).if_disconnected
    assert not ask("max-age=60", 161, policy=policy).if_disconnected
    assert not ask("max-age=60", 160, policy=policy).if_error


def test_request_max_age() -> None:
    assert ask("max-age=60", 10, "Cache-Control: max-age=10").serve is Serve.FRESH
    decision = ask("max-age=60", 11, "Cache-Control: max-age=10")
    assert (decision.serve, decision.by_request) == (Serve.REVALIDATE, True)


def test_request_max_age_wants_nothing_stale() -> None:
    control = "max-age=60, stale-while-revalidate=60"
    assert ask(control, 61, "Cache-Control: max-age=1000").serve is Serve.REVALIDATE
    assert ask(control, 61, "Cache-Control: max-age=1000, max-stale").serve is Serve.STALE


def test_request_min_fresh() -> None:
    assert ask("max-age=60", 40, "Cache-Control: min-fresh=20").serve is Serve.FRESH
    assert ask("max-age=60", 41, "Cache-Control: min-fresh=20").serve is Serve.REVALIDATE


def test_request_max_stale() -> None:
    assert ask("max-age=60", 70, "Cache-Control: max-stale=10").serve is Serve.STALE
    assert ask("max-age=60", 71, "Cache-Control: max-stale=10").serve is Serve.REVALIDATE
    assert ask("max-age=60", 1e6, "Cache-Control: max-stale").serve is Serve.STALE
    assert not ask("max-age=60", 1e6, "Cache-Control: max-stale").refresh


@pytest.mark.parametrize("line", ["Cache-Control: no-cache", "Pragma: no-cache"])
def test_request_no_cache(line: str) -> None:
    decision = ask("max-age=60", 1, line)
    assert (decision.serve, decision.by_request) == (Serve.REVALIDATE, True)


def test_request_no_store_may_be_answered_from_the_cache() -> None:
    assert ask("max-age=60", 1, "Cache-Control: no-store").serve is Serve.FRESH


def test_only_if_cached() -> None:
    assert ask("max-age=60", 1, "Cache-Control: only-if-cached").serve is Serve.FRESH
    assert ask("max-age=60", 61, "Cache-Control: only-if-cached").serve is Serve.TIMEOUT
    assert ask("max-age=60", 61, "Cache-Control: only-if-cached, max-stale").serve is Serve.STALE
    assert ask("max-age=60, no-cache", 1, "Cache-Control: only-if-cached").serve is Serve.TIMEOUT


def test_a_route_may_ignore_what_requests_say() -> None:
    policy = CachePolicy(ignore_request=True)
    for line in ("Cache-Control: no-cache", "Cache-Control: max-age=0", "Pragma: no-cache"):
        assert ask("max-age=60", 1, line, policy=policy).serve is Serve.FRESH
    assert ask("max-age=60", 61, "Cache-Control: max-stale", policy=policy).serve is Serve.REVALIDATE


def test_immutable_needs_no_reload_while_fresh() -> None:
    assert ask("max-age=60, immutable", 10, "Cache-Control: max-age=0").serve is Serve.FRESH


def test_immutable_is_revalidated_when_asked_for() -> None:
    assert ask("max-age=60, immutable", 10, "Cache-Control: no-cache").serve is Serve.REVALIDATE


def test_immutable_means_nothing_once_stale() -> None:
    assert ask("max-age=60, immutable", 61).serve is Serve.REVALIDATE
    assert ask("max-age=60, immutable", 61, "Cache-Control: max-age=0").serve is Serve.REVALIDATE


@pytest.mark.parametrize("directive", ["public", "s-maxage=60", "must-revalidate"])
def test_authorization_is_answered_from_what_may_be_shared(directive: str) -> None:
    assert ask(f"max-age=60, {directive}", 1, "Authorization: Basic YQ==").serve is Serve.FRESH


def test_authorization_is_not_answered_from_anything_else() -> None:
    assert ask("max-age=60", 1, "Authorization: Basic YQ==").serve is Serve.BYPASS
    assert ask("max-age=60", 1, "Authorization: x", "Cache-Control: only-if-cached").serve is Serve.TIMEOUT
    keyed = CachePolicy(per_user="authorization")
    assert ask("max-age=60", 1, "Authorization: x", policy=keyed).serve is Serve.FRESH
    assert ask("max-age=60", 1, "Authorization: x", policy=CachePolicy(per_user="Cookie")).serve is Serve.BYPASS


def test_soft_purge_serves_while_it_is_revalidated() -> None:
    decision = ask("max-age=60", 10, expired_at=NOW - 5)
    assert (decision.serve, decision.refresh, decision.ttl_s) == (Serve.STALE, True, -5)
    assert ask("max-age=60", 61, expired_at=NOW - 5).serve is Serve.REVALIDATE
    assert ask("max-age=60", 10, "Cache-Control: max-age=30", expired_at=NOW - 5).serve is Serve.REVALIDATE
    assert ask("max-age=60", 10, expired_at=NOW + 5).serve is Serve.FRESH


CONTROLS = st.lists(
    st.sampled_from(
        ["max-age=0", "max-age=60", "s-maxage=30", "no-cache", "must-revalidate", "proxy-revalidate", "public",
         "immutable", "stale-while-revalidate=50", "stale-if-error=50", "x"]
    )
).map(", ".join)  # fmt: skip
WISHES = st.lists(
    st.sampled_from(["max-age=0", "max-age=50", "min-fresh=20", "max-stale", "max-stale=40", "no-cache", "no-store",
                     "only-if-cached", "stale-if-error=30"])
).map(", ".join)  # fmt: skip


@given(CONTROLS, WISHES, st.floats(0, 200), st.none() | st.floats(-50, 50))
def test_no_request_gets_more_than_the_response_allows(
    control: str, wishes: str, age: float, expired: float | None
) -> None:
    decision = ask(control, age, f"Cache-Control: {wishes}", expired_at=None if expired is None else NOW + expired)
    reuse = reuse_of(200, headers(f"Date: {at(-age)}", f"Cache-Control: {control}"), NOW - age)
    served = decision.serve in (Serve.FRESH, Serve.STALE)
    if "no-cache" in control:
        assert not served
    if reuse.validate_stale and decision.ttl_s <= 0:
        assert not served
        assert not decision.if_error
        assert not decision.if_disconnected
    if decision.serve is Serve.FRESH:
        assert decision.ttl_s > 0
    if "only-if-cached" in wishes:
        assert decision.serve is not Serve.REVALIDATE


def test_a_route_s_own_lifetime_counts_from_when_the_answer_came() -> None:
    """ "Fresh for an hour" means an hour here, also for what another cache had held for two days before."""
    policy = CachePolicy(mode=3600.0)
    reuse = reuse_of(200, (), 1000.0, policy)
    old = Times(received_at=1000.0, age_s=172_800.0)
    assert decide(reuse, old, (), 1000.0 + 3599, policy).serve is Serve.FRESH
    assert decide(reuse, old, (), 1000.0 + 3600, policy).serve is not Serve.FRESH
    assert decide(reuse, old, (), 1000.0, policy).age_s == 172_800.0  # the Age that is told stays true
