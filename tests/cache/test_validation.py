"""Validation, updates and invalidation: RFC 9111 §3.2, §4.3, §4.4."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.cache.storing import stored_headers
from fileproxy.cache.validation import (
    CONDITIONS,
    head_agrees,
    invalidates,
    newest,
    revalidation_headers,
    selects,
    update_headers,
)
from fileproxy.http.dates import format_date
from fileproxy.model import Headers, header, header_values

NOW = 1_800_000_000.0
DATE = format_date(NOW)
OLD, OLDER = format_date(NOW - 1000), format_date(NOW - 2000)


def headers(*lines: str) -> Headers:
    return tuple((name, value) for name, _, value in (line.partition(": ") for line in lines))


# --- asking ----------------------------------------------------------------------------------------------------------


def test_both_validators_are_sent_as_they_are_stored() -> None:
    stored = headers('ETag: W/"a,b"', f"Last-Modified: {OLD}")
    assert revalidation_headers(stored) == headers('If-None-Match: W/"a,b"', f"If-Modified-Since: {OLD}")


def test_one_validator_is_enough() -> None:
    assert revalidation_headers(headers('ETag: "a"')) == headers('If-None-Match: "a"')
    assert revalidation_headers(headers(f"Last-Modified: {OLD}")) == headers(f"If-Modified-Since: {OLD}")


def test_malformed_validators_are_not_sent() -> None:
    assert revalidation_headers(headers("ETag: a", "Last-Modified: yesterday")) == ()


def test_conditions_that_a_fill_leaves_out() -> None:
    assert {"if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range", "range"} == CONDITIONS


# --- 304 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "answer", "selected"),
    [
        (['ETag: "a"'], ['ETag: "a"'], True),
        (['ETag: "a"'], ['ETag: "b"'], False),
        (['ETag: "a"'], ['ETag: W/"a"'], True),
        (['ETag: W/"a"'], ['ETag: W/"a"'], True),
        (['ETag: W/"a"'], ['ETag: "a"'], False),
        (["ETag: a"], ["ETag: a"], True),
        (["ETag: a"], ["ETag: b"], False),
        (['ETag: "a"', f"Last-Modified: {OLD}"], ['ETag: "b"', f"Last-Modified: {OLD}"], False),
        (['ETag: "a"', f"Last-Modified: {OLD}"], [f"Last-Modified: {OLD}"], True),
        (['ETag: "a"', f"Last-Modified: {OLD}"], [f"Last-Modified: {OLDER}"], False),
        ([f"Last-Modified: {OLD}"], [f"Last-Modified: {OLD}"], True),
        ([f"Last-Modified: {OLD}"], [f"Last-Modified: {OLDER}"], False),
        ([f"Last-Modified: {OLD}"], ["Last-Modified: x"], False),
        ([f"Last-Modified: {OLD}"], [f"Last-Modified: {OLD}", 'ETag: "new"'], True),
        ([f"Last-Modified: {DATE}"], [f"Last-Modified: {DATE}", 'ETag: "new"'], False),
        ([f"Last-Modified: {OLD}"], ['ETag: "new"'], False),
        (['ETag: "a"'], [], True),
        ([], [], True),
    ],
)
def test_which_304_is_about_the_stored_response(stored: list[str], answer: list[str], selected: bool) -> None:
    assert selects(headers(*stored), headers(f"Date: {DATE}", *answer), NOW) is selected


def test_a_304_with_another_strong_validator_updates_nothing() -> None:
    assert not selects(headers('ETag: "a"'), headers('ETag: "b"'), NOW)
    assert not selects(headers(f"Last-Modified: {OLD}"), headers(f"Last-Modified: {OLDER}"), NOW)


STORED = headers(
    f"Date: {OLD}", "Content-Length: 5", 'ETag: "a"', "X-A: old", "x-a: older", "X-B: stays", "Cache-Control: max-age=1"
)


def updated(*lines: str) -> Headers:
    return update_headers(STORED, headers(*lines), NOW)


def test_fields_of_a_304_replace_all_of_their_name_and_new_ones_are_added() -> None:
    assert updated(f"Date: {DATE}", "X-A: new", "X-C: added", "Cache-Control: max-age=3600") == headers(
        "Content-Length: 5", 'ETag: "a"', "X-B: stays", f"Date: {DATE}", "X-A: new", "X-C: added",
        "Cache-Control: max-age=3600",
    )  # fmt: skip


@pytest.mark.parametrize(
    "line",
    ["Content-Length: 9", "Content-Encoding: gzip", "Content-Range: bytes 0-1/9", "Content-MD5: x", "Repr-Digest: x",
     "Content-Digest: x", 'ETag: W/"a"', "Transfer-Encoding: chunked"],
)  # fmt: skip
def test_what_describes_the_bytes_is_not_updated(line: str) -> None:
    name = line.partition(":")[0]
    assert header_values(updated(line), name) == header_values(STORED, name)


@pytest.mark.parametrize("line", ["Proxy-Authenticate: Basic", "Keep-Alive: 5", "Age: 9", "Proxy-Authorization: x"])
def test_what_is_never_stored_is_not_added_by_a_304(line: str) -> None:
    assert header(updated(line), line.partition(":")[0]) is None


def test_fields_named_by_no_cache_are_not_added_by_a_304() -> None:
    stored = headers(f"Date: {DATE}", 'Cache-Control: no-cache="x-secret", max-age=5')
    assert header(update_headers(stored, headers("X-Secret: 1"), NOW), "X-Secret") is None


def test_a_cookie_of_a_304_is_for_one_client() -> None:
    assert header(updated("Set-Cookie: a=b"), "Set-Cookie") is None
    assert header(updated("Set-Cookie: a=b", "Cache-Control: public"), "Set-Cookie") == "a=b"


def test_a_304_without_a_date_gets_the_time_of_receipt() -> None:
    assert header_values(updated("X-A: 1"), "Date") == [DATE]


NAMES = st.sampled_from(["A", "b", "X-c", "Content-Length", "ETag", "Set-Cookie", "Date", "Connection", "Age"])
LINES = st.lists(st.tuples(NAMES, st.sampled_from(["1", "2", "b", "close"]))).map(tuple)


@given(LINES, LINES)
def test_updates_settle(stored: Headers, answer: Headers) -> None:
    """The same 304 twice changes nothing more, and the bytes' description stays."""
    stored = stored_headers(stored, NOW)
    once = update_headers(stored, answer, NOW)
    assert sorted(update_headers(once, answer, NOW)) == sorted(once)
    for name in ("Content-Length", "ETag"):
        assert header_values(once, name) == header_values(stored, name)


# --- HEAD ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "agrees"),
    [
        ([], True),
        (['ETag: "a"', f"Last-Modified: {OLD}", "Content-Length: 5"], True),
        (['ETag: W/"a"'], True),
        (['ETag: "b"'], False),
        (["ETag: a"], False),
        ([f"Last-Modified: {OLDER}"], False),
        (["Content-Length: 6"], False),
        (['ETag: "a"', "Content-Length: 6"], False),
    ],
)
def test_head_that_agrees_updates_and_one_that_does_not_makes_stale(lines: list[str], agrees: bool) -> None:
    stored = headers('ETag: "a"', f"Last-Modified: {OLD}", "Content-Length: 5")
    assert head_agrees(stored, headers(*lines), NOW) is agrees


def test_head_updates_fields_like_a_304() -> None:
    assert header(updated("X-A: new", "Content-Length: 5"), "X-A") == "new"


# --- several ---------------------------------------------------------------------------------------------------------


def test_the_most_recent_response_is_used() -> None:
    one, two = headers(f"Date: {OLD}"), headers(f"Date: {OLDER}")
    assert newest([one, two], NOW) == 0
    assert newest([two, one], NOW) == 1
    assert newest([one, one], NOW) == 1
    assert newest([one, headers("A: b")], NOW) == 1


# --- invalidation ----------------------------------------------------------------------------------------------------

TARGET = "http://files.test/dir/a?x=1"


def gone(*lines: str, method: str = "PUT", status: int = 200, target: str = TARGET) -> tuple[str, ...]:
    return invalidates(method, status, target, headers(*lines))


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PROPPATCH", "M-SEARCH", "get"])
@pytest.mark.parametrize("status", [200, 201, 204, 303, 399])
def test_unsafe_methods_invalidate_the_target(method: str, status: int) -> None:
    assert gone(method=method, status=status) == (TARGET,)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE"])
def test_safe_methods_invalidate_nothing(method: str) -> None:
    assert gone("Location: /b", method=method) == ()


@pytest.mark.parametrize("status", [100, 400, 404, 412, 500, 503])
def test_errors_invalidate_nothing(status: int) -> None:
    assert gone("Location: /b", status=status) == ()


@pytest.mark.parametrize("name", ["Location", "Content-Location"])
@pytest.mark.parametrize(
    ("value", "uri"),
    [
        ("/b", "http://files.test/b"),
        ("b?q", "http://files.test/dir/b?q"),
        ("http://files.test/b#part", "http://files.test/b"),
        ("http://FILES.test:80/b", "http://FILES.test:80/b"),
        ("//files.test/b", "http://files.test/b"),
    ],
)
def test_location_and_content_location_are_invalidated(name: str, value: str, uri: str) -> None:
    assert gone(f"{name}: {value}") == (TARGET, uri)


@pytest.mark.parametrize(
    "value",
    ["http://other.test/b", "https://files.test/b", "http://files.test:8080/b", "//other.test/b", "mailto:a@b",
     "http://[::1/b", "http://files.test:x/", "http://files.test.evil/"],
)  # fmt: skip
def test_other_origins_are_not_invalidated(value: str) -> None:
    assert gone(f"Location: {value}", f"Content-Location: {value}") == (TARGET,)


@given(st.text(), st.text())
def test_any_location_is_read(target: str, value: str) -> None:
    for uri in invalidates("PUT", 200, target, (("Location", value),)):
        assert "#" not in uri
