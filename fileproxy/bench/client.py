"""One client of a load: its connections, the request it waits for, how fast it reads."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from fileproxy.bench.consistent import Bytes, Consistency
from fileproxy.bench.hosts import Target
from fileproxy.bench.plan import Plan, Want, span
from fileproxy.bench.tally import Outcome, Tally
from fileproxy.bench.wire import Answer, BadAnswer
from fileproxy.clock import Clock

if TYPE_CHECKING:
    from fileproxy.tasks import Tasks

_SLOW_BUFFER = 64 * 1024  # bytes the kernel takes for a slow reader, so that the service feels it


class Shared:
    """What all clients of a run have in common."""

    def __init__(
        self,
        plan: Plan,
        targets: list[Target],
        headers: list[str],
        tls: ssl.SSLContext | None,
        clock: Clock,
        tasks: Tasks,
    ) -> None:
        self.plan = plan
        self.targets = targets
        self.tls = tls
        self.now = clock.now
        self.tasks = tasks
        self.loop = asyncio.get_running_loop()
        self.tally = Tally()
        self.sizes: dict[int, int] = {}  # of URLs, as answers told
        self.consistency = Consistency()
        lines = [*headers, *([] if plan.keep_alive else ["Connection: close"])]
        self.requests = [
            "\r\n".join(
                [f"GET {one.path} HTTP/1.1", f"Host: {one.host}", "User-Agent: fileproxy-bench", *lines, ""]
            ).encode()
            for one in targets
        ]


class Connection(asyncio.Protocol):
    """A connection of one client to one origin."""

    def __init__(self, client: Client) -> None:
        self.transport: asyncio.Transport
        self.used = False  # has carried an answer
        self._client = client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self._client.received(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.lost(self, exc)


class Client:
    """Asks for one file at a time; ``ended(client)`` is called after each, and may ``ask`` at once."""

    def __init__(self, number: int, shared: Shared, ended: Callable[[Client], None]) -> None:
        self.due: float | None = None  # when what is under way was due; None: idle
        self.failed = False  # the last one did
        self._shared = shared
        self._ended = ended
        self._slow = shared.plan.is_slow(number)
        self._connections: dict[tuple[str, int, bool, str], Connection] = {}
        self._current: Connection | None = None
        self._answer = Answer()
        self._hash = hashlib.sha256()
        self._want = Want(0, None)
        self._place: tuple[int, int] | None = None
        self._first_byte: float | None = None
        self._progress = 0.0
        self._again = False  # the kept connection had been closed; this is the second try

    # --- asking -------------------------------------------------------------------------------------------------------

    def ask(self, want: Want, due: float) -> None:
        """Send a request that was due at ``due`` (``now()`` or earlier)."""
        shared = self._shared
        self.due, self._want, self._again = due, want, False
        self._place = None
        if want.spot is not None:
            self._place = span(want.spot, shared.plan.range_size, shared.sizes.get(want.url))
        self._send()

    def _send(self) -> None:
        self._answer, self._first_byte, self._progress = Answer(), None, self._shared.now()
        self._hash = hashlib.sha256()
        connection = self._connections.get(self._shared.targets[self._want.url].origin)
        if connection is None:
            self._shared.tasks.start(self._connect(), "bench-connect")
        else:
            self._write(connection)

    def _write(self, connection: Connection) -> None:
        self._current = connection
        request = self._shared.requests[self._want.url]
        if self._place is not None:
            request += b"Range: bytes=%d-%d\r\n" % self._place
        connection.transport.write(request + b"\r\n")

    async def _connect(self) -> None:
        shared, target, due = self._shared, self._shared.targets[self._want.url], self.due
        tls = shared.tls if target.tls else None
        try:
            async with asyncio.timeout(shared.plan.timeout):
                _, connection = await shared.loop.create_connection(
                    lambda: Connection(self),
                    target.address,
                    target.port,
                    ssl=tls,
                    server_hostname=target.name if tls else None,
                )
        except (OSError, ssl.SSLError) as error:
            if self.due == due:
                self._end(_kind(error, "connecting"))
            return
        if self.due != due:  # the run ended meanwhile
            connection.transport.abort()
            return
        shared.tally.connections += 1
        if self._slow:
            raw: socket.socket = connection.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SLOW_BUFFER)
        if connection.transport.is_closing():
            self._end("closed before an answer")
            return
        self._connections[target.origin] = connection
        self._progress = shared.now()
        self._write(connection)

    # --- what comes ---------------------------------------------------------------------------------------------------

    def received(self, connection: Connection, data: bytes) -> None:
        if connection is not self._current:
            connection.transport.abort()  # nothing was asked
            return
        shared = self._shared
        self._progress = shared.now()
        if self._first_byte is None:
            self._first_byte = self._progress
        shared.tally.bytes += len(data)
        try:
            pieces = self._answer.feed(data)
        except BadAnswer as error:
            self._end(f"bad answer: {error}")
            return
        if shared.plan.verify:
            for piece in pieces:
                self._hash.update(piece)
        if self._answer.done:
            self._end("bad answer: bytes behind it" if self._answer.rest else None)
        elif self._slow:
            connection.transport.pause_reading()
            shared.loop.call_later(len(data) / shared.plan.slow_rate, self._read_on, connection)

    def _read_on(self, connection: Connection) -> None:
        self._progress = self._shared.now()
        if not connection.transport.is_closing():
            connection.transport.resume_reading()

    def lost(self, connection: Connection, error: Exception | None) -> None:
        origin = next((key for key, one in self._connections.items() if one is connection), None)
        if origin is not None:
            del self._connections[origin]
        if connection is not self._current:
            return
        if self._answer.end():
            self._end(None)
        elif self._first_byte is None and connection.used and not self._again:
            self._again, self._current = True, None  # closed while it was idle, as servers may: the time runs on
            self._send()
        elif self._first_byte is None:
            self._end("closed before an answer" if error is None else _kind(error, "before an answer"))
        else:
            self._end("cut short" if error is None else _kind(error, "in the answer"))

    def look(self, now: float) -> None:
        """End what has had no byte for too long (a slow reader's own pauses aside)."""
        if self.due is not None and now - self._progress > self._shared.plan.timeout + self._pause():
            self._end(f"no byte for {self._shared.plan.timeout:g} s")

    def _pause(self) -> float:
        return 256 * 1024 / self._shared.plan.slow_rate if self._slow else 0.0

    # --- the end ------------------------------------------------------------------------------------------------------

    def _end(self, error: str | None) -> None:
        assert self.due is not None
        shared, due, now = self._shared, self.due, self._shared.now()
        connection, self._current, self.due = self._current, None, None
        head = self._answer.head
        verdict = None
        if error is None:
            assert head is not None
            error, verdict = self._judge()
        if connection is not None:
            connection.used = True
            if not self._answer.done or self._answer.rest or head is None or head.close or not shared.plan.keep_alive:
                self._drop(connection)
        shared.tally.add(
            Outcome(
                head.status if head is not None else None,
                None if self._first_byte is None else self._first_byte - due,
                now - due,
                error,
                verdict == "changed",
            )
        )
        self.failed = error is not None
        self._ended(self)

    def _judge(self) -> tuple[str | None, str | None]:
        """What is wrong with a whole answer, and whether its bytes are those of last time."""
        head, shared, place = self._answer.head, self._shared, self._place
        assert head is not None
        if head.status >= 400:
            return f"status {head.status}", None
        if head.status == 206:
            if place is None or head.range is None:
                return "a part nobody asked for", None
            first, last, size = head.range
            if first != place[0] or last != (place[1] if size is None else min(place[1], size - 1)):
                return "another part than asked for", None
            if self._answer.size != last - first + 1:
                return "a part of another length than it says", None
            if size is not None:
                shared.sizes[self._want.url] = size
            place = first, last
        else:
            place = None
            shared.sizes[self._want.url] = self._answer.size
        got = Bytes(self._answer.size, self._hash.digest() if shared.plan.verify else b"")
        verdict = shared.consistency.judge(self._want.url, place, head.validator, got)
        return ("other bytes than before" if verdict == "different" else None), verdict

    def _drop(self, connection: Connection) -> None:
        self._connections = {key: one for key, one in self._connections.items() if one is not connection}
        connection.transport.abort() if not self._answer.done else connection.transport.close()

    def stop(self) -> bool:
        """Close everything. Whether a request was under way."""
        busy, self.due, self._current = self.due is not None, None, None
        for connection in self._connections.values():
            connection.transport.abort()
        self._connections = {}
        return busy


def _kind(error: BaseException, when: str) -> str:
    """A kind of error, for people to count."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return f"reset {when}"
    if isinstance(error, TimeoutError):
        return f"timeout {when}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or 'failed'}"
    return f"{getattr(error, 'strerror', None) or type(error).__name__} {when}"
