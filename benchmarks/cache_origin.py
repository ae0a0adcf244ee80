"""An origin that is quick and counts: files of any size made from a pattern, in a process of its own, a thread each
connection.

``/SIZE/NAME?think=1&rate=N``: a file of SIZE bytes; it thinks so many seconds before the head and sends at most N bytes
a second. ``/-/sent``: what it sent, as JSON. Its bytes are counted as the kernel takes them, so what a broken
connection threw away counts, too.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from functools import cache
from http.client import HTTPConnection
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

MIB = 1024**2
PERIOD = MIB + 4099  # no divisor of a block, so that blocks that changed places are seen
SLICE = 256 * 1024

_compare = ctypes.CDLL(None).memcmp
_compare.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


@cache
def pattern(name: str) -> memoryview:
    """Two periods of what a file of this name is made of."""
    return memoryview(bytearray(random.Random(name).randbytes(PERIOD) * 2))


def content(name: str, offset: int, length: int) -> memoryview:
    """Bytes of the file; ``length`` at most a period."""
    at = offset % PERIOD
    return pattern(name)[at : at + length]


def same(one: memoryview, other: memoryview) -> bool:
    """Whether two writable views have the same bytes. ``==`` of views looks at each byte alone: 100 times slower."""
    size = len(one)
    kind = ctypes.c_char * size
    return size == len(other) and not _compare(kind.from_buffer(one), kind.from_buffer(other), size)


def sha256(name: str, size: int) -> str:
    """Of the whole file."""
    digest = hashlib.sha256()
    for offset in range(0, size, MIB):
        digest.update(content(name, offset, min(MIB, size - offset)))
    return digest.hexdigest()


class Counts:
    """Requests and body bytes sent, by path; the ranges asked for."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.bytes: dict[str, int] = defaultdict(int)
        self.requests: dict[str, list[str]] = defaultdict(list)


def serve(connection: socket.socket, counts: Counts) -> None:
    """Answer one connection until it ends."""
    with connection, contextlib.suppress(ConnectionError):
        waiting = b""
        while True:
            while b"\r\n\r\n" not in waiting:
                more = connection.recv(65536)
                if not more:
                    return
                waiting += more
            head, _, waiting = waiting.partition(b"\r\n\r\n")
            answer(connection, head.decode("latin-1"), counts)


def answer(connection: socket.socket, head: str, counts: Counts) -> None:
    method, target, _ = head.partition("\r\n")[0].split(" ")
    parts = urlsplit(target)
    if parts.path == "/-/sent":
        with counts.lock:
            body = json.dumps({"bytes": counts.bytes, "requests": counts.requests}).encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        return
    _, size_text, name = parts.path.split("/", 2)
    size, query = int(size_text), parse_qs(parts.query)
    asked = re.search(r"\r\nrange: *bytes=(\d+)-(\d*)", head, re.IGNORECASE)
    with counts.lock:
        counts.requests[parts.path].append(f"{asked[1]}-{asked[2]}" if asked else method)
    time.sleep(float(query.get("think", ["0"])[0]))
    first, last = 0, size - 1
    if asked:
        first, last = int(asked[1]), min(int(asked[2] or size), size - 1)
    lines = [
        "HTTP/1.1 206 Partial Content" if asked else "HTTP/1.1 200 OK",
        f"Content-Length: {last - first + 1}",
        f'ETag: "{name}-{size}"',
        "Cache-Control: max-age=86400",
        "Accept-Ranges: bytes",
    ]
    if asked:
        lines.append(f"Content-Range: bytes {first}-{last}/{size}")
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    if method == "HEAD":
        return
    rate, started = float(query.get("rate", ["0"])[0]), time.monotonic()
    offset = first
    while offset <= last:
        sent = connection.send(content(name, offset, min(SLICE, last + 1 - offset)))
        offset += sent
        with counts.lock:
            counts.bytes[parts.path] += sent
        if rate:
            time.sleep(max(0.0, started + (offset - first) / rate - time.monotonic()))


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    counts = Counts()
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(connection, counts), daemon=True).start()


class OriginProcess:
    """The origin while it runs."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.cache_origin"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _counts(self) -> Any:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/-/sent")
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def sent(self, path: str | None = None) -> int:
        """Body bytes of a path (without its query), or of all."""
        counts: dict[str, int] = self._counts()["bytes"]
        return sum(counts.values()) if path is None else counts.get(path, 0)

    def asked(self, path: str) -> list[str]:
        """The requests for a path, in order: their range, or their method."""
        found: list[str] = self._counts()["requests"].get(path, [])
        return found


if __name__ == "__main__":
    main()
