"""How a changed configuration is taken over, without cutting a download.

* wrong, or only a restart could apply it → refused, nothing changes
* in place (:class:`InPlace`): the new generation is written, every worker takes it over for its next request. When one
  cannot, the old settings are published again as a newer generation, so that all workers agree.
* rolling (:class:`Rolling`): new listeners if the address changed, new workers, and when all of them accept, the old
  ones are sent away. When one cannot start, the new ones are sent away instead.

``begin`` and ``step`` run in the master's main loop and never wait.
"""

from __future__ import annotations

import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fileproxy.errors import ConfigurationError
from fileproxy.process import cpu_count
from fileproxy.server.control import Outcome
from fileproxy.server.listeners import listen
from fileproxy.settings import Settings
from fileproxy.settings.change import Change, difference

if TYPE_CHECKING:
    from fileproxy.server.arbiter import Arbiter
    from fileproxy.server.worker import Worker

CONFIRM_S = 15.0  # for the workers to take over a generation
START_S = 60.0  # for new workers to accept
WORKERS = "server.workers"  # marked rolling, but the number alone needs no new workers
ADDRESS = ("server.host", "server.port")


class Reload(ABC):
    """One reload on its way. ``rolling`` says that workers are being replaced, so that nobody else starts any."""

    rolling = False

    def __init__(self, master: Arbiter, configured: Settings, settings: Settings, changes: list[str]) -> None:
        self.master = master
        self.old = master.masters.configured
        self.old_plan = master.masters.plan
        self.configured = configured
        self.settings = settings
        self.changes = changes
        self.generation = self.old_plan.generation + 1

    @staticmethod
    def begin(master: Arbiter) -> Reload | None:
        """Read the configuration and start taking it over; None when that was all."""
        masters = master.masters
        try:
            configured = masters.load()
        except ConfigurationError as error:
            conclude(master, "refused", problems=error.problems)
            return None
        change = difference(masters.configured, configured)
        if change.restart:
            problems = [f"{key}: only a restart can change it (fileproxy stop, then serve)" for key in change.restart]
            conclude(master, "refused", problems=problems)
            return None
        changes = [f"{one.key}: {_shown(one.old)} → {_shown(one.new)}" for one in change.differences]
        if not changes and not master.always_rolls:
            conclude(master, "unchanged")
            return None
        try:
            settings = masters.embedded.fit(configured)
            if master.always_rolls or set(change.rolling) - {WORKERS}:
                return Rolling(master, configured, settings, changes, change)
            return InPlace(master, configured, settings, changes)
        except OSError as error:
            masters.embedded.retire(masters.configured)
            conclude(master, "refused", problems=[error.strerror or str(error)])
            return None

    @abstractmethod
    def step(self) -> bool:
        """Go on as far as possible. True when the reload is over."""

    def lost(self, worker: Worker, how: str) -> bool:
        """A worker ended untold. True when that is this reload's business and not a crash."""
        return False

    def _commit(self, outcome: str, problems: list[str]) -> None:
        masters = self.master.masters
        masters.configured = self.configured
        masters.embedded.retire(self.configured)
        masters.apply_logs(self.settings)
        conclude(self.master, outcome, self.changes, problems)


class InPlace(Reload):
    """The running workers take it over."""

    def __init__(self, master: Arbiter, configured: Settings, settings: Settings, changes: list[str]) -> None:
        super().__init__(master, configured, settings, changes)
        self._deadline = time.monotonic() + CONFIRM_S
        self._publish(settings, configured)

    def step(self) -> bool:
        serving = self.master.serving()
        reports = {worker.pid: worker.report() for worker in serving}
        problems = [one.problem for one in reports.values() if one.failed >= self.generation]
        if problems:
            self.generation += 1
            self._publish(self.old_plan.settings, self.old)
            self.master.masters.embedded.retire(self.old)
            conclude(self.master, "refused", problems=list(dict.fromkeys(problems)))
            return True
        waiting = [pid for pid, report in reports.items() if report.generation < self.generation]
        if not waiting and len(serving) == self.master.num_workers:
            self._commit("applied", [])
            return True
        if time.monotonic() >= self._deadline:
            late = ", ".join(map(str, waiting)) or "being started"
            self._commit("applied", [f"not yet confirmed by every worker (pid {late})"])
            return True
        return False

    def _publish(self, settings: Settings, configured: Settings) -> None:
        self.master.masters.run_dir.write_settings(self.generation, settings)
        self.master.take_plan(settings, self.generation)
        self.master.num_workers = worker_count(configured)
        self.master.call_workers()


class Rolling(Reload):
    """New workers take over, the old ones drain."""

    rolling = True

    def __init__(
        self, master: Arbiter, configured: Settings, settings: Settings, changes: list[str], change: Change
    ) -> None:
        super().__init__(master, configured, settings, changes)
        self._listeners = master.LISTENERS
        self._problems: list[str] = []
        self._deadline = time.monotonic() + START_S
        self._batch = master.batch + 1
        self._count = worker_count(configured)
        if set(ADDRESS) & set(change.rolling):
            server = settings.server
            master.LISTENERS = listen(server.host, server.port, server.backlog, beside=self._listeners)
            master.masters.parting = self._listeners
        master.take_plan(settings, self.generation)
        for _ in range(self._count):
            master.spawn_worker(self._batch)

    def step(self) -> bool:
        mine = [worker for worker in self.master.WORKERS.values() if worker.batch == self._batch]
        if not self._problems and len(mine) == self._count and all(worker.report().generation for worker in mine):
            self._take_over()
            return True
        if time.monotonic() >= self._deadline:
            self._problems.append(f"the new workers did not start within {START_S:g} s")
        if self._problems:
            self._give_up(mine)
            return True
        return False

    def lost(self, worker: Worker, how: str) -> bool:
        if worker.batch == self._batch:
            self._problems.append(f"a new worker could not start: {how}")
            return True
        return False

    def _take_over(self) -> None:
        master = self.master
        old = master.serving()
        master.batch, master.num_workers = self._batch, self._count
        master.masters.run_dir.write_settings(self.generation, self.settings)
        for worker in old:
            master.send_away(worker)
        if master.LISTENERS is not self._listeners:
            _close(self._listeners)
            master.masters.parting = []
        self._commit("rolled", [])

    def _give_up(self, mine: list[Worker]) -> None:
        master = self.master
        for worker in mine:
            master.send_away(worker)
        if master.LISTENERS is not self._listeners:
            _close(master.LISTENERS)
            master.LISTENERS, master.masters.parting = self._listeners, []
        for listener in master.LISTENERS:
            listener.listen(self.old_plan.settings.server.backlog)  # a new worker may have set its own
        master.masters.plan = self.old_plan
        master.masters.embedded.retire(self.old)
        conclude(master, "refused", problems=list(dict.fromkeys(self._problems)))


def worker_count(settings: Settings) -> int:
    """Worker processes wanted (``server.workers``)."""
    wanted = settings.server.workers
    return cpu_count() if wanted == "auto" else wanted


def conclude(master: Arbiter, outcome: str, changes: Sequence[str] = (), problems: Sequence[str] = ()) -> None:
    """Say what became of a reload: in the log, and in the file that ``fileproxy reload`` waits for."""
    masters = master.masters
    before = masters.run_dir.read_outcome()
    number = before.number + 1 if before else 1
    generation = masters.plan.generation
    for problem in problems:
        masters.say("error" if outcome == "refused" else "warning", f"reload_{outcome}", detail=problem)
    if outcome != "refused":
        masters.say("info", f"reload_{outcome}", generation=generation, changes=list(changes))
    master.write_status()  # `status` right after `reload` shows the new workers
    masters.run_dir.write_outcome(Outcome(number, outcome, generation, list(changes), list(problems)))


def _shown(value: object) -> object:
    return "unset" if value is None else value


def _close(listeners: list[socket.socket]) -> None:
    for listener in listeners:
        listener.close()
