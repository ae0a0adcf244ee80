"""What settings of the process cost a hit: garbage collection, allocator, processor affinity.

A service for each setting (one worker, a cached file of 1 KiB in memory) is asked in interleaved rounds by wrk from
processor 1; each round pairs a setting with ``now`` (what the code does), and the medians of those ratios count, with a
bootstrap interval. ``--slow`` sends each hit the long way, where objects are made and the collector has work. It is set
by a ``sitecustomize`` of the benchmark, so nothing of the service is changed for it. Needs wrk. ::

    python -m benchmarks.collector --rounds 9 --seconds 2       # about five minutes
    python -m benchmarks.collector gc-off arenas --slow         # some of them
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks import peers
from benchmarks.cpu import pinned, tree
from benchmarks.hits import CLIENT_CORE, FILES, fileproxy
from benchmarks.peers import Peer

# Run in each process of a service as it starts, under the name sitecustomize.
_HOOKS = {
    "no-freeze": "gc.freeze = lambda: None",
    "gc-off": "gc.enable = lambda: None",
    "rare": "gc.set_threshold(10_000, 50, 50)",
}
_ENVIRONMENT = {"arenas": {"MALLOC_ARENA_MAX": "1"}}
_ANY_CORE = {"floating"}  # not bound to processor 0
SETTINGS = ("now", *_HOOKS, *_ENVIRONMENT, *_ANY_CORE)


class Turn(NamedTuple):
    us_a_hit: float
    p99_ms: float
    hits_a_second: float


def service(name: str, origin: Peer, folder: Path, *, slow: bool) -> Peer:
    """The service of ``benchmarks.hits`` under this setting."""
    place = folder / name
    place.mkdir()
    peer = fileproxy("fileproxy-slow" if slow else "fileproxy", origin, place)
    if name in _HOOKS:
        (place / "sitecustomize.py").write_text(f"import gc\n{_HOOKS[name]}\n")
        peer.env["PYTHONPATH"] = f"{place}:{peer.env['PYTHONPATH']}"
    peer.env.update(_ENVIRONMENT.get(name, {}))
    return peer


def rss_kib(peer: Peer) -> int:
    """Resident KiB of the service's largest process, its worker."""
    found = [0]
    for pid in tree(peer.pid):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/status").read_text()
            found += [int(size) for size in re.findall(r"VmRSS:\s+(\d+)", text)]
    return max(found)


def release(peer: Peer) -> None:
    """Let every thread of it run on any processor."""
    for pid in tree(peer.pid):
        with contextlib.suppress(ProcessLookupError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), {peer.core, CLIENT_CORE})


def turn(peer: Peer, seconds: int, connections: int) -> Turn:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", f"{peer.url}/1k"]
    before = peer.cpu_seconds()
    done = subprocess.run(pinned(CLIENT_CORE, command), capture_output=True, text=True, check=True, timeout=60)
    cpu = peer.cpu_seconds() - before
    found = re.search(r"(\d+) requests in ([\d.]+)s", done.stdout)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", done.stdout)
    if found is None or p99 is None or "Non-2xx" in done.stdout:
        raise RuntimeError(f"{peer.name}: {done.stdout}")
    scale = {"us": 0.001, "ms": 1.0, "s": 1000.0}[p99[2]]
    return Turn(cpu / int(found[1]) * 1e6, float(p99[1]) * scale, int(found[1]) / float(found[2]))


def interval(ratios: list[float]) -> tuple[float, float]:
    """Where the median lies in 95 of 100 draws of as many ratios."""
    chance = random.Random(5)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(2000))
    return medians[50], medians[1949]


def measure(names: list[str], rounds: int, seconds: int, connections: int, *, slow: bool) -> dict[str, object]:
    """Per setting: medians, and the ratios of CPU and p99 to ``now`` in the same round with their intervals."""
    found: dict[str, list[Turn]] = {name: [] for name in names}
    memory: dict[str, list[int]] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="fpc"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        (folder / "files").mkdir()
        (folder / "files" / "1k").write_bytes(b"x" * FILES["1k"])
        origin = stack.enter_context(peers.origin(folder / "files", CLIENT_CORE, folder))
        running = {}
        for name in names:
            peer = running[name] = stack.enter_context(service(name, origin, folder, slow=slow))
            if name in _ANY_CORE:
                release(peer)
            for _ in range(3):
                peer.fetch("/1k")
            turn(peer, 1, connections)
            memory[name] = [rss_kib(peer)]
        for number in range(rounds):
            start = number % len(names)
            for name in names[start:] + names[:start]:
                found[name].append(turn(running[name], seconds, connections))
        for name, peer in running.items():
            memory[name].append(rss_kib(peer))
    return {name: _row(found[name], found["now"], memory[name]) for name in names}


def _row(mine: list[Turn], now: list[Turn], memory: list[int]) -> dict[str, object]:
    cpu = [one.us_a_hit / other.us_a_hit for one, other in zip(mine, now, strict=True)]
    p99 = [one.p99_ms / other.p99_ms for one, other in zip(mine, now, strict=True)]
    return {
        "us_a_hit": round(statistics.median(one.us_a_hit for one in mine), 2),
        "p99_ms": round(statistics.median(one.p99_ms for one in mine), 3),
        "cpu_times_now": round(statistics.median(cpu), 3),
        "cpu_interval": [round(edge, 3) for edge in interval(cpu)],
        "p99_times_now": round(statistics.median(p99), 3),
        "p99_interval": [round(edge, 3) for edge in interval(p99)],
        "rss_kib_before_and_after": memory,
        "hits": round(sum(one.hits_a_second for one in mine)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", default=list(SETTINGS), help=", ".join(SETTINGS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--slow", action="store_true", help="without the fast front")
    given = parser.parse_args()
    if unknown := set(given.settings) - set(SETTINGS):
        parser.error(f"{', '.join(sorted(unknown))}: one of {', '.join(SETTINGS)}")
    names = list(dict.fromkeys(["now", *given.settings]))
    print(json.dumps(measure(names, given.rounds, given.seconds, given.connections, slow=given.slow), indent=1))


if __name__ == "__main__":
    main()
