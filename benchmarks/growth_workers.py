"""What a second worker costs: processor time of a hit with one worker and with two, in interleaved rounds.

``one``: one worker on processor 0. ``shared``: two workers that share it. ``each``: two workers, a processor each (the
second beside the load). wrk loads them with a cached file of 1 KiB from processor 1 on kept connections. ::

    python -m benchmarks.growth_workers --rounds 5 --seconds 3
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.cache_lab import know_each_other
from benchmarks.cache_origin import OriginProcess
from benchmarks.hits import kept
from benchmarks.peers import ROOT, Peer
from tests.service import Service, merged

CLIENT_CORE = 1
CASES: dict[str, tuple[int, str]] = {"one": (1, "0"), "shared": (2, "0"), "each": (2, "0,1")}
MOST = 1.1  # times one worker's


class Running(Peer):
    """A service as ``hits.kept`` wants it."""

    def __init__(self, name: str, service: Service) -> None:
        super().__init__(name, [], service.port, 0, ROOT)
        self._service = service

    @property
    def pid(self) -> int:
        return self._service.process.pid


def service(name: str, origin: OriginProcess, folder: Path, over: Mapping[str, Any], env: Mapping[str, str]) -> Service:
    workers, cores = CASES[name]
    settings = {
        "upstreams": {"files": origin.url},
        "server": {"workers": workers},
        "routes": [{"path": "/", "upstream": "files", "cache": "1h"}],
    }
    return Service(merged(settings, over), folder / name, prefix=["taskset", "--cpu-list", cores], env=env)


def measure(
    rounds: int,
    seconds: int,
    connections: int,
    over: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """µs of processor time a hit for each case: of every round, and the medians of the ratios to ``one``."""
    folder = Path(tempfile.mkdtemp(prefix="fpw"))
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in CASES}
    with OriginProcess() as origin, contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        peers = []
        for name in CASES:
            one = service(name, origin, folder, over or {}, env or {})
            one.folder.mkdir()
            stack.callback(one.stop)
            one.start()
            know_each_other(one)
            peers.append(Running(name, one))
            kept(peers[-1], "1024/small", 1, connections)  # until every worker knows it
        for turn in range(rounds):
            for peer in peers[turn % len(peers) :] + peers[: turn % len(peers)]:
                found[peer.name].append(kept(peer, "1024/small", seconds, connections))
    pairs = {
        name: statistics.median(a[1] / b[1] for a, b in zip(found[name], found["one"], strict=True)) for name in CASES
    }
    return {
        "connections": connections,
        "us_a_hit": {name: [round(one[1], 2) for one in rows] for name, rows in found.items()},
        "hits_a_second": {name: round(statistics.median(one[0] for one in rows)) for name, rows in found.items()},
        "times_one_worker": {name: round(ratio, 3) for name, ratio in pairs.items()},
        "met": all(ratio <= MOST for ratio in pairs.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="for the services")
    given = parser.parse_args()
    env = dict(one.split("=", 1) for one in given.env)
    print(json.dumps(measure(given.rounds, given.seconds, given.connections, env=env), indent=1))


if __name__ == "__main__":
    main()
