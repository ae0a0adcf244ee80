"""Many clients in one thread that check every byte: sockets under epoll, one buffer for all.

A download that ends wrong says how: ``error`` is empty only when status, length and every byte were right.
"""

from __future__ import annotations

import contextlib
import hashlib
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.cache_origin import content, same

BUFFER = 256 * 1024


@dataclass
class Get:
    """One download of ``/SIZE/NAME…``. ``span``: (first byte, length) to ask for; ``pace``: bytes a second taken.

    Times are seconds since the crowd started. ``stop_after``: body bytes after which the client leaves.
    """

    target: str
    span: tuple[int, int] | None = None
    pace: float = 0.0
    stop_after: int | None = None
    hashing: bool = False
    receive_buffer: int | None = None
    first_byte_s: float | None = None
    done_s: float | None = None
    got: int = 0
    status: int = 0
    error: str = ""
    head: bytes = b""
    digest: str = ""
    _sha: hashlib._Hash = field(default_factory=hashlib.sha256, repr=False)

    @property
    def size(self) -> int:
        return int(self.target.split("/")[1])

    @property
    def name(self) -> str:
        return self.target.split("/", 2)[2].partition("?")[0]

    @property
    def offset(self) -> int:
        return 0 if self.span is None else self.span[0]

    @property
    def length(self) -> int:
        return self.size if self.span is None else self.span[1]

    @property
    def right(self) -> bool:
        return not self.error and self.done_s is not None and self.got == self.length

    def request(self) -> bytes:
        lines = [f"GET {self.target} HTTP/1.1", "Host: files.test", "Connection: close"]
        if self.span is not None:
            lines.append(f"Range: bytes={self.span[0]}-{self.span[0] + self.span[1] - 1}")
        return "\r\n".join([*lines, "", ""]).encode()

    def take(self, data: memoryview, now: float) -> bool:
        """Bytes that came. False: it is over."""
        if not self.status:
            self.head += bytes(data)
            head, found, rest = self.head.partition(b"\r\n\r\n")
            if not found:
                return True
            self.head, self.status = head, int(head[9:12])
            if self.status != (200 if self.span is None else 206):
                self.error = f"status {self.status}"
                return False
            if b"content-length: %d\r\n" % self.length not in (head + b"\r\n").lower():
                self.error = f"length: not {self.length}: {head!r}"
                return False
            data = memoryview(bytearray(rest))
        if not data:
            return True
        if self.first_byte_s is None:
            self.first_byte_s = now
        if len(data) > self.length - self.got or not same(data, content(self.name, self.offset + self.got, len(data))):
            self.error = f"wrong bytes after {self.got}"
            return False
        if self.hashing:
            self._sha.update(data)
        self.got += len(data)
        if self.stop_after is not None and self.got >= self.stop_after:
            self.error = "left"
            return False
        if self.got == self.length:
            self.done_s = now
            self.digest = self._sha.hexdigest() if self.hashing else ""
            return False
        return True


def crowd(
    port: int,
    gets: Sequence[Get],
    within_s: float,
    on_tick: Callable[[float], None] = lambda now: None,
    stop: threading.Event | None = None,
) -> float:
    """Let all of them download at once; seconds until the last was done. Who is late gets an error that says so.

    ``on_tick`` is called often, with the seconds since the start. ``stop``: leave in the middle when it is set.
    """
    buffer = memoryview(bytearray(BUFFER))
    selector = selectors.DefaultSelector()
    paused: dict[socket.socket, tuple[float, Get]] = {}
    started = time.monotonic()

    def over(raw: socket.socket) -> None:
        with contextlib.suppress(KeyError):
            selector.unregister(raw)
        raw.close()

    for get in gets:
        raw = socket.socket()
        if get.receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, get.receive_buffer)
        try:
            raw.connect(("127.0.0.1", port))
            raw.setblocking(False)
            raw.sendall(get.request())
        except OSError as error:
            get.error = str(error)
            raw.close()
            continue
        selector.register(raw, selectors.EVENT_READ, get)
    try:
        while selector.get_map() or paused:
            now = time.monotonic() - started
            on_tick(now)
            if now > within_s or (stop is not None and stop.is_set()):
                break
            for raw, (until, get) in list(paused.items()):
                if until <= now:
                    del paused[raw]
                    selector.register(raw, selectors.EVENT_READ, get)
            for key, _ in selector.select(0.05 if not paused else 0.005):
                assert isinstance(key.fileobj, socket.socket)
                raw, get = key.fileobj, key.data
                try:
                    count = raw.recv_into(buffer[: 16 * 1024] if get.pace else buffer)
                except BlockingIOError:
                    continue
                except OSError as error:
                    get.error = f"{error} after {get.got}"
                    over(raw)
                    continue
                now = time.monotonic() - started
                if not count:
                    get.error = f"ended after {get.got} of {get.length}"
                    over(raw)
                elif not get.take(buffer[:count], now):
                    over(raw)
                elif get.pace and get.got / get.pace > now:
                    selector.unregister(raw)
                    paused[raw] = (get.got / get.pace, get)
    finally:
        for get in gets:
            if not get.error and get.done_s is None:
                get.error = f"late: {get.got} of {get.length} after {within_s} s"
        for left in [*paused, *(key.fileobj for key in list(selector.get_map().values()))]:
            assert isinstance(left, socket.socket)
            left.close()
        selector.close()
    return time.monotonic() - started


def one(port: int, get: Get, within_s: float = 30.0) -> Get:
    """One download alone."""
    crowd(port, [get], within_s)
    return get
