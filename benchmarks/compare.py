"""Is it quicker than it was? Processor time for a request, beside a fixed reference, noise taken into account. ::

    fileproxy bench compare --save            # this machine's baseline
    fileproxy bench compare --fail            # against it: exit code 1 when something is worse
    fileproxy bench compare --against HEAD~5  # two revisions in the same rounds: the steadiest

In each round every contestant serves the same load in its turn, alone on processor 0; the generator (that of
``fileproxy bench load``) has another. The *reference* is a small server that never changes: a machine that is slower
today is slower for it too, so a baseline keeps ratios to it. ``verdict.py`` says what a difference is worth,
``baselines.py`` where baselines lie. Loopback only; bounded in time: rounds × contestants × workloads × seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import baselines
from benchmarks.cpu import cpu_seconds
from benchmarks.peers import Peer, free_port
from benchmarks.verdict import Interval, Verdict, interval, verdict

ROOT = Path(__file__).resolve().parent.parent
SERVER_CORE = 0
# Name → path of the file, its size, clients.
WORKLOADS = {"hits": ("kept/1k", 1024, 32), "hits-64k": ("kept/64k", 65536, 16), "relay": ("passed/1m", 1 << 20, 4)}
Rounds = dict[str, dict[str, list[float]]]  # workload → contestant → µs a request, round by round

_REFERENCE = """
import asyncio, sys
HEAD = b"HTTP/1.1 200 OK\\r\\nContent-Type: text/plain\\r\\nETag: \\"fixed\\"\\r\\nContent-Length: %d\\r\\n\\r\\n"
ANSWERS = {b"/kept/1k": 1024, b"/kept/64k": 65536, b"/passed/1m": 1 << 20}
ANSWERS = {path: HEAD % size + bytes(size) for path, size in ANSWERS.items()}
class Reference(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(ANSWERS[data.split(b" ", 2)[1]])
async def main():
    server = await asyncio.get_running_loop().create_server(Reference, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    await server.serve_forever()
asyncio.run(main())
"""


def reference(folder: Path) -> Peer:
    port = free_port()
    (folder / "reference").mkdir()
    return Peer("reference", [sys.executable, "-c", _REFERENCE, str(port)], port, SERVER_CORE, folder / "reference")


def fileproxy(name: str, tree: Path, origin: str, folder: Path) -> Peer:
    """One worker of a source tree, with what a user has by default but disk and shared store."""
    (folder / name).mkdir()
    port = free_port()
    command = [sys.executable, "-m", "fileproxy", "serve", origin, "--host", "127.0.0.1", "--port", str(port)]
    for setting in ("routes.0.upstream=files", "routes.0.cache=1h", "routes.1.path=/passed/", "routes.1.upstream=files",
                    "routes.1.cache=off", "cache.disk=off", "logs.audit=off",
                    f"logs.access={folder / name / 'access.log'}"):  # fmt: skip
        command += ["--set", setting]
    command += ["--workers", "1", "--redis", "off"]
    return Peer(name, command, port, SERVER_CORE, folder / name, env={"PYTHONPATH": str(tree)})


def origin(files: Path, core: int, folder: Path) -> Peer:
    (folder / "origin").mkdir()
    port = free_port()
    command = [sys.executable, "-m", "fileproxy", "origin", str(files), "--port", str(port)]
    return Peer("origin", command, port, core, folder / "origin", env={"PYTHONPATH": str(ROOT)})


def tree_of(revision: str, folder: Path) -> Path:
    """The sources of a revision, in a folder of their own. RuntimeError: there is no such revision."""
    tree = folder / "tree"
    tree.mkdir()
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", revision, "fileproxy"], capture_output=True, check=False, timeout=60
    )
    if archive.returncode:
        raise RuntimeError(f"{revision}: {archive.stderr.decode(errors='replace').strip()}")
    subprocess.run(["tar", "-x", "-C", str(tree)], input=archive.stdout, check=True, timeout=60)
    return tree


async def turn(peer: Peer, workload: str, seconds: float) -> float:
    """µs of the server's processor a request. RuntimeError when one failed: that is no result."""
    from fileproxy.bench.hosts import targets
    from fileproxy.bench.plan import Plan
    from fileproxy.bench.run import run

    path, _, clients = WORKLOADS[workload]
    before = cpu_seconds(peer.pid)
    plan = Plan(clients=clients, seconds=seconds, verify=False)
    result = await run(plan, targets([f"{peer.url}/{path}"], vouched=False))
    used, tally = cpu_seconds(peer.pid) - before, result.tally
    if tally.failed or not tally.requests:
        raise RuntimeError(f"{peer.name}, {workload}: {dict(tally.errors) or 'no answer'}")
    return max(used, 0.01) / tally.requests * 1e6


async def measure(peers: list[Peer], workloads: list[str], rounds: int, seconds: float) -> Rounds:
    """Interleaved: each round begins with another."""
    found: Rounds = {workload: {peer.name: [] for peer in peers} for workload in workloads}
    for peer in peers:
        for workload in workloads:
            for _ in range(3):  # fill caches
                peer.fetch(f"/{WORKLOADS[workload][0]}")
    for number in range(rounds + 1):  # the first one is forgotten
        first = number % len(peers)
        for workload in workloads:
            for peer in peers[first:] + peers[:first]:
                figure = await turn(peer, workload, seconds)
                if number:
                    found[workload][peer.name].append(figure)
        print(f"round {number} of {rounds}" if number else "warm", file=sys.stderr, flush=True)
    return found


def ratios(figures: dict[str, list[float]], of: str, to: str) -> list[float]:
    return [one / other for one, other in zip(figures[of], figures[to], strict=True)]


def judge(rounds: Rounds, base: Rounds | None) -> dict[str, tuple[Interval, Verdict]]:
    """Each workload against another revision in the same rounds, or against a baseline's ratios to the reference."""
    found = {}
    for workload, figures in rounds.items():
        if "before" in figures:
            one = interval(figures["this"], figures["before"], paired=True)
        elif base is not None and workload in base:
            old = ratios(base[workload], "this", "reference")
            one = interval(ratios(figures, "this", "reference"), old, paired=False)
        else:
            continue
        found[workload] = one, verdict(one, len(figures["this"]))
    return found


def table(rounds: Rounds, judged: dict[str, tuple[Interval, Verdict]]) -> str:
    lines = []
    for workload, figures in rounds.items():
        each = "  ".join(f"{name} {sorted(of)[len(of) // 2]:.1f} µs" for name, of in figures.items())
        said = ""
        if workload in judged:
            one, word = judged[workload]
            said = f"  {word}: × {one.ratio:.3f} ({one.low:.3f} to {one.high:.3f})"
        lines.append(f"{workload:9} {each}{said}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="fileproxy bench compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", metavar="REVISION", help="measured in the same rounds, instead of the baseline")
    parser.add_argument("--save", action="store_true", help="make what is measured this machine's baseline")
    parser.add_argument("--fail", action="store_true", help="exit code 1 when something is worse")
    parser.add_argument("--only", default=",".join(WORKLOADS), metavar="NAMES", help=", ".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn")
    parser.add_argument("--baselines", type=Path, default=baselines.folder(), metavar="DIR")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="every round")
    given = parser.parse_args()
    workloads = given.only.split(",")
    if unknown := [name for name in workloads if name not in WORKLOADS]:
        parser.error(f"{', '.join(unknown)}: the workloads are {', '.join(WORKLOADS)}")
    if not (1 <= given.rounds <= 100 and 0.2 <= given.seconds <= 60):
        parser.error("rounds lie between 1 and 100, seconds between 0.2 and 60")
    try:
        return compare(given, workloads)
    except (RuntimeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing is judged or kept", file=sys.stderr)
        return 1


def compare(given: argparse.Namespace, workloads: list[str]) -> int:
    machine = baselines.fingerprint()
    known = None if given.against else baselines.load(given.baselines, machine)
    cores = sorted(os.sched_getaffinity(0))
    client = cores[-1]
    os.sched_setaffinity(0, {client})
    folder = Path(tempfile.mkdtemp(prefix="compare-"))
    try:
        files = folder / "files"
        for path, size, _ in WORKLOADS.values():
            (files / path).parent.mkdir(parents=True, exist_ok=True)
            (files / path).write_bytes(os.urandom(size))
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(origin(files, client, folder))
            peers = [reference(folder), fileproxy("this", ROOT, source.url, folder)]
            if given.against:
                peers.append(fileproxy("before", tree_of(given.against, folder), source.url, folder))
            running = [stack.enter_context(peer) for peer in peers]
            rounds = asyncio.run(measure(running, workloads, given.rounds, given.seconds))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    judged = judge(rounds, known["rounds"] if known else None)
    if given.against:
        print(f"against {given.against}, paired rounds")
    elif known:
        print(f"against the baseline of {known['when']}")
    else:
        print("this machine has no baseline yet: --save makes one")
    print(table(rounds, judged))
    report: dict[str, Any] = {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "rounds": rounds,
    }
    if given.output:
        verdicts = {name: {**one._asdict(), "verdict": word} for name, (one, word) in judged.items()}
        given.output.write_text(json.dumps({"machine": machine, **report, "verdicts": verdicts}, indent=1) + "\n")
    if given.save:
        print(f"kept: {baselines.save(given.baselines, machine, report)}")
    return 1 if given.fail and any(word == "worse" for _, word in judged.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
