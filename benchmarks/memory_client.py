"""The clients of ``memory.py``: thousands of connections in one process, one epoll loop, nothing kept.

Run as a program; it speaks with whoever started it by lines: a JSON object when all connections stand (``slow``: their
heads have come and they read at their pace; ``idle``: each had one whole answer), another one when its input ends.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import select
import socket
import sys
import time
from dataclasses import dataclass, field

from benchmarks.cache_origin import PERIOD, content

TICK_S = 0.1
AT_ONCE = 64  # connections being made
MOST = 64 * 1024  # bytes of one read
SEGMENT = 1448  # bytes
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(slots=True, eq=False)
class Client:
    """One connection. ``taken``: bytes of the body; ``length``: what the head said, -1 before it came."""

    sock: socket.socket
    head: bytearray = field(default_factory=bytearray)
    length: int = -1
    taken: int = 0
    began: float = 0.0
    dry: int = 0  # times nothing was there to be taken
    wrong: str = ""


class Crowd:
    """All of them. ``rate``: bytes a second of each; 0: they read their answer to its end and keep still."""

    def __init__(self, port: int, path: str, rate: float, headers: list[str], name: str) -> None:
        self._port, self._rate, self._name = port, rate, name
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *headers, "", ""]
        self._request = "\r\n".join(lines).encode()
        self._poll = select.epoll()
        self._making: dict[int, Client] = {}
        self.clients: list[Client] = []

    def start(self, count: int, within_s: float) -> None:
        """Make the connections; return when each has what it came for (see the module)."""
        deadline, made = time.monotonic() + within_s, 0
        while made < count or self._making:
            if time.monotonic() > deadline:
                raise SystemExit(f"{count - len(self._making)} of {count} connections stand after {within_s:g} s")
            while made < count and len(self._making) < AT_ONCE:
                sock = self._connected()
                sock.send(self._request)
                client = self._making[sock.fileno()] = Client(sock)
                self.clients.append(client)
                self._poll.register(sock, select.EPOLLIN)
                made += 1
            for number, _ in self._poll.poll(1.0):
                self._more(self._making[number])
            self.tick(time.monotonic())

    def _connected(self) -> socket.socket:
        """As over Ethernet: for loopback's segments of 64 KiB the server's kernel takes 2.5 MiB at once."""
        sock = socket.socket()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
        sock.connect(("127.0.0.1", self._port))
        sock.setblocking(False)
        return sock

    def _more(self, client: Client) -> None:
        if client.length < 0:
            self._read_head(client)
        else:
            self._read(client, MOST)
        idle = client.length >= 0 and not self._rate and client.taken >= client.length
        if client.wrong or idle or (self._rate and client.length >= 0):
            self._poll.unregister(client.sock)
            del self._making[client.sock.fileno()]

    def _read_head(self, client: Client) -> None:
        """A few bytes of the body may come with it."""
        with contextlib.suppress(BlockingIOError):
            data = client.sock.recv(1024)
            client.head += data
            head, end, rest = bytes(client.head).partition(b"\r\n\r\n")
            if end:
                found = _LENGTH.search(head)
                good = head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 206")) and found
                client.wrong = "" if good else head[:200].decode("latin-1")
                client.length = int(found[1]) if found else 0
                client.began = time.monotonic()
                client.head = bytearray()
                self._take(client, rest)
            elif not data:
                client.wrong = "closed before its head"

    def _read(self, client: Client, most: int) -> None:
        try:
            data = client.sock.recv(most)
        except BlockingIOError:
            client.dry += 1
            return
        except OSError as error:
            client.wrong = str(error)
            return
        if not data:
            client.wrong = f"ended after {client.taken} bytes"
        self._take(client, data)

    def _take(self, client: Client, data: bytes) -> None:
        if self._name and data != content(self._name, client.taken, len(data)):
            at = bytes(content(self._name, 0, PERIOD)).find(data[-64:]) - len(data) + 64
            client.wrong = client.wrong or f"other bytes at {client.taken} ({client.taken % PERIOD}): those of {at}"
        client.taken += len(data)

    def tick(self, now: float) -> None:
        """Each slow client takes what its rate allows by now."""
        if not self._rate:
            return
        for client in self.clients:
            if client.length >= 0 and not client.wrong:
                due = int((now - client.began) * self._rate) - client.taken
                if due > 0:
                    self._read(client, min(MOST, due))

    def run(self) -> None:
        """Until the input of this process ends."""
        while True:
            now = time.monotonic()
            self.tick(now)
            left = max(0.001, now + TICK_S - time.monotonic())
            if select.select([sys.stdin], [], [], left)[0]:
                return

    def say(self) -> None:
        """What came of them, as a line of JSON. An idle connection that was closed meanwhile is wrong."""
        if not self._rate:
            for client in self.clients:
                with contextlib.suppress(BlockingIOError):
                    client.wrong = client.wrong or ("closed" if not client.sock.recv(1) else "more than its answer")
        now = time.monotonic()
        rates = sorted(one.taken / max(now - one.began, 1e-9) for one in self.clients if one.began)
        wrong = [one.wrong for one in self.clients if one.wrong]
        print(
            json.dumps(
                {
                    "clients": len(self.clients),
                    "wrong": len(wrong),
                    "why": sorted(set(wrong))[:5],
                    "bytes": sum(one.taken for one in self.clients),
                    "slowest": rates[0] if rates else 0.0,
                    "median": rates[len(rates) // 2] if rates else 0.0,
                    "dry": sum(one.dry for one in self.clients),
                }
            ),
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--rate", type=float, default=0.0, help="bytes a second of each; 0: one answer, then still")
    parser.add_argument("--header", action="append", default=[])
    parser.add_argument("--name", default="", help="of the origin's file, to check its bytes")
    parser.add_argument("--within", type=float, default=60.0, help="seconds until all stand")
    given = parser.parse_args()
    crowd = Crowd(given.port, given.path, given.rate, given.header, given.name)
    crowd.start(given.clients, given.within)
    crowd.say()
    crowd.run()
    crowd.say()


if __name__ == "__main__":
    main()
