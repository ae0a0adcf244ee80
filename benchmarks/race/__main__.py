"""The race: FileProxy beside nginx, HAProxy, Varnish, Squid and Traffic Server, from cache, on one processor.

Loopback only; every run is bounded; nothing is left behind. Writes race.json, race.md and race.html.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.hit_path import PATHS
from benchmarks.instructions import counts
from benchmarks.peers import Peer
from benchmarks.race import cases, contestants, figures, report, window

RESULTS = Path(__file__).resolve().parent.parent / "results"


def machine() -> dict[str, Any]:
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return {
        "processor": model[1] if model else platform.machine(),
        "processors": os.cpu_count(),
        "kernel": platform.release(),
        "python": peers.python_version(),
        "load_at_start": os.getloadavg()[0],
    }


def wanted(given: argparse.Namespace) -> tuple[list[cases.Case], list[contestants.Contestant]]:
    """The cases, and the contestants that they and ``--peers`` ask for; ours always run."""
    some = [cases.BY_NAME[name] for name in given.cases]
    names = {name for case in some for name in case.who}
    who = [one for one in contestants.ALL if one.name in names]
    return some, [one for one in who if one.program == "python" or one.name in given.peers or one.whole in given.peers]


def race(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """All rounds. The rows, and who ran or is missing."""
    some, who = wanted(given)
    rows: list[dict[str, Any]] = []
    about: dict[str, dict[str, Any]] = {}
    files = folder / "files"
    files.mkdir()
    digests = cases.make_files(files, {"1k"} | {case.file for case in some})
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(contestants.origin(files, folder))
        running: dict[str, Peer] = {}
        for one in who:
            about[one.name] = {"how": one.how}
            if one.found is None:
                about[one.name]["missing"] = f"missing: apt-get install {one.package}"
                print(f"{one.name}: {about[one.name]['missing']}", file=sys.stderr)
                continue
            about[one.name]["version"] = one.version()
            peer = stack.enter_context(one.make(one.name, source, files, folder))
            needed = {"1k"} | {case.file for case in some if one.name in case.who}
            about[one.name]["cache"] = {name: cases.warm(peer, name, digests[name], source) for name in sorted(needed)}
            running[one.name] = peer
        if len(running) > 1:
            _learn(running, some, source)
        for number in range(given.rounds):
            for case in some:
                names = [name for name in running if name in case.who]
                shift = number % max(1, len(names))
                for name in names[shift:] + names[:shift]:
                    rows.append({**cases.quiet_turn(case, running[name], source, given.seconds), "round": number})
                    _say(rows[-1])
        for name, peer in running.items():
            about[name]["peak_rss_mib"] = cases.peak_rss_mib(peer)
    return {"rows": rows, "contestants": about}


def _learn(running: dict[str, Peer], some: list[cases.Case], source: Peer) -> None:
    """A short turn of the first case, not counted: each worker of each server meets the file."""
    for name, peer in running.items():
        for case in some[:1]:
            if name in case.who or name == "fileproxy-two":
                cases.BY_NAME["1k"].load(peer, "/1k", cases.FILES["1k"], 1)


def _say(row: dict[str, Any]) -> None:
    print(
        f"{row['round'] + 1} {row['case']:<8} {row['contestant']:<16} {row['cpu_us']:10.2f} us  "
        f"{row['requests_per_s']:9.0f} /s  server {row['server_busy']:4.0%}  client {row['client_busy']:4.0%}  "
        f"stolen {row['stolen']:4.0%}  tries {row['tries']}",
        flush=True,
    )


def _names(known: tuple[str, ...]) -> Any:
    def parse(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: there are {', '.join(known)}")
        return names

    return parse


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.race", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = tuple(cases.BY_NAME)
    parser.add_argument("--cases", type=_names(every), default=list(every), help=f"of {', '.join(every)}")
    known = (*contestants.PEERS, "nginx-sendfile", "nginx-cache")
    parser.add_argument("--peers", type=_names(known), default=list(contestants.PEERS), help="separated by commas")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn; wrk rounds it, 1 at least")
    parser.add_argument("--python", default=sys.executable, help="for FileProxy; one with its requirements")
    parser.add_argument("--instructions", action="store_true", help="count instructions too (valgrind, a minute)")
    parser.add_argument(
        "--window",
        type=int,
        metavar="BYTES",
        help="clients' receive buffers begin at this for all (race/window.py); root",
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    given = parser.parse_args(arguments)
    peers.use_python(given.python)
    for tool in ("curl", "wrk", "taskset", "nginx"):
        if not contestants.program(tool):
            print(f"{tool} is needed", file=sys.stderr)
            return 1
    if not {contestants.SERVER_CORE, contestants.CLIENT_CORE} <= os.sched_getaffinity(0):
        print("two processors are needed: one for the servers, one for the load", file=sys.stderr)
        return 1
    if given.window is not None:
        try:
            window.begin_at(given.window)
        except OSError as error:
            print(f"--window: {error}", file=sys.stderr)
            return 1
    started = time.monotonic()
    told: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "run": {"rounds": given.rounds, "seconds": given.seconds, "cases": given.cases, "window": given.window},
    }
    folder = Path(tempfile.mkdtemp(prefix="race-"))
    folder.chmod(0o711)  # Squid works as another user
    ended = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not without ending the servers
    try:
        told |= race(folder, given)
    finally:
        signal.signal(signal.SIGTERM, ended)
        shutil.rmtree(folder, ignore_errors=True)
    told["medians"] = figures.medians(told["rows"])
    told["ratios"] = figures.ratios(told["rows"], told["medians"])
    told["goals"] = figures.goals(told["medians"])
    if given.instructions:
        told["instructions"] = counts(list(PATHS))
    told["load_at_end"], told["took_s"] = os.getloadavg()[0], time.monotonic() - started
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "race.json").write_text(json.dumps(told, indent=1) + "\n")
    (given.output / "race.md").write_text(report.markdown(told))
    (given.output / "race.html").write_text(report.html(told))
    print(report.markdown(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
