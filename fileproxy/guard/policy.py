"""The checks an ask has to pass, in order; the first refusal counts.

Each check takes values and returns a refusal that names what it looked at, or None. The verdict of an admitted ask
depends on all that any check looks at; a later fast path may repeat it only for asks that agree in every one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from fileproxy import errors
from fileproxy.http.fields import split_list
from fileproxy.http.via import loops
from fileproxy.model import Ask, Headers, Load, Verdict, header_values
from fileproxy.settings.schema import Limits, Route


class _Refusal(NamedTuple):
    ending: str
    status: int
    title: str


_SHED = _Refusal(errors.Shed.ending, errors.Shed.status, "Overloaded")
_METHOD = _Refusal("method_refused", 405, "Method not allowed")
_TRACE = _Refusal("unsupported", 405, "Method not allowed")
_UPGRADE = _Refusal("unsupported", 501, "Upgrade not supported")
_EXPECT = _Refusal(errors.ExpectationFailed.ending, errors.ExpectationFailed.status, "Expectation failed")
_LOOP = _Refusal(errors.LoopDetected.ending, errors.LoopDetected.status, "Loop detected")
_BODY = _Refusal(errors.BodyTooLarge.ending, errors.BodyTooLarge.status, "Body too large")
_IDLE = Load()
_ADMITTED = Verdict(
    True, frozenset({"load", "method", "route", "upgrade", "expect", "cdn-loop", "content-length"})
)  # what all checks look at
_RETRY_AFTER_S = 1


@dataclass(frozen=True, slots=True)
class Rules:
    """What asks are checked against."""

    route: Route
    limits: Limits
    identity: str  # ours in CDN-Loop
    load: Load = _IDLE


def check(ask: Ask, rules: Rules) -> Verdict:
    """Whether the ask may go on, and if not, with which answer it ends."""
    for one in _CHECKS:
        if (refusal := one(ask, rules)) is not None:
            return refusal
    return _ADMITTED


def check_load(_ask: Ask, rules: Rules) -> Verdict | None:
    """503 while the worker has more than enough to do: the downloads it has go on instead.

    Draining is no reason: what still comes on a kept connection while a worker is being replaced is served (and the
    connection closed after it), or a reload would cost somebody a download.
    """
    load = rules.load
    if load.descriptors_low:
        why = "too few file descriptors are left"
    elif load.lagging:
        why = "the event loop is overloaded"
    else:
        return None
    return _refuse("load", _SHED, why, (("Retry-After", str(_RETRY_AFTER_S)),))


def check_method(ask: Ask, rules: Rules) -> Verdict | None:
    """405 with Allow for what the route does not pass on. TRACE never is: it would show what proxies add (§9.3.8)."""
    if ask.method in rules.route.methods:
        return None
    how = _TRACE if ask.method in ("TRACE", "CONNECT") else _METHOD
    allow = (("Allow", ", ".join(rules.route.methods)),)
    return _refuse("method", how, "this route does not allow the method", allow)


def check_upgrade(ask: Ask, _rules: Rules) -> Verdict | None:
    """501 for protocols that cannot run through here. An offer of h2c or TLS may be ignored (RFC 9110 §7.8) and is;
    so is every Upgrade in HTTP/1.0 (same section).
    """
    if not ask.http10:
        for value in header_values(ask.headers, "Upgrade"):
            if any(_unsupported(protocol) for protocol in split_list(value)):
                detail = "this proxy moves files; it cannot change to another protocol"
                return _refuse("upgrade", _UPGRADE, detail)
    return None


def _unsupported(protocol: str) -> bool:
    return protocol.lower().partition("/")[0] not in ("h2", "h2c", "http", "tls")


def check_expect(ask: Ask, _rules: Rules) -> Verdict | None:
    """417 for any expectation but 100-continue (RFC 9110 §10.1.1)."""
    for value in header_values(ask.headers, "Expect"):
        if any(expectation.lower() != "100-continue" for expectation in split_list(value)):
            return _refuse("expect", _EXPECT, "only 100-continue can be expected")
    return None


def check_loop(ask: Ask, rules: Rules) -> Verdict | None:
    """508 for a request that was here before (RFC 8586 §2)."""
    if loops(ask.headers, rules.identity):
        return _refuse("cdn-loop", _LOOP, "this proxy is (through others) its own upstream")
    return None


def check_body_size(ask: Ask, rules: Rules) -> Verdict | None:
    """413 for a declared body over ``limits.request_body``; one of unknown length is measured while it is read."""
    for value in header_values(ask.headers, "Content-Length"):
        digits = value.strip()
        if digits.isdecimal() and _over(digits, rules.limits.request_body):
            detail = f"a request body may have {rules.limits.request_body} bytes"
            return _refuse("content-length", _BODY, detail)
    return None


def _over(digits: str, limit: int) -> bool:
    """Compared by length first: int() refuses thousands of digits."""
    digits = digits.lstrip("0")
    return len(digits) > len(str(limit)) or int(digits or "0") > limit


def _refuse(depends_on: str, how: _Refusal, detail: str, headers: Headers = ()) -> Verdict:
    return Verdict(
        False,
        frozenset({depends_on}),
        ending=how.ending,
        status=how.status,
        title=how.title,
        detail=detail,
        headers=headers,
    )


# Cheap and common first; what concerns the worker before what concerns the ask.
_CHECKS: tuple[Callable[[Ask, Rules], Verdict | None], ...] = (
    check_load,
    check_method,
    check_upgrade,
    check_expect,
    check_loop,
    check_body_size,
)
