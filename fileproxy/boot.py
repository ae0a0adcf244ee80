"""Joins what a process of the service is made of: the house, and the observation that belongs to its process.

``server/worker.py`` and ``server/arbiter.py`` receive these as functions, so that ``server`` knows neither ``observe``
nor ``app.py``.
"""

from __future__ import annotations

import os
import traceback

from fileproxy.app import House
from fileproxy.clock import SystemClock
from fileproxy.observe.logs import Logs
from fileproxy.observe.page import Page
from fileproxy.observe.slots import Slots
from fileproxy.reports import COUNTERS
from fileproxy.server.worker import Plan


class Household:
    """A worker's house, its slot, counter page and logs. The slot is held until the process ends."""

    def __init__(self, plan: Plan, facts: dict[str, object]) -> None:
        clock = SystemClock()
        self.slot = Slots(plan.run_dir).claim()
        page = Page.create(plan.run_dir / COUNTERS, self.slot.number, clock)
        self._counters = page
        self.logs = Logs(
            plan.settings.logs, counters=page, facts={"pid": os.getpid(), "worker": self.slot.number}, clock=clock
        )
        self.logs.capture()
        if page.problem:
            self.logs.event("warning", "counter page not usable", detail=page.problem)
        self.house = House(
            plan.settings,
            counters=page,
            logs=self.logs,
            run_dir=plan.run_dir,
            identity=plan.identity,
            clock=clock,
            facts={**facts, "worker": self.slot.number, "generation": plan.generation},
        )

    def reopen_logs(self) -> None:
        self.logs.reopen()

    def say(self, level: str, event: str, **fields: object) -> None:
        self.logs.event(level, event, **fields)

    def failed(self, task: str, error: BaseException) -> None:
        self._counters.add("tasks.failed")
        self.logs.event("error", "task_failed", task=task, detail="".join(traceback.format_exception(error)))

    def close(self) -> None:
        """Write the last log lines."""
        self.logs.close()


def build(plan: Plan, facts: dict[str, object]) -> Household:
    """A worker's household; ``plan`` comes from the master."""
    return Household(plan, facts)
