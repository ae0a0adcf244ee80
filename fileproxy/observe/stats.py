"""Totals → the report of ``/stats`` (pure). ``performance_optimizer`` keeps the keys and formats people already read.

Response time is head read to first byte out. An error is a 5xx of ours or a body cut short. Throughput is body bits to
clients over the last 60 s (less right after the start), in decimal megabits. ``current_rate_limit`` is the sum over the
upstreams of requests a second that the machine may send them; null where nothing limits them (as in the baseline).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fileproxy.machines import MachineReport
from fileproxy.observe.histogram import Histogram
from fileproxy.observe.totals import Totals

_ENDING = "ending."


def optimization(facts: Mapping[str, object]) -> dict[str, Any]:
    """``performance_optimization`` of ``/health``: level high = uvloop and optimiser, medium = one, low = none.

    Reads ``uvloop_enabled`` and ``optimizer_enabled`` (the profile is ``optimized``) of ``facts``.
    """
    uvloop, optimizer = bool(facts.get("uvloop_enabled")), bool(facts.get("optimizer_enabled"))
    level = ("low", "medium", "high")[uvloop + optimizer]
    return {"uvloop_enabled": uvloop, "optimizer_enabled": optimizer, "optimization_level": level}


def stats(
    totals: Totals, facts: Mapping[str, object], machines: Sequence[MachineReport] | None = None
) -> dict[str, Any]:
    """The report over all workers. ``machines`` only while the shared store answers."""
    counters = totals.counters
    requests, errors = counters["requests"], counters["errors"]
    times = totals.histograms["response_time"]
    window = totals.window
    level = optimization(facts)
    report: dict[str, Any] = {
        "performance_optimizer": {
            "metrics": {
                "total_requests": requests,
                "error_rate": f"{_rate(errors, requests) * 100:.2f}%",
                "avg_response_time_ms": f"{times.mean_s * 1000:.2f}",
                "p95_response_time_ms": f"{times.percentile(95) * 1000:.2f}",
                "throughput_mbps": f"{window.bits_per_second / 1e6:.2f}",
                "uvloop_enabled": level["uvloop_enabled"],
            },
            "current_rate_limit": sum(totals.labelled["upstream.rate_limit"].values()) or None,
            "optimization_level": level["optimization_level"],
        },
        "requests": requests,
        "errors": errors,
        "error_rate": _rate(errors, requests),
        "response_time_ms": milliseconds(times),
        "throughput_bits_per_second": window.bits_per_second,
        "last_60_seconds": {
            "seconds": window.seconds,
            "requests": window.requests,
            "errors": window.errors,
            "bytes_to_clients": window.bytes,
        },
        "bytes": {name.removeprefix("bytes."): count for name, count in counters.items() if name.startswith("bytes.")},
        "connections": {
            name.removeprefix("connections."): count
            for name, count in counters.items()
            if name.startswith("connections.")
        },
        "downloads_active": counters["downloads.active"],
        "endings": {
            name.removeprefix(_ENDING): count for name, count in counters.items() if name.startswith(_ENDING) and count
        },
        "routes": _family(totals, "route."),
        "codings": _family(totals, "coding."),
        "upstreams": {label: _limits(row) for label, row in _family(totals, "upstream.").items()},
        "mirrors": _family(totals, "mirror."),
        "workers": {
            "live": len(totals.live),
            "started": counters["workers.started"],
            "crashed": counters["workers.crashed"],
            "slots": [
                {"slot": one.slot, "pid": one.pid, "started_at": one.started_at, "lives": one.lives}
                for one in totals.live
            ],
        },
        "counters": dict(sorted(counters.items())),
        "counting_since": totals.began_at,
    }
    if machines is not None:
        report["machines"] = _machines(machines)
    return report


def cache(counters: Mapping[str, int], described: Mapping[str, Any]) -> dict[str, Any]:
    """The cache: how asks were answered over all workers since the start, and the tiers as this worker sees them.

    ``hit_ratio``: answers without a byte from an upstream, of all that the cache may answer.
    """
    answers = {name: counters[f"cache.{name}"] for name in ("hit", "stale", "revalidated", "partial", "miss")}
    return {
        "answers": answers,
        "hit_ratio": _rate(answers["hit"] + answers["stale"] + answers["revalidated"], sum(answers.values())),
        "collapsed": counters["cache.collapsed"],
        **described,
    }


def milliseconds(histogram: Histogram) -> dict[str, float | int]:
    """Mean, percentiles and longest in milliseconds, and how many were counted. Percentiles are within 5 %."""
    return {
        "count": histogram.count,
        "mean": histogram.mean_s * 1000,
        "p50": histogram.percentile(50) * 1000,
        "p95": histogram.percentile(95) * 1000,
        "p99": histogram.percentile(99) * 1000,
        "max": histogram.longest_s * 1000,
    }


def machine_report(totals: Totals, facts: Mapping[str, object], *, host: str, now: float) -> MachineReport:
    """What this machine tells the others. ``facts``: ``identity``, ``version``, ``started_at``; ``now``: epoch time."""
    started_at = facts.get("started_at")
    return MachineReport(
        identity=str(facts.get("identity", "")),
        host=host,
        version=str(facts.get("version", "")),
        started_at=float(started_at) if isinstance(started_at, int | float) else now,
        reported_at=now,
        workers=len(totals.live),
        requests=totals.counters["requests"],
        errors=totals.counters["errors"],
        bytes_to_clients=totals.counters["bytes.to_clients"],
        connections_open=totals.counters["connections.open"],
        throughput_bits_per_second=totals.window.bits_per_second,
    )


_SUMMED = ("workers", "requests", "errors", "bytes_to_clients", "connections_open", "throughput_bits_per_second")


def _machines(machines: Sequence[MachineReport]) -> dict[str, Any]:
    return {
        "list": [{name: getattr(one, name) for name in one.__struct_fields__} for one in machines],
        "sum": {"machines": len(machines)} | {name: sum(getattr(one, name) for one in machines) for name in _SUMMED},
    }


def _family(totals: Totals, prefix: str) -> dict[str, dict[str, Any]]:
    """The labelled rows whose names begin with ``prefix``, by label."""
    rows: dict[str, dict[str, Any]] = {}
    for name, counts in totals.labelled.items():
        if name.startswith(prefix):
            for label, count in counts.items():
                rows.setdefault(label, {})[name.removeprefix(prefix)] = count
    for name, histograms in totals.labelled_histograms.items():
        if name.startswith(prefix):
            for label, histogram in histograms.items():
                rows.setdefault(label, {})[f"{name.removeprefix(prefix)}_ms"] = milliseconds(histogram)
    return dict(sorted(rows.items()))


def _limits(row: dict[str, Any]) -> dict[str, Any]:
    """An upstream's row; null instead of 0 where it has no limit."""
    return {**row, **{name: row.get(name) or None for name in ("rate_limit", "concurrency_limit")}}


def _rate(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
