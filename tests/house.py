"""A whole FileProxy worker in the test's own event loop, on real sockets.

``Running`` is what the ``house`` fixture makes: the house, its port, its counts and log lines.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from fileproxy.app import House
from fileproxy.clock import Clock, SystemClock
from fileproxy.observe.lines import encode
from fileproxy.observe.page import Page
from fileproxy.observe.slots import Slots
from fileproxy.observe.table import TABLE
from fileproxy.reports import COUNTERS
from fileproxy.server.listeners import listen
from fileproxy.server.worker import Closes
from fileproxy.settings import Settings, schema
from tests.clients import Connection, Got, fetch

IDENTITY = "5eed" * 8


class Watched:
    """Counts in memory and wakes whoever waits for a count. A name the table does not declare is a KeyError."""

    _NAMES = frozenset(row.name for row in TABLE)

    def __init__(self, page: Page | None = None) -> None:
        self._totals: dict[tuple[str, str | None], int] = {}
        self._page = page
        self._waiters: set[asyncio.Event] = set()
        self.settle: Callable[[], None] = lambda: None  # count what waits to be counted

    def add(self, name: str, amount: int = 1, label: str | None = None) -> None:
        if name not in self._NAMES:
            raise KeyError(name)
        if self._page is not None:
            self._page.add(name, amount, label)
        self._totals[name, label] = self._totals.get((name, label), 0) + amount
        for event in self._waiters:
            event.set()

    def observe(self, name: str, seconds: float, label: str | None = None, times: int = 1) -> None:
        if self._page is not None:
            self._page.observe(name, seconds, label, times)
        self._totals[name, label] = self._totals.get((name, label), 0) + times

    def traffic(self, amount: int) -> None:
        if self._page is not None:
            self._page.traffic(amount)
        self._totals["traffic", None] = self._totals.get(("traffic", None), 0) + amount

    @property
    def totals(self) -> dict[tuple[str, str | None], int]:
        self.settle()
        return self._totals

    def __getitem__(self, name: str) -> int:
        return self.totals.get((name, None), 0)

    def of(self, name: str, label: str) -> int:
        return self.totals.get((name, label), 0)

    @property
    def endings(self) -> dict[str, int]:
        """How requests ended: every ``ending.*`` that is not zero, without the prefix."""
        return {
            name.removeprefix("ending."): count
            for (name, label), count in self.totals.items()
            if label is None and name.startswith("ending.") and count
        }

    async def wait_for(self, condition: Callable[[], bool], *, within: float = 10.0) -> None:
        """Return as soon as ``condition()`` holds, looked at after every count. AssertionError if late."""
        event = asyncio.Event()
        self._waiters.add(event)
        try:
            async with asyncio.timeout(within):
                while not condition():
                    event.clear()
                    await event.wait()
        except TimeoutError:
            raise AssertionError(f"not counted within {within} s: {self.totals}") from None
        finally:
            self._waiters.discard(event)


class Lines:
    """The log lines of a house, kept: ``access`` and ``events`` as dictionaries."""

    def __init__(self) -> None:
        self._access_lines: list[dict[str, Any]] = []
        self.settle: Callable[[], None] = lambda: None
        self.events: list[dict[str, Any]] = []
        self.problems: dict[str, str] = {}
        self.audit_lines: list[dict[str, Any]] = []

    def access(self, **fields: Any) -> None:
        self._access_lines.append(fields)

    @property
    def access_lines(self) -> list[dict[str, Any]]:
        self.settle()
        return self._access_lines

    def part(self, **fields: Any) -> bytes:
        return encode(fields)[1:-2]

    def access_start(self) -> bytes:
        return b'{"id":"'

    def access_batch(self, lines: bytes) -> None:
        self._access_lines += map(json.loads, lines.splitlines())

    def event(self, level: str, event: str, **fields: Any) -> None:
        self.events.append({"level": level, "event": event, **fields})

    def audit(self, line: bytes) -> None:
        self.audit_lines.append(json.loads(line))

    def apply(self, settings: schema.Logs) -> list[str]:
        self.applied = settings
        return []


class Running:
    """A house that listens on ``127.0.0.1:port``."""

    def __init__(self, settings: Mapping[str, Any], run_dir: Path, clock: Clock | None = None) -> None:
        self.run_dir = run_dir
        if "cache" in settings:  # never the checkout's own folder: what one test stored would answer another
            values = {
                **settings,
                "cache": {"disk": {"path": str(run_dir / "cache"), "min_free": 0}, **settings["cache"]},
            }
        else:
            values = _relaying(settings)
        server = {"admin_token_file": str(run_dir / "admin_token"), **values.get("server", {})}
        self.settings = Settings.model_validate({**values, "server": server})
        self.clock = clock or SystemClock()
        self._slot = Slots(run_dir).claim()
        self._page = Page.create(run_dir / COUNTERS, self._slot.number, self.clock)
        self.counts = Watched(self._page)
        self.lines = Lines()
        self.house: House
        self.port = 0
        self._server: Closes

    async def open(self) -> None:
        self.house = House(
            self.settings,
            counters=self.counts,
            logs=self.lines,
            run_dir=self.run_dir,
            identity=IDENTITY,
            clock=self.clock,
        )
        await self.house.open()
        self.counts.settle = self.lines.settle = self.house.settle
        listener = listen("127.0.0.1", 0, 2048)[0]
        self.port = listener.getsockname()[1]
        self._server = await self.house.accept_from(listener, 2048)

    async def close(self) -> None:
        self._server.close()
        await self.house.close()
        self._page.close()
        self._slot.release()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def connect(self, **options: Any) -> Connection:
        return await Connection.open(self.port, **options)

    async def fetch(
        self, target: str, *lines: str, method: str = "GET", body: bytes = b"", host: str = "files.test"
    ) -> Got:
        return await fetch(self.port, method, target, *lines, body=body, host=host)

    async def quiet(self, within: float = 10.0) -> None:
        """Wait until no request is being served."""
        await self.counts.wait_for(lambda: self.counts["downloads.active"] == 0, within=within)


def _relaying(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A house whose settings do not speak of a cache only relays: nothing is kept between two requests of a test."""
    upstreams = list(settings.get("upstreams", {}))
    routes = settings.get("routes") or ([{"upstream": upstreams[0]}] if len(upstreams) == 1 else [])
    relayed = [{"cache": "off", **dict(route)} for route in routes]
    return {**settings, "routes": relayed, "cache": {"disk": "off", "memory": 0}}


# --- nothing left behind ---------------------------------------------------------------------------------------------


def descriptors() -> dict[int, str]:
    """Open descriptors of this process and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            what = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the one that lists the folder
        if what != os.devnull:  # libuv keeps one open for each loop that ever listened
            found[int(name)] = what
    return found


def other_tasks(known: Iterable[asyncio.Task[Any]]) -> list[str]:
    """Names of tasks of this loop that are neither known nor the caller's."""
    own = {*known, asyncio.current_task()}
    return sorted(task.get_name() for task in asyncio.all_tasks() if task not in own and not task.done())


async def settled(left: Callable[[], object], within: float = 5.0) -> None:
    """Let the loop turn until ``left()`` is empty; whoever calls asserts that it is. Closing takes turns, not time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while left() and loop.time() < deadline:
        await asyncio.sleep(0)


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
