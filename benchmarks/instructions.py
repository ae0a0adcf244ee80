"""How many processor instructions our own work for a hit takes. They do not drift with the machine's mood. ::

    python -m benchmarks.instructions            # every path of hit_path.PATHS; about a minute
    python -m benchmarks.instructions hit head --json

The paths are walked under ``valgrind --tool=callgrind``, which counts only what happens within a call made by ctypes
(``ffi_call``): neither start-up nor the way there. What the kernel does is not in it.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

from benchmarks.hit_path import PATHS, SETTLED_AFTER, Work, with_work

ROOT = Path(__file__).resolve().parent.parent
TIMES = 20_000
WARM = 500  # before counting begins: caches of the interpreter (PEP 659) are filled
_GATE = "ffi_call"  # of libffi; nothing on the paths calls through it
_counted: list[tuple[Work, int]] = []  # the child's path, and how often it is walked


def count(path: str, times: int = TIMES) -> int:
    """Instructions of one walk of ``path`` (a key of ``PATHS``), the mean of ``times``.

    RuntimeError: valgrind is missing, or the child failed. KeyError: no such path.
    """
    return counts([path], times)[path]


def counts(paths: Sequence[str], times: int = TIMES) -> dict[str, int]:
    """The same of several paths, for the price of one start: that is what takes the time."""
    if unknown := [path for path in paths if path not in PATHS]:
        raise KeyError(*unknown)
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise RuntimeError("valgrind is needed: apt-get install valgrind")
    with tempfile.TemporaryDirectory(prefix="instructions-") as folder:
        command = [valgrind, "--tool=callgrind", f"--toggle-collect={_GATE}", f"--callgrind-out-file={folder}/%p"]
        child = [sys.executable, "-m", "benchmarks.instructions", "--child", "--times", str(times), *paths]
        done = subprocess.run(
            [*command, *child], cwd=ROOT, capture_output=True, text=True, check=False, timeout=900, env=_environment()
        )
        walked = dict(re.findall(r"^walked (\S+) as (\d+)$", done.stdout, re.MULTILINE))
        if done.returncode or set(walked) != set(paths):
            raise RuntimeError(f"the child under valgrind ended with {done.returncode}: {done.stderr[-2000:]}")
        return {path: _total(Path(folder) / walked[path], times) // times for path in paths}


def _total(counted: Path, times: int) -> int:
    found = re.search(r"^(?:totals|summary): (\d+)", counted.read_text(), re.MULTILINE)
    if found is None or int(found[1]) < 100 * times:
        raise RuntimeError(f"callgrind counted nothing: ctypes does not call by a function named {_GATE} here")
    return int(found[1])


def memory(path: str, times: int = TIMES) -> dict[str, float]:
    """What ``path`` leaves in memory, for each walk: ``blocks_kept`` (sys.getallocatedblocks; 0 when nothing leaks),
    and ``bytes_at_most``, the most bytes that tracemalloc saw above the start, over ``SETTLED_AFTER`` walks at a time.
    """
    command = [sys.executable, "-m", "benchmarks.instructions", "--child-memory", path, "--times", str(times)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300, env=_environment()
    )
    if done.returncode:
        raise RuntimeError(f"{path} could not be walked: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _environment() -> dict[str, str]:
    """The same hash order and the same allocator each time."""
    return {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def _child(paths: Sequence[str], times: int) -> None:
    """Walk each path in a process of its own: a fork of this one, which valgrind goes on with."""
    for path in paths:
        if (pid := os.fork()) == 0:
            _walk(path, times)
            print("walked", path, "as", os.getpid(), flush=True)
            os._exit(0)
        if os.waitpid(pid, 0)[1] != 0:
            raise SystemExit(f"{path} could not be walked")


def _walk(path: str, times: int) -> None:
    def use(work: Work) -> None:
        work(WARM)
        _counted.append((work, times))
        gc.collect()
        gc.freeze()  # as the service does
        if ctypes.pythonapi.PyRun_SimpleStringFlags(b"_counted[0][0](_counted[0][1])", None) != 0:
            raise SystemExit("the path could not be walked")

    with_work(path, use)


def _child_memory(path: str, times: int) -> None:
    figures: dict[str, float] = {}

    def use(work: Work) -> None:
        work(WARM)
        gc.collect()
        before = sys.getallocatedblocks()
        work(times)
        gc.collect()
        figures["blocks_kept"] = (sys.getallocatedblocks() - before) / times
        tracemalloc.start()
        work(SETTLED_AFTER)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        work(SETTLED_AFTER)
        figures["bytes_at_most"] = (tracemalloc.get_traced_memory()[1] - before) / SETTLED_AFTER
        tracemalloc.stop()

    with_work(path, use)
    print(json.dumps(figures))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", metavar="PATH", help=", ".join(PATHS))
    parser.add_argument("--times", type=int, default=TIMES)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--child-memory", choices=PATHS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    paths = list(dict.fromkeys(given.paths)) or list(PATHS)
    if unknown := [path for path in paths if path not in PATHS]:
        parser.error(f"{', '.join(unknown)}: the paths are {', '.join(PATHS)}")
    if given.child:
        _child(paths, given.times)
        return 0
    if given.child_memory:
        _child_memory(given.child_memory, given.times)
        return 0
    figures = {path: {"instructions": number, **memory(path)} for path, number in counts(paths, given.times).items()}
    if given.json:
        print(json.dumps(figures, indent=1))
        return 0
    for path, one in figures.items():
        print(
            f"{path:<12} {one['instructions']:>8} instructions  {one['blocks_kept']:6.3f} blocks kept  "
            f"{one['bytes_at_most']:7.0f} bytes at most    {PATHS[path]}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
