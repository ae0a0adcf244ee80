"""All client connections of a worker: how many may be, the look at the clock once a second, and the draining.

Whoever comes when there are too many gets a 503 without a handler being made. The kernel gives the lowest free number
to a new descriptor, so a high number means that nearly all are in use: then too, before ``accept`` begins to fail.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from aiohttp import web

from fileproxy.clock import Clock
from fileproxy.http.forwarded import Networks
from fileproxy.model import Counters
from fileproxy.server.acceptor import Acceptor
from fileproxy.server.bare import Bare
from fileproxy.server.ends import ASKS_S
from fileproxy.server.fast import Fast
from fileproxy.server.front import Asker, Front
from fileproxy.server.heads import HeadLimits
from fileproxy.server.pace import ClientPace, Granted, PacePolicy, paced
from fileproxy.server.serving import Serving, Tap
from fileproxy.settings.schema import Settings

Answer = Callable[[bytes, Asker], float | None]
SWEEP_S = 1.0
COUNT_S = 0.01  # how long those who came and left wait to be counted: one by one takes a tenth as long as serving them
RESERVE = 64  # descriptors kept free for files, logs and upstream connections that are being opened
RESTS = 32  # connections that go back to the acceptor in a turn of the loop
_NONE = asyncio.Transport()
TOLD = 32  # connections that are turned away with an answer at a time; more are reset


@dataclass(frozen=True, slots=True)
class FrontPolicy:
    """What of a settings generation the connections keep to. Times in seconds, None = no limit."""

    head: HeadLimits
    head_timeout: float
    keepalive_idle: float
    client_idle: float
    half_close_grace: float
    connections: int
    connections_per_client: int | None
    unlimited: Networks  # peers that speak for many clients: the trusted proxies
    last_descriptor: int  # a connection with this number or a higher one is turned away
    pace: PacePolicy = field(default_factory=PacePolicy)

    @classmethod
    def from_settings(cls, settings: Settings, nofile: int) -> FrontPolicy:
        """``nofile``: descriptors this worker may open (RLIMIT_NOFILE).

        ``limits.connections: auto`` is half of them, because a download needs one on each side.
        """
        limits = settings.limits
        last = max(nofile - RESERVE, nofile // 2)
        per_client = limits.connections_per_client
        return cls(
            head=HeadLimits(limits.request_line, limits.headers, limits.header_line, limits.head),
            head_timeout=limits.head_timeout,
            keepalive_idle=limits.keepalive_idle,
            client_idle=limits.client_idle,
            half_close_grace=settings.server.half_close_grace,
            connections=max(1, last // 2) if limits.connections == "auto" else limits.connections,
            connections_per_client=None if per_client == "off" else per_client,
            unlimited=Networks(settings.server.trusted_proxies),
            last_descriptor=last,
            pace=PacePolicy.from_settings(settings),
        )


class Connections:
    """Those that are mere descriptors (``bare``), and the fronts of the others.

    Called it makes a :class:`Front`: where there is no acceptor, hand it to ``loop.create_server``.

    ``server`` is the aiohttp server whose handlers answer; it must have ``handler_cancellation`` on. ``policy`` may be
    replaced at any time and holds from the next look at it. ``answer`` answers a head that is known (``fast.py``).
    ``tune`` sets what a socket does not inherit from the listening one; it is called when a connection's first request
    is handed on.
    """

    def __init__(
        self,
        server: web.Server,
        policy: FrontPolicy,
        *,
        counters: Counters,
        clock: Clock,
        fast: Fast | None = None,
        tune: Callable[[socket.socket], object] | None = None,
    ) -> None:
        if not server.handler_cancellation:
            raise ValueError("the handlers of clients that are gone must be cancelled: handler_cancellation=True")
        self.policy = policy
        self.counters = counters
        self.clock = clock
        self.answer: Answer = _knows_nothing if fast is None else fast.answer
        self.bare: dict[int, Bare] = {}  # those that the acceptor carries, by their descriptors
        self.draining = False
        self._server = server
        self._tune = tune
        self._loop = asyncio.get_running_loop()
        self._open: set[Front] = set()
        self._turned_away: set[Front] = set()  # told so, and not closed yet
        self._per_client: dict[str, int] = {}  # a Counter takes twice as long
        self._paces: dict[Front, ClientPace] = {}  # of the connections that had a handler
        self.granted = Granted(counters)
        self._came = self._left = 0  # connections that are not counted yet
        self._counting: asyncio.TimerHandle | None = None
        self.acceptor: Acceptor | None = None  # has connections that rest
        self._resting: list[Front] = []

    def __call__(self) -> Front:
        return Front(self)

    def __len__(self) -> int:
        return len(self._open) + len(self.bare)

    @property
    def busy(self) -> int:
        """Connections that still serve a request, whose last bytes are still on their way, or who are about to ask."""
        now = self.clock.now()
        about_to_ask = sum(not one.served and now - one.since < ASKS_S for one in self.bare.values())
        return sum(front.busy for front in self._open) + about_to_ask

    # --- what fronts and the acceptor call ----------------------------------------------------------------------------

    def admit(self, peer: str, descriptor: int) -> str:
        """Count a new connection. Returns "" to serve it, or why not."""
        if self._counting is None:
            self._counting = self._loop.call_later(COUNT_S, self.count)
        self._came += 1
        policy = self.policy
        here, most = self._per_client.get(peer, 0), policy.connections_per_client
        if len(self._open) + len(self.bare) >= policy.connections:
            refusal = "Too many connections are open."
        elif descriptor >= policy.last_descriptor:
            refusal = "Nearly all file descriptors are in use."
        elif most is None or here < most or not peer or peer in policy.unlimited:
            self._per_client[peer] = here + 1
            return ""
        else:
            refusal = f"More than {most} connections are open from this address."
        self.counters.add("connections.shed")
        return refusal

    def _has_left(self, peer: str | None) -> None:
        """A connection is no more. ``peer``: None when it was turned away."""
        if self._counting is None:
            self._counting = self._loop.call_later(COUNT_S, self.count)
        self._left += 1
        if peer is not None:
            left = self._per_client[peer] - 1
            if left:
                self._per_client[peer] = left
            else:
                del self._per_client[peer]

    def end(self, one: Bare) -> None:
        """Close a connection that the acceptor carries."""
        del self.bare[one.descriptor]
        one.close()
        self._has_left(one.peer)

    def add(self, front: Front) -> None:
        """It was admitted."""
        self._open.add(front)

    def turn_away(self, front: Front) -> bool:
        """One that was not admitted goes. Whether it is to be told why; else it is just reset."""
        if len(self._turned_away) >= TOLD:
            return False
        self._turned_away.add(front)
        return True

    def move(self, one: Bare) -> Front:
        """The front to which a connection goes from the acceptor."""
        del self.bare[one.descriptor]
        front = Front.of(self, one)
        self._open.add(front)
        return front

    def rested(self, front: Front, descriptor: int, family: int) -> None:
        """A front goes, and leaves its connection to the acceptor."""
        one = self.bare[descriptor] = front.as_bare(descriptor, family)
        one.pace = pace = self._paces.pop(front, None)
        if pace is not None:
            pace.transport = _NONE  # the loop's would be kept for nothing
        self._open.remove(front)

    def lost(self, front: Front) -> None:
        """A front's connection has gone."""
        if front in self._open:
            self._open.remove(front)
            self._paces.pop(front, None)
            self._has_left(front.peer)
        else:
            self._turned_away.discard(front)
            self._has_left(None)

    def count(self) -> None:
        """Count who came and who left, all of ``COUNT_S`` together; also called before counts are told."""
        if self._counting is None:
            return
        self._counting.cancel()
        self._counting = None
        came, left, self._came, self._left = self._came, self._left, 0, 0
        self.counters.add("connections.accepted", came)
        self.counters.add("connections.open", came - left)

    def rests(self, front: Front) -> None:
        """Its handler was let go."""
        if self.acceptor is not None:
            if not self._resting:
                self._loop.call_soon(self._let_rest)
            self._resting.append(front)

    def _let_rest(self) -> None:
        """Some in each turn of the loop: the sweep finds many at once."""
        some, self._resting = self._resting[:RESTS], self._resting[RESTS:]
        if self._resting:
            self._loop.call_soon(self._let_rest)
        for front in some:
            cast(Acceptor, self.acceptor).take_back(front)

    def carried(self, front: Front, pace: ClientPace | None) -> None:
        """A front has its transport; ``pace``: how the connection was served before."""
        if pace is not None:
            pace.transport = front.transport
            self._paces[front] = pace

    def handler(self, front: Front, transport: Tap) -> Serving:
        """The aiohttp handler of a connection's first request, or of one after a rest."""
        handler = Serving(self._server, front, self._loop)
        handler.connection_made(transport)
        if self._tune is not None and (sock := transport.get_extra_info("socket")) is not None:
            self._tune(sock)
        if (pace := self._paces.get(front)) is not None:
            handler.pace = pace
        elif (pace := paced(front.transport, self.granted, self._look)) is not None:
            handler.pace = self._paces[front] = pace
            pace.ended()
        return handler

    def _look(self, pace: ClientPace) -> None:
        pace.look(self.policy.pace, self.clock.now())

    # --- what the worker calls --------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Let each connection look at the time."""
        now = self.clock.now()
        for one in tuple(self.bare.values()):
            if now - one.since >= self.policy.keepalive_idle:
                self.end(one)
        for front in (*self._open, *self._turned_away):
            front.sweep(now)
        if self.draining:
            self._drain_bare()
        for front, pace in tuple(self._paces.items()):
            if front.busy:
                pace.look(self.policy.pace, now)

    async def watch(self) -> None:
        """Sweep once a second, for ever: run it as a task."""
        while True:
            await self.clock.sleep(SWEEP_S)
            self.sweep()

    def drain(self) -> None:
        """Close idle connections now and the others after their answer."""
        self.draining = True
        self._drain_bare()
        for front in tuple(self._open):
            front.drain()

    def _drain_bare(self) -> None:
        now = self.clock.now()
        for one in tuple(self.bare.values()):
            if one.served or now - one.since >= ASKS_S:
                self.end(one)

    def _cut_bare(self) -> None:
        for one in tuple(self.bare.values()):
            one.abort()
            self.end(one)

    async def close(self, ending: str = "drained_out") -> None:
        """Abort what is left, and wait until its handlers have ended. ``ending``: what their requests count as."""
        self._cut_bare()
        fronts = (*self._open, *self._turned_away)
        tasks = [front.task for front in fronts if front.task is not None]
        for front in fronts:
            front.abort(ending)
        if tasks:
            await asyncio.wait(tasks)
        while self._open or self._turned_away:  # noqa: ASYNC110  (one turn or two: connection_lost is already scheduled)
            await asyncio.sleep(0)
        self._cut_bare()  # who came meanwhile
        self.count()


def _knows_nothing(raw: bytes, asker: Asker) -> None:
    """A fast front that is off."""
