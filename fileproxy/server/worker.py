"""The gunicorn worker: one process, one event loop, one house.

What it hears, and does:

| signal    | from                  | does                                                                        |
|-----------|-----------------------|-----------------------------------------------------------------------------|
| TERM      | master, kernel¹       | accepts no more, lets running downloads end (or ``drain_timeout``), exits 0 |
| INT, QUIT | master, Ctrl-C        | ends at once                                                                |
| HUP       | master                | takes over the newest settings generation, tells the master how it went     |
| USR1      | master                | opens its log files anew                                                    |
| ABRT      | master, when it hangs | writes where it hangs to stderr and dies                                    |

¹ at the master's death, however it died. From the fork until these handlers stand, the signals are held back by the
kernel (``HELD``), so none is lost and none kills.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gunicorn.workers import base

from fileproxy.errors import FileProxyError
from fileproxy.process import die_with_parent, set_title
from fileproxy.server.control import Report, RunDir
from fileproxy.settings import Settings
from fileproxy.tasks import Tasks

HELD = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1)
HEARTBEAT_S = 1.0
DRAIN_LOOK_S = 0.05  # how often a draining worker looks whether the last download has ended
BOOT_FAILED = 3  # gunicorn's exit status for a worker that could not boot
UNDRAINED_EXIT_S = 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What the master hands to every worker it forks."""

    settings: Settings  # effective: embedded parts filled in
    generation: int
    identity: str  # random, the same in all workers of one start
    run_dir: Path
    started_at: float  # seconds since the epoch


class Closes(Protocol):
    """What accepts, until it is closed."""

    def close(self) -> None: ...


class Housing(Protocol):
    """The house as its worker sees it (``app.House``, and the logs that belong to it)."""

    async def open(self) -> None: ...

    async def accept_from(self, listener: socket.socket, backlog: int) -> Closes: ...

    async def apply(self, settings: Settings, generation: int) -> None: ...

    def drain(self) -> None: ...

    @property
    def busy(self) -> int: ...

    async def close(self) -> None: ...


class Household(Protocol):
    """A house with what belongs to its process; ``boot.py`` makes it."""

    @property
    def house(self) -> Housing: ...

    def reopen_logs(self) -> None: ...

    def failed(self, task: str, error: BaseException) -> None: ...

    def say(self, level: str, event: str, **fields: object) -> None: ...

    def close(self) -> None: ...


Build = Callable[[Plan, dict[str, object]], Household]


def new_loop(settings: Settings) -> tuple[asyncio.AbstractEventLoop, bool]:
    """The event loop of a worker, and whether it is uvloop's (``server.uvloop``; missing uvloop is no error)."""
    if settings.server.uvloop == "auto":
        try:
            import uvloop  # noqa: PLC0415  (only where it is wanted and installed)
        except ImportError:
            return asyncio.new_event_loop(), False
        return uvloop.new_event_loop(), True
    return asyncio.new_event_loop(), False


class Worker(base.Worker):  # type: ignore[misc]
    """For gunicorn's ``worker_class``. Its application's ``wsgi()`` is a ``Build``, ``masters.plan`` the ``Plan``."""

    plan: Plan
    # What the master knows of it:
    batch = 0  # of which rolling replacement
    leaving = False  # was told to leave
    born = 0.0  # time.monotonic()

    def report(self) -> Report:
        """What it last told the master."""
        return Report.read(self.tmp.fileno())

    def init_signals(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGWINCH, signal.SIG_IGN)
        faulthandler.enable()
        if sys.platform == "linux":
            die_with_parent(self.ppid, signal.SIGTERM)

    def run(self) -> None:
        self.booted = False
        self.plan = plan_of(self.app)
        set_title("fileproxy-work")
        try:
            loop, uvloop_enabled = new_loop(self.plan.settings)
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(self._live(uvloop_enabled))
        except Exception as error:
            self._tell(Report(problem=_sentence(error)))
            if self.booted:
                raise
            self.log.error("Worker (pid:%s) could not start: %s", self.pid, _sentence(error), exc_info=True)
            sys.exit(BOOT_FAILED)
        sys.exit(0)

    async def _live(self, uvloop_enabled: bool) -> None:
        loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._leave = self._end = self._catch_up = False
        loop.add_signal_handler(signal.SIGTERM, self._hear, "_leave")
        loop.add_signal_handler(signal.SIGINT, self._hear, "_end")
        loop.add_signal_handler(signal.SIGQUIT, self._hear, "_end")
        loop.add_signal_handler(signal.SIGHUP, self._hear, "_catch_up")

        facts: dict[str, object] = {"uvloop_enabled": uvloop_enabled, "started_at": self.plan.started_at}
        household = self.wsgi(self.plan, facts)
        house: Housing = household.house
        loop.add_signal_handler(signal.SIGUSR1, household.reopen_logs)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
        tasks = Tasks(household.failed)
        settings, generation = self.plan.settings, self.plan.generation
        servers: list[Closes] = []
        try:
            tasks.start(self._heartbeat(), "heartbeat")
            await house.open()
            for listener in self.sockets:
                sock: socket.socket = getattr(listener, "sock", listener)  # gunicorn wraps its own
                servers.append(await house.accept_from(sock, settings.server.backlog))
            self.booted = True
            self.log.say = household.say
            self.app.masters.let_go()
            self._tell(Report(generation))
            self._catch_up = True  # the master may have gone on while we booted
            self._wake.set()
            while not (self._leave or self._end):
                await self._wake.wait()
                self._wake.clear()
                if self._catch_up:
                    self._catch_up = False
                    settings, generation = await self._take_over(household, settings, generation)
            for server in servers:
                server.close()
            if not self._end:
                await self._drain(house, settings)
        finally:
            await self._close(household, tasks)

    async def _take_over(self, household: Household, settings: Settings, generation: int) -> tuple[Settings, int]:
        """The newest generation, applied; or what was, when there is none newer or it cannot be applied."""
        newest = 0
        try:
            found = RunDir(self.plan.run_dir).read_settings()
            if found is None or found[0] <= generation:
                return settings, generation
            newest = found[0]
            await household.house.apply(found[1], newest)
        except Exception as error:
            household.say("error", "reload_failed", generation=newest, detail=_sentence(error))
            self._tell(Report(generation, newest, _sentence(error)))
            return settings, generation
        self._tell(Report(newest))
        return found[1], newest

    async def _drain(self, house: Housing, settings: Settings) -> None:
        """Until no client is being served, ``drain_timeout`` is over, or we are told to end at once."""
        house.drain()
        patience = settings.server.drain_timeout
        deadline = None if patience is None else time.monotonic() + patience
        while house.busy and not self._end:
            if deadline is not None and time.monotonic() >= deadline:
                return
            await asyncio.sleep(DRAIN_LOOK_S)

    async def _close(self, household: Household, tasks: Tasks) -> None:
        try:
            async with asyncio.timeout(UNDRAINED_EXIT_S):
                await household.house.close()
        except TimeoutError:
            household.say("warning", "close_timed_out", seconds=UNDRAINED_EXIT_S)
        except Exception as error:  # of a house that did not open; why it did not is what must be told
            household.say("warning", "close_failed", detail=_sentence(error))
        await tasks.close()
        household.close()

    async def _heartbeat(self) -> None:
        """Tell the master each second that the loop turns, also while draining; leave when the master is gone."""
        while True:
            self.notify()
            if self.ppid != os.getppid():
                self._hear("_leave")
            await asyncio.sleep(HEARTBEAT_S)

    def _hear(self, wish: str) -> None:
        setattr(self, wish, True)
        self._wake.set()

    def _tell(self, report: Report) -> None:
        report.write(self.tmp.fileno())
        self.notify()  # the write has changed the heartbeat's time stamp


def _sentence(error: BaseException) -> str:
    if isinstance(error, FileProxyError | OSError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def plan_of(app: Any) -> Plan:
    """The plan an application carries; a clear error when gunicorn was started with another configuration."""
    plan = getattr(getattr(app, "masters", None), "plan", None)
    if not isinstance(plan, Plan):
        raise RuntimeError("FileProxy's worker needs `gunicorn -c gunicorn.conf.py` or `fileproxy serve`")
    return plan
