"""Which segment is asked where, until every byte is here.

One loop decides: it keeps as many flights as ``control/growth.py`` says, each with the next missing segment from the
mirror that gives a connection the most; when nothing is left to ask for, free connections help those that are late.
Where slow mirrors hold all connections, and so the end, a faster one takes over from them. What a flight leaves undone,
for whatever reason, is missing again by itself: missing is what is neither here nor on its way.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

from fileproxy.client.contact import Opened, is_push_back, reasons
from fileproxy.client.failures import DownloadFailed
from fileproxy.client.flight import Door, Flight, pour
from fileproxy.client.mirrors import Mirror, best
from fileproxy.client.partfile import PartFile
from fileproxy.client.plan import FAR, Spans, next_segment, outpaced, unasked
from fileproxy.client.rate import RateLimit
from fileproxy.client.speed import median
from fileproxy.client.tally import Tally
from fileproxy.client.values import Options
from fileproxy.clock import Clock
from fileproxy.control.growth import MOST, Growth, start_for
from fileproxy.control.segments import hedge_budget, late, takes
from fileproxy.errors import ConnectRefused, FileProxyError, Shed, UpstreamError, UpstreamReset
from fileproxy.tasks import Tasks

TICK_S = 0.1
SAVE_EVERY_S = 2.0
FIRST_SAVE_S = 0.5  # what is here sooner needs no journal
FLUSH_BYTES = 1 * 1024 * 1024  # the disk begins with what came, so that it is soon done in the end
HELPED_S = 2.0  # where one connection is as good as several, what takes less is not shared out
LAG_S = 1.0  # when we run this late ourselves, nobody's silence is judged
SLACK_S = 0.05  # a usual first byte before one was measured


class Engine:
    """The missing bytes of one file, whose parts may be joined.

    Args:
        report: called several times a second while it runs.
        round_trip_s: from asking to the first byte on an open connection, as the first answer took; 0 = not known.
        ahead_s: for how long bytes of the first answer have been coming already.
        alone: the first answer is long, because the server is near: one connection may carry it all.
    """

    def __init__(
        self,
        mirrors: Sequence[Mirror],
        part: PartFile,
        door: Door,
        *,
        options: Options,
        limit: RateLimit | None,
        clock: Clock,
        tally: Tally,
        report: Callable[[], None],
        round_trip_s: float = 0.0,
        ahead_s: float = 0.0,
        alone: bool = False,
    ) -> None:
        self.size = door.meta.size
        self._mirrors = mirrors
        self._part = part
        self._door = door
        self._options = options
        self._limit = limit
        self._clock = clock
        self._tally = tally
        self._report = report
        self._done: Spans = part.done
        self._flights: list[Flight] = []
        self._tasks = Tasks(self._unexpected)
        self._news = asyncio.Event()
        self._growth = growth_for(options.connections, clock.now() - ahead_s, round_trip_s, alone=alone)
        self._ahead_s, self._alone = ahead_s, alone
        self._fatal: BaseException | None = None
        self._first_byte_s: list[float] = [round_trip_s] if round_trip_s else []
        self._hedge_left = hedge_budget(self.size)
        self._last_byte = self._ticked = clock.now()
        self._saved = clock.now() - SAVE_EVERY_S + FIRST_SAVE_S
        self._came = 0
        self._unflushed = Spans()
        self._saving: asyncio.Task[None] | None = None

    @property
    def connections(self) -> int:
        """How many flights are on their way."""
        return len(self._flights)

    async def run(self, opened: Opened | None) -> None:
        """Fetch what is missing; ``opened`` is the answer at hand. The part file then holds every byte.

        Raises:
            DownloadFailed: nothing came for ``timeout_s``, or no mirror has the file (any more).
            OSError: the part file cannot be written.
        """
        try:
            if opened is not None:
                self._begin(opened)
            while self._done.total < self.size:
                self._check()
                self._fill()
                await self._wait()
                self._watch()
                self._report()
            self._check()
            await self._tasks.close()
        except BaseException:
            await self._tasks.close()
            self._part.save(tuple(self._done))
            raise

    # --- deciding ----------------------------------------------------------------------------------------------------

    def _begin(self, opened: Opened) -> None:
        end = self.size if opened.end is None else opened.end
        missing = [max(first, opened.offset) for first, gap in self._done.gaps(self.size) if gap > opened.offset]
        first = missing[0] if missing else end
        if first < end:
            began = self._clock.now() - self._ahead_s
            flight = Flight(opened.mirror, first, end, first, began, asked=False)
            if self._alone:  # how much it carries is seen as soon as its window has grown
                flight.alone_until = began + self._young_s
            self._start(flight, opened)

    def _fill(self) -> None:
        now = self._clock.now()
        while len(self._flights) < self._growth.target:
            free = unasked(self._done, self.size, ((flight.at, flight.end) for flight in self._flights))
            flight = self._next(free, now) if free else self._help(now)
            if flight is None:
                return
            self._start(flight)
        if (flight := self._replace(now)) is not None:
            self._start(flight)

    def _next(self, free: list[tuple[int, int]], now: float) -> Flight | None:
        mirror = best(self._mirrors, now)
        if mirror is None:
            return None
        if mirror.rangeless:
            return Flight(mirror, free[0][0], free[0][1], free[0][0], now)
        segment = next_segment(free, self._growth.target, mirror.rate)
        assert segment is not None
        return Flight(mirror, segment[0], segment[1], segment[0], now)

    def _help(self, now: float) -> Flight | None:
        """A free connection for what holds up the end."""
        rates = [rate for flight in self._flights if (rate := flight.rate(now)) is not None]
        known = [mirror.rate for mirror in self._mirrors if mirror.rate is not None and mirror.hopeless is None]
        if not (rates or known):
            return None
        flights = [flight for flight in self._flights if self._may_be_helped(flight, now)]
        found = late(
            [flight.rest(now) for flight in flights],
            round_trip_s=self._round_trip_s,
            rate=max(known) if known else median(rates),
            hedge_budget=self._hedge_left,
        )
        if found is None:
            return None
        behind = flights[found.index]
        mirror = best([one for one in self._mirrors if not one.rangeless], now, rather_not=behind.mirror)
        if mirror is None:
            return None
        flight = Flight(mirror, found.first, found.end, found.first, now, shared=found.hedge)
        if found.hedge:
            self._tally.hedges += 1
            behind.shared, behind.twin, flight.twin = True, flight, behind
        else:
            self._tally.splits += 1
            behind.end = found.first
        return flight

    def _may_be_helped(self, flight: Flight, now: float) -> bool:
        """Who carries the file alone is left alone while it is young, or soon at its end: help costs something."""
        if not self._alone:
            return True
        rest = flight.rest(now)
        rate = rest.rate or flight.mirror.rate or 1.0
        return now >= flight.alone_until and takes(rest, self._round_trip_s, rate) > HELPED_S

    def _replace(self, now: float) -> Flight | None:
        """No connection is free: a mirror that is far faster takes over from the flight that holds up the end.

        For a moment there is one connection more: the slow one is let go when the first bytes come from the other, and
        not before, because that may have become worse since it was measured. One at a time.
        """
        if any(flight.replaces for flight in self._flights):
            return None
        other = best([one for one in self._mirrors if one.rate is not None and not one.rangeless], now)
        if other is None or other.rate is None:
            return None
        slow = [one for one in self._flights if self._is_outpaced(one, other.rate, now)]
        left = self.size - self._done.total
        index = outpaced(
            [(flight.rest(now), other.rate) for flight in slow],
            round_trip_s=self._round_trip_s,
            end_s=left / (other.rate * self._growth.target),
        )
        if index is None:
            return None
        behind = slow[index]
        flight = Flight(other, behind.at, behind.end, behind.at, now, shared=True, replaces=True)
        behind.shared, behind.twin, flight.twin = True, flight, behind
        return flight

    def _is_outpaced(self, flight: Flight, rate: float, now: float) -> bool:
        own = flight.mirror.rate
        return own is not None and own * FAR < rate and now - flight.began > self._young_s

    def _check(self) -> None:
        """Raise what ends the download."""
        if self._fatal is not None:
            raise self._fatal
        if self._flights or self._done.total >= self.size:
            return
        if all(mirror.hopeless is not None for mirror in self._mirrors):
            raise DownloadFailed(reasons(self._mirrors))

    async def _wait(self) -> None:
        """Until something happened, but not long."""
        self._news.clear()
        try:
            async with asyncio.timeout(TICK_S):
                await self._news.wait()
        except TimeoutError:
            pass

    def _watch(self) -> None:
        """What time alone decides: growth, silence, giving up, the journal."""
        now = self._clock.now()
        lag_s, self._ticked = now - self._ticked - TICK_S, now
        self._growth.look(now, self._came, self._round_trip_s)
        self._compare(now)
        if self._saving is None and now - self._saved >= SAVE_EVERY_S:
            self._saving = self._tasks.start(self._save(), "get-journal")
        if lag_s > LAG_S:
            return
        held_back = any(flight.heard is not None and flight.listening_since is None for flight in self._flights)
        if held_back:
            self._last_byte = now
        for flight in self._flights:
            if flight.silent_s(now) > self._options.stall_s and not flight.stalled and flight.task is not None:
                flight.stalled = True
                self._tally.stalls += 1
                flight.task.cancel()
        if now - self._last_byte > self._options.timeout_s:
            raise DownloadFailed(
                f"no new byte came for {self._options.timeout_s:g} s, {self.size - self._done.total:,} are missing "
                f"({reasons(self._mirrors)}); what is here was kept"
            )

    def _compare(self, now: float) -> None:
        """A mirror that turns slow, or silent, is known for it before its segments end."""
        for mirror in self._mirrors:
            old = [one for one in self._flights if one.mirror is mirror and now - one.began > self._young_s]
            if old:
                rate = max((one.at - one.first) / (now - one.began) for one in old)
                if mirror.rate is None or rate < mirror.rate:
                    mirror.measured(max(1.0, rate))

    @property
    def _round_trip_s(self) -> float:
        """From asking to the first byte, as it usually is."""
        return median(self._first_byte_s[-32:]) if self._first_byte_s else SLACK_S

    @property
    def _young_s(self) -> float:
        """How long a connection is not judged by its rate."""
        return max(0.5, 3 * self._round_trip_s)

    # --- doing -------------------------------------------------------------------------------------------------------

    def _start(self, flight: Flight, opened: Opened | None = None) -> None:
        self._flights.append(flight)
        flight.mirror.active += 1
        flight.mirror.asking()
        self._tally.segments += 1
        flight.task = self._tasks.start(self._fly(flight, opened), f"get-{flight.first}-{flight.end}")
        # A task that is cancelled before its first step never gets to its own end.
        flight.task.add_done_callback(lambda _: self._ended(flight))

    async def _fly(self, flight: Flight, opened: Opened | None) -> None:
        mirror = flight.mirror
        try:
            if opened is None:
                flight.listening_since = self._clock.now()
                joined = await self._door.ask(flight)
            else:
                joined = self._door.opened(opened, flight)
            hold = None if self._limit is None else self._limit.charge
            await pour(flight, joined, clock=self._clock, land=self._land, hold=hold)
            if flight.twin is not None and flight.twin.task is not None:
                flight.twin.task.cancel()  # the other one's bytes are all here now
        except (UpstreamError, Shed) as error:
            self._failed(flight, error)
        except asyncio.CancelledError:
            if flight.stalled:
                address = mirror.source.place.address
                self._failed(flight, UpstreamReset(f"{address}: nothing came for {self._options.stall_s:g} s"))
            raise

    def _land(self, flight: Flight, data: bytes) -> None:
        """Bytes that belong at ``flight.at`` are here."""
        now = self._clock.now()
        if flight.at == flight.first and flight.asked:
            self._first_byte_s.append(now - flight.began)
        if flight.replaces:
            self._take_over(flight)
        self._part.write(data, flight.at)
        new = self._done.add(flight.at, flight.at + len(data))
        flight.at += len(data)
        flight.mirror.delivered(len(data))
        self._came += new
        self._flush(flight.at - len(data), flight.at)
        self._tally.wasted += len(data) - new
        self._hedge_left = max(0, self._hedge_left - (len(data) - new))
        if new:
            self._last_byte = now

    def _flush(self, first: int, end: int) -> None:
        self._unflushed.add(first, end)
        if self._unflushed.total >= FLUSH_BYTES:
            spans, self._unflushed = tuple(self._unflushed), Spans()
            self._tasks.start(asyncio.to_thread(self._part.start_flush, spans), "get-flush")

    def _take_over(self, flight: Flight) -> None:
        flight.replaces = False
        if flight.twin is not None and flight.twin.task is not None:
            self._tally.replaced += 1
            flight.twin.task.cancel()

    def _failed(self, flight: Flight, error: FileProxyError) -> None:
        flight.mirror.failed(error, began=flight.began, after_bytes=flight.at > flight.first)
        if flight.at > flight.first or flight.replaces:
            return
        if is_push_back(error) or isinstance(error, ConnectRefused | UpstreamReset | Shed):
            working = sum(one.at > one.first for one in self._flights)
            if working:
                self._growth.pushed_back(working)

    def _ended(self, flight: Flight) -> None:
        if flight in self._flights:
            self._flights.remove(flight)
            flight.mirror.active -= 1
            if (rate := flight.rate(self._clock.now())) is not None:
                flight.mirror.measured(rate)
            if flight.twin is not None:
                flight.twin.twin, flight.twin.shared = None, False
        self._news.set()

    async def _save(self) -> None:
        try:
            await asyncio.to_thread(self._part.save, tuple(self._done))
        finally:
            self._saved, self._saving = self._clock.now(), None

    def _unexpected(self, _name: str, error: BaseException) -> None:
        self._fatal = self._fatal or error
        self._news.set()


def growth_for(connections: int | None, now: float, round_trip_s: float, *, alone: bool = False) -> Growth:
    """Exactly so many connections as were asked for; else some (``alone``: one), and more as long as that helps."""
    if connections:
        return Growth(connections, connections, now, fixed=True)
    return Growth(1 if alone else start_for(round_trip_s), MOST, now, again_s=math.inf)
