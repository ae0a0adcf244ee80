"""Small asks stay small, seeks ask only for what is missing, and a slow client holds nobody back.

What is asked is seen at the origin; its file of 10 GiB is a pattern, no byte of it lies anywhere.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable

import psutil

from benchmarks.cache_client import Get, crowd, one
from benchmarks.cache_lab import Figures, goal, lab, settled
from benchmarks.cache_origin import MIB
from fileproxy.server.control import RunDir
from tests.service import Service

GIB = 1024 * MIB
WINDOW = 8 * MIB


def small(*, size: int = 10 * GIB) -> Figures:
    """1 KiB of a huge file, first inside a block, then over the border of two, at first contact and later."""
    goals = {}
    with lab({"server": {"workers": 2}}) as (service, origin):
        for name, seen, offset in (
            ("at first contact", False, 5 * MIB + 100),
            ("over a border at first contact", False, 7 * MIB - 512),
            ("later", True, size - 300 * MIB + 7),
            ("over a border later", True, size // 2 - 512),
        ):
            path = f"/{size}/{'known' if seen else name.replace(' ', '-')}"
            if seen:
                one(service.port, Get(path, (0, 10)))
            settled(service)
            before = origin.sent(path)
            get = one(service.port, Get(path, (offset, 1024)))
            settled(service)
            sent = origin.sent(path) - before
            goals[f"1 KiB of {size // GIB} GiB {name}: at most two blocks of upstream traffic"] = goal(
                f"{sent / MIB:.2f} MiB{'' if get.right else ', ' + get.error}", met=get.right and sent <= 2 * MIB
            )
    return {"goals": goals}


def seek(*, size: int = 64 * MIB) -> Figures:
    """A player that has the first half jumps: within it nothing is asked, beyond it the first byte asked is its own."""
    path, half = f"/{size}/video", size // 2
    with lab({"server": {"workers": 2}}) as (service, origin):
        one(service.port, Get(path, (0, half)))
        settled(service)
        before = origin.sent(path), len(origin.asked(path))
        inside = one(service.port, Get(path, (half // 2 + 77, 2 * MIB)))
        settled(service)
        nothing = origin.sent(path) - before[0]
        jump = size * 3 // 4 + 12345
        beyond = one(service.port, Get(path, (jump, 3 * MIB)))
        settled(service)
        asked = origin.asked(path)[before[1] :]
        blocks = (jump + 3 * MIB - 1) // MIB - jump // MIB + 1
        sent = origin.sent(path) - before[0]
        rest = one(service.port, Get(path))
        settled(service)
        whole = origin.sent(path)
    right = inside.right and beyond.right and rest.right
    return {
        "goals": {
            "a seek into what is cached asks the origin for nothing": goal(f"{nothing} bytes", met=nothing == 0),
            "a seek beyond it asks at once for its own blocks, and for nothing else": goal(
                f"asked {', '.join(asked)}; sent {sent / MIB:.2f} of {blocks} MiB",
                met=[one.split("-")[0] for one in asked] == [str(jump // MIB * MIB)] and sent <= blocks * MIB,
            ),
            "then the whole file: only what is missing is fetched": goal(
                f"{whole / size:.4f} of the file, bytes {'right' if right else 'wrong'}", met=whole == size and right
            ),
        }
    }


def slow(*, size: int = 64 * MIB, rounds: int = 5, pace: float = 256 * 1024, rate: float = 40 * MIB) -> Figures:
    """One client takes ``pace`` bytes a second, another what it gets, of a cold file that the origin sends at ``rate``.

    Alone and together take turns. ``rate`` is well below what loopback carries, so that the time is the origin's and
    the ratio means something. Without a memory tier, what the workers grow by is windows and buffers.
    """
    alone, together, growth = [], [], []
    settings = {"server": {"workers": 1}, "cache": {"memory": 0, "window": WINDOW}, "logs": {"access": "off"}}
    with lab(settings) as (service, origin):
        for number in range(2):  # what Python and the threads take once
            one(service.port, Get(f"/{16 * MIB}/warm{number}"))
        for number in range(rounds):
            alone.append(one(service.port, Get(f"/{size}/alone{number}?rate={rate}"), 60).done_s or 1e9)
            path = f"/{size}/both{number}?rate={rate}"
            fast = Get(path)
            done = threading.Event()
            slows = [Get(path, pace=pace, receive_buffer=64 * 1024)]
            behind = threading.Thread(target=crowd, args=(service.port, slows, 120), kwargs={"stop": done})
            with watched(service) as grown:
                behind.start()
                while not slows[0].got:
                    done.wait(0.01)
                together.append(one(service.port, fast, 60).done_s or 1e9)
                growth.append(grown())
            wrong = fast.error or ("" if slows[0].error.startswith("late") or not slows[0].error else slows[0].error)
            done.set()
            behind.join()
            assert not wrong, wrong
            assert 0 < slows[0].got < size, "the slow one was not slow"
        sent = max(origin.sent(f"/{size}/both{number}") for number in range(rounds))
    ratio = statistics.median(together) / statistics.median(alone)
    most = max(growth)
    return {
        "goals": {
            "slow and fast client of one cold file: the fast one is not held back": goal(
                f"{ratio:.2f} times its time alone", met=ratio <= 1.15
            ),
            "memory stays within the window (8 MiB, and 16 of buffers)": goal(
                f"{most / MIB:.1f} MiB more", met=most <= WINDOW + 16 * MIB
            ),
            "the origin sends the file once": goal(f"{sent / size:.3f}", met=sent <= 1.02 * size),
        },
        "seconds alone, together (median)": f"{statistics.median(alone):.2f}, {statistics.median(together):.2f}",
        "growth of each round, MiB": ", ".join(f"{one / MIB:.1f}" for one in growth),
    }


class watched:  # noqa: N801 reads as a word
    """How much the workers' memory grew at most since the block began."""

    def __init__(self, service: Service) -> None:
        status = RunDir(service.folder / "run").read_status()
        assert status is not None
        self._workers = [psutil.Process(pid) for pid in status.workers]
        self._before = self._most = self._used()

    def _used(self) -> int:
        return sum(worker.memory_info().rss - worker.memory_info().shared for worker in self._workers)

    def _watch(self) -> None:
        while not self._end.wait(0.02):
            self._most = max(self._most, self._used())

    def __enter__(self) -> Callable[[], int]:
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return lambda: self._most - self._before

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
