"""What ``growth.py`` measures: for each kind of growth the services of all its sizes, and the loads on them."""

from __future__ import annotations

import contextlib
import http.client
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from benchmarks.cache_lab import know_each_other
from benchmarks.cache_origin import OriginProcess
from benchmarks.cpu import cpu_seconds, pinned
from benchmarks.memory import pss
from fileproxy.cache import disk_records
from fileproxy.cache.bans import Bans
from fileproxy.cache.disk_files import SUBFOLDERS, Files
from fileproxy.cache.freshness import CachePolicy
from fileproxy.cache.key import entry_url, primary_key
from fileproxy.cache.memory import MemoryTier
from fileproxy.clock import SystemClock
from fileproxy.keyfile import store_key
from fileproxy.model import Meta, Target
from fileproxy.process import raise_descriptor_limit
from tests.house import Watched
from tests.service import Service, merged

SERVER_CORE, CLIENT_CORE = 0, 1
KIB, MIB = 1024, 1024**2
SLOW_WAY = "Cache-Control: max-age=100000"  # a field that the fast front does not know by heart
CACHED = {"routes": [{"path": "/", "upstream": "files", "cache": "1h"}]}
Figures = dict[str, dict[str, float]]  # figure → size → value


class Lab:
    """Services beside one origin; everything is ended and removed at the end."""

    def __init__(self, rounds: int, seconds: int) -> None:
        self.rounds, self.seconds = rounds, seconds
        self.folder = Path(tempfile.mkdtemp(prefix="fpg"))
        self.stack = contextlib.ExitStack()
        self.stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.origin = self.stack.enter_context(OriginProcess())

    def __enter__(self) -> Self:
        raise_descriptor_limit()
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def service(
        self, name: str, settings: Mapping[str, Any], before: Callable[[Service], None] | None = None
    ) -> tuple[Service, float]:
        """A service that has started, and the seconds until it was ready. ``before``: done to its folder first."""
        base = {"upstreams": {"files": self.origin.url}, "cache": {"disk": {"scrub": 0}}}
        one = Service(merged(base, settings), self.folder / name, prefix=pinned(SERVER_CORE, []))
        one.folder.mkdir(parents=True)
        if before is not None:
            before(one)
        self.stack.callback(one.stop)
        began = time.monotonic()
        one.start()
        took = time.monotonic() - began
        know_each_other(one)
        return one, took

    def least(self, runs: Mapping[str, Callable[[], float]]) -> dict[str, float]:
        """For each size the least of what its run gave, the sizes in turns."""
        found: dict[str, list[float]] = {size: [] for size in runs}
        for turn in range(self.rounds):
            order = list(runs)[turn % len(runs) :] + list(runs)[: turn % len(runs)]
            for size in order:
                found[size].append(runs[size]())
        return {size: round(min(values), 3) for size, values in found.items()}


def quiet(service: Service) -> None:
    """Wait until it does nothing (it may be counting what lies on its disk)."""
    before, end = -1.0, time.monotonic() + 15
    while (now := cpu_seconds(service.process.pid)) > before + 0.04 and time.monotonic() < end:
        before = now
        time.sleep(0.5)


def wrk(
    service: Service,
    path: str,
    seconds: int,
    *,
    connections: int = 32,
    headers: Sequence[str] = (),
) -> float:
    """µs of the service's processor time a request."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s"]
    command += [part for header in headers for part in ("-H", header)]
    before = cpu_seconds(service.process.pid)
    done = subprocess.run(
        pinned(CLIENT_CORE, [*command, service.url + path]), capture_output=True, text=True, check=True, timeout=120
    )
    cpu = cpu_seconds(service.process.pid) - before
    found = re.search(r"(\d+) requests in", done.stdout)
    if found is None or not int(found[1]) or "Non-2xx" in done.stdout:
        raise RuntimeError(f"{path}: {done.stdout}\n{service.logs()}")
    return cpu / int(found[1]) * 1e6


def first_hits(service: Service, files: int) -> float:
    """µs of the service's processor time a request for files it has not touched, drawn by chance, one by one."""
    drawn = random.sample(range(files - 1), min(files - 1, 1000))
    count = len(drawn)
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
    before = cpu_seconds(service.process.pid)
    with contextlib.closing(connection):
        for _ in range(count):
            connection.request("GET", f"/{KIB}/f{random.randrange(files)}")
            answer = connection.getresponse()
            if len(answer.read()) != KIB or answer.headers["X-Cache"] != "HIT":
                raise RuntimeError(f"{answer.status}: {answer.headers}")
    return (cpu_seconds(service.process.pid) - before) / count * 1e6


def hits(lab: Lab, services: Mapping[str, Service], path: str, **options: Any) -> dict[str, float]:
    """µs a hit of one file, which each service has in memory before."""
    for service in services.values():
        for _ in range(3):
            service.get(path)
        quiet(service)
    return lab.least({size: partial(wrk, one, path, lab.seconds, **options) for size, one in services.items()})


def mib(services: Mapping[str, Service]) -> dict[str, float]:
    return {size: round(pss(service) / MIB, 1) for size, service in services.items()}


# --- files ------------------------------------------------------------------------------------------------------------


def memory(sizes: Sequence[int]) -> Figures:
    """The memory tier by itself, in this process: look-ups in random order, and what it says it holds."""
    figures: Figures = {"ns a look-up of a whole file": {}, "bytes a file": {}}
    for count in sizes:
        tier = MemoryTier(8 * 1024**3, Watched())
        metas = [_meta(f"m{number}", number.to_bytes(16, "big"), 256) for number in range(count)]
        for number, meta in enumerate(metas):
            tier.save_now(meta)
            tier.write_now(meta, 0, number.to_bytes(8, "big") * 32)
        asked = [metas[number * 7919 % count] for number in range(20_000)]
        best = float("inf")
        for _ in range(5):
            began = time.perf_counter()
            for meta in asked:
                tier.find_now(meta.key)
                tier.read_now(meta, 0)
            best = min(best, time.perf_counter() - began)
        figures["ns a look-up of a whole file"][str(count)] = round(best / len(asked) * 1e9, 1)
        figures["bytes a file"][str(count)] = round(tier.statistics()["bytes"] / count)
    return figures


def _meta(name: str, key: bytes, size: int, ban: int = 0) -> Meta:
    now = time.time()
    return Meta(
        key=key, rid=os.urandom(16), url=f"files/{name}", status=200, reason="OK",
        headers=(("ETag", f'"{name}"'), ("Cache-Control", "max-age=86400"), ("Content-Length", str(size))),
        size=size, block=MIB, pinned=True, requested_at=now, received_at=now, age_s=0.0, ban=ban,
    )  # fmt: skip


def _put(folder: str, secret: bytes, ban: int, numbers: range) -> None:
    """Files of 1 KiB as the disk tier itself writes them."""
    files, data = Files(), os.urandom(KIB)
    for number in numbers:
        url = entry_url("files", "", Target(f"/{KIB}/f{number}"), CachePolicy())
        key = primary_key(url, "http", (), CachePolicy(), secret)
        disk_records.save_data(files, folder, _meta(url.removeprefix("files/"), key, KIB, ban), data)


def stocked(count: int) -> Callable[[Service], None]:
    """Puts ``count`` files into a service's disk cache before it starts."""

    def stock(service: Service) -> None:
        folder = Path(service.settings["cache"]["disk"]["path"])
        folder.mkdir(parents=True)
        for name in SUBFOLDERS:
            (folder / name).mkdir()
        secret, bans = store_key(None, folder), Bans(folder, SystemClock())
        ban = bans.seq
        bans.close()
        parts = [range(first, count, 4) for first in range(4)]
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            pool.starmap(_put, [(str(folder), secret, ban, part) for part in parts])

    return stock


def disk(lab: Lab, sizes: Sequence[int]) -> Figures:
    """A service over a disk cache of so many files: its start, hits of files it has not touched, hits of one file."""
    services, figures = {}, Figures()
    figures["seconds until ready"] = {}
    for count in sizes:
        service, took = lab.service(f"disk{count}", CACHED, stocked(count))
        status, body = service.get(f"/{KIB}/f{count - 1}")
        said = service.json("/stats")["counters"]
        if (status, len(body)) != (200, KIB) or said.get("cache.hit", 0) != 1:
            raise RuntimeError(f"a file put into the cache was not found there: {said}")
        services[str(count)] = service
        figures["seconds until ready"][str(count)] = round(took, 2)
    figures["MiB of memory"] = mib(services)
    for service in services.values():
        quiet(service)
    figures["µs of CPU the first hit of a file"] = {
        size: round(first_hits(service, int(size)), 3) for size, service in services.items()
    }
    figures["µs of CPU a hit of one file"] = hits(lab, services, f"/{KIB}/f1")
    return figures


def size(lab: Lab, sizes: Sequence[int]) -> Figures:
    """A range of 1 KiB in the middle of a file: what the first one fetches, and what the next ones cost."""
    service, _ = lab.service("size", CACHED)
    figures: Figures = {"KiB fetched for the first one": {}, "MiB of memory": {}}
    runs = {}
    for length in sizes:
        path, middle = f"/{length}/s", length // 2
        header = f"Range: bytes={middle}-{middle + KIB - 1}" if length > KIB else "Range: bytes=0-1023"
        status, body = service.get(path, dict([header.split(": ")]))
        if (status, len(body)) != (206, KIB):
            raise RuntimeError(f"{path}: {status}, {len(body)} bytes")
        figures["KiB fetched for the first one"][str(length)] = lab.origin.sent(path) / KIB
        figures["MiB of memory"][str(length)] = round(pss(service) / MIB, 1)
        runs[str(length)] = partial(wrk, service, path, lab.seconds, headers=[header])
    quiet(service)
    figures["µs of CPU a range in memory"] = lab.least(runs)
    return figures


# --- people and places ------------------------------------------------------------------------------------------------


def clients(lab: Lab, sizes: Sequence[int]) -> Figures:
    """So many kept connections that ask for one file."""
    limits = {"limits": {"connections": max(sizes) + 100, "loop_lag": "off"}}
    service, _ = lab.service("clients", {**CACHED, **limits})
    path = f"/{KIB}/c"
    for _ in range(3):
        service.get(path)

    def load(number: int, seconds: int, *headers: str) -> float:
        quiet(service)  # it may still be answering the last ones, who have left
        return wrk(service, path, seconds, connections=number, headers=headers)

    fast = {str(n): partial(load, n, lab.seconds + n // 4000) for n in sizes}
    # a round of all connections takes a second for each 2,000
    slow = {str(n): partial(load, n, lab.seconds + n // 800, SLOW_WAY) for n in sizes}
    return {"µs of CPU a hit": lab.least(fast), "µs of CPU a hit, the long way": lab.least(slow)}


@contextlib.contextmanager
def origins(count: int) -> Iterator[list[str]]:
    """URLs of so many origins."""
    command = [sys.executable, "-m", "benchmarks.cache_origin"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) for _ in range(count)]
    try:
        yield [f"http://127.0.0.1:{int(one.stdout.readline())}" for one in running if one.stdout is not None]
    finally:
        for one in running:
            one.kill()
        for one in running:
            one.wait()
            if one.stdout is not None:
                one.stdout.close()


def mirrors(lab: Lab, sizes: Sequence[int]) -> Figures:
    """An upstream of so many mirrors: relays that nobody keeps, and hits."""
    urls = lab.stack.enter_context(origins(max(sizes)))
    services, figures = {}, Figures()
    figures["seconds until ready"] = {}
    routes = [{"path": "/", "upstream": "files", "cache": "1h"}, {"path": "/16/", "upstream": "files", "cache": "off"}]
    for count in sizes:
        settings = {"upstreams": {"files": {"servers": urls[:count]}}, "routes": routes}
        services[str(count)], took = lab.service(f"mirrors{count}", settings)
        figures["seconds until ready"][str(count)] = round(took, 2)
    figures["µs of CPU a relay"] = hits(lab, services, "/16/r")
    figures["µs of CPU a hit"] = hits(lab, services, f"/{KIB}/h")
    figures["MiB of memory"] = mib(services)
    return figures


def routes(lab: Lab, sizes: Sequence[int]) -> Figures:
    """So many routes by path and as many by host; the file is behind the last one."""
    services, figures = {}, Figures()
    figures["seconds until ready"] = {}
    for count in sizes:
        table: list[dict[str, Any]] = [{"path": "/", "upstream": "files", "cache": "1h"}]
        for number in range(1, count):
            place: dict[str, Any] = (
                {"path": f"/{number}/"} if number % 2 else {"path": "/", "hosts": [f"h{number}.example"]}
            )
            table.append({**place, "upstream": "files", "cache": "1h"})
        services[str(count)], took = lab.service(f"routes{count}", {"routes": table})
        figures["seconds until ready"][str(count)] = round(took, 2)
    figures["µs of CPU a hit"] = hits(lab, services, f"/{KIB}/r")
    figures["µs of CPU a hit, the long way"] = hits(lab, services, f"/{KIB}/r", headers=[SLOW_WAY])
    figures["MiB of memory"] = mib(services)
    return figures
