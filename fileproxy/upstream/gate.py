"""Before a request is sent to an upstream: the rate and the concurrency limit, and the fair line of those held up.

A request that neither limit holds up passes without a task, a future or a turn of the loop. The others wait in a line
in which clients take turns (``control/line.py``), not longer than ``retry.within`` lets a try begin. Who would wait
longer than that, by what is known now, is turned away at once: 503 with Retry-After. When the line is full, the last of
whoever has most in it makes room.

One download is never held up by itself: while everything on its way belongs to one ask (its parallel segments), the
adaptive concurrency limit does not count, only the connections there may be.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from fileproxy.clock import Clock
from fileproxy.control.limiter import Bucket, Gradient, Rate
from fileproxy.control.line import FairLine
from fileproxy.errors import Shed
from fileproxy.model import Counters, Want
from fileproxy.tasks import Tasks

MOST_WAITING = 1024  # of one upstream in one worker
LONGEST_RETRY_AFTER_S = 60.0
TICK_S = 0.005  # permits are not waited for one by one when they come faster
HOLD_SHARE = 0.1  # what one more request counts in how long a place is held

Limit = Literal["auto", "off"] | int


@dataclass(slots=True, eq=False)
class Pass:
    """A request of this ask may go; ``Gate.leave`` with it whatever happens. ``since``: when it was sent."""

    ask: str
    since: float
    left: bool = False


@dataclass(frozen=True, slots=True)
class Machine:
    """What is known of all workers: how many there are and which of them this one is (``rank``, from 0), what came of
    this upstream's tries, and the rate that the one which leads (``leads``: this one) has settled on (0: none does).
    """

    workers: int
    rank: int
    leads: bool
    answers: int
    errors: int
    rate: int


@dataclass(slots=True, eq=False)
class _Waiting:
    ask: str
    place: asyncio.Future[Pass | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Gate:
    """The limits of one upstream in one worker.

    Args:
        name: of the upstream; what it is counted under.
        ceiling: connections there may be to its servers; None: it has none to connect to (a folder).
        rate: requests a second of the whole machine: ``auto``, ``off`` or so many.
        concurrency: requests on their way at a time in this worker: likewise.
    """

    def __init__(
        self, name: str, *, ceiling: int | None, rate: Limit, concurrency: Limit, counters: Counters, clock: Clock
    ) -> None:
        self._name = name
        self._ceiling = ceiling
        self._counters = counters
        self._clock = clock
        self._line: FairLine[_Waiting] = FairLine()
        self._in_flight = 0
        self._lined: set[str] = set()  # asks that wait in the line
        self._ids: dict[str, int] = {}  # requests on their way of each ask
        self._hold_s: float | None = None  # how long a place is held, on average
        self._workers = 1
        self._machine: Machine | None = None
        self._answers = self._errors = 0  # of this worker, for who has no machine
        self._rate: Rate | None = None
        self._bucket: Bucket | None = None
        self._gradient: Gradient | None = None
        self._most: int | None = None  # the concurrency that was configured
        self._settings: tuple[Limit, Limit] = ("off", "off")
        self._published: dict[str, int] = {}
        self._retired = False
        self._tasks = Tasks(lambda name, error: counters.add("tasks.failed"))
        self._refilling: asyncio.Task[None] | None = None
        self.apply(rate, concurrency)

    def apply(self, rate: Limit, concurrency: Limit) -> None:
        """Go by other limits; what was learned stays where it is still of use."""
        if self._ceiling is None:
            rate = concurrency = "off"
        old, self._settings = self._settings, (rate, concurrency)
        if rate != old[0]:
            self._rate = Rate() if rate == "auto" else None
            self._bucket = None
            self._turn_rate()
        if concurrency != old[1]:
            self._gradient = Gradient(self._ceiling or 1) if concurrency == "auto" else None
            self._most = concurrency if isinstance(concurrency, int) else None
        self._publish()
        self._call()

    # --- passing ------------------------------------------------------------------------------------------------------

    def enter(self, want: Want) -> Pass | None:
        """A pass, when nothing holds this request up; None: ``wait`` for it."""
        if self._line or not self._fits(want.id):
            return None
        now = self._clock.now()
        if self._bucket is not None and not self._bucket.take(now):
            return None
        return self._admit(want.id, now)

    async def wait(self, want: Want, within_s: float) -> Pass:
        """A pass, as soon as it is this request's turn.

        Raises:
            Shed: that will not be, or was not, within ``within_s`` seconds; or the line is full.
        """
        client = want.client
        wait_s = self._expected_s(client)
        if wait_s > within_s:
            raise self._shed(f"about {wait_s:.0f} s to wait for its limits", wait_s)
        if len(self._line) >= MOST_WAITING:
            last = self._line.crowd_out(client)
            if last is None:
                raise self._shed("too many are waiting", wait_s)
            if not last.place.done():
                last.place.set_result(None)
        waiting = _Waiting(want.id)
        self._line.add(client, waiting)
        self._lined.add(want.id)
        self._counters.add("upstream.waited", label=self._name)
        self._publish()
        self._call()  # nothing may be in its way any more but that others were waiting
        taken: Pass | None = None
        try:
            async with asyncio.timeout(max(0.0, within_s)):
                taken = await waiting.place
        except TimeoutError:
            raise self._shed(f"no room within {within_s:g} s", self._expected_s(client)) from None
        finally:
            self._line.remove(client, waiting)
            self._lined.discard(want.id)
            place = waiting.place
            if taken is None and place.done() and not place.cancelled() and (late := place.result()) is not None:
                self._undo(late)  # called in the very moment it gave up waiting
            self._publish()
        if taken is None:
            raise self._shed("too many are waiting", self._expected_s(client))
        return taken

    def holds(self, ask: str) -> bool:
        """A request of this ask waits here."""
        return ask in self._lined

    def leave(self, taken: Pass, *, learn: bool = True) -> None:
        """The request is over, its body included. ``learn``: how long it took tells how long a place is held."""
        if taken.left:
            return
        taken.left = True
        self._in_flight -= 1
        left = self._ids[taken.ask] - 1
        if left:
            self._ids[taken.ask] = left
        else:
            del self._ids[taken.ask]
        if learn:
            took_s = max(0.0, self._clock.now() - taken.since)
            self._hold_s = took_s if self._hold_s is None else self._hold_s + (took_s - self._hold_s) * HOLD_SHARE
        if self._line:
            self._call()

    def _undo(self, taken: Pass) -> None:
        if self._bucket is not None:
            self._bucket.give_back()
        self.leave(taken, learn=False)

    def _fits(self, ask: str) -> bool:
        most = self._most
        if most is None:
            if self._gradient is None:
                return True
            lone = ask and len(self._ids) == 1 and ask in self._ids
            most = self._gradient.ceiling if lone else self._gradient.limit
        return self._in_flight < most

    def _admit(self, ask: str, now: float) -> Pass:
        self._in_flight += 1
        self._ids[ask] = self._ids.get(ask, 0) + 1
        return Pass(ask, now)

    def _call(self) -> None:
        """Let those go whom nothing holds up any more, in turn."""
        while (waiting := self._line.first()) is not None:
            if not waiting.place.done():
                if not self._fits(waiting.ask):
                    return  # who leaves calls again
                now = self._clock.now()
                if self._bucket is not None and not self._bucket.take(now):
                    if self._refilling is None:
                        self._refilling = self._tasks.start(self._refill(), f"permits-{self._name}")
                    return
                waiting.place.set_result(self._admit(waiting.ask, now))
            self._line.take()

    async def _refill(self) -> None:
        """Call again when the next permit is here."""
        try:
            while self._line and self._bucket is not None:
                wait_s = self._bucket.wait_s(self._clock.now())
                if wait_s <= 0:
                    break
                await self._clock.sleep(max(TICK_S, wait_s))
        finally:
            self._refilling = None
        self._call()

    def _expected_s(self, client: str) -> float:
        """How long one more of this client would wait, as far as one can tell."""
        ahead = self._line.ahead(client)
        wait_s = 0.0 if self._bucket is None else self._bucket.wait_s(self._clock.now(), ahead + 1)
        most = self._most or (None if self._gradient is None else self._gradient.limit)
        if most is not None and self._hold_s is not None and self._in_flight >= most:
            wait_s = max(wait_s, self._hold_s * (ahead + 1) / most)  # Little's law
        return wait_s

    def _shed(self, why: str, wait_s: float) -> Shed:
        self._counters.add("upstream.shed", label=self._name)
        after_s = math.ceil(min(LONGEST_RETRY_AFTER_S, max(1.0, wait_s)))
        return Shed(f"{self._name}: {why}", retry_after_s=after_s)

    # --- what the limits go by ----------------------------------------------------------------------------------------

    def answered(self, good: bool, first_byte_s: float | None = None) -> None:
        """A try has ended: well, or with a 5xx, a 429, a time-out or a broken connection."""
        self._note_error(not good, answers=1)
        if good and first_byte_s is not None and self._gradient is not None:
            before = self._gradient.limit
            # What a lone download sees is its own doing, and its own to find out.
            judge = len(self._ids) > 1
            self._gradient.sample(first_byte_s, self._in_flight, self._clock.now(), judge=judge)
            if self._gradient.limit != before:
                self._publish()
                self._call()

    def broke(self) -> None:
        """An answer that had begun well broke inside its body."""
        self._note_error(True, answers=0)

    def _note_error(self, error: bool, *, answers: int) -> None:
        if self._machine is None and self._rate is not None:
            self._settle(self._answers, self._errors)
        self._answers += answers
        self._counters.add("upstream.answers", answers, self._name)
        if error:
            self._errors += 1
            self._counters.add("upstream.errors", label=self._name)

    def machine(self, machine: Machine) -> None:
        """What is known of the whole machine now. To be told every few seconds; until then this worker is alone."""
        self._machine, self._workers = machine, machine.workers
        if self._rate is not None:
            if machine.leads:
                self._settle(machine.answers, machine.errors)
            elif machine.rate:
                self._rate.follow(machine.rate)
        self._turn_rate()
        self._publish()
        self._call()

    def _settle(self, answers: int, errors: int) -> None:
        assert self._rate is not None
        moved = self._rate.tally(answers, errors, self._clock.now())
        if moved is not None:
            self._counters.add(f"upstream.rate_{moved}", label=self._name)
            self._turn_rate()
            self._publish()

    def _turn_rate(self) -> None:
        per_s = self._settings[0] if self._rate is None else self._rate.per_s
        if isinstance(per_s, str):
            self._bucket = None
        elif self._bucket is None:
            self._bucket = Bucket(per_s, self._workers, self._clock.now())
        else:
            self._bucket.turn(per_s, self._workers, self._clock.now())

    # --- what it says of itself ---------------------------------------------------------------------------------------

    @property
    def rate(self) -> int | None:
        """Requests a second that the machine may send it; None: as many as come."""
        if self._rate is not None:
            return round(self._rate.per_s)
        return self._settings[0] if isinstance(self._settings[0], int) else None

    @property
    def concurrency(self) -> int | None:
        """Requests that this worker may have on their way; None: as many as come."""
        return self._most if self._gradient is None else self._gradient.limit

    def describe(self) -> dict[str, Any]:
        """For ``/health``."""
        return {
            "rate": self.rate,
            "workers": self._workers,
            "concurrency": self.concurrency,
            "in_flight": self._in_flight,
            "waiting": len(self._line),
        }

    def _publish(self) -> None:
        """What other workers and ``/stats`` see. The shares of the rate add up to it."""
        machine = None if self._retired else self._machine
        rate = self.rate or 0
        share = 0 if machine is None else rate // machine.workers + (machine.rank < rate % machine.workers)
        leads = machine is not None and machine.leads and self._rate is not None
        for name, value in (
            ("upstream.rate_limit", share),
            ("upstream.rate_led", rate if leads else 0),
            ("upstream.concurrency_limit", 0 if self._retired else self.concurrency or 0),
            ("upstream.waiting", len(self._line)),
        ):
            before = self._published.get(name, 0)
            if value != before:
                self._published[name] = value
                self._counters.add(name, value - before, self._name)

    def inherit(self, rate: float | None) -> None:
        """Begin at the rate of the one whose place it takes: the origin is likely the same."""
        if self._rate is not None and rate is not None:
            self._rate.follow(rate)
            self._turn_rate()

    def retire(self, *, free: bool) -> float | None:
        """Another one takes its place; only what is under way still uses it. ``free``: without any limit. Returns the
        rate it had come to, if that adapts.
        """
        rate = None if self._rate is None else self._rate.per_s
        self._retired = True
        if free:
            self.apply("off", "off")
        self._publish()
        return rate

    async def close(self) -> None:
        """Nothing is asked any more."""
        self._retired = True
        self._publish()
        await self._tasks.close()
