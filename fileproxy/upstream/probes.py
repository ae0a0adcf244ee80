"""Asking mirrors how they are, beside the requests of clients.

* One that is shut off is asked again when its breaker says so (each second), until it is taken back: for the path of
  ``health_check``; without that by HEAD for the file it served last, which says that it answers, not more.
* With ``health_check`` the others are asked, too, each ``interval``. ``failure_threshold`` bad answers in a row shut a
  mirror off before a client has to find out. With ``load_field`` their answers say how busy they are.

A probe carries nothing of a client's request but the path, and never follows it into the retries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from fileproxy.clock import Clock
from fileproxy.errors import FileProxyError, UpstreamError
from fileproxy.model import Answer, Counters, Target, Want
from fileproxy.settings.schema import HealthCheck
from fileproxy.tasks import Tasks
from fileproxy.upstream.attempt import Patience
from fileproxy.upstream.breaker import Breaker
from fileproxy.upstream.gauge import REPORT_S, load_in
from fileproxy.upstream.mirrors import Mirror, Mirrors
from fileproxy.upstream.turns import Turns

TIMEOUT_S = 5.0  # of a probe without ``health_check``
MOST_READ = 65536  # bytes of a health page that are read so that its connection can be kept
_TOO_MANY_REQUESTS = 429


def due_in(breaker: Breaker, check: HealthCheck | Literal["off"], probed_at: float | None, now: float) -> float | None:
    """Seconds until a mirror is to be asked how it is; None: not before something happens. ``probed_at``: the last
    time it was.
    """
    again_s = breaker.probe_in(now)
    if again_s is not None:
        return again_s
    if check == "off":
        return None
    return 0.0 if probed_at is None else max(0.0, probed_at + check.interval - now)


def verdict(status: int, check: HealthCheck | Literal["off"]) -> bool | None:
    """What a probe's answer says: well, failing or nothing."""
    if check != "off":
        return status in check.statuses
    if status == _TOO_MANY_REQUESTS:
        return None
    return status < 500


class Probes:
    """The probes of one upstream. ``on_answer(mirror, answer)`` is told of each answer, for what its headers say."""

    def __init__(
        self,
        mirrors: Mirrors,
        turns: Turns,
        *,
        counters: Counters,
        clock: Clock,
        on_answer: Callable[[Mirror, Answer], None],
    ) -> None:
        self._mirrors = mirrors
        self._turns = turns
        self._counters = counters
        self._clock = clock
        self._on_answer = on_answer
        self._check: HealthCheck | Literal["off"] = "off"
        self._tasks = Tasks(lambda name, error: counters.add("tasks.failed"))
        self._watched: dict[int, asyncio.Task[None]] = {}
        self._probed_at: dict[int, float] = {}
        self._served: dict[int, Target] = {}
        self._closed = False

    def served(self, mirror: Mirror, target: Target) -> None:
        """A mirror has answered for this file."""
        self._served[mirror.index] = target

    def apply(self, check: HealthCheck | Literal["off"]) -> None:
        """Ask by these settings from now on."""
        if check != self._check:
            self._check = check
            for task in self._watched.values():
                task.cancel()
            self._watched.clear()
        for mirror in self._mirrors.all:
            self.watch(mirror.index)

    def watch(self, index: int) -> None:
        """See to it that a mirror is asked as long as that is called for."""
        if index in self._watched or self._closed or self._due_in(index) is None:
            return
        self._watched[index] = self._tasks.start(self._watch(index), f"probe-{self._mirrors.all[index].label}")

    def _due_in(self, index: int) -> float | None:
        return due_in(self._turns.breakers[index], self._check, self._probed_at.get(index), self._clock.now())

    async def _watch(self, index: int) -> None:
        while (wait_s := self._due_in(index)) is not None:
            if wait_s > 0:
                await self._clock.sleep(wait_s)
                continue  # the breaker may have closed meanwhile
            good = await self._probe(self._mirrors.all[index])
            self._probed_at[index] = self._clock.now()
            self._turns.probed(index, good)
        del self._watched[index]

    async def _probe(self, mirror: Mirror) -> bool | None:
        check = self._check
        self._counters.add("mirror.probes", label=mirror.label)
        timeout_s = TIMEOUT_S if check == "off" else check.timeout
        if check == "off":
            want = Want("HEAD", self._served.get(mirror.index, Target("/")), ())
        else:
            path, mark, query = check.path.partition("?")
            want = Want("GET", Target(path, query if mark else None), ())
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._mirrors.fetch(mirror, want, Patience(timeout_s, timeout_s, timeout_s))
                try:
                    self._on_answer(mirror, answer)
                    page = await _page(answer)
                finally:
                    await answer.body.aclose()
        except TimeoutError:
            good: bool | None = False
        except UpstreamError:
            good = False
        except FileProxyError:
            good = None  # our own shortage
        else:
            good = verdict(answer.status, check)
            if good and check != "off" and check.load_field is not None and page is not None:
                # Until the next answer, and the one after that should it fail.
                holds_s = max(REPORT_S, 2 * (check.interval + check.timeout))
                mirror.gauge.report(load_in(page, check.load_field), self._clock.now(), holds_s=holds_s)
        if good is False:
            self._counters.add("mirror.probes_failed", label=mirror.label)
        return good

    async def close(self) -> None:
        """Ask no more."""
        self._closed = True
        await self._tasks.close()
        self._watched.clear()


async def _page(answer: Answer) -> bytes | None:
    """The whole body; None when it is longer than ``MOST_READ``."""
    page = bytearray()
    async for piece in answer.body:
        if isinstance(piece, bytes):
            page += piece
        if len(page) > MOST_READ or not isinstance(piece, bytes):
            return None
    return bytes(page)
