"""From the turns to medians, ratios and goals (pure)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.network_figures import geometric
from benchmarks.race.contestants import BY_NAME, OURS, PEERS

Row = Mapping[str, Any]
Figures = dict[str, Any]
BUSY = 0.9  # of its processor: a client that uses more may be what limits the rate
_MEDIANS = ("requests_per_s", "mib_per_s", "cpu_us", "cpu_s_per_gib", "server_busy", "client_busy", "p50_ms", "p99_ms")


def medians(rows: Sequence[Row]) -> Figures:
    """``{case: {contestant: {figure: median over the rounds}}}``."""
    found: Figures = {}
    for row in rows:
        found.setdefault(row["case"], {}).setdefault(row["contestant"], []).append(row)
    return {
        case: {
            name: {
                figure: statistics.median(one[figure] for one in some) if some[0][figure] is not None else None
                for figure in _MEDIANS
            }
            | {"rounds": len(some)}
            for name, some in people.items()
        }
        for case, people in found.items()
    }


def best(people: Figures, peer: str) -> str | None:
    """Of a peer's variants the one with the least processor time; None: it did not run."""
    names = [name for name in people if BY_NAME[name].whole == peer]
    return min(names, key=lambda name: float(people[name]["cpu_us"])) if names else None


def bests(people: Figures) -> list[str]:
    """The best variant of each peer that ran."""
    return [name for peer in PEERS if (name := best(people, peer)) is not None]


def paired(rows: Sequence[Row], case: str, ours: str, other: str, figure: str) -> Figures:
    """``ours / other`` of ``figure``, round by round: mean, 95 % interval, rounds."""
    by = {(row["contestant"], row["round"]): float(row[figure]) for row in rows if row["case"] == case}
    rounds = sorted({number for _, number in by})
    pairs = [(by[ours, n], by[other, n]) for n in rounds if (ours, n) in by and (other, n) in by]
    return geometric([a / b for a, b in pairs if a > 0 and b > 0])


def ratios(rows: Sequence[Row], figures: Figures) -> Figures:
    """``{case: {peer: ours / it}}`` of processor time, against each peer's best."""
    return {
        case: {name: paired(rows, case, OURS, name, "cpu_us") for name in bests(people)}
        for case, people in figures.items()
        if OURS in people and bests(people)
    }


def goals(figures: Figures) -> list[Figures]:
    """What the race must show, as far as those it takes have run: medians against medians."""
    found: list[Figures] = []

    def goal(
        case: str, text: str, ours: str, figure: str, other: str | None, limit: float, least: bool = False
    ) -> None:
        people = figures.get(case, {})
        if other is None or ours not in people or other not in people:
            return
        mine, its = people[ours][figure], people[other][figure]
        if mine is None or not its:
            return
        ratio = mine / its
        met = ratio >= limit if least else ratio <= limit
        found.append({"case": case, "goal": text, "against": other, "measured": ratio, "limit": limit, "met": met})

    for case in ("1k", "1k-1000"):
        people = figures.get(case, {})
        nginx = best(people, "nginx")
        goal(case, "CPU a hit against nginx's at most 0.83", OURS, "cpu_us", nginx, 1 / 1.2)
        goal(case, "CPU a hit against HAProxy's at most 1", OURS, "cpu_us", best(people, "haproxy"), 1.0)
        for peer in ("varnish", "squid", "trafficserver"):
            goal(case, f"CPU a hit below {peer}'s", OURS, "cpu_us", best(people, peer), 1.0)
        goal(case, "p99 no worse than nginx's", OURS, "p99_ms", nginx, 1.0)
    for case in ("1k-new", "1k-close"):
        goal(case, "CPU a request without keep-alive against nginx's at most 1.43", OURS, "cpu_us",
             best(figures.get(case, {}), "nginx"), 1 / 0.7)  # fmt: skip
    people = figures.get("64k", {})
    if names := bests(people):
        first = min(names, key=lambda name: float(people[name]["cpu_us"]))
        goal("64k", "CPU a hit no more than the best peer's", OURS, "cpu_us", first, 1.0)
    for case in ("1m", "1g"):
        goal(case, "CPU a byte against nginx's at most 1.1", OURS, "cpu_s_per_gib",
             best(figures.get(case, {}), "nginx"), 1.1)  # fmt: skip
    goal("workers", "CPU a request with two workers against one at most 1.1", "fileproxy-two", "cpu_us", OURS, 1.1)
    goal("logging", "hits a second with logging and statistics at least 0.9 of without", OURS, "requests_per_s",
         "fileproxy-bare", 0.9, least=True)  # fmt: skip
    return found
