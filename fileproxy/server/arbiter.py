"""The master process: gunicorn's arbiter with a reload that cuts nobody off.

* HUP: the configuration is read again; ``reload.py`` says how a change is taken over.
* TERM: accepts no more, waits for the last download (or ``drain_timeout``). A second TERM, INT or QUIT ends at once.
* A worker that was told to leave may take as long as its downloads; it counts as gone, so it is replaced at once.
* A worker that ends untold is replaced and counted; one that keeps ending is replaced later and later. Until the
  service has stood once, a worker that cannot start ends it all with a sentence instead.
* The embedded children are watched here, and end here last.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from gunicorn import systemd
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter as GunicornArbiter
from gunicorn.errors import HaltServer

from fileproxy.embedded import Backoff, Embedded
from fileproxy.model import Counters
from fileproxy.process import set_title
from fileproxy.server.control import Report, RunDir, Status
from fileproxy.server.listeners import url_of
from fileproxy.server.reload import Reload, worker_count
from fileproxy.server.worker import BOOT_FAILED, HELD, Build, Plan, Worker
from fileproxy.settings import Settings

QUICK_S = 2.0  # from QUIT to KILL
OVERDUE_S = 5.0  # how much later than drain_timeout a worker is killed
TICK_S, QUICK_TICK_S = 1.0, 0.05


@dataclass(slots=True)
class Masters:
    """What the master is made of. ``serve`` puts it together."""

    load: Callable[[], Settings]  # the configuration as it is now; raises ConfigurationError
    configured: Settings  # as configured; plan.settings has the embedded parts filled in
    plan: Plan
    build: Build
    run_dir: RunDir
    embedded: Embedded
    counters: Counters
    listeners: list[socket.socket]
    say: Callable[..., None]  # (level, event, **fields): one error log line
    apply_logs: Callable[[Settings], None]
    reopen_logs: Callable[[], None]
    ready: Callable[[str], None]  # called once with the URL when all workers accept
    close_logs: Callable[[], None]
    parting: list[socket.socket] = field(default_factory=list)  # listeners that workers forked now do not serve

    def let_go(self) -> None:
        """In a worker that stands: close what it inherited and only the master uses, so that it ends with the master.

        A listening socket held here would take connections nobody accepts; a rotated log would keep its disk space.
        """
        for listener in self.parting:
            listener.close()
        self.embedded.let_go()
        self.close_logs()

    def close(self) -> None:
        """End the embedded children and free the run folder. Only in the master, at its end."""
        self.embedded.close()
        self.run_dir.unlock()


class Application(BaseApplication):  # type: ignore[misc]
    """gunicorn's view of it. Nothing of gunicorn's own configuration files, flags or environment is read."""

    def __init__(self, masters: Masters) -> None:
        self.masters = masters
        super().__init__()

    def load_config(self) -> None:
        values = {
            "workers": worker_count(self.masters.configured),
            "worker_class": Worker,
            "timeout": 30,
            "logger_class": Log,
            "control_socket_disable": True,
            "worker_tmp_dir": memory_folder(),
            "proc_name": "fileproxy",
            "preload_app": True,
        }
        for name, value in values.items():
            self.cfg.set(name, value)

    def load(self) -> Build:
        return self.masters.build


class Arbiter(GunicornArbiter):  # type: ignore[misc]
    """See the module docstring."""

    LISTENERS: list[socket.socket]
    WORKERS: dict[int, Worker]
    always_rolls = False  # whether HUP replaces the workers even when the change needs no new ones

    def __init__(self, app: Application) -> None:
        super().__init__(app)
        self.log.say = app.masters.say
        self.begin(app.masters)

    def begin(self, masters: Masters) -> None:
        """What a new master starts with, beside what gunicorn's has."""
        self.pid = os.getpid()
        self.masters = masters
        self.LISTENERS = masters.listeners
        self.WORKERS = {}
        self.batch = 0  # workers of this number serve; others are leaving or about to take over
        self.reload_again = False
        self.reloading: Reload | None = None
        self._stood = False
        self._ending = False
        self._backoff = Backoff()
        self._spawn_at = 0.0
        self._shown: Status | None = None

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        set_title("fileproxy")
        self.init_signals()

    def run(self) -> None:
        try:
            super().run()
        finally:
            if os.getpid() == self.pid:  # a forked worker passes here too
                self.masters.close()

    def stop(self, graceful: bool = True) -> None:
        """Close the door, let workers leave, and return when the last has gone."""
        self._ending = True
        self.reloading = None
        for listener in self.LISTENERS:
            listener.close()
        self.LISTENERS = []
        systemd.sd_notify("STOPPING=1", self.log)
        patience = self.masters.plan.settings.server.drain_timeout
        kill_at = None if patience is None else time.monotonic() + patience + OVERDUE_S
        if graceful:
            for worker in list(self.WORKERS.values()):
                self.send_away(worker)
        else:
            kill_at = self._end_at_once()
        while self.WORKERS:
            for number in self.wait_for_signals(0.1):
                if number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                    kill_at = self._end_at_once()
                elif number == signal.SIGUSR1:
                    self.handle_usr1()
            self.reap_workers()
            self.murder_workers()
            self.masters.embedded.watch()
            if kill_at is not None and time.monotonic() >= kill_at:
                self.kill_workers(signal.SIGKILL)

    def _end_at_once(self) -> float:
        self.kill_workers(signal.SIGQUIT)
        return time.monotonic() + QUICK_S

    # --- signals ------------------------------------------------------------------------------------------------------

    def wait_for_signals(self, timeout: float = TICK_S) -> list[int]:
        busy = self.reloading is not None or not self._stood
        signals: list[int] = super().wait_for_signals(QUICK_TICK_S if busy else timeout)
        return signals

    def handle_hup(self) -> None:
        if self.reloading is not None:
            self.reload_again = True
        else:
            self.reloading = Reload.begin(self)

    def handle_usr1(self) -> None:
        self.masters.reopen_logs()
        self.kill_workers(signal.SIGUSR1)

    def handle_usr2(self) -> None:
        self.masters.say("warning", "USR2 is not supported; restart FileProxy to run another version of it")

    def handle_winch(self) -> None:
        """A terminal that changed its size is nothing to us."""

    # --- workers ------------------------------------------------------------------------------------------------------

    def serving(self) -> list[Worker]:
        """The workers that count: of the current batch and not told to leave, oldest first."""
        mine = [one for one in self.WORKERS.values() if one.batch == self.batch and not one.leaving]
        return sorted(mine, key=lambda worker: worker.age)

    def manage_workers(self) -> None:
        """One turn of the main loop."""
        self.masters.embedded.watch()
        serving = self.serving()
        for worker in serving[: max(0, len(serving) - self.num_workers)]:
            self.send_away(worker)
        replacing = self.reloading is not None and self.reloading.rolling
        if len(serving) < self.num_workers and not replacing and time.monotonic() >= self._spawn_at:
            for _ in range(self.num_workers - len(serving)):
                self.spawn_worker()
        if self.reloading is not None and self.reloading.step():
            self.reloading = None
            if self.reload_again:
                self.reload_again = False
                self.reloading = Reload.begin(self)
        serving = self.serving()
        if not self._stood and len(serving) == self.num_workers and all(one.report().generation for one in serving):
            self._stood = True
            self.write_status()  # before anybody is told that it stands
            systemd.sd_notify("READY=1", self.log)
            self.masters.ready(self.url)
        self.write_status()

    def spawn_worker(self, batch: int | None = None) -> int:
        """Fork a worker of the current batch (or of ``batch``). Returns its pid; in the child it never returns."""
        # What is signalled from now on waits until the child listens: it would be lost, or kill it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
        try:
            pid: int = super().spawn_worker()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        worker = self.WORKERS[pid]
        worker.batch = self.batch if batch is None else batch
        worker.born = time.monotonic()
        self.masters.counters.add("workers.started")
        return pid

    def send_away(self, worker: Worker) -> None:
        """Tell a worker to leave when its last download has ended. Once: it may take long."""
        if not worker.leaving:
            worker.leaving = True
            self.kill_worker(worker.pid, signal.SIGTERM)

    def call_workers(self) -> None:
        """Have the workers that serve look for a newer settings generation."""
        for worker in self.serving():
            self.kill_worker(worker.pid, signal.SIGHUP)

    def reap_workers(self) -> None:
        """Collect every child that has ended: workers, embedded ones, and orphans given to us as process 1."""
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                return
            if self.masters.embedded.reap(found.si_pid):
                continue
            _, status = os.waitpid(found.si_pid, 0)
            worker = self.WORKERS.pop(found.si_pid, None)
            if worker is not None:
                report = worker.report()
                worker.tmp.close()
                self._worker_ended(worker, os.waitstatus_to_exitcode(status), report)

    def _worker_ended(self, worker: Worker, code: int, report: Report) -> None:
        how = report.problem if code == BOOT_FAILED else _ending(code)
        if self._ending or (worker.leaving and code == 0):
            return
        if self.reloading is not None and self.reloading.lost(worker, how):
            return
        if not self._stood:
            raise HaltServer(f"a worker could not start: {how}", 1)
        self.masters.counters.add("workers.crashed")
        pause = self._backoff.after(time.monotonic() - worker.born)
        self._spawn_at = time.monotonic() + pause
        self.masters.say("error", "worker_crashed", crashed_pid=worker.pid, detail=how, replaced_in_seconds=pause)

    def halt(self, reason: str | None = None, exit_status: int = 0) -> None:
        if reason is not None:
            print(f"fileproxy: {reason}", file=sys.stderr, flush=True)  # noqa: T201 (nothing serves; nobody reads a log)
        if exit_status:
            self.stop(graceful=False)  # a worker that failed to start may hang where it failed
        super().halt(reason, exit_status)

    # --- what others see ----------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return url_of(self.masters.plan.settings.server.host, self.LISTENERS)

    def write_status(self) -> None:
        """Say in the run folder how things stand, when that has changed. Nothing before all workers accept."""
        if not self._stood:
            return
        plan = self.masters.plan
        status = Status(
            pid=self.pid,
            started_at=plan.started_at,
            url=self.url,
            generation=plan.generation,
            workers=[worker.pid for worker in self.serving()],
            draining=[worker.pid for worker in self.WORKERS.values() if worker.leaving],
            restarted={child.name: child.restarts for child in self.masters.embedded.children},
        )
        if status != self._shown:
            self.masters.run_dir.write_status(status)
            self._shown = status

    def take_plan(self, settings: Settings, generation: int) -> None:
        """What workers forked from now on get."""
        self.masters.plan = replace(self.masters.plan, settings=settings, generation=generation)


class Log:
    """What gunicorn's arbiter and workers log, as lines of ours. Its chatter (signals, pids) is ``debug`` here."""

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg
        self.say: Callable[..., None] = lambda level, event, **fields: None

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg

    def debug(self, message: str, *values: object, **_: object) -> None:
        """Left out: debug lines dump gunicorn's whole configuration."""

    def info(self, message: str, *values: object, **_: object) -> None:
        self.say("debug", _text(message, values))

    def warning(self, message: str, *values: object, **extra: object) -> None:
        self.say("warning", _text(message, values), **_trace(extra))

    def error(self, message: str, *values: object, **extra: object) -> None:
        self.say("error", _text(message, values), **_trace(extra))

    def critical(self, message: str, *values: object, **extra: object) -> None:
        self.say("critical", _text(message, values), **_trace(extra))

    def exception(self, message: str, *values: object, **_: object) -> None:
        self.say("error", _text(message, values), exc_info=True)

    def close_on_exec(self) -> None:
        """Our descriptors are closed on exec from the start."""

    def reopen_files(self) -> None:
        """``Arbiter.handle_usr1`` does it."""


def memory_folder() -> str | None:
    """Where heartbeats are written: in memory where there is such a folder, so that no slow disk looks like a hang."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None  # noqa: S108


def _text(message: str, values: tuple[object, ...]) -> str:
    return message % values if values else message


def _trace(extra: dict[str, object]) -> dict[str, object]:
    return {"exc_info": extra["exc_info"]} if extra.get("exc_info") else {}


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
