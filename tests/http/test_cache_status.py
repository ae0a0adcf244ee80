"""Cache-Status (RFC 9211), read back with our own reader of structured fields."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.http.cache_status import CacheStatus, Forward, with_cache_status
from fileproxy.http.structured import Bare, Item, Token, parse_list


def read(text: str) -> tuple[object, dict[str, Bare]]:
    members = parse_list([text])
    assert members is not None
    assert len(members) == 1
    assert isinstance(members[0], Item)
    return members[0].value, dict(members[0].parameters)


def test_a_hit() -> None:
    assert CacheStatus(ttl_s=376.9).member("fileproxy") == "fileproxy; hit; ttl=376"


def test_a_stale_hit_has_a_negative_ttl() -> None:
    assert read(CacheStatus(ttl_s=-411.5).member("fp")) == ("fp", {"hit": True, "ttl": -412})


@pytest.mark.parametrize("reason", get_args(Forward))
def test_forwarded_for_a_reason(reason: Forward) -> None:
    _, parameters = read(CacheStatus(forward=reason).member("fp"))
    assert parameters == {"fwd": Token(reason)}


def test_everything_about_a_forwarded_request() -> None:
    status = CacheStatus("stale", status=304, ttl_s=60, stored=True, collapsed=True, key="up/a", detail="by age")
    assert status.member("fp") == (
        'fp; fwd=stale; fwd-status=304; ttl=60; stored; collapsed; key="up/a"; detail="by age"'
    )


def test_never_both_hit_and_forwarded() -> None:
    for status in (CacheStatus(), CacheStatus("uri-miss")):
        _, parameters = read(status.member("fp"))
        assert ("hit" in parameters) != ("fwd" in parameters)


def test_a_hit_says_nothing_about_forwarding() -> None:
    assert CacheStatus(status=200, stored=True, collapsed=True).member("fp") == "fp; hit"


def test_ours_comes_after_those_nearer_to_the_origin() -> None:
    headers = (("Cache-Status", "Origin; hit"), ("A", "b"))
    assert with_cache_status(headers, "fp", CacheStatus("uri-miss")) == (*headers, ("Cache-Status", "fp; fwd=uri-miss"))


@given(st.text(), st.text(), st.floats())
def test_whatever_is_told_it_is_a_structured_field(name: str, detail: str, ttl: float) -> None:
    if ttl == ttl:
        _, parameters = read(CacheStatus("miss", ttl_s=ttl, key=detail, detail=detail).member(name))
        assert "fwd" in parameters
