"""What is asked of the contestants, and one turn of one of them."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from benchmarks.cpu import cpu_seconds, stolen_seconds, tree
from benchmarks.peers import Peer
from benchmarks.race import client
from benchmarks.race.contestants import asked

KIB, MIB = 1024, 1024**2
FILES = {"1k": KIB, "64k": 64 * KIB, "1m": MIB, "1g": 1024 * MIB}
KEPT = 64  # connections
DOWNLOADS = 4  # of the largest file in a turn
STOLEN = 0.03  # of a turn's time: with more of it given to others by the machine's host, a turn is tried again
TRIES = 4
HITS_AN_ASK = 10_000  # a peer that asks its origin more often than once in so many hits did not serve from its cache
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """``who``: the contestants that it is for. ``per_byte``: what is told is the cost of a GiB, not of a request."""

    name: str
    title: str
    file: str
    who: tuple[str, ...]
    load: Callable[[Peer, str, int, float], client.Load]
    per_byte: bool = False


def _kept(connections: int, turns: int = 1) -> Callable[[Peer, str, int, float], client.Load]:
    """``turns``: as long as so many, so that it is not the connecting that counts."""
    return lambda peer, path, size, seconds: client.wrk(peer, path, size, turns * seconds, connections)


def _closing(peer: Peer, path: str, size: int, seconds: float) -> client.Load:
    return client.wrk(peer, path, size, seconds, KEPT, "Connection: close")


def _whole(peer: Peer, path: str, size: int, seconds: float) -> client.Load:
    return client.curl(peer, path, size, DOWNLOADS)


_NGINX = ("nginx", "nginx-sendfile")
_ALL = ("fileproxy", *_NGINX, "haproxy", "varnish", "squid", "trafficserver")
CASES = (
    Case("1k", f"1 KiB, {KEPT} kept connections", "1k", ("fileproxy", "fileproxy-quiet", "nginx-cache", *_ALL[1:]),
         _kept(KEPT)),
    Case("1k-1000", "1 KiB, 1,000 kept connections", "1k", _ALL, _kept(1000, turns=3)),
    Case("1k-new", "1 KiB, a connection for each request, closed by the client", "1k", _ALL, client.connecting),
    Case("1k-close", "1 KiB, a connection for each request, closed by the server (Connection: close)", "1k", _ALL,
         _closing),
    Case("64k", f"64 KiB, {KEPT} kept connections", "64k", ("fileproxy", "nginx-cache", *_ALL[1:]), _kept(KEPT)),
    # The others keep 1 MiB in memory; 1 GiB is more than they are given.
    Case("1m", "1 MiB, 16 kept connections", "1m", _ALL, _kept(16), per_byte=True),
    Case("1g", "1 GiB from disk (page cache), one download after the other", "1g",
         ("fileproxy", *_NGINX, "trafficserver"), _whole, per_byte=True),
    Case("workers", f"Two workers against one: 1 KiB, {KEPT} kept connections", "1k", ("fileproxy", "fileproxy-two"),
         _kept(KEPT)),
    Case("logging", f"Without access log and counting: 1 KiB, {KEPT} kept connections", "1k",
         ("fileproxy", "fileproxy-bare"), _kept(KEPT)),
)  # fmt: skip
BY_NAME = {case.name: case for case in CASES}


def make_files(folder: Path, names: set[str]) -> dict[str, str]:
    """The files that these cases need, of bytes that do not compress. Returns their SHA-256."""
    digests: dict[str, str] = {}
    for name in sorted(names):
        digest, left = hashlib.sha256(), FILES[name]
        block = os.urandom(min(MIB, left))
        with (folder / name).open("wb") as file:
            while left > 0:
                file.write(block)
                digest.update(block)
                left -= len(block)
        digests[name] = digest.hexdigest()
    return digests


def warm(peer: Peer, name: str, digest: str, source: Peer) -> str:
    """Fill its cache and prove that it answers from there: the right bytes, and the origin is not asked.

    Returns what its head says of the cache (Age, X-Cache, Cache-Status). RuntimeError when it does not.
    """
    path, deadline = f"/{name}", time.monotonic() + 20
    while True:
        for _ in range(3 if FILES[name] <= MIB else 1):
            fetched(peer, path)
        before = asked(source)
        got, says = fetched(peer, path)
        if got != digest:
            raise RuntimeError(f"{peer.name} changed the bytes of {path}")
        if asked(source) - before == 1:  # the question itself
            return says
        if time.monotonic() > deadline:
            raise RuntimeError(f"{peer.name} does not keep {path}: the origin is asked each time")


def fetched(peer: Peer, path: str) -> tuple[str, str]:
    """SHA-256 of one answer's body, and its fields about the cache."""
    digest = hashlib.sha256()
    with urlopen(peer.url + path, timeout=60) as answer:
        while data := answer.read(MIB):
            digest.update(data)
        fields = (
            f"{name}: {answer.headers[name]}" for name in ("Age", "X-Cache", "Cache-Status") if answer.headers[name]
        )
        return digest.hexdigest(), "; ".join(fields)


def quiet_turn(case: Case, peer: Peer, source: Peer, seconds: float) -> Row:
    """A turn in which the machine was ours; of ``TRIES`` the one that comes nearest to that."""
    rows: list[Row] = []
    while len(rows) < TRIES and not (rows and rows[-1]["stolen"] <= STOLEN):
        rows.append(turn(case, peer, source, seconds))
    return {**min(rows, key=lambda row: float(row["stolen"])), "tries": len(rows)}


def turn(case: Case, peer: Peer, source: Peer, seconds: float) -> Row:
    """One turn: its figures. RuntimeError when these were not hits, or the client saw an error."""
    path, size = f"/{case.file}", FILES[case.file]
    settle(peer)
    peer.fetch("/1k")
    asks = asked(source)
    cpu, stolen = peer.cpu_seconds(), stolen_seconds()
    load = case.load(peer, path, size, seconds)
    cpu, stolen = peer.cpu_seconds() - cpu, stolen_seconds() - stolen
    asks = asked(source) - asks - 1
    if asks * HITS_AN_ASK > load.requests:  # Traffic Server asks again now and then, one time in 80,000
        raise RuntimeError(f"{peer.name} asked the origin {asks} times in {load.requests} requests of {case.name}")
    return {
        "case": case.name,
        "contestant": peer.name,
        "requests": load.requests,
        "origin_asks": asks,
        "seconds": load.seconds,
        "requests_per_s": load.requests / load.seconds,
        "mib_per_s": load.requests * size / MIB / load.seconds,
        "cpu_us": cpu / load.requests * 1e6,
        "cpu_s_per_gib": cpu / (load.requests * size / 1024**3),
        "server_busy": cpu / load.seconds,
        "client_busy": load.busy,
        "stolen": stolen / load.seconds,
        "p50_ms": load.p50_ms,
        "p99_ms": load.p99_ms,
    }


def settle(peer: Peer, within_s: float = 5.0) -> None:
    """Wait until it does next to nothing."""
    before, deadline = cpu_seconds(peer.pid), time.monotonic() + within_s
    while time.monotonic() < deadline:
        time.sleep(0.1)
        now = cpu_seconds(peer.pid)
        if now - before <= 0.01:
            return
        before = now


def peak_rss_mib(peer: Peer) -> float:
    """The sum of what each process of the tree held at most. Pages that they share count in each."""
    total = 0
    for pid in tree(peer.pid):
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return total / 1024
