"""Which mirror a request is sent to now, or that it has to wait: the breakers' word, and the queue before them.

A request waits only while every mirror it could ask is shut off and busy with trials. Whoever leaves hands the place to
the first in the queue that can use it, so nobody is overtaken and no wake-up is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from fileproxy.clock import Clock
from fileproxy.errors import ShutOff
from fileproxy.model import Counters
from fileproxy.settings.schema import CircuitBreaker
from fileproxy.tasks import Tasks
from fileproxy.upstream.breaker import Breaker, Call


@dataclass(slots=True)
class Trip:
    """How far one request has come."""

    started: float
    order: list[int]  # the mirror being asked, then those left in this round
    tries: int = 1
    rounds: int = 1
    hopeless: set[int] = field(default_factory=set)  # mirrors that are not asked again
    rested_at: dict[int, float] = field(default_factory=dict)  # when a mirror may be asked again
    blamed: set[int] = field(default_factory=set)  # mirrors whose answer to it was counted as a failure

    def rest_s(self, usable: Sequence[int], now: float) -> float:
        """Seconds until the first of these mirrors may be asked."""
        return max(0.0, min((self.rested_at.get(index, now) for index in usable), default=now) - now)

    def new_round(self, order: Sequence[int], now: float) -> None:
        """Begin a round with those of ``order`` that may be asked: at first not the one that failed last."""
        usable = sorted(order, key=lambda index: index == self.order[0])
        rested = [index for index in usable if self.rested_at.get(index, now) <= now]
        # A timer may ring a moment early: then the one that has rested longest.
        self.order = rested or sorted(usable, key=lambda index: self.rested_at[index])[:1]
        self.rounds += 1


@dataclass(frozen=True, slots=True)
class Turn:
    """A mirror may be asked; ``Turns.end`` it whatever happens."""

    index: int
    call: Call


class Turns:
    """The breakers of one upstream's mirrors, ``labels`` in the same order, and who waits for them.

    ``on_change(index)`` is told when a mirror is shut off, and when it is taken back.
    """

    def __init__(
        self,
        name: str,
        breakers: Sequence[Breaker],
        labels: Sequence[str],
        counters: Counters,
        clock: Clock,
        on_change: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.breakers = tuple(breakers)
        self._name = name
        self._labels = tuple(labels)
        self._counters = counters
        self._clock = clock
        self._on_change = on_change
        self._waiting: dict[asyncio.Future[Turn], Trip] = {}  # in the order they came
        self._shut = [False] * len(self.breakers)  # as counted
        self._tasks = Tasks(lambda name, error: counters.add("tasks.failed"))
        self._pausing: set[asyncio.Task[None]] = set()  # sleeps between two tries

    def usable(self, trip: Trip) -> list[int]:
        """The mirrors this request may still be sent to, now or later: those shut off only when all are."""
        now = self._clock.now()
        left = [index for index in range(len(self.breakers)) if index not in trip.hopeless]
        return [index for index in left if self.breakers[index].asks(now)] or left

    def untried(self, trip: Trip) -> list[int]:
        """Those of the rest of its round."""
        usable = self.usable(trip)
        return [index for index in trip.order[1:] if index in usable]

    async def take(self, trip: Trip, within_s: float) -> Turn:
        """The first mirror of ``trip.order`` that may be asked, which then is the order's first.

        Raises:
            ShutOff: all were shut off, and no place came free in ``within_s`` seconds.
        """
        turn = self._try(trip)
        if turn is not None:
            return turn
        self._counters.add("upstream.queued", label=self._name)
        place: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        self._waiting[place] = trip
        turn = None
        try:
            async with asyncio.timeout(max(0.0, within_s)):
                turn = await place
            return turn
        except TimeoutError:
            raise ShutOff(
                f"{self._name}: no mirror is well, and none had room within {max(0.0, within_s):g} s", retry_after_s=1.0
            ) from None
        finally:
            del self._waiting[place]
            if turn is None and place.done() and not place.cancelled():
                self.end(place.result(), None)  # called in the very moment it gave up waiting

    async def pause(self, seconds: float) -> None:
        """The time between two tries; over as soon as a mirror that was shut off has answered again.

        So the end of a long outage is seen within a second (the probes'), however long the pauses have become, and
        nobody falls upon the mirror: half-open it lets few through at a time.
        """
        sleeping = self._tasks.start(self._clock.sleep(seconds), "retry pause")
        self._pausing.add(sleeping)
        try:
            await asyncio.wait({sleeping})
        finally:
            self._pausing.discard(sleeping)
            sleeping.cancel()

    def _answered(self) -> None:
        for sleeping in self._pausing:
            sleeping.cancel()

    def _try(self, trip: Trip) -> Turn | None:
        now = self._clock.now()
        usable = [index for index in trip.order if index not in trip.hopeless]
        asked = [index for index in usable if self.breakers[index].asks(now)]
        index = next(iter(asked or [index for index in usable if self.breakers[index].spare]), None)
        if index is None:
            return None
        trip.order = [index, *(one for one in trip.order if one != index)]
        turn = Turn(index, self.breakers[index].begin(now))
        self._note(index)
        return turn

    def end(self, turn: Turn, good: bool | None) -> None:
        """What came of it (see ``Breaker.end``); the next in the queue may come."""
        was_shut = self.breakers[turn.index].state != "closed"
        self.breakers[turn.index].end(turn.call, good, self._clock.now())
        self._note(turn.index)
        if good and was_shut:
            self._answered()
        self.call()

    def broke(self, index: int) -> None:
        """An answer that had begun well broke later."""
        self.breakers[index].end(Call(trial=False), False, self._clock.now())
        self._note(index)

    def apply(self, settings: CircuitBreaker | Literal["off"]) -> None:
        """Go on by other settings; who waits may be free to go."""
        for index, breaker in enumerate(self.breakers):
            breaker.apply(settings)
            self._note(index)
        self.call()

    def probed(self, index: int, good: bool | None) -> None:
        """A probe of a mirror has ended."""
        was_shut = self.breakers[index].state != "closed"
        self.breakers[index].probed(good, self._clock.now())
        self._note(index)
        if good and was_shut:
            self._answered()
        self.call()

    def call(self) -> None:
        """Give every place that is free to whoever waits for it."""
        for place, trip in list(self._waiting.items()):
            if place.done():
                continue
            turn = self._try(trip)
            if turn is not None:
                place.set_result(turn)
            elif not trip.hopeless:
                break  # those behind could use no more than this one could

    def _note(self, index: int) -> None:
        """Count when a mirror is shut off, or no longer is."""
        shut = self.breakers[index].state != "closed"
        if shut != self._shut[index]:
            self._shut[index] = shut
            self._counters.add("mirror.shut_off", 1 if shut else -1, self._labels[index])
            if shut:
                self._counters.add("mirror.trips", label=self._labels[index])
            self._on_change(index)

    def close(self) -> None:
        """Nothing is asked any more: what is shut off no longer counts."""
        for index, shut in enumerate(self._shut):
            if shut:
                self._counters.add("mirror.shut_off", -1, self._labels[index])
        self._shut = [False] * len(self._shut)
