"""What does the shared store cost hits in memory and on disk, when it is there and when it leaves during load?

Services without a shared store and with one take turns in interleaved rounds, each with the same files, read by one
keep-alive client. In the middle of a turn the store gets its signal. Beside the measured hits a client asks
for files that nobody has yet, so that look-ups and writes of the store are under way when it goes.
"""

from __future__ import annotations

import signal
import socket
import statistics
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.cache_client import Get, crowd, one
from benchmarks.cache_lab import Figures, goal, lab, settled, until
from benchmarks.cache_origin import MIB, content
from benchmarks.cache_store import StoreProcess
from tests.service import Service

FILES = 16
SIZE = 48 * 1024  # one block, small enough for the shared store
TROUBLES = {
    "there": None,
    "stopped (SIGTERM)": signal.SIGTERM,
    "hung (SIGSTOP)": signal.SIGSTOP,
    "killed": signal.SIGKILL,
}


class Turn:
    """One client asks for stored files for a while; ``times`` of each answer, ``errors`` of any that was not right."""

    def __init__(self, service: Service, paths: list[str], seconds: float) -> None:
        self._port, self._paths = service.port, paths
        self._until = time.monotonic() + seconds
        self.times: list[float] = []
        self.errors: list[str] = []
        self._threads = [threading.Thread(target=self._ask), threading.Thread(target=self._ask_new)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        buffer = memoryview(bytearray(2 * SIZE))
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=10) as raw:
                while time.monotonic() < self._until:
                    path = self._paths[len(self.times) % len(self._paths)]
                    started = time.monotonic()
                    raw.sendall(f"GET {path} HTTP/1.1\r\nHost: files.test\r\n\r\n".encode())
                    got = head = 0
                    while not head or got < head + SIZE:
                        more = raw.recv_into(buffer[got:])
                        if not more:
                            raise ConnectionError("the connection ended")
                        got += more
                        if not head and (at := bytes(buffer[:got]).find(b"\r\n\r\n")) >= 0:
                            head = at + 4
                    self.times.append(time.monotonic() - started)
                    right = bytes(buffer[9:12]) == b"200" and buffer[head:got] == content(path.split("/")[2], 0, SIZE)
                    if not right:
                        self.errors.append(f"not as it should be: {bytes(buffer[:200])!r}")
        except OSError as error:
            self.errors.append(str(error))

    def _ask_new(self) -> None:
        while time.monotonic() < self._until:
            get = one(self._port, Get(f"/{SIZE}/new{time.monotonic_ns()}"))
            if not get.right:
                self.errors.append(get.error)
            time.sleep(0.02)

    def wait(self) -> None:
        for thread in self._threads:
            thread.join()


def run(*, rounds: int = 5, seconds: float = 3.0, troubles: tuple[str, ...] = tuple(TROUBLES)) -> Figures:
    paths = [f"/{SIZE}/h{number}" for number in range(FILES)]
    p99: dict[tuple[str, str], list[float]] = {}
    errors: list[str] = []
    back = 0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fpr")))
        store = stack.enter_context(StoreProcess(folder))
        services: dict[tuple[str, bool], Service] = {}
        for tier, memory in (("memory", 64 * MIB), ("disk", 0)):
            for url in ("off", store.url):
                settings = {"server": {"workers": 1}, "cache": {"memory": memory}, "redis": {"url": url}}
                service, _ = stack.enter_context(lab(settings))
                services[tier, url != "off"] = service
                gets = [Get(path) for path in paths]
                crowd(service.port, gets, 30)
                settled(service)
        for number_of_round in range(rounds):
            for tier in ("memory", "disk"):
                for trouble in rotated(("without", *troubles), number_of_round):
                    service = services[tier, trouble != "without"]
                    if trouble != "without":
                        until(lambda one=service: _state(one) == "ok", "the store is back", 30)  # type: ignore[misc]
                        back += 1
                    turn = Turn(service, paths, seconds)
                    number = TROUBLES.get(trouble)
                    if number is not None:
                        time.sleep(seconds / 4)
                        store.send(number)
                    turn.wait()
                    if number is signal.SIGSTOP:
                        store.send(signal.SIGCONT)
                    elif number is not None:
                        store.start()
                    turn.times = sorted(turn.times) or [float("inf")]
                    p99.setdefault((tier, trouble), []).append(turn.times[int(len(turn.times) * 0.99)] * 1000)
                    errors += turn.errors
    medians = {name: statistics.median(values) for name, values in p99.items()}
    goals = {f"no client error in {rounds} rounds": goal("; ".join(errors[:3]) or "none", met=not errors)}
    for tier in ("memory", "disk"):
        base = medians[tier, "without"]
        for trouble in troubles:
            now = medians[tier, trouble]
            goals[f"{tier} hits, store {trouble}: p99 at most 1.5 times or 1 ms more than without"] = goal(
                f"{now:.2f} ms, without {base:.2f} ms", met=now <= max(1.5 * base, base + 1)
            )
    return {
        "goals": goals,
        "times it came back by itself": back,
        "p99 of each round, ms": "; ".join(
            f"{tier}, {trouble}: {', '.join(f'{one:.1f}' for one in values)}" for (tier, trouble), values in p99.items()
        ),
    }


def rotated(names: tuple[str, ...], by: int) -> tuple[str, ...]:
    """Each round begins with another one, so that a noisy moment of the machine hits all alike."""
    by %= len(names)
    return names[by:] + names[:by]


def _state(service: Service) -> str:
    return str(service.json("/health")["parts"]["shared_store"]["state"])
