"""Cost as work grows: files in the cache, the size of a file, clients, mirrors, routes.

For each kind of growth a service of every size runs (one worker, pinned to processor 0), and a load on processor 1 asks
each in turns, in interleaved rounds; the least figure of the rounds counts, since noise only adds. Needs wrk. ::

    python -m benchmarks.growth --quick             # under 2 minutes: smaller sizes, two rounds of a second
    python -m benchmarks.growth                     # under 8 minutes: a million files on disk, 100 GiB, 8,000 clients
    python -m benchmarks.growth routes mirrors      # some of them; the others stay in the report as they were
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import growth_parts as parts
from benchmarks.growth_parts import Figures, Lab
from benchmarks.growth_report import sections, verdicts
from benchmarks.network_report import as_html, as_markdown

RESULTS = Path(__file__).parent / "results"
KIB, MIB, GIB = 1024, 1024**2, 1024**3


class Kind(NamedTuple):
    """``flat``: the figures that may not grow at all."""

    n: str
    text: str
    quick: list[int]
    full: list[int]
    flat: list[str]
    measure: Callable[[Lab, list[int]], Figures]


KINDS: dict[str, Kind] = {
    "memory": Kind(
        "files in memory",
        "The memory tier by itself, in one process, files of 256 bytes asked for in random order. What a look-up grows "
        "by is the processor's own caches, which hold a thousand files and not a million.",
        [100, 1000, 10_000, 100_000],
        [100, 1000, 10_000, 100_000, 1_000_000],
        ["bytes a file"],
        lambda _, sizes: parts.memory(sizes),
    ),
    "disk": Kind(
        "files on disk",
        "A service starts over a disk cache of so many files of 1 KiB. The first hit of a file reads and checks it; "
        "one client asks for a thousand of them, once. One file: the fast front's hit.",
        [100, 1000, 10_000, 30_000],
        [100, 1000, 10_000, 100_000, 1_000_000],
        ["µs of CPU the first hit of a file", "µs of CPU a hit of one file"],
        parts.disk,
    ),
    "size": Kind(
        "bytes of a file",
        "A range of 1 KiB in the middle of a file of this size.",
        [KIB, MIB, GIB, 100 * GIB],
        [KIB, 64 * KIB, MIB, 64 * MIB, GIB, 10 * GIB, 100 * GIB],
        ["µs of CPU a range in memory"],
        parts.size,
    ),
    "clients": Kind(
        "connections",
        "So many kept connections ask for one file of 1 KiB that is in memory.",
        [8, 64, 1000, 4000],
        [1, 8, 64, 512, 2000, 8000],
        [],
        parts.clients,
    ),
    "mirrors": Kind(
        "mirrors",
        "One upstream of so many mirrors, each a process: 16 bytes relayed and not kept, and a hit of 1 KiB.",
        [1, 4, 16],
        [1, 4, 16, 64],
        ["µs of CPU a hit"],
        parts.mirrors,
    ),
    "routes": Kind(
        "routes",
        "So many routes, half of them by path, half by host; a hit of 1 KiB under the first one. The long way: with a "
        "request field that the fast front does not know by heart.",
        [1, 10, 100, 1000],
        [1, 10, 100, 1000],
        ["µs of CPU a hit", "µs of CPU a hit, the long way"],
        parts.routes,
    ),
}


def machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())
    return {
        "processor": name,
        "processors": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=list(KINDS), help=", ".join(KINDS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=int, default=1, help="of each load")
    parser.add_argument("--no-write", action="store_true", help="leave the results as they are")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # what was started is ended, too
    path = RESULTS / "growth.json"
    report: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"parts": {}}
    report["date"] = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M")
    report["machine"] = machine()
    for name in given.kinds:
        kind, began = KINDS[name], time.monotonic()
        with Lab(given.rounds or (2 if given.quick else 3), given.seconds) as lab:
            figures = kind.measure(lab, kind.quick if given.quick else kind.full)
        report["parts"][name] = {"n": kind.n, "text": kind.text, "flat": kind.flat, "figures": figures}
        print(f"{name} ({time.monotonic() - began:.0f} s)")
        for row in verdicts({name: report["parts"][name]}):
            print("  " + "  ".join(row))
        print(json.dumps(figures, ensure_ascii=False), flush=True)
    report["parts"] = {name: report["parts"][name] for name in KINDS if name in report["parts"]}
    if not given.no_write:
        path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        path.with_suffix(".md").write_text(as_markdown(sections(report)))
        path.with_suffix(".html").write_text(as_html("Cost as work grows", sections(report)))


if __name__ == "__main__":
    main()
