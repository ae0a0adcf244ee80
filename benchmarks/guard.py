"""Does a hit cost more work than it did? Instructions and allocations of pure paths, against the committed counts. ::

    python -m benchmarks.guard             # compare with counts.json; a quarter of a minute
    python -m benchmarks.guard --write     # make this Python's counts what is committed
    python -m benchmarks.guard --json

Times drift with the machine's mood, instructions do not: ``valgrind --tool=callgrind`` counts them, as
``instructions.py`` explains; here one child walks all paths, and counting is off until everything is imported. The
numbers depend on Python's build, so they are kept by its version, compiler and processor; where there are none for
this one, it only reports. Exit code 1: a path takes over 8 % more instructions, or keeps more blocks of memory, than
is committed.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.hit_path import with_work
from benchmarks.paths import PURE

ROOT = Path(__file__).resolve().parent.parent
COUNTS = Path(__file__).parent / "counts.json"
TOLERANCE = 0.08
TIMES, WARM = 400, 100
_HELD = 256  # results of a path that are held at once, to count what they are made of
BLOCKS_AT_LEAST = 0.5  # blocks a walk that allocations must grow by to count
_GATE = "ffi_call"  # of libffi, by which ctypes calls: only what happens within such a call is counted
_HIT = "hit"
PATHS = {**{name: what for name, (what, _) in PURE.items()}, _HIT: "the front's answer to a known head, 1 KiB, logged"}
_counted: list[Callable[[], None]] = []  # what the counted call runs


class Cost(NamedTuple):
    """One walk of a path: processor instructions; blocks of memory its result is made of, and that it leaves behind."""

    instructions: int
    blocks: float
    kept: float


class Judged(NamedTuple):
    path: str
    cost: Cost
    before: Cost | None
    verdict: str  # better same worse new

    @property
    def ratio(self) -> float | None:
        return None if self.before is None else self.cost.instructions / self.before.instructions


# --- judging (pure) ---------------------------------------------------------------------------------------------------


def judge(path: str, cost: Cost, before: Cost | None, tolerance: float = TOLERANCE) -> Judged:
    """``worse`` when it takes more instructions than the tolerance allows, or more blocks, or leaves some."""
    if before is None:
        return Judged(path, cost, None, "new")
    ratio = cost.instructions / before.instructions
    more = cost.blocks - before.blocks >= BLOCKS_AT_LEAST + tolerance * before.blocks
    leaks = cost.kept - before.kept >= BLOCKS_AT_LEAST
    if ratio > 1 + tolerance or more or leaks:
        return Judged(path, cost, before, "worse")
    return Judged(path, cost, before, "better" if ratio < 1 - tolerance else "same")


def build() -> str:
    """What the counts depend on beside our code: ``3.11.7 GCC 12.2.0 x86_64``."""
    return f"{platform.python_version()} {platform.python_compiler()} {platform.machine()}"


def read(path: Path, name: str) -> dict[str, Cost]:
    """The committed counts of a build; none where there is no such file or build."""
    if not path.exists():
        return {}
    said: dict[str, dict[str, list[float]]] = json.loads(path.read_text())
    return {key: Cost(int(value[0]), value[1], value[2]) for key, value in said.get(name, {}).items()}


def write(path: Path, name: str, costs: Mapping[str, Cost]) -> None:
    said = json.loads(path.read_text()) if path.exists() else {}
    said[name] = {key: [cost.instructions, round(cost.blocks, 2), round(cost.kept, 2)] for key, cost in costs.items()}
    rows = [
        f"  {json.dumps(one)}: {{\n"
        + ",\n".join(f"    {json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(paths.items()))
        + "\n  }"
        for one, paths in sorted(said.items())
    ]
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n")


# --- counting ---------------------------------------------------------------------------------------------------------


def count(times: int = TIMES, root: Path = ROOT) -> dict[str, Cost]:
    """The cost of every path, imported from ``root``. RuntimeError: valgrind is missing, or the child failed."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise RuntimeError("valgrind is needed: apt-get install valgrind")
    with tempfile.TemporaryDirectory(prefix="guard-") as folder:
        out = Path(folder) / "counts"
        command = [valgrind, "--tool=callgrind", "--instr-atstart=no", f"--toggle-collect={_GATE}",
                   f"--dump-after={_GATE}", f"--callgrind-out-file={out}"]  # fmt: skip
        _child([*command, sys.executable, "-m", "benchmarks.guard", "--child", "instructions"], times, root)
        dumps = sorted(Path(folder).glob("counts.*"), key=lambda dump: int(dump.suffix[1:]))
        counted = [total for dump in dumps if (total := _total(dump)) > times][-len(PATHS) :]
    if len(counted) != len(PATHS):
        raise RuntimeError(f"callgrind counted nothing: ctypes does not call by a function named {_GATE} here")
    blocks = json.loads(_child([sys.executable, "-m", "benchmarks.guard", "--child", "blocks"], times, root))
    return {path: Cost(total // times, *blocks[path]) for path, total in zip(PATHS, counted, strict=True)}


def least(costs: dict[str, Cost], known: dict[str, Cost], times: int) -> dict[str, Cost]:
    """The costs, and where one seems worse, the least from folders of other names.

    What stands where in memory is chance, but the same chance each time: two attributes that are looked up for each hit
    may share a slot of the interpreter's method cache, which took a sixth more. The names of the files of the code, of
    another length, move everything.
    """
    with tempfile.TemporaryDirectory(prefix="guard-") as folder:
        for length in (3, 40, 90):
            if not any(judge(path, cost, known.get(path)).verdict == "worse" for path, cost in costs.items()):
                break
            alias = Path(folder) / ("x" * length)
            alias.symlink_to(ROOT)
            again = count(times, alias)
            costs = {path: min(cost, again[path]) for path, cost in costs.items()}
    return costs


def _child(command: list[str], times: int, root: Path) -> str:
    # The same hash order and the same allocator each time.
    env = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    words = [*command, "--times", str(times)]
    for _ in range(2):  # one real download is made; a busy machine may cut it
        done = subprocess.run(words, cwd=root, env=env, capture_output=True, text=True, check=False, timeout=150)
        if done.returncode == 0:
            return done.stdout
    raise RuntimeError(f"the child ended with {done.returncode}: {done.stderr[-2000:]}")


def _total(dump: Path) -> int:
    found = re.search(r"^(?:totals|summary): (\d+)", dump.read_text(), re.MULTILINE)
    return 0 if found is None else int(found[1])


def count_instructions(times: int) -> None:
    """The child under valgrind: each path in one call through the gate."""
    if shutil.which("callgrind_control") is None:
        raise SystemExit("callgrind_control is missing: it comes with valgrind")

    def on_hit(work: Callable[[int], None]) -> None:
        work(WARM)
        gc.collect()
        gc.freeze()
        gc.disable()
        _count_from_now_on()
        for _, call in PURE.values():
            _through_the_gate(lambda call=call: _repeat(call, times))  # type: ignore[misc]
        _through_the_gate(lambda: work(times))

    for _, call in PURE.values():
        _repeat(call, WARM)
    with_work(_HIT, on_hit)


def _repeat(call: Callable[[], object], times: int) -> None:
    for _ in range(times):
        call()


def _count_from_now_on() -> None:
    with subprocess.Popen(["callgrind_control", "-i", "on", str(os.getpid())], stdout=subprocess.DEVNULL) as control:
        while control.poll() is None:  # valgrind hears it between two blocks of code, so there must be some
            sum(range(100))
    if control.returncode:
        raise SystemExit(f"callgrind_control ended with {control.returncode}")


def _through_the_gate(walk: Callable[[], None]) -> None:
    _counted[:] = [walk]
    if ctypes.pythonapi.PyRun_SimpleStringFlags(b"_counted[0]()", None):
        raise SystemExit("a path could not be walked")


def count_blocks(times: int) -> dict[str, tuple[float, float]]:
    """The other child: blocks that an answer of a path is made of, and that the path leaves, for each walk."""
    found: dict[str, tuple[float, float]] = {}
    held: list[object] = [None] * _HELD
    gc.collect()
    gc.disable()
    for path, (_, call) in PURE.items():
        _repeat(call, WARM)
        made = 0.0
        for _ in range(2):  # the first time free lists are filled
            held[:] = [None] * _HELD
            before = sys.getallocatedblocks()
            for place in range(_HELD):
                held[place] = call()
            made = (sys.getallocatedblocks() - before) / _HELD
        held[:] = [None] * _HELD
        found[path] = made, _kept(lambda call=call: _repeat(call, times)) / times  # type: ignore[misc]

    def on_hit(work: Callable[[int], None]) -> None:
        work(WARM)
        found[_HIT] = 0.0, _kept(lambda: work(times)) / times

    with_work(_HIT, on_hit)
    return found


def _kept(walk: Callable[[], None]) -> int:
    before = sys.getallocatedblocks()
    walk()
    gc.collect()
    return max(0, sys.getallocatedblocks() - before)


# --- the command ------------------------------------------------------------------------------------------------------


def table(judged: list[Judged]) -> str:
    lines = [f"{'path':14} {'instructions':>12} {'committed':>10} {'ratio':>6} {'blocks':>7} {'kept':>6}"]
    for one in judged:
        ratio = "" if one.ratio is None else f"{one.ratio:.3f}"
        before = "" if one.before is None else f"{one.before.instructions:,}"
        lines.append(
            f"{one.path:14} {one.cost.instructions:>12,} {before:>10} {ratio:>6} {one.cost.blocks:7.2f} "
            f"{one.cost.kept:6.2f}  {one.verdict:6} {PATHS[one.path]}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="make these counts the committed ones")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--times", type=int, default=TIMES)
    parser.add_argument("--child", choices=("instructions", "blocks"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child == "instructions":
        count_instructions(given.times)
        return 0
    if given.child == "blocks":
        print(json.dumps(count_blocks(given.times)))
        return 0
    name = build()
    try:
        costs = count(given.times)
        if not given.write:
            costs = least(costs, read(COUNTS, name), given.times)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    if given.write:
        write(COUNTS, name, costs)
    known = read(COUNTS, name)
    judged = [judge(path, cost, known.get(path)) for path, cost in costs.items()]
    if given.json:
        print(json.dumps({"build": name, "paths": {one.path: one._asdict() for one in judged}}, indent=1))
    else:
        print(name if known else f"{name}: no counts are committed for this build, so this only reports")
        print(table(judged))
    return 1 if any(one.verdict == "worse" for one in judged) else 0


if __name__ == "__main__":
    sys.exit(main())
