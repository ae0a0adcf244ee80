"""What an ask is refused for, in which order, and what the verdict depends on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fileproxy.guard.policy import Rules, check
from fileproxy.model import Ask, Load, Target, Verdict
from fileproxy.settings.schema import Limits, Route

ASK = Ask(
    id="id",
    method="GET",
    target=Target("/f"),
    authority="files.test",
    scheme="http",
    client="192.0.2.7",
    peer="192.0.2.7",
    trusted_peer=False,
    headers=(("Host", "files.test"),),
)
RULES = Rules(Route(upstream="files"), Limits(request_body=1000), "us")
WRITABLE = replace(RULES, route=Route(upstream="files", methods=["GET", "HEAD", "PUT"]))


def ask(*headers: tuple[str, str], method: str = "GET", http10: bool = False) -> Ask:
    return replace(ASK, method=method, headers=(*ASK.headers, *headers), http10=http10)


def refused(verdict: Verdict) -> tuple[int, str]:
    assert not verdict.allowed
    assert verdict.title
    assert verdict.detail
    assert len(verdict.depends_on) == 1
    return verdict.status, verdict.ending


def test_a_plain_ask_may_go_on_and_says_what_that_depends_on() -> None:
    verdict = check(ask(), RULES)
    assert verdict.allowed
    assert verdict.depends_on == {"load", "method", "route", "upgrade", "expect", "cdn-loop", "content-length"}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"])
def test_the_default_is_read_only(method: str) -> None:
    verdict = check(ask(method=method), RULES)
    assert refused(verdict) == (405, "method_refused")
    assert verdict.headers == (("Allow", "GET, HEAD"),)


def test_a_route_allows_methods() -> None:
    assert check(ask(method="PUT"), WRITABLE).allowed
    verdict = check(ask(method="DELETE"), WRITABLE)
    assert verdict.headers == (("Allow", "GET, HEAD, PUT"),)


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
def test_trace_and_connect_never(method: str) -> None:
    assert refused(check(ask(method=method), WRITABLE)) == (405, "unsupported")


@pytest.mark.parametrize("load", [Load(lagging=True), Load(descriptors_low=True)])
def test_an_overloaded_worker_sheds_with_retry_after(load: Load) -> None:
    verdict = check(ask(method="DELETE"), replace(RULES, load=load))  # whatever else is wrong with it
    assert refused(verdict) == (503, "shed")
    assert verdict.headers == (("Retry-After", "1"),)


def test_a_draining_worker_serves_what_still_comes() -> None:
    assert check(ask(), replace(RULES, load=Load(draining=True))).allowed


@pytest.mark.parametrize("value", ["websocket", "foo/2", "h2c, websocket"])
def test_an_upgrade_is_501(value: str) -> None:
    assert refused(check(ask(("Upgrade", value)), RULES)) == (501, "unsupported")


@pytest.mark.parametrize("value", ["h2c", "h2", "HTTP/2.0", "TLS/1.0", ""])
def test_an_offer_may_be_ignored(value: str) -> None:
    assert check(ask(("Upgrade", value)), RULES).allowed


def test_http_1_0_knows_no_upgrade() -> None:
    assert check(ask(("Upgrade", "websocket"), http10=True), RULES).allowed


def test_expectations() -> None:
    assert check(ask(("Expect", "100-Continue")), RULES).allowed
    assert refused(check(ask(("Expect", "200-ok")), RULES)) == (417, "expectation_failed")
    assert refused(check(ask(("Expect", "100-continue, x")), RULES)) == (417, "expectation_failed")


def test_who_has_been_here_is_a_loop() -> None:
    assert refused(check(ask(("CDN-Loop", 'other, us; v="1"')), RULES)) == (508, "loop_detected")
    assert check(ask(("CDN-Loop", "other, usx")), RULES).allowed


@pytest.mark.parametrize(("length", "allowed"), [("1000", True), ("0001000", True), ("1001", False), ("9" * 99, False)])
def test_a_declared_body(length: str, allowed: bool) -> None:
    verdict = check(ask(("Content-Length", length), method="PUT"), WRITABLE)
    assert verdict.allowed is allowed
    if not allowed:
        assert refused(verdict) == (413, "body_too_large")
