"""Big hits, side by side: what does a byte that is cached on disk cost, in processor time of the server?

FileProxy (all features on: access log, counting, rules) has the files in its cache on disk, nginx in a folder, both in
the page cache; nginx with sendfile and without. Each is alone on processor 0 in its turn; the clients, which throw the
bytes away unread (MSG_TRUNC), have processor 1. 1 MiB: a few kept connections. 1 GiB: two downloads at a time. Rounds
are interleaved; medians count. Loopback only; every run is bounded in time. Needs 3 GiB of page cache. ::

    python -m benchmarks.big --rounds 5 --seconds 3 --json big.json --markdown big.md
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import selectors
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.cpu import pinned
from benchmarks.hits import CLIENT_CORE, SERVER_CORE, nginx, settle
from benchmarks.peers import ROOT, Peer, free_port, origin

MIB = 1024 * 1024
FILES = {"256k": MIB // 4, "1m": MIB, "1g": 1024 * MIB}
CONNECTIONS = {"256k": 8, "1m": 8, "1g": 2}
WAYS = ("fileproxy", "nginx", "nginx-sendfile")


def fileproxy(name: str, upstream: Peer, folder: Path) -> Peer:
    """One worker as it comes, with a cache on disk; ``-slow`` has no fast front."""
    (folder / name).mkdir()
    port = free_port()
    command = [sys.executable, "-m", "fileproxy", "serve", upstream.url, "--host", "127.0.0.1", "--port", str(port)]
    for setting in ("routes.0.upstream=files", "routes.0.cache=1h", f"cache.disk.path={folder / name / 'cache'}",
                    "logs.audit=off", f"logs.access={folder / name / 'access.log'}",
                    f"server.fast={'off' if name.endswith('slow') else 'on'}"):  # fmt: skip
        command += ["--set", setting]
    command += ["--workers", "1", "--redis", "off"]
    return Peer(name, command, port, SERVER_CORE, folder / name, env={"PYTHONPATH": str(ROOT)})


class Reader:
    """One kept connection that asks for the same file again and again."""

    def __init__(self, port: int, file: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.socket.setblocking(False)
        self._request = f"GET /{file} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        self._head = b""
        self._left = 0
        self.taken = 0  # bytes of bodies
        self.whole = 0  # bodies

    def ask(self) -> None:
        self._head, self._left = b"", 0
        self.socket.send(self._request)

    def read(self) -> bool:
        """Take what is there; whether the answer has ended."""
        if not self._left:
            self._head += self.socket.recv(2048)
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return False
            lines = self._head[:end].lower().split(b"\r\n")
            assert b" 200 " in lines[0], self._head[:end]
            length = int(next(line for line in lines if line.startswith(b"content-length:")).partition(b":")[2])
            taken = len(self._head) - end - 4
            self.taken += taken
            self._left = length - taken
        elif not (taken := self.socket.recv_into(_drain, min(self._left, MIB), socket.MSG_TRUNC)):
            raise ConnectionError("cut")
        else:
            self._left -= taken
            self.taken += taken
        if self._left == 0:
            self.whole += 1
        return self._left == 0


_drain = bytearray(MIB)


def load(port: int, file: str, seconds: float) -> tuple[int, int]:
    """Bytes and whole bodies that came over some kept connections. Who has begun a body then reads it to its end."""
    end = time.monotonic() + seconds
    with selectors.DefaultSelector() as watch:
        readers = [Reader(port, file) for _ in range(CONNECTIONS[file])]
        for reader in readers:
            reader.ask()
            watch.register(reader.socket, selectors.EVENT_READ, reader)
        while watch.get_map():
            for key, _ in watch.select(60):
                if key.data.read():
                    if time.monotonic() < end:
                        key.data.ask()
                    else:
                        watch.unregister(key.data.socket)
                        key.data.socket.close()
    return sum(reader.taken for reader in readers), sum(reader.whole for reader in readers)


def measured(peer: Peer, file: str, seconds: float) -> dict[str, float]:
    """One run of one peer: MiB a second, µs of the server's processor for a MiB, and for a request."""
    command = [sys.executable, "-m", "benchmarks.big", "--load", str(peer.port), file, str(seconds)]
    before, began = peer.cpu_seconds(), time.monotonic()
    done = subprocess.run(
        pinned(CLIENT_CORE, command), capture_output=True, text=True, check=True, cwd=ROOT, timeout=180
    )
    cpu, took = peer.cpu_seconds() - before, time.monotonic() - began
    taken, whole = map(int, done.stdout.split())
    return {"rate": taken / MIB / took, "cpu": cpu / taken * MIB * 1e6, "request": cpu / whole * 1e6}


def report(results: dict[tuple[str, str], list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Medians, and each peer against the better nginx."""
    rows = []
    for (file, name), runs in sorted(results.items()):
        row: dict[str, Any] = {"file": file, "peer": name, "runs": len(runs)}
        row |= {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        rows.append(row)
    for row in rows:
        nginxes = [one["cpu"] for one in rows if one["file"] == row["file"] and one["peer"].startswith("nginx")]
        row["ratio"] = row["cpu"] / min(nginxes) if nginxes else None
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| file | server | MiB/s | CPU µs/MiB | CPU µs/request | of the better nginx |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        lines.append(
            f"| {row['file']} | {row['peer']} | {row['rate']:.0f} | {row['cpu']:.1f} | {row['request']:.0f} | {ratio} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--only", default=",".join(WAYS))
    parser.add_argument("--files", default="1m,1g")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--load", nargs=3, metavar=("PORT", "FILE", "SECONDS"))
    given = parser.parse_args()
    if given.load:
        print(*load(int(given.load[0]), given.load[1], float(given.load[2])))
        return
    folder = Path(tempfile.mkdtemp(prefix="big"))
    files = folder / "files"
    files.mkdir()
    wanted = given.files.split(",")
    for name in wanted:
        with (files / name).open("wb") as file:
            for _ in range(max(1, FILES[name] // MIB)):
                file.write(os.urandom(min(MIB, FILES[name])))
    results: dict[tuple[str, str], list[dict[str, float]]] = {}
    try:
        with contextlib.ExitStack() as stack:
            upstream = stack.enter_context(origin(files, CLIENT_CORE, folder))
            running = [
                stack.enter_context(
                    nginx(name, files, folder) if name.startswith("nginx") else fileproxy(name, upstream, folder)
                )
                for name in given.only.split(",")
            ]
            for peer in running:
                for name in wanted:
                    for _ in range(2):  # into the cache, and everything checked once
                        load(peer.port, name, 0)
                        settle(peer)
            for turn in range(given.rounds):
                for peer in running[turn % len(running) :] + running[: turn % len(running)]:
                    settle(peer)
                    for name in wanted:
                        results.setdefault((name, peer.name), []).append(measured(peer, name, given.seconds))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows = report(results)
    print(markdown(rows))
    if given.json:
        given.json.write_text(
            json.dumps({"rows": rows, "runs": [[*k, v] for k, v in results.items()]}, indent=1) + "\n"
        )
    if given.markdown:
        given.markdown.write_text(markdown(rows))


if __name__ == "__main__":
    main()
