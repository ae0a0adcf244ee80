"""What a connection holds: slow readers of a big file, and idle connections, by the thousand.

Memory is the proportional set size (PSS) of the service's processes, from ``/proc/PID/smaps_rollup``: what its pages
cost the machine, shared ones divided. A figure is the highest PSS while the clients are there, less what it was before
they came (after a few of the same kind had come and gone), divided by them. What the kernel holds for the sockets of
the whole machine (``/proc/net/sockstat``: both ends, and the origin's) is told beside it: it is not ours to allocate,
but memory. ::

    python -m benchmarks.memory                 # all cases: about a minute and a half
    python -m benchmarks.memory idle --clients 8000
    python -m benchmarks.memory slow relay --seconds 20
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cache_lab import goal, lab, settled, until
from benchmarks.cpu import pinned
from tests.service import Service

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).resolve().parent.parent
KIB, PAGE = 1024, os.sysconf("SC_PAGE_SIZE")
RATE = 100 * KIB
SIZE = 1024**3
SLOW_GOAL, IDLE_GOAL = 64, 12  # KiB a client
SERVER_CORE, CLIENT_CORE = 0, 1
# An idle connection's first answer: by the fast front; by aiohttp's handler (a field that is not tabled, a range).
IDLE_CASES: dict[str, list[str]] = {"idle": [], "idle-handler": ["Cache-Control: max-age=100000"]}
SLOW_CASES: dict[str, dict[str, Any]] = {
    "slow": {},
    "relay": {"routes": [{"path": "/", "upstream": "files", "cache": "off"}], "cache": {"disk": "off"}},
}
Figures = dict[str, Any]


def pss(service: Service) -> int:
    """Bytes of all its processes, the master's too."""
    total = 0
    for pid in (service.process.pid, *(one.pid for one in service.family())):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * KIB
    return total


def kernel() -> int:
    """Bytes that all TCP sockets of this network namespace hold."""
    words = next(
        line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:")
    ).split()
    return int(words[words.index("mem") + 1]) * PAGE


@contextlib.contextmanager
def crowd(service: Service, path: str, count: int, options: Sequence[str] = ()) -> Iterator[Figures]:
    """``count`` clients of :mod:`benchmarks.memory_client`; what they say is in the yielded figures afterwards."""
    command = [sys.executable, "-m", "benchmarks.memory_client", str(service.port), path, "--clients", str(count)]
    process = subprocess.Popen(
        pinned(CLIENT_CORE, [*command, *options]), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    said: Figures = {}
    try:
        first = process.stdout.readline()
        if not first:
            raise RuntimeError(f"the clients gave up; the service says:\n{service.logs()}")
        said.update(json.loads(first))
        yield said
        process.stdin.close()
        said.update(json.loads(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stdin.close()
    if said["wrong"]:
        raise RuntimeError(f"{said['wrong']} of {count} clients were served wrongly: {said['why']}")


def measure(service: Service, path: str, clients: int, seconds: float, options: Sequence[str]) -> Figures:
    """PSS before, the highest with the clients there, and after they left."""
    with crowd(service, path, min(64, clients), options):
        time.sleep(1.0)
    until(lambda: service.json("/stats")["counters"]["connections.open"] <= 1, "the first clients' end")
    before, kernel_before, highest, kernel_highest = pss(service), kernel(), 0, 0
    cpu = service.worker().cpu_times()
    with crowd(service, path, clients, options) as said:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.5)
            highest, kernel_highest = max(highest, pss(service)), max(kernel_highest, kernel())
        shared_out = service.json("/stats")["counters"].get("stream.shared_out", 0)
    spent = service.worker().cpu_times()
    until(lambda: service.json("/stats")["counters"]["connections.open"] <= 1, "the clients' end", 30)
    after = pss(service)
    return {
        "clients": clients,
        "seconds": seconds,
        "kib_per_client": round((highest - before) / clients / KIB, 2),
        "kernel_kib_per_client": round((kernel_highest - kernel_before) / clients / KIB, 1),
        "before_mib": round(before / KIB**2, 1),
        "highest_mib": round(highest / KIB**2, 1),
        "after_mib": round(after / KIB**2, 1),
        "cpu_s": round(spent.user + spent.system - cpu.user - cpu.system, 2),
        "shared_out": shared_out,
        "slowest_kib_s": round(said["slowest"] / KIB, 1),
        "median_kib_s": round(said["median"] / KIB, 1),
    }


def slow(name: str, clients: int, seconds: float) -> Figures:
    """``clients`` read a file of 1 GiB at 100 KiB/s, from the disk cache or (``relay``) each from the origin."""
    flags = [part for key in ("limit", "per_host") for part in ("--set", f"upstreams.files.pool.{key}={clients + 100}")]
    settings = {
        "limits": {"connections": clients + 100, "loop_lag": "off"},
        "cache": {"memory": "64MiB"},
        **SLOW_CASES[name],
    }
    with lab(settings, flags=flags, prefix=pinned(SERVER_CORE, [])) as (service, _):
        path = f"/{SIZE}/big"
        if name == "slow":
            subprocess.run(["curl", "-sfo", "/dev/null", service.url + path], check=True, timeout=120)
            settled(service)
        figures = measure(service, path, clients, seconds, ["--rate", str(RATE), "--name", "big"])
    figures["goals"] = {
        f"a slow reader ({name}): at most {SLOW_GOAL} KiB": goal(
            f"{figures['kib_per_client']} KiB", met=figures["kib_per_client"] <= SLOW_GOAL
        )
    }
    return figures


def idle(name: str, clients: int, seconds: float) -> Figures:
    """``clients`` connections that had one answer each and keep still."""
    settings = {
        "limits": {"connections": clients + 100, "loop_lag": "off", "keepalive_idle": "300s"},
        "routes": [{"path": "/", "upstream": "files", "cache": "1h"}],
    }
    with lab(settings, prefix=pinned(SERVER_CORE, [])) as (service, _):
        path = f"/{KIB}/small"
        for _ in range(3):
            service.get(path)
        options = [part for header in IDLE_CASES[name] for part in ("--header", header)]
        figures = measure(service, path, clients, seconds, options)
        del figures["slowest_kib_s"], figures["median_kib_s"]
    figures["goals"] = {
        f"an idle connection ({name}): at most {IDLE_GOAL} KiB": goal(
            f"{figures['kib_per_client']} KiB", met=figures["kib_per_client"] <= IDLE_GOAL
        )
    }
    return figures


def write(name: str, figures: Figures) -> None:
    """Note what one case measured, and lay the table out anew."""
    path = RESULTS / "memory.json"
    everything = json.loads(path.read_text()) if path.exists() else {}
    when = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M")
    everything[name] = {"measured": when, "cores": os.cpu_count(), "python": platform.python_version(), **figures}
    path.write_text(json.dumps(everything, indent=1) + "\n")
    (RESULTS / "memory.md").write_text(table(everything))


def table(everything: dict[str, Figures]) -> str:
    lines = [
        "# Memory of connections",
        "",
        "Made by `python -m benchmarks.memory`; one worker; each row is of the last run of its case (`memory.json`).",
        "Bytes of the service are proportional set size, its growth divided by the clients; the kernel's are of all",
        "TCP sockets on the machine, so both ends of each connection are in it, and the origin's.",
        "",
        "| case | clients | KiB a client | at most | met | kernel KiB a client | MiB before, highest, after | CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, one in everything.items():
        most = SLOW_GOAL if name in SLOW_CASES else IDLE_GOAL
        lines.append(
            f"| {name} | {one['clients']} | {one['kib_per_client']} | {most} | "
            f"{'yes' if one['kib_per_client'] <= most else '**no**'} | {one['kernel_kib_per_client']} | "
            f"{one['before_mib']}, {one['highest_mib']}, {one['after_mib']} | {one['cpu_s']} |"
        )
    lines += [
        "",
        "`slow`: a file of 1 GiB from the disk cache at 100 KiB/s each. `relay`: the same, relayed, kept nowhere.",
        "`idle`: kept connections after one answer by the fast front; `idle-handler`: after one by aiohttp's handler.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=[*SLOW_CASES, *IDLE_CASES], help="slow, relay, idle, idle-handler")
    parser.add_argument("--clients", type=int, help="1,000 slow ones, 8,000 idle ones when nothing is said")
    parser.add_argument("--seconds", type=float, default=15.0, help="for which they stay once all are there")
    parser.add_argument("--no-write", action="store_true", help="leave the results as they are")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # what was started is ended, too
    for name in given.cases:
        kind = slow if name in SLOW_CASES else idle
        figures = kind(name, given.clients or (1000 if name in SLOW_CASES else 8000), given.seconds)
        print(name, json.dumps(figures, indent=1), flush=True)
        if not given.no_write:
            write(name, figures)


if __name__ == "__main__":
    main()
