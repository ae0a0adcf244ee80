"""Clients of the network benchmark: many connections in one process, which cost it little beside what they measure.

Orders come as JSON on standard input, figures go as JSON to standard output. ``loop``: N clients ask one file after the
other, chosen by Zipf's law, until the time is over. ``once``: every target is downloaded once, all at the same time.
A download counts when every byte the head promised has arrived; its time is from the request to the last byte.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import json
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import uvloop

BUFFER = 256 * 1024
RETRY_S = 0.1  # a client whose download broke asks again after this
LOOK_S = 1.0

Target = tuple[str, int]  # path and size in bytes


@dataclass
class Seen:
    """What all clients saw together."""

    times_s: list[float] = field(default_factory=list)
    bytes: int = 0
    hits: int = 0
    errors: dict[str, int] = field(default_factory=dict)

    def failed(self, why: str) -> None:
        self.errors[why] = self.errors.get(why, 0) + 1


class Client(asyncio.BufferedProtocol):
    """One connection: asks, reads to the end, asks again. ``choose`` gives the next target, None when done."""

    def __init__(
        self, host: str, seen: Seen, choose: Callable[[], Target | None], ended: Callable[[str], None]
    ) -> None:
        self._host, self._seen, self._choose, self._ended = host, seen, choose, ended
        self._buffer = memoryview(bytearray(BUFFER))
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._left = 0
        self._in_body = self._close = False
        self._began = self.moved = time.perf_counter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not derived from it
        self._ask()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._seen.bytes += nbytes
        self.moved = time.perf_counter()
        if self._in_body:
            self._left -= nbytes
        else:
            self._head += self._buffer[:nbytes]
            head, found, body = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            if why := self._parse(head):
                self.stop(why)
                return
            self._in_body = True
            self._left -= len(body)
        if self._left < 0:
            self.stop("too many bytes")
        elif self._left == 0:
            self._seen.times_s.append(self.moved - self._began)
            if self._close:
                self.stop("")
            else:
                self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._ended("cut" if exc is None else type(exc).__name__)

    def stop(self, why: str) -> None:
        """Close for a reason ('' is none)."""
        ended, self._ended = self._ended, lambda _: None
        if self._transport is not None:
            self._transport.abort()
        ended(why)

    def _ask(self) -> None:
        target = self._choose()
        if target is None:
            self.stop("")
            return
        path, self._left = target
        self._head, self._in_body = b"", False
        self._began = self.moved = time.perf_counter()
        assert self._transport is not None
        self._transport.write(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())

    def _parse(self, head: bytes) -> str:
        """What is wrong with the head, or ''."""
        status, *lines = head.lower().split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in lines)
        if status.split(b" ")[1] != b"200":
            return f"status {status.split(b' ')[1].decode()}"
        if int(headers.get(b"content-length", b"-1")) != self._left:
            return "wrong length"
        self._seen.hits += headers.get(b"x-cache") == b"hit"
        self._close = headers.get(b"connection") == b"close"
        return ""


async def run(orders: dict[str, Any]) -> dict[str, Any]:
    loop, seen, over = asyncio.get_running_loop(), Seen(), asyncio.Event()
    targets: list[Target] = [(path, size) for path, size in orders["targets"]]
    looping = orders["mode"] == "loop"
    count = orders["clients"] if looping else len(targets)
    living: dict[int, Client] = {}
    began = time.perf_counter()
    left = count

    def chooser(number: int) -> Callable[[], Target | None]:
        if not looping:
            rest = iter([targets[number]])
            return lambda: next(rest, None)
        weights = [1 / rank ** orders["zipf"] for rank in range(1, len(targets) + 1)]
        edges = list(itertools.accumulate(weights))
        rng = random.Random(orders["seed"] * 100_003 + number)
        return lambda: targets[bisect.bisect(edges, rng.random() * edges[-1])]

    async def connect(number: int, choose: Callable[[], Target | None]) -> None:
        def ended(why: str) -> None:
            nonlocal left
            living.pop(number, None)
            if why:
                seen.failed(why)
            if looping:
                loop.call_later(RETRY_S if why else 0, again)
                return
            left -= 1
            if not left:
                over.set()

        def again() -> None:
            if not over.is_set():
                tasks.add(loop.create_task(connect(number, choose)))

        try:
            _, client = await loop.create_connection(
                lambda: Client(orders["host"], seen, choose, ended), orders["host"], orders["port"]
            )
            living[number] = client
        except OSError as error:
            ended(type(error).__name__)

    tasks = {loop.create_task(connect(number, chooser(number))) for number in range(count)}
    deadline = began + orders["seconds"]
    while (now := time.perf_counter()) < deadline and not over.is_set():
        try:
            await asyncio.wait_for(over.wait(), min(LOOK_S, deadline - now))
        except TimeoutError:
            for client in [one for one in living.values() if time.perf_counter() - one.moved > orders["stall"]]:
                client.stop("stalled")
    seconds = time.perf_counter() - began
    unfinished = 0 if looping else left
    over.set()
    for client in list(living.values()):
        client.stop("")
    return {
        "seconds": seconds,
        "times_s": seen.times_s,
        "bytes": seen.bytes,
        "hits": seen.hits,
        "errors": seen.errors | ({"unfinished": unfinished} if unfinished else {}),
    }


if __name__ == "__main__":
    figures = json.dumps(uvloop.run(run(json.load(sys.stdin))))
    os.set_blocking(sys.stdout.fileno(), True)  # the loop may have left it otherwise, and a pipe takes 64 KiB at once
    print(figures)
