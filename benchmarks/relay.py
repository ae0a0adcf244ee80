"""Relay, side by side: what does it cost to pass on a file that nobody keeps? 1 GiB with curl, 64 KiB with wrk.

With ``--fill`` instead: what does it cost to keep it while passing it on? The big file under a new name each time,
nginx with proxy_cache against memory and disk tier. Storing may be skipped: beside it stands how much was on disk
afterwards, and a ratio counts only where both kept all. Memory is full of page cache before, as it is where a cache has
run for a day: on a virtual machine each page that was free for long must be had from its host first, which took longer
than all else and fell on whoever wrote the file. Each turn begins with nothing waiting for the disk.

Every proxy runs alone on processor 0 in its turn; the origin (nginx) and the client share processor 1. Rounds are
interleaved and each begins with another proxy, so that a noisy moment of the machine hits all alike; medians count.
Loopback only; every run is bounded in time.
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
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.cpu import pinned
from benchmarks.peers import Peer

PROXY_CORE, CLIENT_CORE = 0, 1
SETTLE_S = 1.0  # what was relayed may still be on its way to disk
MIB = 1024**2
RESULTS = Path(__file__).parent / "results"
OURS = ("fileproxy", "fileproxy-logs")
PEERS = ("nginx-default", "nginx-tuned")


def big(proxy: Peer, size: int, name: str = "/big", settle_s: float = 0.0) -> dict[str, float]:
    """One download of the big file to /dev/null. Seconds, MiB/s, processor seconds of the proxy.

    ``settle_s``: time after its end in which the proxy may still be busy with it.
    """
    proxy.fetch("/small")
    before = proxy.cpu_seconds()
    command = [
        "curl",
        "-sS",
        "--max-time",
        "120",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{size_download} %{time_total}",
    ]
    done = subprocess.run(
        pinned(CLIENT_CORE, [*command, f"{proxy.url}{name}"]), capture_output=True, text=True, timeout=150, check=False
    )
    time.sleep(settle_s)
    cpu = proxy.cpu_seconds() - before
    status, got, seconds = done.stdout.split()
    if done.returncode or status != "200" or int(got) != size:
        raise RuntimeError(f"{proxy.name}: curl ended with {done.returncode}, {status}, {got} bytes: {done.stderr}")
    return {"seconds": float(seconds), "mib_per_s": size / MIB / float(seconds), "cpu_s": cpu}


def small(proxy: Peer, seconds: int, connections: int) -> dict[str, float]:
    """Many downloads of the small file on kept connections. Requests/s, processor µs of the proxy for each."""
    proxy.fetch("/small")
    before = proxy.cpu_seconds()
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "--latency", f"{proxy.url}/small"]
    done = subprocess.run(
        pinned(CLIENT_CORE, command), capture_output=True, text=True, timeout=seconds + 60, check=False
    )
    cpu = proxy.cpu_seconds() - before
    total = re.search(r"(\d+) requests in", done.stdout)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", done.stdout)
    if done.returncode or not (total and rate and p99) or "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise RuntimeError(f"{proxy.name}: wrk saw errors:\n{done.stdout}{done.stderr}")
    return {
        "requests_per_s": float(rate[1]),
        "cpu_us_per_request": cpu / int(total[1]) * 1e6,
        "p99_ms": float(p99[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[p99[2]],
    }


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}


def make_files(folder: Path, size: int) -> None:
    """``/big`` and ``/small`` of bytes that do not compress; read once, so that they lie in the page cache."""
    block = os.urandom(MIB)
    with (folder / "big").open("wb") as file:
        for _ in range(size // MIB):
            file.write(block)
    (folder / "small").write_bytes(block[:65536])


def machine() -> dict[str, Any]:
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    nginx = subprocess.run([peers.nginx_binary(), "-v"], capture_output=True, text=True, check=True)
    return {
        "processor": model[1] if model else platform.machine(),
        "processors": os.cpu_count(),
        "kernel": platform.release(),
        "python": peers.python_version(),
        "nginx": nginx.stderr.strip().rpartition("/")[2],
        "load_at_start": os.getloadavg()[0],
    }


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All rounds of all proxies: every figure, medians, and ours as ratios of each nginx."""
    size = options.size * MIB
    files = folder / "files"
    files.mkdir()
    make_files(files, size)
    figures: dict[str, dict[str, list[dict[str, float]]]] = {"big": {}, "small": {}}
    with contextlib.ExitStack() as running:
        source = running.enter_context(peers.origin(files, CLIENT_CORE, folder))
        proxies = [
            peers.nginx_default(source, PROXY_CORE, folder),
            peers.nginx_tuned(source, PROXY_CORE, folder),
        ]
        if not options.without_us:
            logs = [f"logs.access={folder}/access.log", f"logs.error={folder}/error.log"]
            quiet = ["--set", "logs.access=off", "--set", logs[1]]
            talking = ["--set", logs[0], "--set", logs[1]]
            proxies.append(peers.fileproxy(source, PROXY_CORE, folder, "fileproxy", quiet))
            proxies.append(peers.fileproxy(source, PROXY_CORE, folder, "fileproxy-logs", talking))
        for proxy in proxies:
            running.enter_context(proxy)
            if proxy.fetch("/small") != (files / "small").read_bytes():
                raise RuntimeError(f"{proxy.name} changed the bytes")
            big(proxy, size)  # warm-up, not counted
        for number in range(options.rounds):
            shift = number % len(proxies)
            for proxy in proxies[shift:] + proxies[:shift]:
                figures["big"].setdefault(proxy.name, []).append(big(proxy, size))
                figures["small"].setdefault(proxy.name, []).append(small(proxy, options.seconds, options.connections))
                print(f"round {number + 1} {proxy.name:<15}", figures["big"][proxy.name][-1], flush=True)
                print(f"{'':>23}", figures["small"][proxy.name][-1], flush=True)
    middle = {kind: {name: medians(rounds) for name, rounds in rows.items()} for kind, rows in figures.items()}
    ratios = {
        kind: {
            f"{ours} / {peer}": {key: rows[ours][key] / rows[peer][key] for key in rows[ours] if rows[peer][key]}
            for ours in OURS
            for peer in PEERS
            if ours in rows
        }
        for kind, rows in middle.items()
    }
    return {"rounds": figures, "medians": middle, "ratios": ratios}


def measure_fill(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All rounds of the two that keep what they relay."""
    size = options.size * MIB
    files = folder / "files"
    files.mkdir()
    make_files(files, size)
    figures: dict[str, list[dict[str, float]]] = {}
    with contextlib.ExitStack() as running:
        source = running.enter_context(peers.origin(files, CLIENT_CORE, folder))
        proxies = [peers.nginx_caching(source, PROXY_CORE, folder), peers.fileproxy_caching(source, PROXY_CORE, folder)]
        for proxy in proxies:
            running.enter_context(proxy)
            big(proxy, size, "/big?warm-up", SETTLE_S)
        fill_page_cache(folder)
        for number in range(options.rounds):
            for proxy in proxies if number % 2 else reversed(proxies):
                os.sync()
                kept = _on_disk(folder / proxy.name / "cache")
                found = big(proxy, size, f"/big?{number}", SETTLE_S)
                found["kept"] = (_on_disk(folder / proxy.name / "cache") - kept) / size
                figures.setdefault(proxy.name, []).append(found)
                print(f"round {number + 1} {proxy.name:<18}", found, flush=True)
    middle = {name: medians(rounds) for name, rounds in figures.items()}
    ours, theirs = middle["fileproxy-caching"], middle["nginx-caching"]
    return {"rounds": figures, "medians": middle, "ratios": {key: ours[key] / theirs[key] for key in ours}}


def fill_page_cache(folder: Path) -> None:
    """Leave no memory free: read a file without content, as large as memory, which stays until the folder goes."""
    with (folder / "nothing").open("w+b", buffering=0) as file:
        file.truncate(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        into = bytearray(16 * MIB)
        while file.readinto(into):
            pass


def _on_disk(folder: Path) -> int:
    """Bytes of disk that the files below it take."""
    return sum(one.stat().st_blocks * 512 for one in folder.rglob("*") if one.is_file())


def markdown_fill(report: dict[str, Any]) -> str:
    about, ran = report["machine"], report["run"]
    lines = [
        "# Filling the cache while relaying, against nginx, one core each",
        "",
        f"{report['date']}: {about['processor']}, {about['processors']} processors, Linux {about['kernel']}, Python "
        f"{about['python']}, nginx {about['nginx']}; {ran['size_mib']} MiB, {ran['rounds']} interleaved rounds, "
        f"medians; load {about['load_at_start']:.1f} at the start. Made by `python -m benchmarks.relay --fill`.",
        "",
        "| | MiB/s | CPU s | on disk afterwards |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {row['mib_per_s']:.0f} | {row['cpu_s']:.2f} | {row['kept']:.0%} |"
        for name, row in report["medians"].items()
    ]
    ratios = report["ratios"]
    lines += [f"| ratio | × {ratios['mib_per_s']:.2f} | × {ratios['cpu_s']:.2f} | |", ""]
    return "\n".join(lines)


def markdown(report: dict[str, Any]) -> str:
    """The report as two tables a person can read."""
    about, ran, middle, ratios = report["machine"], report["run"], report["medians"], report["ratios"]
    lines = [
        "# Relay against nginx, one core each",
        "",
        f"{report['date']}: {about['processor']}, {about['processors']} processors, Linux {about['kernel']}, Python "
        f"{about['python']}, nginx {about['nginx']}; {ran['rounds']} interleaved rounds, medians; load average "
        f"{about['load_at_start']:.1f} at the start.",
        "Made by `python -m benchmarks.relay`; only ratios of one run mean something, machines differ.",
        "",
        f"## {ran['size_mib']} MiB, one download by curl",
        "",
        "| | MiB/s | CPU s |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {row['mib_per_s']:.0f} | {row['cpu_s']:.2f} |" for name, row in middle["big"].items()]
    lines += [f"| {name} | × {row['mib_per_s']:.2f} | {_times(row, 'cpu_s')} |" for name, row in ratios["big"].items()]
    lines += [
        "",
        f"## 64 KiB, {ran['connections']} kept connections, wrk for {ran['seconds']} s",
        "",
        "| | requests/s | CPU µs a request | p99 ms |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {row['requests_per_s']:.0f} | {row['cpu_us_per_request']:.0f} | {row['p99_ms']:.1f} |"
        for name, row in middle["small"].items()
    ]
    lines += [
        f"| {name} | × {row['requests_per_s']:.2f} | {_times(row, 'cpu_us_per_request')} | {_times(row, 'p99_ms')} |"
        for name, row in ratios["small"].items()
    ]
    return "\n".join([*lines, ""])


def _times(row: dict[str, float], key: str) -> str:
    return f"× {row[key]:.2f}" if key in row else "–"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="length of each wrk run")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--size", type=int, default=1024, help="big file in MiB")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--fill", action="store_true", help="filling the cache instead of relaying")
    parser.add_argument("--python", default=sys.executable, help="for FileProxy; one with its requirements")
    parser.add_argument("--without-us", action="store_true", help="nginx alone, to try the harness")
    options = parser.parse_args()
    peers.use_python(options.python)
    for tool in ("curl", "wrk", "taskset"):
        if not shutil.which(tool):
            print(f"{tool} is needed", file=sys.stderr)
            return 1
    if not {PROXY_CORE, CLIENT_CORE} <= os.sched_getaffinity(0):
        print("two processors are needed: one for the proxy, one for origin and client", file=sys.stderr)
        return 1
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    report: dict[str, Any] = {
        "date": date,
        "machine": machine(),
        "run": {
            "rounds": options.rounds,
            "seconds": options.seconds,
            "connections": options.connections,
            "size_mib": options.size,
        },
    }
    with tempfile.TemporaryDirectory(prefix="relay-") as folder:
        report |= measure_fill(Path(folder), options) if options.fill else measure(Path(folder), options)
    options.output.mkdir(parents=True, exist_ok=True)
    name, text = ("fill", markdown_fill(report)) if options.fill else ("relay", markdown(report))
    (options.output / f"{name}-{date}.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.output / f"{name}.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
