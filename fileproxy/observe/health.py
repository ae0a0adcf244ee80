"""What ``/health`` says (pure): one status for all, and the parts it comes from.

``failing`` means that nothing can be served; only then is the answer a 503, at which a load balancer takes
the machine out. Everything else that is missing is ``degraded``, with a sentence that says what.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

from fileproxy.http.coding import Coding
from fileproxy.observe.stats import optimization

Status = Literal["ok", "degraded", "failing"]
Part = dict[str, Any]
WANTED_DESCRIPTORS = 65536


def health(
    facts: Mapping[str, object], *, config: Mapping[str, Any], parts: Mapping[str, Part], now: float
) -> dict[str, Any]:
    """The whole report, for operators.

    ``facts``: ``version``, ``started_at`` (epoch seconds), ``uvloop_enabled``, ``optimizer_enabled``. ``config`` is the
    effective configuration, already masked. ``now`` is epoch seconds.
    """
    started_at = facts.get("started_at")
    uptime = now - started_at if isinstance(started_at, int | float) else 0.0
    return {
        "status": overall(parts),
        "version": facts.get("version"),
        "uptime_seconds": round(max(0.0, uptime), 3),
        "performance_optimization": optimization(facts),
        "config": dict(config),
        "parts": dict(parts),
    }


def public(report: Mapping[str, Any]) -> dict[str, Any]:
    """What clients who are not operators get to see."""
    return {"status": report["status"]}


def overall(parts: Mapping[str, Part]) -> Status:
    """Failing when a part says so, else degraded when one is not ok, else ok."""
    statuses = {part["status"] for part in parts.values()}
    if "failing" in statuses:
        return "failing"
    return "ok" if statuses <= {"ok"} else "degraded"


def part(status: Status, detail: str | None = None, **values: object) -> Part:
    """One part: its status, a sentence when something is wrong, and what is known of it."""
    return {"status": status} | ({"detail": detail} if detail else {}) | values


def workers_part(live: int, wanted: int, crashed: int = 0) -> Part:
    """Failing without any worker (only the master could say so then), degraded while one is missing."""
    if live == 0:
        return part("failing", "no worker is alive", live=live, wanted=wanted, crashed=crashed)
    if live < wanted:
        return part(
            "degraded", f"{wanted - live} of {wanted} workers missing", live=live, wanted=wanted, crashed=crashed
        )
    return part("ok", live=live, wanted=wanted, crashed=crashed)


def upstreams_part(upstreams: Mapping[str, Mapping[str, Any]], *, kept: bool = False) -> Part:
    """From what each upstream says of itself; ``status`` in it, where it has one.

    Failing when every one fails and nothing is ``kept`` that could be served instead.
    """
    failing = sorted(name for name, one in upstreams.items() if one.get("status") == "failing")
    unwell = sorted(name for name, one in upstreams.items() if one.get("status", "ok") != "ok")
    details: dict[str, Any] = {"upstreams": {name: dict(one) for name, one in upstreams.items()}}
    if failing and len(failing) == len(upstreams):
        return part("degraded" if kept else "failing", "no upstream can be reached", **details)
    if unwell:
        return part("degraded", f"in trouble: {', '.join(unwell)}", **details)
    return part("ok", **details)


def shared_store_part(described: Mapping[str, Any]) -> Part:
    """From ``SharedStore.describe()``. Off by choice is ok; configured and missing is degraded, never failing."""
    if described["state"] == "down":
        return part("degraded", f"the shared store does not answer: {described.get('error')}", **described)
    return part("ok", **described)


def cache_parts(described: Mapping[str, Any]) -> dict[str, Part]:
    """From ``Caching.describe()``: a part for each tier, and whether workers fetch each file once (law 9: never
    failing).
    """
    parts = {}
    for name in ("memory", "disk", "shared"):
        tier = described[name]
        values = {} if tier is None else {key: value for key, value in tier.items() if key not in ("status", "detail")}
        status: Status = "ok" if tier is None or tier.get("status", "ok") == "ok" else "degraded"
        parts[f"cache_{name}"] = part(status, None if tier is None else tier.get("detail"), state="off", **values)
        if tier is not None:
            parts[f"cache_{name}"]["state"] = "on"
    alone = described["owners"]["slot"] is None
    detail = "without a disk tier each worker fetches for itself" if alone else None
    parts["one_fetch"] = part("ok", detail, **described["owners"])
    if problem := described["bans"].get("detail"):
        parts["bans"] = part("degraded", f"purges cannot be noted: {problem}")
    return parts


def descriptors_part(soft: int, hard: int, used: int | None = None) -> Part:
    """Open files of this worker against its limit. A small limit works until it is nearly used up."""
    values: dict[str, Any] = {"soft_limit": soft, "hard_limit": hard, "recommended": WANTED_DESCRIPTORS, "open": used}
    if used is not None and used >= soft * 0.9:
        return part("degraded", f"{used} of {soft} descriptors are in use; see `fileproxy doctor`", **values)
    return part("ok", **values)


def logs_part(problems: Mapping[str, str], dropped: int) -> Part:
    """From ``Logs.problems`` and the counter ``logs.dropped``."""
    if problems:
        detail = "; ".join(f"{name}: {problem}" for name, problem in sorted(problems.items()))
        return part("degraded", detail, dropped=dropped)
    return part("ok", dropped=dropped)


def compression_part(codings: Collection[Coding], missing: Mapping[Coding, str]) -> Part:
    """Content codings that can be offered, and why others cannot. Without any, files are sent as they are."""
    detail = "; ".join(f"{coding} is not offered: {why}" for coding, why in sorted(missing.items()))
    return part("ok", detail, codings=list(codings))


def counters_part(own_problem: str | None, unreadable: Collection[str]) -> Part:
    """From ``Page.problem`` and ``Totals.unreadable``: are the sums whole?"""
    if own_problem:
        return part("degraded", f"this worker counts for itself only: {own_problem}", unreadable=list(unreadable))
    if unreadable:
        return part("degraded", f"{len(unreadable)} counter pages cannot be read", unreadable=list(unreadable))
    return part("ok")


def sockets_part(
    asked: Mapping[str, Any], granted: Mapping[str, Any] | None, refused: Mapping[str, str] | None = None
) -> Part:
    """TCP options: what was asked, what the kernel granted (read back from a socket; None before the first), what it
    refused and why.
    """
    values: dict[str, Any] = {"asked": dict(asked), "granted": None if granted is None else dict(granted)}
    if refused:
        detail = "; ".join(f"{name}: {why}" for name, why in sorted(refused.items()))
        return part("degraded", f"the kernel refused {detail}", **values)
    return part("ok", **values)
