"""Bad networks, side by side: curl alone, nginx, FileProxy `baseline` and FileProxy as it comes, over emulated links.

`single`: one client and cold files of 8 and 32 MiB. `crowd`: clients that loop over small files. `parallel`: 20 files
of 100 MiB at once. Each contestant has a link of its own of the same kind; rounds are interleaved. Needs root (network
namespaces, tun devices); nothing leaves this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import math
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import network_figures, network_peers, network_report
from benchmarks.link import tun
from benchmarks.link.scenario import CONGESTIONS, DIRECTIONS, SCENARIOS
from benchmarks.network_lab import Lab, Plan, Row, rounds
from benchmarks.relay import RESULTS, machine

MODES = ("single", "crowd", "parallel")
# (usual, quick)
ROUNDS = (3, 1)
MANY_ROUNDS = (10, 3)  # where one takes a moment: a single client on a fast link
SIZES_MIB = {"single": ((8, 32), (8,)), "crowd": ((), ()), "parallel": ((100,), (20,))}
SECONDS = (60.0, 10.0)
CLIENTS = {"single": (1, 1), "crowd": (64, 16), "parallel": (20, 20)}


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="fileproxy bench network", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--scenario", choices=SCENARIOS, default="poor")
    parser.add_argument("--direction", choices=DIRECTIONS, default="origin", help="which side of the proxy is bad")
    parser.add_argument("--congestion", choices=CONGESTIONS, default="cubic", help="of those who send over the link")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true", help="one round, small files, short turns: to try it out")
    parser.add_argument("--sizes", type=int, nargs="+", metavar="MIB", help="files of single and parallel")
    parser.add_argument("--limit", type=float, default=900.0, metavar="S", help="a download is cut after this")
    parser.add_argument("--seconds", type=float, help="a crowd's turn")
    parser.add_argument("--clients", type=int, help="of the crowd; downloads at once of parallel")
    parser.add_argument("--groups", type=int, default=8, help="links of a crowd whose own side is bad")
    parser.add_argument("--files", type=int, default=200, help="of the crowd")
    parser.add_argument("--zipf", type=float, default=0.9)
    parser.add_argument("--contestants", nargs="+", choices=network_peers.NAMES, default=list(network_peers.NAMES))
    parser.add_argument("--seed", type=int, default=1, help="of losses, jitter, files and choices")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    chosen = parser.parse_args(arguments)
    for number in ("rounds", "seconds", "clients", "groups", "files", "limit"):
        if (value := getattr(chosen, number)) is not None and value <= 0:
            parser.error(f"--{number} must be above 0")
    return chosen


def plan(chosen: argparse.Namespace) -> Plan:
    mode, quick, scenario = chosen.mode, chosen.quick, SCENARIOS[chosen.scenario]
    sizes = tuple(chosen.sizes or SIZES_MIB[mode][quick])
    return Plan(
        mode=mode,
        scenario=chosen.scenario,
        direction=chosen.direction,
        congestion=chosen.congestion,
        contestants=tuple(name for name in network_peers.NAMES if name in chosen.contestants),
        rounds=chosen.rounds or (ROUNDS[quick] if mode != "single" or scenario.together else MANY_ROUNDS[quick]),
        sizes_mib=sizes,
        limit_s=chosen.limit,
        seconds=chosen.seconds or SECONDS[quick],
        clients=1 if mode == "single" else chosen.clients or CLIENTS[mode][quick],
        groups=chosen.groups,
        files=chosen.files,
        zipf=chosen.zipf,
        known=chosen.scenario == "normal",
        seed=chosen.seed,
    )


def measure(one: Plan) -> dict[str, Any]:
    rows: list[Row] = []
    with Lab(one) as lab:
        for number in range(one.rounds):
            for row in rounds(lab, number):
                rows.append(row)
                print(f"round {number + 1}: {_sentence(row)}", flush=True)
    packets, lost, dropped = (sum(row[key] for row in rows) for key in ("packets", "lost", "dropped"))
    figures = network_figures.summary(one, rows)
    ratios = network_figures.ratios(one, rows)
    return {
        "links": {
            "packets": packets,
            "lost": lost,
            "loss": lost / max(1, packets),
            "dropped": dropped,
            "late_ms": statistics.median(row["late_ms"] for row in rows),
            "pressed": sum(row["pressed"] for row in rows),
            "worst_late_ms": max(row["late_ms"] for row in rows),
        },
        "goals": network_figures.goals(one, figures, ratios),
        "figures": figures,
        "ratios": ratios,
        "expected": {
            key: network_figures.expected(one, people) for key, people in figures.items() if one.mode != "single"
        },
        "rows": [_without_times(row) for row in rows],
    }


def commit() -> str:
    """What is measured, when this is a checkout."""
    with contextlib.suppress(OSError):
        words = ["git", "-C", str(network_peers.ROOT), "describe", "--always", "--dirty"]
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    return ""


def write(report: dict[str, Any], one: Plan, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = network_report.name(one)
    (folder / f"{name}.json").write_text(json.dumps(_without_nan(report), indent=1) + "\n")
    (folder / f"{name}.md").write_text(network_report.markdown(report, one))
    (folder / f"{name}.html").write_text(network_report.html(report, one))


def _without_times(row: Row) -> Row:
    """Each download's time would fill the file; their percentiles are in the figures."""
    return {key: value for key, value in row.items() if key != "times_s"} | (
        {"count": len(row["times_s"])} if "times_s" in row else {}
    )


def _without_nan(value: Any) -> Any:
    """JSON has no word for what could not be computed but null."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _sentence(row: Row) -> str:
    size = f"{row['size_mib']} MiB " if "size_mib" in row else ""
    rate = row["bytes"] * 8e-6 / row["seconds"] if row["seconds"] else 0.0
    said = f"{row['contestant']:<19}{size}{row['seconds']:8.2f} s {rate:8.2f} Mbit/s"
    if "times_s" in row:
        said += f" {len(row['times_s']):6} downloads, errors {row['errors'] or 'none'}"
    elif row["error"]:
        said += f" {row['error']}"
    return said


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = options(sys.argv[1:] if arguments is None else arguments)
    if lacks := [*tun.missing(), *network_peers.missing()]:
        print("\n".join(lacks), file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is removed
    one = plan(chosen)
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M")
    about = {"date": date, "commit": commit(), "machine": machine()}
    report = {**about, "plan": asdict(one) | {"shape": asdict(one.network.shape)}, **measure(one)}
    report["machine"]["load_at_end"] = os.getloadavg()[0]
    write(report, one, chosen.output)
    print(network_report.markdown(report, one))
    return 0


if __name__ == "__main__":
    sys.exit(main())
