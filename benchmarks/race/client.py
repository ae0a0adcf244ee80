"""The load: wrk, curl, and a client that opens a connection for each request; all on a processor of their own.

Each returns requests, seconds, latencies in ms where the client knows them, and the share of its processor that it
used. RuntimeError: something did not go as it should; that is no figure.
"""

from __future__ import annotations

import re
import resource
import socket
import subprocess
import sys
import time
from dataclasses import dataclass

from benchmarks.cpu import pinned
from benchmarks.peers import ROOT, Peer
from benchmarks.race.contestants import CLIENT_CORE

TOGETHER = 16  # connections that are opened before the first answer is read
_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


@dataclass(frozen=True)
class Load:
    requests: int
    seconds: float
    busy: float  # of the client's processor; 1.0 = all of it
    p50_ms: float | None = None
    p99_ms: float | None = None


def _run(command: list[str], seconds: float) -> tuple[str, float]:
    """Output, and the processor seconds that the client used."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        pinned(CLIENT_CORE, command), capture_output=True, text=True, check=False, cwd=ROOT, timeout=seconds + 60
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def wrk(peer: Peer, path: str, size: int, seconds: float, connections: int, *headers: str) -> Load:
    """``path`` over and over on so many connections. wrk takes whole seconds; less is for trying."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency", "--timeout", "20s"]
    for header in headers:
        command += ["-H", header]
    said, used = _run([*command, peer.url + path], seconds)
    total = re.search(r"(\d+) requests in ([\d.]+)(s|m), ([\d.]+)(B|KB|MB|GB) read", said)
    p50, p99 = (re.search(rf"{percent}%\s+([\d.]+)(us|ms|s|m)\b", said) for percent in (50, 99))
    if not (total and p50 and p99) or "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(f"{peer.name}: wrk saw errors:\n{said}")
    requests, took = int(total[1]), float(total[2]) * (60 if total[3] == "m" else 1)
    read = float(total[4]) * 1024 ** ["B", "KB", "MB", "GB"].index(total[5])
    if read < 0.99 * requests * size:  # it is told to two decimals
        raise RuntimeError(f"{peer.name}: {requests} answers of {size} bytes, but {read:.0f} bytes came")
    return Load(requests, took, used / took, float(p50[1]) * _MS[p50[2]], float(p99[1]) * _MS[p99[2]])


def curl(peer: Peer, path: str, size: int, times: int) -> Load:
    """Whole downloads to /dev/null, one after the other."""
    command = ["curl", "-sS", "--fail", "--max-time", "120", "-w", "%{size_download}\n"]
    for _ in range(times):
        command += ["-o", "/dev/null", peer.url + path]
    start = time.monotonic()
    said, used = _run(command, 120.0 * times)
    took = time.monotonic() - start
    if said.split() != [str(size)] * times:
        raise RuntimeError(f"{peer.name}: {size} bytes were due, curl says {said.split()}")
    return Load(times, took, used / took)


def connecting(peer: Peer, path: str, size: int, seconds: float) -> Load:
    """One request on each connection, ``TOGETHER`` at a time; the client closes, as most programs do."""
    said, used = _run(
        [sys.executable, "-m", "benchmarks.race.client", str(peer.port), path, str(size), str(seconds)], seconds
    )
    requests, took, p50, p99 = said.split()
    return Load(int(requests), float(took), used / float(took), float(p50), float(p99))


def connect_for(port: int, path: str, size: int, seconds: float) -> str:
    """What ``connecting`` starts. Latency is from before connecting until the last byte was read."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()  # as the other clients: a cache's key
    times: list[float] = []
    start = now = time.monotonic()
    while now < start + seconds:
        asked: list[tuple[float, socket.socket]] = []
        for _ in range(TOGETHER):
            began = time.monotonic()
            connection = socket.create_connection(("127.0.0.1", port), 20)
            connection.sendall(request)
            asked.append((began, connection))
        for began, connection in asked:
            with connection:
                _read(connection, size)
            now = time.monotonic()
            times.append((now - began) * 1000)
    times.sort()
    return f"{len(times)} {now - start} {times[len(times) // 2]} {times[len(times) * 99 // 100]}"


def _read(connection: socket.socket, size: int) -> None:
    """One answer of ``size`` bytes."""
    head = b""
    while b"\r\n\r\n" not in head:
        if not (data := connection.recv(65536)):
            raise RuntimeError("the connection ended within a head")
        head += data
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head[:80].decode("latin-1"))
    got = len(head) - head.index(b"\r\n\r\n") - 4
    while got < size:
        if not (data := connection.recv(65536)):
            raise RuntimeError("the connection ended within a body")
        got += len(data)


if __name__ == "__main__":
    print(connect_for(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
