"""From rows to figures: medians, shares, ratios of paired rounds with their interval, goals. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.network_lab import MIB, Plan, Row
from benchmarks.network_peers import DIRECT

Figures = dict[str, Any]
OURS, BASELINE = "fileproxy", "fileproxy-baseline"
GIB = 1024 * MIB
PERCENTILES = (1, *range(5, 96, 5), 98, 99, 99.5, 99.9)

# Student's t, two-sided 95 %, by degrees of freedom; beyond: 2.
_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10, 2.09)

# What was expected of `fileproxy` against `baseline`, as factors: normal, poor, very poor.
EXPECTED = {
    "requests_per_s": {"normal": 1.20, "poor": 1.50, "very-poor": 1.60},
    "p50_ms": {"normal": 0.85, "poor": 0.70, "very-poor": 0.65},
    "p95_ms": {"normal": 0.82, "poor": 0.65, "very-poor": 0.62},
    "p99_ms": {"normal": 0.80, "poor": 0.63, "very-poor": 0.60},
    "cpu_s_per_gib": {"normal": 0.83, "poor": 0.85, "very-poor": 0.88},
    "peak_rss_mib": {"normal": 0.90, "poor": 0.90, "very-poor": 0.90},
    "mbit_per_s": {"normal": 1.25, "poor": 1.45, "very-poor": 1.55},
}


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Nearest rank of values in order; nan of none."""
    if not ordered:
        return math.nan
    return ordered[min(len(ordered) - 1, max(0, math.ceil(len(ordered) * percent / 100) - 1))]


def geometric(ratios: Sequence[float]) -> Figures:
    """Geometric mean of paired ratios and its 95 % interval (None of fewer than two)."""
    logs = [math.log(ratio) for ratio in ratios]
    mean = statistics.fmean(logs)
    interval = None
    if len(logs) > 1:
        degrees = len(logs) - 1
        half = (_T[degrees - 1] if degrees <= len(_T) else 2.0) * statistics.stdev(logs) / math.sqrt(len(logs))
        interval = [math.exp(mean - half), math.exp(mean + half)]
    return {"mean": math.exp(mean), "interval": interval, "rounds": len(logs)}


def summary(plan: Plan, rows: Sequence[Row]) -> Figures:
    """``{case: {contestant: figures}}``; a case is a size (``8 MiB``) or the mode's name."""
    found: Figures = {}
    for row in rows:
        found.setdefault(case(row), {}).setdefault(row["contestant"], []).append(row)
    one = _single if plan.mode == "single" else _crowd
    return {key: {name: one(plan, some) for name, some in people.items()} for key, people in found.items()}


def case(row: Row) -> str:
    return f"{row['size_mib']} MiB" if "size_mib" in row else "crowd"


def _costs(rows: Sequence[Row]) -> Figures:
    """Processor and memory of whoever has a server."""
    if "cpu_s" not in rows[0]:
        return {}
    moved = sum(row["bytes"] for row in rows)
    return {
        "cpu_s_per_gib": sum(row["cpu_s"] for row in rows) / moved * GIB if moved else math.nan,
        "peak_rss_mib": max(row["peak_rss"] for row in rows) / MIB,
    }


def _single(plan: Plan, rows: Sequence[Row]) -> Figures:
    mbits = [row["bytes"] * 8e-6 / row["seconds"] if row["seconds"] else 0.0 for row in rows]
    return {
        "seconds": statistics.median(row["seconds"] for row in rows),
        "fastest_s": min(row["seconds"] for row in rows),
        "slowest_s": max(row["seconds"] for row in rows),
        "first_byte_s": statistics.median(row["first_byte_s"] for row in rows),
        "mbit_per_s": statistics.median(mbits),
        "share": statistics.median(mbits) / plan.network.shape.mbit,
        "complete": sum(row["complete"] for row in rows),
        "rounds": len(rows),
        "errors": sorted({row["error"] for row in rows if row["error"]}),
        **_costs(rows),
    }


def _crowd(plan: Plan, rows: Sequence[Row]) -> Figures:
    """Times of all rounds are one set."""
    times = sorted(time * 1000 for row in rows for time in row["times_s"])
    errors: dict[str, int] = {}
    for row in rows:
        for why, count in row["errors"].items():
            errors[why] = errors.get(why, 0) + count
    mbit = statistics.median(row["bytes"] * 8e-6 / row["seconds"] for row in rows)
    links = plan.groups if plan.mode == "crowd" and plan.direction == "client" else 1
    return {
        "seconds": statistics.median(row["seconds"] for row in rows),
        "requests": len(times),
        "requests_per_s": statistics.median(len(row["times_s"]) / row["seconds"] for row in rows),
        "p50_ms": percentile(times, 50),
        "p95_ms": percentile(times, 95),
        "p99_ms": percentile(times, 99),
        "mbit_per_s": mbit,
        "share": mbit / plan.network.shape.mbit / links,  # above 1 when most comes from the cache
        "hit_ratio": sum(row["hits"] for row in rows) / len(times) if times else 0.0,
        "errors": errors,
        "rounds": len(rows),
        "percentiles_ms": {str(percent): percentile(times, percent) for percent in PERCENTILES},
        **_costs(rows),
    }


def ratios(plan: Plan, rows: Sequence[Row]) -> Figures:
    """``{case: {"fileproxy / nginx": …}}``: how many times as fast, round by round; above 1 is good for us."""
    speed: Callable[[Row], float] = (
        (lambda row: row["bytes"] / row["seconds"])
        if plan.mode != "crowd"
        else (lambda row: len(row["times_s"]) / row["seconds"])
    )
    found: Figures = {}
    for key in dict.fromkeys(case(row) for row in rows):
        by = {(row["contestant"], row["round"]): speed(row) for row in rows if case(row) == key}
        for ours in (OURS, BASELINE):
            for peer in plan.contestants:
                pairs = [(by[ours, n], by[peer, n]) for n in range(plan.rounds) if {(ours, n), (peer, n)} <= set(by)]
                if ours == peer or (ours, peer) == (BASELINE, OURS) or not pairs or not all(a and b for a, b in pairs):
                    continue
                found.setdefault(key, {})[f"{ours} / {peer}"] = geometric([a / b for a, b in pairs])
    return found


def goals(plan: Plan, figures: Figures, ratio: Figures) -> list[Figures]:
    """What must be shown on this network, and whether it was."""
    found: list[Figures] = []

    def whole(size: str) -> bool:
        ours: Figures = figures[size][OURS]
        return bool(ours["complete"] == ours["rounds"])

    def times(size: str, peer: str, least: float, *, reach: bool = False) -> None:
        one = ratio.get(size, {}).get(f"{OURS} / {peer}")
        if one:
            value = one["interval"][1] if reach and one["interval"] else one["mean"]
            shown = value >= least and whole(size)
            what = (
                f"the 95 % interval of the speed against {peer} reaches {least:g}"
                if reach
                else (f"at least {least:g} times as fast as {peer}")
            )
            found.append(
                {"goal": f"{size}: {what}", "measured": value, "met": None if reach and not one["interval"] else shown}
            )

    def share(size: str, least: float) -> None:
        one = figures.get(size, {}).get(OURS)
        if one:
            goal = f"{size}: {least:.0%} of the link"
            found.append({"goal": goal, "measured": one["share"], "met": one["share"] >= least and whole(size)})

    if plan.mode != "single":
        return found
    where = (plan.scenario, plan.direction, plan.congestion)
    if where == ("poor", "origin", "cubic"):
        for size in figures:
            times(size, "nginx", 8)
            times(size, DIRECT, 8)
        share("8 MiB", 0.75)
        share("32 MiB", 0.87)
    elif where == ("very-poor", "origin", "cubic"):
        share("8 MiB", 0.80)
    elif where[:2] == ("normal", "origin"):
        for size in figures:
            times(size, "nginx", 0.95, reach=True)
    elif where == ("poor", "client", "cubic"):
        for size in figures:
            times(size, "nginx", 5)
    if where[1:] == ("origin", "bbr"):
        for size in figures:
            times(size, DIRECT, 1.0, reach=True)
    return found


def expected(plan: Plan, people: Figures) -> list[Figures]:
    """The old table: ours against baseline, expected and measured, as factors."""
    if not {OURS, BASELINE} <= set(people):
        return []
    ours, base = people[OURS], people[BASELINE]
    found = []
    for key, wanted in EXPECTED.items():
        if base.get(key):
            factor, want = ours[key] / base[key], wanted[plan.scenario]
            met = factor >= want if want > 1 else factor <= want
            found.append({"figure": key, "expected": want, "measured": factor, "met": met})
    return found
