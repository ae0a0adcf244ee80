"""What should stay in memory? Byte hit ratios of cache policies over the traffic of a download site. Pure: no network.

The site is in ``admission_traffic.py``. The first fifth of the traffic warms the caches and is not counted.

The byte hit ratio is that of the ordinary requests; beside it stands the one with the scans' bytes, which no policy
can hit, included. Three reference policies are written down here as plainly as possible:

* LRU
* SLRU: a fifth on probation, a hit moves up into the protected four fifths
* W-TinyLFU, weighted as Caffeine does it: a window of 1 %, SLRU behind it, the more frequent of candidate and victim
  stays; frequencies are exact here, not estimated, which can only help it

Judged by: never more than one point behind the best of the three, and over 80 % where the hot fifth of the files fits.
Two further traffics are reported beside it: new releases that push others down, and a flatter Zipf law.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from benchmarks.admission_traffic import MIB, Access, Site, blocks, hot_fifth, traffic
from fileproxy.cache.admission import Admission

RESULTS = Path(__file__).parent / "results"
SEEDS = (1, 2, 3, 4, 5)
SHARES = {"a sixteenth of the hot fifth": 1 / 16, "a quarter of it": 1 / 4, "the hot fifth": 1.0}


# --- the policies -----------------------------------------------------------------------------------------------------


class Policy(Protocol):
    def request(self, key: bytes, weight: int) -> bool:
        """One block is asked for and kept if the policy likes. True: it was there."""
        ...


class Lru:
    def __init__(self, budget: int) -> None:
        self.budget, self.used = budget, 0
        self.entries: OrderedDict[bytes, int] = OrderedDict()

    def request(self, key: bytes, weight: int) -> bool:
        if key in self.entries:
            self.entries.move_to_end(key)
            return True
        self.entries[key] = weight
        self.used += weight
        while self.used > self.budget:
            self.used -= self.entries.popitem(last=False)[1]
        return False


class Slru:
    """``admit`` is where W-TinyLFU differs."""

    def __init__(self, budget: int, protected: float = 0.8) -> None:
        self.budget, self.protected_budget = budget, int(budget * protected)
        self.probation: OrderedDict[bytes, int] = OrderedDict()
        self.protected: OrderedDict[bytes, int] = OrderedDict()
        self.used = self.protected_used = 0

    def hit(self, key: bytes) -> bool:
        if key in self.protected:
            self.protected.move_to_end(key)
            return True
        if key not in self.probation:
            return False
        weight = self.probation.pop(key)
        self.protected[key] = weight
        self.protected_used += weight
        while self.protected_used > self.protected_budget:
            demoted, its = self.protected.popitem(last=False)
            self.protected_used -= its
            self.probation[demoted] = its
        return True

    def evict_one(self) -> None:
        if self.probation:
            self.used -= self.probation.popitem(last=False)[1]
        else:
            weight = self.protected.popitem(last=False)[1]
            self.used -= weight
            self.protected_used -= weight

    def request(self, key: bytes, weight: int) -> bool:
        if self.hit(key):
            return True
        self.probation[key] = weight
        self.used += weight
        while self.used > self.budget:
            self.evict_one()
        return False


class WTinyLfu:
    def __init__(self, budget: int, window: float = 0.01) -> None:
        self.window_budget = max(1, int(budget * window))
        self.window: OrderedDict[bytes, int] = OrderedDict()
        self.window_used = 0
        self.main = Slru(budget - self.window_budget)
        self.seen: dict[bytes, int] = {}
        self.sample = 0

    def count(self, key: bytes) -> None:
        self.seen[key] = min(15, self.seen.get(key, 0) + 1)
        self.sample += 1
        if self.sample >= 10 * max(100, len(self.main.probation) + len(self.main.protected) + len(self.window)):
            self.seen = {one: count // 2 for one, count in self.seen.items() if count > 1}
            self.sample //= 2

    def request(self, key: bytes, weight: int) -> bool:
        self.count(key)
        if key in self.window:
            self.window.move_to_end(key)
            return True
        if self.main.hit(key):
            return True
        self.window[key] = weight
        self.window_used += weight
        while self.window_used > self.window_budget:
            candidate, its = self.window.popitem(last=False)
            self.window_used -= its
            self.admit(candidate, its)
        return False

    def admit(self, candidate: bytes, weight: int) -> None:
        main = self.main
        while main.used + weight > main.budget:
            victim = next(iter(main.probation or main.protected), None)
            if victim is None or self.seen.get(candidate, 0) <= self.seen.get(victim, 0):
                return
            main.evict_one()
        main.probation[candidate] = weight
        main.used += weight


class Ours:
    def __init__(self, budget: int) -> None:
        self.policy = Admission(budget)

    def request(self, key: bytes, weight: int) -> bool:
        if self.policy.access(key):
            return True
        self.policy.insert(key, weight)
        return False


# --- the runs ---------------------------------------------------------------------------------------------------------

POLICIES: dict[str, Callable[[int], Policy]] = {"LRU": Lru, "SLRU": Slru, "W-TinyLFU": WTinyLfu, "FileProxy": Ours}
REFERENCES = ("LRU", "SLRU", "W-TinyLFU")
OURS = "FileProxy"
WITHIN_POINTS = 1.0
HOT_FIFTH_PERCENT = 80.0


class Ratio(NamedTuple):
    """Byte hit ratios in percent."""

    asked: float  # of the ordinary requests
    everything: float  # of the scans' bytes, too


def run(policy: Policy, accesses: list[Access]) -> Ratio:
    """Send all accesses; what comes after the first fifth counts."""
    warm = len(accesses) // 5
    for key, weight, _ in accesses[:warm]:
        policy.request(key, weight)
    hits, bytes_asked = [0, 0], [0, 0]
    for key, weight, scan in accesses[warm:]:
        bytes_asked[scan] += weight
        if policy.request(key, weight):
            hits[scan] += weight
    return Ratio(100 * hits[0] / bytes_asked[0], 100 * sum(hits) / sum(bytes_asked))


def survival(budget: int, seed: int) -> dict[str, float]:
    """Percent of the bytes kept of a site asked by people that are still there after one lone pass over 10 GiB."""
    accesses = traffic(replace(Site(), requests=10_000, big_scans=0, crawls=0), seed)
    left: dict[str, float] = {}
    for name, make in POLICIES.items():
        policy = make(budget)
        for key, weight, _ in accesses:
            policy.request(key, weight)
        before = _kept(policy)
        for key, weight in blocks(bytes(16), 10 * 1024 * MIB):
            policy.request(key, weight)
        after = _kept(policy)
        left[name] = 100 * sum(before[key] for key in before.keys() & after) / sum(before.values())
    return left


def _kept(policy: Policy) -> dict[bytes, int]:
    match policy:
        case Lru():
            return dict(policy.entries)
        case Slru():
            return {**policy.probation, **policy.protected}
        case WTinyLfu():
            return {**policy.window, **policy.main.probation, **policy.main.protected}
        case Ours():
            return dict(policy.policy.items())
    raise TypeError(policy)


def compare(site: Site, seed: int, share: float) -> tuple[int, dict[str, Ratio]]:
    """Bytes of the cache, and what each policy makes of it."""
    budget = int(hot_fifth(site, seed) * share)
    accesses = traffic(site, seed)
    return budget, {name: run(make(budget), accesses) for name, make in POLICIES.items()}


def cost_us(budget: int, seed: int) -> dict[str, float]:
    """Processor microseconds a request of each policy, this benchmark's own loop included."""
    accesses = traffic(Site(), seed)
    spent: dict[str, float] = {}
    for name, make in POLICIES.items():
        policy = make(budget)
        begin = time.process_time()
        run(policy, accesses)
        spent[name] = 1e6 * (time.process_time() - begin) / len(accesses)
    return spent


TRAFFICS = {
    "the site": Site(),
    "new releases": Site(releases=20),
    "flatter Zipf law": Site(zipf=0.8),
}


def measure() -> dict[str, object]:
    rows: list[dict[str, object]] = []
    for name, site in TRAFFICS.items():
        for label, share in SHARES.items():
            for seed in SEEDS:
                budget, ratios = compare(site, seed, share)
                best = max(ratios[one].asked for one in REFERENCES)
                best_all = max(ratios[one].everything for one in REFERENCES)
                rows.append(
                    {
                        "traffic": name,
                        "cache": label,
                        "seed": seed,
                        "budget_mib": budget // MIB,
                        "asked": {one: round(ratio.asked, 2) for one, ratio in ratios.items()},
                        "everything": {one: round(ratio.everything, 2) for one, ratio in ratios.items()},
                        "ahead": round(ratios[OURS].asked - best, 2),
                        "ahead_everything": round(ratios[OURS].everything - best_all, 2),
                    }
                )
                print(name, label, seed, rows[-1]["asked"], rows[-1]["ahead"], flush=True)
    return {
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "python": platform.python_version(),
        "rows": rows,
        "survival": survival(256 * MIB, SEEDS[0]),
        "cost_us": cost_us(256 * MIB, SEEDS[0]),
    }


def verdicts(figures: dict[str, object]) -> dict[str, bool]:
    """What the figures must show, and whether they do. Judged is the first traffic; the others are reported."""
    rows = [row for row in _rows(figures) if row["traffic"] == "the site"]
    within = all(min(row["ahead"], row["ahead_everything"]) >= -WITHIN_POINTS for row in rows)
    hot = [row["asked"][OURS] for row in rows if row["cache"] == "the hot fifth"]
    return {
        f"within {WITHIN_POINTS:g} point of the best of {', '.join(REFERENCES)}": within,
        f"over {HOT_FIFTH_PERCENT:g} % where the hot fifth fits": min(hot) > HOT_FIFTH_PERCENT,
    }


def report(figures: dict[str, object]) -> str:
    lines = [
        "# Admission: byte hit ratios",
        "",
        f"Made by `python -m benchmarks.admission` on {figures['date']} (Python {figures['python']}). Percent of the",
        "bytes of ordinary requests; in brackets with the bytes of the scans, which nobody can hit. `ahead`: points",
        "between FileProxy and the best of the others, negative when behind.",
        "",
    ]
    for name, site in TRAFFICS.items():
        lines += [f"## {name[0].upper()}{name[1:]}", "", f"`{site}`", ""]
        lines += [f"| cache | MiB | seed | {' | '.join(POLICIES)} | ahead |", "|---|--:|--:|" + "--:|" * 5]
        for row in _rows(figures):
            if row["traffic"] == name:
                cells = [f"{row['asked'][one]:.1f} ({row['everything'][one]:.1f})" for one in POLICIES]
                lines.append(
                    f"| {row['cache']} | {row['budget_mib']} | {row['seed']} | {' | '.join(cells)} "
                    f"| {row['ahead']:+.1f} ({row['ahead_everything']:+.1f}) |"
                )
        lines.append("")
    lines += ["## One lone pass over 10 GiB through 256 MiB, and the price", ""]
    lines += ["| | " + " | ".join(POLICIES) + " |", "|---|" + "--:|" * len(POLICIES)]
    for label, key, digits in (("percent of the kept bytes left", "survival", 1), ("µs a request", "cost_us", 2)):
        cells = [f"{figures[key][one]:.{digits}f}" for one in POLICIES]  # type: ignore[index]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    lines += ["", "## Verdict", "", *(f"* {what}: {'yes' if met else 'NO'}" for what, met in verdicts(figures).items())]
    return "\n".join(lines) + "\n"


def _rows(figures: dict[str, object]) -> list[dict[str, Any]]:
    rows = figures["rows"]
    assert isinstance(rows, list)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    results = parser.parse_args().results
    figures = measure()
    results.mkdir(parents=True, exist_ok=True)
    (results / "admission.json").write_text(json.dumps(figures, indent=1) + "\n")
    (results / "admission.md").write_text(report(figures))
    met = verdicts(figures)
    print(json.dumps(met, indent=1))
    return 0 if all(met.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
