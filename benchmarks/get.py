"""`fileproxy get` beside curl and aria2c on the three networks: seconds from the start of the program to its end.

Goal (bad networks, 7): at least as fast as the better one. On `normal` the tools take turns on one processor, because
there a program's own work counts; on the poor networks all download at the same moment, each behind a link of its own
with its own losses. Every file is compared by SHA-256. Needs root (network namespaces, tun devices); nothing leaves
this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks import network_peers
from benchmarks.cpu import pinned
from benchmarks.get_tools import OURS, ROOT, TOOLS, Server, Tool, missing, versions
from benchmarks.link import tun
from benchmarks.link.scenario import SCENARIOS, Scenario
from benchmarks.network import commit
from benchmarks.network_figures import geometric
from benchmarks.network_lab import MIB, SocketMemory
from benchmarks.relay import RESULTS, machine

Row = dict[str, Any]

TOOL_CORE, OTHER_CORE = 0, 1
# (usual, quick)
SIZES_MIB = {"normal": (32, 8), "poor": (8, 1), "very-poor": (1, 1)}
ROUNDS = {"normal": (15, 2), "poor": (5, 1), "very-poor": (5, 1)}
LIMIT_S = (300.0, 90.0)


@dataclass(frozen=True)
class Plan:
    """One network: who fetches what how often. ``limit_s``: a download is cut then, and its time a lower bound."""

    network: Scenario
    size_mib: int
    rounds: int
    limit_s: float
    seed: int
    folder: Path | None

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The bare ones tell something only where the program, not the link, is the limit."""
        return tuple(tool for tool in TOOLS.values() if tool.rival or tool.name == OURS or not self.network.together)


class Lab:
    """A star with a spoke for each tool, nginx at the end of each. Use as a context manager."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        shapes = [plan.network.shape] * len(plan.tools)
        self.star = tun.Star(shapes, congestion="cubic", core=OTHER_CORE, seed=plan.seed * 1000)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fpget-", dir=self.plan.folder)))
            files = self._root / "files"
            files.mkdir()
            data = random.Random(self.plan.seed).randbytes(self.plan.size_mib * MIB)
            (files / "file").write_bytes(data)
            self._digest = hashlib.sha256(data).hexdigest()
            self._environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
            # Compiled, as an installed package is: ``warm`` does it.
            compiled = str(self._root / "compiled")
            self._environment |= {"PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": compiled, "HOME": str(self._root)}
            stack.enter_context(self.star)
            for spoke in self.star.spokes:
                folder = self._root / str(spoke.number)
                folder.mkdir()
                stack.enter_context(network_peers.origin(self.star, spoke.namespace, files, OTHER_CORE, folder))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def warm(self) -> None:
        """Every tool once beside its origin, uncounted: programs are in the page cache then, and Python's compiled."""
        for tool in self.plan.tools:
            row = self.fetch(tool, -1, near=True)
            if row["error"]:
                raise RuntimeError(f"{tool.name} cannot download: {row['error']}")

    def round(self, number: int) -> list[Row]:
        """Every tool once: together, or one after the other with another one first each time."""
        tools = self.plan.tools
        if self.plan.network.together:
            with ThreadPoolExecutor(len(tools)) as threads:
                return list(threads.map(lambda tool: self.fetch(tool, number), tools))
        shift = number % len(tools)
        return [self.fetch(tool, number) for tool in tools[shift:] + tools[:shift]]

    def fetch(self, tool: Tool, number: int, *, near: bool = False) -> Row:
        """One download, over the tool's link or (``near``) beside the origin. What went wrong is a figure, too."""
        spoke = self.star.spokes[self.plan.tools.index(tool)]
        folder = self._root / f"{number}-{spoke.number}"
        folder.mkdir()
        out, said = folder / "got", folder / "said"
        server = Server(spoke.address, network_peers.ORIGIN_PORT, f"/{number}/file")
        command = self.star.command(spoke.namespace if near else self.star.hub, tool.command(server, out))
        if not self.plan.network.together:
            command = pinned(TOOL_CORE, command)
        pressed = SocketMemory.now()
        with said.open("wb") as output:
            began = time.monotonic()
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            seconds, cpu_s, code = self._awaited(process, began)
        whole = out.is_file() and hashlib.sha256(out.read_bytes()).hexdigest() == self._digest
        error = "" if code == 0 and whole else f"exit code {code}: {said.read_text(errors='replace')[-200:].strip()}"
        if code == 0 and not whole:
            error = "WRONG BYTES"
        elif code < 0 and seconds >= self.plan.limit_s:
            error = "cut"
        for path in folder.iterdir():  # what was not flushed yet never need be: the next one's disk is idle
            path.unlink()
        return {
            "round": number,
            "tool": tool.name,
            "seconds": seconds,
            "cpu_s": cpu_s,
            "error": error,
            "pressed": SocketMemory.now().short_since(pressed),
        }

    def _awaited(self, process: subprocess.Popen[bytes], began: float) -> tuple[float, float, int]:
        """Seconds, processor seconds of it and what it waited for, exit code (negative: the signal)."""
        alarm = ThreadPoolExecutor(1)
        ended = alarm.submit(os.wait4, process.pid, 0)
        try:
            _, status, used = ended.result(self.plan.limit_s)
        except TimeoutError:
            process.kill()
            _, status, used = ended.result()
        seconds = time.monotonic() - began
        alarm.shutdown()
        process.returncode = os.waitstatus_to_exitcode(status)  # it was awaited here, not by Popen
        return seconds, used.ru_utime + used.ru_stime, process.returncode


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """By tool: medians, how ours compares in paired rounds, how often it failed. ``goal``: against the better rival.

    Rounds in which the machine was short of memory for TCP say nothing about the tools: left out, unless all were such.
    """
    pressed = {row["round"] for row in rows if row["pressed"]}
    rows = [row for row in rows if row["round"] not in pressed] or rows
    found: dict[str, Any] = {}
    ours = {row["round"]: row["seconds"] for row in rows if row["tool"] == OURS}
    for name in dict.fromkeys(row["tool"] for row in rows):
        own = [row for row in rows if row["tool"] == name]
        found[name] = {
            "seconds": statistics.median(row["seconds"] for row in own),
            "least_s": min(row["seconds"] for row in own),
            "cpu_s": statistics.median(row["cpu_s"] for row in own),
            "failed": sum(bool(row["error"]) for row in own),
            "ours_by_it": geometric([ours[row["round"]] / row["seconds"] for row in own]),
        }
    rivals = {name: one for name, one in found.items() if TOOLS[name].rival}
    better = min(rivals, key=lambda name: rivals[name]["seconds"])
    met = not found[OURS]["failed"] and found[OURS]["seconds"] <= rivals[better]["seconds"]
    counted = len({row["round"] for row in rows})
    return {"tools": found, "counted": counted, "goal": {"better": better, "met": met}}


def measure(plan: Plan) -> dict[str, Any]:
    where = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M"),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
    }
    rows: list[Row] = []
    with Lab(plan) as lab:
        lab.warm()
        for number in range(plan.rounds):
            for row in lab.round(number):
                rows.append(row)
                said = f"{row['tool']:<22}{row['seconds']:8.3f} s{row['cpu_s']:7.3f} CPU s {row['error']}"
                print(f"{plan.network.name} {number + 1}: {said}", flush=True)
    about = {"size_mib": plan.size_mib, "rounds": plan.rounds, "limit_s": plan.limit_s, "seed": plan.seed}
    return {**where, **about, **figures(rows), "rows": rows}


def markdown(networks: dict[str, Any]) -> str:
    text = [
        "# `fileproxy get` beside curl and aria2c",
        "",
        "Made by `fileproxy bench get`. Seconds from the start of the program to its end, medians; processor seconds "
        "of the program. Ratios are geometric means of paired rounds, with 95 % intervals: below 1, ours is faster.",
        "",
        *(f"* `{tool.name}`: {tool.about}." for tool in TOOLS.values()),
    ]
    for name, one in networks.items():
        goal, computer, tools = one["goal"], one["machine"], one["versions"]
        text += [
            "",
            f"## {name}: {SCENARIOS[name].sentence}; {one['size_mib']} MiB, {one['counted']} rounds",
            "",
            f"{one['date']}, {one['commit']}: {computer['processor']}, {computer['processors']} processors, Linux "
            f"{computer['kernel']}, Python {computer['python']}, curl {tools['curl']}, aria2c {tools['aria2c']}; "
            f"origin nginx {computer['nginx']} with CUBIC; load average {computer['load_at_start']:.1f} at the start.",
            "",
            f"At least as fast as the better one ({goal['better']}): **{'met' if goal['met'] else 'not met'}**.",
            "",
            "| | seconds | least | CPU s | ours / it | failed or cut |",
            "|---|---|---|---|---|---|",
        ]
        for tool, its in one["tools"].items():
            ratio = "" if tool == OURS else _ratio(its["ours_by_it"])
            numbers = f"{its['seconds']:.3f} | {its['least_s']:.3f} | {its['cpu_s']:.3f}"
            text.append(f"| {tool} | {numbers} | {ratio} | {its['failed'] or ''} |")
        if one["counted"] < one["rounds"]:
            left_out = one["rounds"] - one["counted"]
            text += ["", f"{left_out} more rounds were left out: the machine was short of memory for TCP."]
    return "\n".join(text) + "\n"


def _ratio(its: dict[str, Any]) -> str:
    interval = its["interval"]
    return f"{its['mean']:.2f}" + (f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else "")


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="fileproxy bench get", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--scenario",
        choices=SCENARIOS,
        nargs="+",
        default=list(SCENARIOS),
        help="networks; the others stay in the report as they were",
    )
    parser.add_argument("--rounds", type=int, help="interleaved rounds of each network")
    parser.add_argument("--size", type=int, metavar="MIB", help="of the file")
    parser.add_argument("--seed", type=int, default=1, help="of losses, jitter and the file")
    parser.add_argument("--folder", type=Path, help="where files are written; on a tmpfs flushing costs nothing")
    parser.add_argument("--quick", action="store_true", help="few rounds, small files: to try it out")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    chosen = parser.parse_args(arguments)
    for number in ("rounds", "size"):
        if (value := getattr(chosen, number)) is not None and value <= 0:
            parser.error(f"--{number} must be above 0")
    return chosen


def plan(chosen: argparse.Namespace, name: str) -> Plan:
    return Plan(
        network=SCENARIOS[name],
        size_mib=chosen.size or SIZES_MIB[name][chosen.quick],
        rounds=chosen.rounds or ROUNDS[name][chosen.quick],
        limit_s=LIMIT_S[chosen.quick],
        seed=chosen.seed,
        folder=chosen.folder,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = options(sys.argv[1:] if arguments is None else arguments)
    if lacks := [*tun.missing(), *network_peers.missing(), *missing()]:
        print("\n".join(dict.fromkeys(lacks)), file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is removed
    chosen.output.mkdir(parents=True, exist_ok=True)
    kept = chosen.output / "get.json"
    networks = json.loads(kept.read_text()) if kept.exists() else {}
    networks |= {name: measure(plan(chosen, name)) for name in chosen.scenario}
    networks = {name: networks[name] for name in SCENARIOS if name in networks}
    kept.write_text(json.dumps(networks, indent=1) + "\n")
    text = markdown(networks)
    (chosen.output / "get.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
