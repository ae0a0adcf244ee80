"""One server that is asked: its connections, the one that was begun early among them, and the one GET over them."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fileproxy.client.asking import get_request
from fileproxy.client.connect import Dialer
from fileproxy.client.http1 import Connection
from fileproxy.errors import FirstByteTimeout, UpstreamReset
from fileproxy.http.fields import end_to_end
from fileproxy.model import Answer, Headers

if TYPE_CHECKING:
    from fileproxy.client.early import Early
    from fileproxy.client.tally import Tally
    from fileproxy.upstream.redirects import Place

STALE_TRIES = 3  # kept connections that turn out closed before it counts as a failed try


class Server:
    """One server and the connections that wait for its next request. As many are open as are asked at once.

    Args:
        first_byte_s: how long an answer may take to begin; idle_s: how long its body may stand still.
        early: a connection to it that is there already, or will be in a moment.
    """

    def __init__(
        self,
        place: Place,
        dialer: Dialer,
        *,
        first_byte_s: float,
        idle_s: float,
        buffer: int,
        tally: Tally,
        early: Early | None = None,
    ) -> None:
        self.place = place
        self._dialer = dialer
        self._first_byte_s = first_byte_s
        self._idle_s = idle_s
        self._buffer = buffer
        self._tally = tally
        self._early = early
        self._all: set[Connection] = set()
        self._idle: list[Connection] = []

    async def fetch(self, path_query: str, headers: Headers) -> Answer:
        """One GET. Where the answer has a length its first piece is waited for, too. Raises UpstreamError, Shed."""
        request = get_request(path_query, self.place.authority, headers)
        early, self._early = self._early, None
        if early is not None and (answer := await self._take_over(early, request)) is not None:
            return answer
        for left in reversed(range(STALE_TRIES)):
            kept = left > 0 and bool(self._idle)
            connection = self._idle.pop() if kept else await self._dial()
            try:
                return await self._ask(connection, request)
            except UpstreamReset:
                connection.abort()
                if not kept or connection.body is not None:
                    raise
            except BaseException:
                connection.abort()
                raise
        raise AssertionError("the last try has a fresh connection")

    async def _take_over(self, early: Early, request: bytes) -> Answer | None:
        """The answer to the request that was sent already; None: it was another one, or came to nothing.

        Raises UpstreamError when it had begun, as for any connection.
        """
        try:
            if not early.settled:
                await asyncio.to_thread(early.settle)
            if not early.ready or early.request not in (request, b""):
                return None
            sock = socket.socket(fileno=early.take())
        finally:
            early.drop()
        connection = await self._dial(sock, early.pieces if early.request else None)
        try:
            return await self._ask(connection, request, early if early.request else None)
        except UpstreamReset:
            connection.abort()
            if connection.body is not None:
                raise
            return None
        except BaseException:
            connection.abort()
            raise

    async def _ask(self, connection: Connection, request: bytes, early: Early | None = None) -> Answer:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._first_byte_s):
                status, reason, headers = await (connection.ask(request) if early is None else connection.asked())
                body = connection.body
                assert body is not None
                body.meter.idle_s = self._idle_s
                body.on_bytes = self._count
                if body.length:
                    await body.wait()
        except TimeoutError as error:
            address = self.place.address
            raise FirstByteTimeout(f"{address}: no answer within {self._first_byte_s:g} s") from error
        timings = {"first_byte": loop.time() - began}
        if early is not None and early.sent_at is not None:
            now = time.monotonic()
            heard_at = early.heard_at or now
            timings = {"first_byte": heard_at - early.sent_at, "ahead": now - heard_at}
        return Answer(status, reason, end_to_end(headers), body, f"get/{self.place.address}", timings=timings)

    async def _dial(self, sock: socket.socket | None = None, came: Sequence[bytes] | None = None) -> Connection:
        connection = await self._dialer.dial(
            self.place, lambda: Connection(self.place.address, self._buffer, self._settle, came), sock
        )
        self._tally.connections_opened += 1
        self._all.add(connection)
        return connection

    def _count(self, amount: int) -> None:
        self._tally.received += amount

    def _settle(self, connection: Connection) -> None:
        if connection.lost:
            self._all.discard(connection)
            if connection in self._idle:
                self._idle.remove(connection)
        elif connection.idle and connection not in self._idle:
            self._idle.append(connection)

    async def close(self) -> None:
        if self._early is not None:
            self._early.drop()
        for connection in list(self._all):
            connection.abort()
        await asyncio.sleep(0)  # the event loop closes their sockets in its next turn
