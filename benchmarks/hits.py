"""Hits, side by side: what does a cached small file cost, in processor time of the server?

FileProxy (all features on: access log, counting, rules) and nginx (the file on disk, in the page cache; with sendfile
and without) serve the same file, each alone on processor 0 in its turn; wrk has processor 1. ``new`` opens a connection
for each request, sends one request as of a client that keeps connections, and leaves. Rounds are interleaved; medians
count. Loopback only; every run is bounded in time. ::

    python -m benchmarks.hits --rounds 5 --seconds 4
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import peers
from benchmarks.cpu import cpu_seconds, pinned
from benchmarks.peers import ROOT, Peer

SERVER_CORE, CLIENT_CORE = 0, 1
FILES = {"1k": 1024, "64k": 64 * 1024}
WAYS = ("fileproxy", "fileproxy-quiet", "fileproxy-slow", "nginx", "nginx-sendfile")

_NGINX = """
    sendfile {sendfile}; tcp_nodelay on; keepalive_requests 100000000; open_file_cache max=1000;
    access_log {{folder}}/access.log combined buffer=64k flush=1s;
    server {{{{ listen 127.0.0.1:{{port}} backlog=1024; root {{files}}; }}}}
"""


def nginx(name: str, files: Path, folder: Path) -> Peer:
    http = _NGINX.format(sendfile="on" if name.endswith("sendfile") else "off")
    return peers._nginx(name, http, SERVER_CORE, folder, files=files)  # noqa: SLF001


def fileproxy(name: str, origin: Peer, folder: Path) -> Peer:
    """One worker with a cache in memory; ``-quiet`` has no access log, ``-slow`` no fast front."""
    (folder / name).mkdir()
    port = peers.free_port()
    command = [sys.executable, "-m", "fileproxy", "serve", origin.url, "--host", "127.0.0.1", "--port", str(port)]
    for setting in ("routes.0.upstream=files", "routes.0.cache=1h", "cache.disk=off", "logs.audit=off",
                    f"logs.access={'off' if name.endswith('quiet') else folder / name / 'access.log'}",
                    f"server.fast={'off' if name.endswith('slow') else 'on'}"):  # fmt: skip
        command += ["--set", setting]
    command += ["--workers", "1", "--redis", "off"]
    return Peer(name, command, port, SERVER_CORE, folder / name, env={"PYTHONPATH": str(ROOT)})


def kept(peer: Peer, file: str, seconds: int, connections: int) -> tuple[float, float, float]:
    """wrk on kept connections: requests a second, µs of the server's processor a request, share of wrk's processor."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"{peer.url}/{file}"]
    before, load_before = peer.cpu_seconds(), os.times()
    done = subprocess.run(pinned(CLIENT_CORE, command), capture_output=True, text=True, check=True, timeout=60)
    cpu, load = peer.cpu_seconds() - before, os.times()
    found = re.search(r"(\d+) requests in ([\d.]+)s", done.stdout)
    if found is None or "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise RuntimeError(f"{peer.name}: {done.stdout}")
    requests, took = int(found[1]), float(found[2])
    busy = load.children_user + load.children_system - load_before.children_user - load_before.children_system
    return requests / took, cpu / requests * 1e6, busy / took


def new(peer: Peer, file: str, seconds: int) -> tuple[float, float, float]:
    """The same with a connection for each request."""
    command = [sys.executable, "-m", "benchmarks.hits", "--load", str(peer.port), file, str(seconds)]
    before = peer.cpu_seconds()
    done = subprocess.run(
        pinned(CLIENT_CORE, command), capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    return int(done.stdout) / seconds, (peer.cpu_seconds() - before) / int(done.stdout) * 1e6, 1.0


def load(port: int, file: str, seconds: float) -> int:
    """Requests one after the other, each on its own connection; how many."""
    request, count = f"GET /{file} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode(), 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.sendall(request)
            answer = connection.recv(65536)
            body = answer.partition(b"\r\n\r\n")[2]
            while len(body) < FILES[file]:
                body += connection.recv(65536)
        count += 1
    return count


def settle(peer: Peer) -> None:
    """Wait until it does nothing."""
    before = -1.0
    while (now := cpu_seconds(peer.pid)) != before:
        before = now
        time.sleep(0.3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--only", default=",".join(WAYS))
    parser.add_argument("--load", nargs=3, metavar=("PORT", "FILE", "SECONDS"))
    given = parser.parse_args()
    if given.load:
        print(load(int(given.load[0]), given.load[1], float(given.load[2])))
        return
    folder = Path(tempfile.mkdtemp(prefix="hits"))
    files = folder / "files"
    files.mkdir()
    for name, size in FILES.items():
        (files / name).write_bytes(os.urandom(size))
    results: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    try:
        with contextlib.ExitStack() as stack:
            origin = stack.enter_context(peers.origin(files, CLIENT_CORE, folder))
            running = [
                stack.enter_context(
                    nginx(name, files, folder) if name.startswith("nginx") else fileproxy(name, origin, folder)
                )
                for name in given.only.split(",")
            ]
            for turn in range(given.rounds):
                for peer in running[turn % len(running) :] + running[: turn % len(running)]:
                    settle(peer)
                    for file in FILES:
                        for _ in range(3):
                            peer.fetch(f"/{file}")
                        results.setdefault((file, peer.name), []).append(
                            kept(peer, file, given.seconds, given.connections)
                        )
                    results.setdefault(("1k new", peer.name), []).append(new(peer, "1k", given.seconds))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for file in sorted({file for file, _ in results}):
        best = min(
            (statistics.median(one[1] for one in runs) for (of, name), runs in results.items()
             if of == file and name.startswith("nginx")), default=float("nan"))  # fmt: skip
        for (of, name), runs in results.items():
            if of == file:
                rate, cpu, busy = (statistics.median(column) for column in zip(*runs, strict=True))
                print(
                    f"{file:7} {name:16} {rate:9.0f} /s  {cpu:7.2f} us CPU  {cpu / best:5.2f} of nginx  wrk {busy:4.0%}"
                )


if __name__ == "__main__":
    main()
