"""The measurements of the network benchmark: what is built for a plan, and one turn of one contestant.

Every turn has a proxy that was just started on an empty cache: nothing is remembered from an earlier turn. What could
not be done (a download cut short, or longer than the limit) is a figure too, never an exception.
"""

from __future__ import annotations

import contextlib
import filecmp
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from benchmarks import network_peers
from benchmarks.cpu import pinned
from benchmarks.link.scenario import SCENARIOS, Congestion, Direction, Scenario
from benchmarks.link.tun import Spoke, Star
from benchmarks.network_peers import DIRECT, MAKERS, ORIGIN_PORT, Server

Mode = Literal["single", "crowd", "parallel"]
Row = dict[str, Any]

PROXY_CORE, OTHER_CORE = 0, 1
PROXY_PORT = 8100
KIB, MIB = 1024, 1024**2
SMALLEST, LARGEST = 16 * KIB, 4 * MIB  # of the crowd's files, log-uniform
STALL_S = 60.0  # a client that gets no byte for so long gives up
WARM = "warm"


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        sizes_mib: files of ``single``, one after the other. ``parallel`` takes the first.
        limit_s: a download of ``single`` or all of ``parallel`` is cut after this; a lower bound of its time is known.
        seconds: length of a crowd's turn.
        clients: in the crowd; downloads at once in ``parallel``.
        groups: links the crowd is spread over when the bad side is the clients'.
        known: a small file was fetched before the measured one, so that the mirror is not unknown.
    """

    mode: Mode
    scenario: str
    direction: Direction
    congestion: Congestion
    contestants: tuple[str, ...]
    rounds: int
    sizes_mib: tuple[int, ...]
    limit_s: float
    seconds: float
    clients: int
    groups: int
    files: int
    zipf: float
    known: bool
    seed: int = 1

    @property
    def network(self) -> Scenario:
        return SCENARIOS[self.scenario]

    @property
    def together(self) -> bool:
        return self.mode == "single" and self.network.together


@dataclass(frozen=True)
class Turn:
    """A contestant who is ready: where its clients are and what they ask. ``server`` is None for direct."""

    name: str
    server: Server | None
    namespace: str
    host: str
    port: int
    spoke: Spoke

    def url(self, path: str) -> str:
        return f"http://{self.host}:{self.port}{path}"


@dataclass(frozen=True)
class SocketMemory:
    """How short the whole machine is of memory for TCP (tcp_mem knows no namespaces).

    Under pressure no socket's buffers grow: every transfer crawls at the same rate, whatever its link.
    Thousands of connections of somebody else disturb a turn so, without using its processors.
    """

    pages: int
    limit: int
    times: int  # it began (in this namespace)
    lasted_ms: int  # altogether, counted when it ends

    @classmethod
    def now(cls) -> Self:
        words = next(line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:"))
        names, values = (
            line.split() for line in Path("/proc/net/netstat").read_text().splitlines() if line.startswith("TcpExt:")
        )
        counted = dict(zip(names, values, strict=True))
        return cls(
            pages=int(words.split()[-1]),
            limit=int(Path("/proc/sys/net/ipv4/tcp_mem").read_text().split()[1]),
            times=int(counted.get("TCPMemoryPressures", 0)),
            lasted_ms=int(counted.get("TCPMemoryPressuresChrono", 0)),
        )

    def short_since(self, before: SocketMemory) -> bool:
        moved = (self.times, self.lasted_ms) != (before.times, before.lasted_ms)
        return moved or max(self.pages / self.limit, before.pages / before.limit) >= 1


class Lab:
    """The star, the origins and the files of a plan. Use as a context manager."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        spokes = len(plan.contestants)
        if plan.direction == "client" and plan.mode == "crowd":
            spokes = max(spokes, plan.groups)
        self.star = Star(
            [plan.network.shape] * spokes, congestion=plan.congestion, core=OTHER_CORE, seed=plan.seed * 1000
        )
        self._stack = contextlib.ExitStack()
        self._folders = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fplab-")))
            self.files = self._root / "files"
            self.files.mkdir()
            self._make_files()
            stack.enter_context(self.star)
            bad_origin = self.plan.direction == "origin"
            for namespace in [spoke.namespace for spoke in self.star.spokes] if bad_origin else [self.star.hub]:
                stack.enter_context(network_peers.origin(self.star, namespace, self.files, OTHER_CORE, self._folder()))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def turn(self, name: str) -> Iterator[Turn]:
        """A fresh contestant on its own link, ready to be asked."""
        number = self.plan.contestants.index(name)
        star, spoke = self.star, self.star.spokes[number]
        bad_origin = self.plan.direction == "origin"
        namespace = star.hub if bad_origin else spoke.namespace
        source = spoke.address if bad_origin else "127.0.0.1"
        if name == DIRECT:
            yield Turn(name, None, namespace, source if bad_origin else spoke.hub_address, ORIGIN_PORT, spoke)
            return
        port = PROXY_PORT + number
        maker = MAKERS[name]
        folder = self._folder()
        try:
            with maker(name, f"{source}:{ORIGIN_PORT}", star, port, PROXY_CORE, folder) as server:
                yield Turn(name, server, namespace, "127.0.0.1" if bad_origin else spoke.hub_address, port, spoke)
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # nginx may still be writing into it

    def single(self, turn: Turn, round_: int, size: int) -> Row:
        """One client, one file of ``size`` MiB: cold, or already cached when the bad side is the client's."""
        path = f"/{round_}-{turn.name}/{size}MiB"
        if self.plan.known:
            self._curl(turn, f"/{round_}/{WARM}", Path(os.devnull))
        if self.plan.direction == "client" and turn.server is not None:
            near = Turn(turn.name, turn.server, self.star.hub, "127.0.0.1", turn.port, turn.spoke)
            self._curl(near, path, Path(os.devnull))
        into = self._folder() / "got"
        with self._watched(turn.server, [turn.spoke]) as spent:
            row = self._curl(turn, path, into)
        whole = size * MIB
        if row["complete"] and not (row["bytes"] == whole and filecmp.cmp(into, self.files / f"{size}MiB", False)):
            row |= {"complete": False, "error": "WRONG BYTES"}
        into.unlink(missing_ok=True)
        return {"round": round_, "contestant": turn.name, "size_mib": size, **row, **spent}

    def crowd(self, turn: Turn, round_: int) -> Row:
        """Clients that loop over the small files, cold at the start."""
        plan = self.plan
        targets = [(f"/{round_}-{turn.name}/{path.name}", path.stat().st_size) for path in self._small()]
        random.Random(plan.seed).shuffle(targets)  # rank and size have nothing to do with each other
        orders = {"mode": "loop", "targets": targets, "zipf": plan.zipf, "seconds": plan.seconds, "stall": STALL_S}
        row = {"round": round_, "contestant": turn.name, **self._clients(turn, orders, plan.clients)}
        return row | self._counted(turn)

    def _counted(self, turn: Turn) -> Row:
        """What FileProxy says it did, for who wonders why."""
        if not turn.name.startswith("fileproxy"):
            return {}
        near = self.star.hub if self.plan.direction == "origin" else turn.spoke.namespace
        command = ["curl", "-s", "--max-time", "10", f"http://127.0.0.1:{turn.port}/stats"]
        done = subprocess.run(self.star.command(near, command), capture_output=True, text=True, check=False)
        counters = json.loads(done.stdout)["counters"] if done.returncode == 0 else {}
        named = ("cache.", "downloads.", "flight.", "stream.", "upstream.", "retries", "endings.")
        return {"counters": {name: count for name, count in counters.items() if count and name.startswith(named)}}

    def parallel(self, turn: Turn, round_: int) -> Row:
        """Many big files at once, each another one to the cache."""
        plan = self.plan
        size = plan.sizes_mib[0]
        if plan.known:
            self._curl(turn, f"/{round_}/{WARM}", Path(os.devnull))
        targets = [(f"/{round_}-{turn.name}-{number}/{size}MiB", size * MIB) for number in range(plan.clients)]
        orders = {"mode": "once", "targets": targets, "seconds": plan.limit_s, "stall": STALL_S}
        return {
            "round": round_,
            "contestant": turn.name,
            "size_mib": size,
            **self._clients(turn, orders, plan.clients, groups=1),
        }

    def _clients(self, turn: Turn, orders: Row, clients: int, groups: int | None = None) -> Row:
        """Run the client processes, one for each link the clients are behind, and add up what they saw."""
        spokes = [turn.spoke]
        if self.plan.direction == "client" and groups is None:
            spokes = self.star.spokes[: self.plan.groups]
        running = []
        with self._watched(turn.server, spokes) as spent:
            for number, spoke in enumerate(spokes):
                behind = self.plan.direction == "client"
                share = clients // len(spokes) + (number < clients % len(spokes))
                own = {
                    **orders,
                    "host": spoke.hub_address if behind else turn.host,
                    "port": turn.port,
                    "clients": share,
                    "seed": self.plan.seed * 1000 + number,
                }
                command = [sys.executable, "-m", "benchmarks.network_client"]
                namespace = spoke.namespace if behind else turn.namespace
                process = subprocess.Popen(
                    pinned(OTHER_CORE, self.star.command(namespace, command)),
                    cwd=network_peers.ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
                assert process.stdin is not None
                process.stdin.write(json.dumps(own).encode())
                process.stdin.close()
                process.stdin = None
                running.append(process)
            with ThreadPoolExecutor(len(running)) as pool:  # each has more to say than a pipe holds
                told = pool.map(lambda process: process.communicate(timeout=orders["seconds"] + 60)[0], running)
                said = [json.loads(one) for one in told]
        errors: dict[str, int] = {}
        for one in said:
            for why, count in one["errors"].items():
                errors[why] = errors.get(why, 0) + count
        return {
            "seconds": max(one["seconds"] for one in said),
            "times_s": sorted(time for one in said for time in one["times_s"]),
            "bytes": sum(one["bytes"] for one in said),
            "hits": sum(one["hits"] for one in said),
            "errors": errors,
            **spent,
        }

    def _curl(self, turn: Turn, path: str, into: Path) -> Row:
        """One download, as curl saw it."""
        say = "%{http_code} %{size_download} %{time_total} %{time_starttransfer} %header{x-cache}"
        command = ["curl", "-sS", "--max-time", str(self.plan.limit_s), "-o", str(into), "-w", say, turn.url(path)]
        done = subprocess.run(
            pinned(OTHER_CORE, self.star.command(turn.namespace, command)),
            capture_output=True,
            text=True,
            timeout=self.plan.limit_s + 60,
            check=False,
        )
        status, size, seconds, first, *cache = done.stdout.split()
        complete = done.returncode == 0 and status == "200"
        return {
            "seconds": float(seconds),
            "first_byte_s": float(first),
            "bytes": int(size),
            "complete": complete,
            "error": "" if complete else done.stderr.strip() or f"status {status}",
            "cache": cache[0] if cache else "",
        }

    @contextlib.contextmanager
    def _watched(self, server: Server | None, spokes: Sequence[Spoke]) -> Iterator[Row]:
        """Fills the row with what the links did meanwhile, and what the server's processes used (not for direct)."""
        row: Row = {}
        links, pressed = self._tally(spokes), SocketMemory.now()
        if server is not None:
            server.forget_peak()
            before = server.cpu_seconds()
        yield row
        if server is not None:
            row |= {"cpu_s": server.cpu_seconds() - before, "peak_rss": server.peak_rss()}
        row["pressed"] = SocketMemory.now().short_since(pressed)
        after = self._tally(spokes)
        row |= {key: after[key] - links[key] for key in ("packets", "lost", "dropped")}
        carried = max(1, row["packets"] - row["lost"] - row["dropped"])
        row["late_ms"] = (after["late_sum_s"] - links["late_sum_s"]) / carried * 1000

    def _tally(self, spokes: Sequence[Spoke]) -> Row:
        """Both directions of these links together."""
        tallies = self.star.tallies()
        ways = [asdict(way) for spoke in spokes for way in tallies[spoke.number]]
        return {key: sum(way[key] for way in ways) for key in ways[0]}

    def _folder(self) -> Path:
        self._folders += 1
        folder = self._root / str(self._folders)
        folder.mkdir()
        return folder

    def _small(self) -> list[Path]:
        return sorted(self.files.glob("s*"))

    def _make_files(self) -> None:
        """Bytes that do not compress; the same for the same seed."""
        rng = random.Random(self.plan.seed)
        block = rng.randbytes(LARGEST)
        (self.files / WARM).write_bytes(block[:SMALLEST])
        if self.plan.mode == "crowd":
            for number in range(self.plan.files):
                size = int(SMALLEST * (LARGEST / SMALLEST) ** rng.random())
                (self.files / f"s{number:04}").write_bytes(block[:size])
            return
        for size in self.plan.sizes_mib:
            with (self.files / f"{size}MiB").open("wb") as file:
                for _ in range(size):
                    file.write(rng.randbytes(MIB))


def rounds(lab: Lab, number: int) -> Iterator[Row]:
    """All turns of one round; each round begins with another contestant."""
    plan = lab.plan
    shift = number % len(plan.contestants)
    order = plan.contestants[shift:] + plan.contestants[:shift]
    if plan.mode == "single":
        for size in plan.sizes_mib:
            yield from _singles(lab, order, number, size)
        return
    for name in order:
        with lab.turn(name) as turn:
            yield lab.crowd(turn, number) if plan.mode == "crowd" else lab.parallel(turn, number)


def _singles(lab: Lab, order: tuple[str, ...], number: int, size: int) -> Iterator[Row]:
    if not lab.plan.together:
        for name in order:
            with lab.turn(name) as turn:
                yield lab.single(turn, number, size)
        return
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(len(order)) as pool:
        turns = [stack.enter_context(lab.turn(name)) for name in order]
        yield from pool.map(lambda turn: lab.single(turn, number, size), turns)
