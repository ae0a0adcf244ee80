"""What the rooms of one worker share while it serves: the current generation, the load, and where to count."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from fileproxy.clock import Clock
from fileproxy.guard.policy import Load
from fileproxy.http.forwarded import Networks
from fileproxy.model import Answer, Counters, Want
from fileproxy.server.routing import RouteTable
from fileproxy.settings import Settings


class Fetcher(Protocol):
    """An upstream, as the trip sees it."""

    async def fetch(self, want: Want) -> Answer: ...


@dataclass(slots=True)
class Generation:
    """One immutable configuration and what was built from it. Requests keep the generation they started with.

    ``users`` counts them; ``on_unused`` is called when the last one of a retired generation has ended.
    """

    number: int
    settings: Settings
    routes: RouteTable
    upstreams: Mapping[str, Fetcher]
    trusted: Networks
    operators: Networks
    on_unused: Callable[[Generation], None]
    users: int = 0
    retired: bool = False

    def enter(self) -> None:
        self.users += 1

    def leave(self) -> None:
        self.users -= 1
        self._release()

    def retire(self) -> None:
        self.retired = True
        self._release()

    def _release(self) -> None:
        if self.retired and self.users == 0:
            self.on_unused(self)


@dataclass(slots=True)
class Service:
    """Handed to the handlers by ``app.py``. ``current`` is replaced as a whole by a reload."""

    current: Generation
    counters: Counters
    clock: Clock
    identity: str
    access: Callable[..., None]  # one access log line
    event: Callable[..., None]  # (level, event, **fields): one error log line
    health: Callable[[], Awaitable[dict[str, Any]]]
    stats: Callable[[], Awaitable[dict[str, Any]]]
    load: Load = field(default_factory=Load)
    cutting: bool = False  # drain_timeout is over: running downloads are being cut
