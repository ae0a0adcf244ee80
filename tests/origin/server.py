"""The scripted origin itself: scripts, records, and conditions a test can wait for."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Literal, Self

from tests.origin.content import Content
from tests.origin.play import Reply
from tests.origin.wire import Request, Wire

Greeting = Literal["serve", "reset", "close", "silent"]
NOT_FOUND = Reply(b"not in the script\n", status=404)


class Origin:
    """An HTTP/1.x server of the running event loop, on ``127.0.0.1`` and a port of its own.

    Records: ``requests`` (every one, in order), ``sent`` (body bytes per path), ``accepted``, ``open``,
    ``closed_by_peer`` (connections whose other side closed or reset first), ``sni`` (names asked for over TLS).
    """

    def __init__(self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = 0
        self.requests: list[Request] = []
        self.sent: Counter[str] = Counter()
        self.accepted = 0
        self.closed_by_peer = 0
        self.sni: list[str | None] = []
        self.errors: list[BaseException] = []  # what went wrong in the origin itself; raised by close()
        self._tls = tls
        self._scripts: dict[str, deque[Reply]] = {}
        self._fallback = NOT_FOUND
        self._greetings: deque[Greeting] = deque()
        self._wires: dict[Wire, asyncio.Task[None] | None] = {}
        self._listener: asyncio.Server | None = None
        self._waiters: set[asyncio.Event] = set()
        if tls is not None:
            tls.sni_callback = lambda _socket, name, _context: self.sni.append(name)

    # --- the play ----------------------------------------------------------------------------------------------------

    def script(self, path: str, *replies: Reply) -> None:
        """What requests for ``path`` (as sent, without the query) get: one reply each, the last one for ever."""
        self._scripts[path] = deque(replies)

    def serve(self, path: str, content: Content | bytes) -> None:
        """An honest file."""
        self.script(path, Reply(content))

    def otherwise(self, reply: Reply) -> None:
        """What every path without a script gets (a 404 at first)."""
        self._fallback = reply

    def greet(self, *greetings: Greeting) -> None:
        """What happens to the next connections right after they are accepted; afterwards all are served."""
        self._greetings.extend(greetings)

    # --- where it is -------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.authority}"

    @property
    def authority(self) -> str:
        return f"{self.host}:{self.port}"

    # --- what happened -----------------------------------------------------------------------------------------------

    @property
    def open(self) -> int:
        """Connections open now."""
        return len(self._wires)

    @property
    def idle(self) -> int:
        """Open connections on which no request is being served."""
        return sum(wire.idle for wire in self._wires)

    @property
    def last(self) -> Request:
        return self.requests[-1]

    def requests_of(self, path: str) -> int:
        return sum(request.path == path for request in self.requests)

    async def wait_for(self, condition: Callable[[], bool], *, within: float = 10.0, what: str = "condition") -> None:
        """Return as soon as ``condition()`` is true, looked at whenever something happened. AssertionError if late."""
        news = asyncio.Event()
        self._waiters.add(news)
        try:
            async with asyncio.timeout(within):
                while not condition():
                    news.clear()
                    await news.wait()
        except TimeoutError:
            raise AssertionError(f"{what} did not come true within {within} s: {self!r}") from None
        finally:
            self._waiters.discard(news)

    def __repr__(self) -> str:
        asked = [f"{request.method} {request.target} → {request.status}, {request.sent} B" for request in self.requests]
        return f"<Origin accepted={self.accepted} open={self.open} closed_by_peer={self.closed_by_peer} {asked[-20:]}>"

    # --- life --------------------------------------------------------------------------------------------------------

    async def listen(self) -> None:
        """Start, or come back on the same port after ``refuse``."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: Wire(self, self.accepted + 1), self.host, self.port, ssl=self._tls, backlog=4096
        )
        self.port = self._listener.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Connections are refused from now on; those that are open go on."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def close_idle(self) -> None:
        """Close kept connections, as servers do after their keep-alive time."""
        for wire in [wire for wire in self._wires if wire.idle]:
            wire.close()

    def reset_all(self) -> None:
        """RST on every open connection."""
        for wire in list(self._wires):
            wire.abort()

    async def close(self) -> None:
        await self.refuse()
        for wire in list(self._wires):
            wire.abort()
        tasks = [task for task in self._wires.values() if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.wait_for(lambda: not self._wires, what="all connections gone")
        if self.errors:
            raise self.errors[0]

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- what the wires tell -----------------------------------------------------------------------------------------

    def connected(self, wire: Wire) -> None:
        self.accepted += 1
        greeting = self._greetings.popleft() if self._greetings else "serve"
        self._wires[wire] = None
        if greeting == "serve":
            task = asyncio.get_running_loop().create_task(wire.serve(), name=f"origin-{wire.number}")
            task.add_done_callback(lambda task: self._ended(wire, task))
            self._wires[wire] = task
        elif greeting == "reset":
            wire.abort()
        elif greeting == "close":
            wire.close()
        self.changed()

    def _ended(self, wire: Wire, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.errors.append(error)
            wire.abort()

    def disconnected(self, wire: Wire) -> None:
        self._wires.pop(wire, None)
        self.closed_by_peer += wire.peer_closed
        self.changed()

    def received(self, request: Request) -> Reply:
        self.requests.append(request)
        script = self._scripts.get(request.path)
        self.changed()
        if not script:
            return self._fallback
        return script.popleft() if len(script) > 1 else script[0]

    def has_sent(self, request: Request, size: int) -> None:
        self.sent[request.path] += size
        self.changed()

    def changed(self) -> None:
        for event in self._waiters:
            event.set()


class OriginThread:
    """An origin with an event loop and thread of its own, for tests that block or watch other processes.

    ``with OriginThread() as origin``: scripts and records are those of :class:`Origin` (``origin.play``); ``wait_for``
    blocks.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.play = Origin(tls)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="origin", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.play.listen(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            asyncio.run_coroutine_threadsafe(self.play.close(), self._loop).result(15)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()

    @property
    def url(self) -> str:
        return self.play.url

    @property
    def requests(self) -> list[Request]:
        return self.play.requests

    def script(self, path: str, *replies: Reply) -> None:
        self.play.script(path, *replies)

    def serve(self, path: str, content: Content | bytes) -> None:
        self.play.serve(path, content)

    def wait_for(self, condition: Callable[[], bool], *, within: float = 10.0, what: str = "condition") -> None:
        waiting = self.play.wait_for(condition, within=within, what=what)
        asyncio.run_coroutine_threadsafe(waiting, self._loop).result(within + 5)

    def call(self, action: Callable[[], object]) -> None:
        """Run something on the origin's loop, for example ``lambda: origin.play.reset_all()``."""

        async def act() -> None:
            action()

        asyncio.run_coroutine_threadsafe(act(), self._loop).result(10)

    def refuse(self) -> None:
        asyncio.run_coroutine_threadsafe(self.play.refuse(), self._loop).result(10)

    def listen(self) -> None:
        asyncio.run_coroutine_threadsafe(self.play.listen(), self._loop).result(10)


@contextlib.contextmanager
def blackhole(fill: int = 2) -> Iterator[str]:
    """The authority of an address whose connection attempts get no answer: a listener with a full backlog."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(fill):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@contextlib.asynccontextmanager
async def origins(count: int) -> AsyncIterator[list[Origin]]:
    """Several origins at once: the mirrors of one upstream."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Origin()) for _ in range(count)]
