"""kill -9 at random moments of filling and evicting: is a wrong byte ever served, and is anything fetched twice?

The cache is smaller than the files that are asked for, so it is filled and evicted all the time. Three kinds of death
take turns: one worker, the master (its workers end when they notice), all at once. After each the folder is read as it
lies there; then some of the files that have committed blocks are asked for whole, and the origin must not send more
than what was missing.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from dataclasses import dataclass, field

import psutil

from benchmarks.cache_client import Get, crowd, one
from benchmarks.cache_folder import committed, taken
from benchmarks.cache_lab import Figures, counters, goal, lab, settled, until
from benchmarks.cache_origin import MIB, OriginProcess
from fileproxy.server.control import RunDir
from tests.service import Service

BLOCK = 256 * 1024
DISK = 24 * MIB
KINDS = ("worker", "master", "all")


class Load:
    """Clients that download random files, whole or parts, until they are told to stop; their errors are kept."""

    def __init__(self, service: Service, paths: list[str], seed: int) -> None:
        self._service, self._paths, self._rng = service, paths, random.Random(seed)
        self._stop = threading.Event()
        self.gets: list[Get] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            batch = [self._get() for _ in range(6)]
            self.gets += batch
            crowd(self._service.port, batch, 5, stop=self._stop)

    def _get(self) -> Get:
        path = self._paths[min(int(self._rng.expovariate(0.08)), len(self._paths) - 1)]
        get = Get(path)
        if get.size > 1 and self._rng.random() < 0.4:
            first = self._rng.randrange(get.size - 1)
            get.span = (first, self._rng.randrange(1, get.size - first))
        if self._rng.random() < 0.2:
            get.stop_after = get.length // 2
        return get

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def kill(service: Service, kind: str) -> None:
    """End processes of the service by their pids; afterwards it runs again."""
    if kind == "worker":
        workers = RunDir(service.folder / "run").read_status()
        assert workers is not None
        victim = random.choice(workers.workers)
        os.kill(victim, signal.SIGKILL)

        def replaced() -> bool:
            now = RunDir(service.folder / "run").read_status()
            return now is not None and victim not in now.workers and len(now.workers) == 2

        until(replaced, "another worker", 30)
        service.wait_ready()
        return
    family = service.family()
    service.process.kill()
    if kind == "all":
        for process in family:
            process.kill()
    service.process.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive, "workers outlive their master by more than 20 s"


@dataclass
class Again:
    """What asking again found: files asked for, bytes that were fetched although committed, wrong answers."""

    files: int = 0
    twice: int = 0
    evicted: int = 0  # files that were evicted between the look at the folder and the request: they prove nothing
    wrong: list[str] = field(default_factory=list)
    cases: list[str] = field(default_factory=list)


def ask_again(service: Service, origin: OriginProcess, rng: random.Random, most: int, result: Again) -> None:
    """Ask for files that are stored in part or whole, and look what the origin sends."""
    folder = service.folder / "cache"
    held = [path for path, (_, blocks) in committed(folder).items() if blocks]
    for path in rng.sample(sorted(held), min(most, len(held))):
        evicted = counters(service)["cache.evicted"]
        now = committed(folder).get(path)
        if now is None:
            continue  # evicted meanwhile
        meta, blocks = now
        missing = meta.size - sum(meta.length_of(index) for index in blocks)
        before = origin.sent(path)
        got = one(service.port, Get(path))
        result.files += 1
        if not got.right:
            result.wrong.append(f"{path}: {got.error}")
        more = origin.sent(path) - before - missing
        if more > 0 and counters(service)["cache.evicted"] > evicted:
            result.evicted += 1
        elif more > 0:
            after = committed(folder).get(path)
            same = after is not None and after[0].rid == meta.rid
            result.twice += more
            result.cases.append(
                f"{path}: {len(blocks)} of {meta.blocks} blocks, asked {origin.asked(path)[-3:]}, "
                f"{'the same' if same else 'another'} representation now, {got.head!r}"
            )


def run(*, moments: int, minutes: float = 20.0, seed: int = 3, disk: int = DISK) -> Figures:
    rng = random.Random(seed)
    paths = [f"/{rng.choice((900, 70_000, BLOCK, BLOCK + 1, 1_500_000, 5_000_000))}/f{n}" for n in range(60)]
    wrong: list[str] = []
    again = Again(wrong=wrong)
    downloads = done = over = evicted = 0
    kinds = dict.fromkeys(KINDS, 0)
    began = time.monotonic()
    settings = {
        "server": {"workers": 2},
        "cache": {"block": BLOCK, "memory": 4 * MIB, "disk": {"size": disk, "scrub": 0}},
        "logs": {"access": "off"},
    }
    with lab(settings) as (service, origin):
        for moment in range(moments):
            if time.monotonic() - began > minutes * 60:
                break
            kind = KINDS[moment % 3]
            load = Load(service, paths, seed * 1000 + moment)
            time.sleep(rng.uniform(0.02, 0.8))
            if kind != "worker":
                evicted += _evicted(service)
            kill(service, kind)
            load.stop()
            if kind != "worker":
                service.start()
            settled(service)
            wrong += [get.error for get in load.gets if "wrong" in get.error or "length" in get.error]
            downloads += sum(get.right for get in load.gets)
            ask_again(service, origin, rng, 3, again)
            done += 1
            kinds[kind] += 1
            over = max(over, taken(service.folder / "cache"))
        last = [Get(path) for path in paths]
        crowd(service.port, last, 60)
        wrong += [f"{get.target}: {get.error}" for get in last if not get.right]
        evicted += _evicted(service)
        damaged = counters(service)["cache.damaged"]
    return {
        "goals": {
            f"no wrong byte after {done} kills": goal(f"{len(wrong)} wrong", met=not wrong),
            "what was committed is not fetched again": goal(
                f"{again.twice} bytes of {again.files} files", met=again.twice == 0
            ),
        },
        "wrong": wrong[:5],
        "fetched again": again.cases[:5],
        "evicted before they could be asked for": again.evicted,
        "kills": ", ".join(f"{count} {kind}" for kind, count in kinds.items()),
        "right downloads under way": downloads,
        "files evicted": evicted,
        "blocks found damaged": damaged,
        "most bytes of the folder, to cache.disk.size": round(over / disk, 2),
        "seconds": round(time.monotonic() - began),
    }


def _evicted(service: Service) -> int:
    try:
        return counters(service)["cache.evicted"]
    except (OSError, AssertionError):
        return 0  # it is just dying
