"""Early hints: an upstream's interim answers (1xx, RFC 9110 §15.2; 103, RFC 8297) on their way to one client.

They go out at once, past the answer's writer, and only while no final answer has begun. A client has time for few of
them: what is more, longer, or not taken at once is dropped, which changes nothing but the hint.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import ref

from fileproxy.model import Ask, Counters, Headers
from fileproxy.server.ends import Phase
from fileproxy.server.front import Front
from fileproxy.server.trip import Trip

MOST = 8  # for one request
BYTES = 16 * 1024  # of them all


class Hints:
    """Of one request."""

    __slots__ = ("_bytes", "_counters", "_front", "_head", "_left", "_trip")

    def __init__(self, front: Front, trip: Trip, counters: Counters) -> None:
        self._front = front
        self._head = front.head  # of this request: a later one on the connection has another
        self._trip = ref(trip)  # whose answer's body holds this: no cycle, so that what it holds ends with it
        self._counters = counters
        self._left = MOST
        self._bytes = BYTES

    def __call__(self, status: int, reason: str, headers: Headers) -> None:
        """Pass one on, if it still may be."""
        front, transport = self._front, self._front.transport
        trip = self._trip()
        over = (
            front.phase is not Phase.SERVING or front.head is not self._head or trip is None or trip.reply is not None
        )
        if over or not self._left or transport.is_closing() or transport.get_write_buffer_size():
            return
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
        data = ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")
        if len(data) > self._bytes:
            return
        self._left -= 1
        self._bytes -= len(data)
        self._counters.add("hints.passed")
        transport.write(data)


def hints(front: Front, ask: Ask, trip: Trip, counters: Counters) -> Callable[[int, str, Headers], None] | None:
    """Where interim answers to this ask go; None where nobody could read them (HTTP/1.0)."""
    return None if ask.http10 else Hints(front, trip, counters)
