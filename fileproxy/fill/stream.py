"""The bytes of a pinned file in order: from one connection while that is fast enough, else from as many as help.

It begins with the answer at hand and costs nothing while that delivers. When its reader waits for bytes and they come
too slowly, or not at all (``control/patience.py``), and its sender is not one that others would only disturb
(``fill/alone.py``), what is missing is cut into parts which several connections bring, at most ``ahead`` bytes before
the reader. Each part has one or more *pumps*, one a request: the first bytes win, byte by byte, so a late pump is
helped by a second one without anybody telling them apart. Rules:

1. Bytes leave in order, and only those of one representation (``fill/parts.py``).
2. What a broken pump leaves undone is missing again. The error reaches the reader only when nobody else brings bytes:
   then the flight above goes on as after any break.
3. A pump ends where its part ends; its connection is of use again only when its answer ended there, too.
4. An origin that sends no parts goes on alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from statistics import median
from typing import Protocol

from fileproxy.clock import Clock
from fileproxy.control.growth import LONG_S, Growth, start_for
from fileproxy.control.patience import Patience
from fileproxy.control.segments import hedge_budget, late, overdue, segment_length, takes
from fileproxy.errors import ConnectRefused, FileChanged, FileProxyError, Shed, Truncated, UpstreamReset
from fileproxy.fill.alone import Alone
from fileproxy.fill.lanes import Lanes
from fileproxy.fill.parts import NoParts
from fileproxy.fill.pumps import Part, Pump
from fileproxy.model import Body, Connected, Counters, Nudged, Piece, PipeSlice, is_connected, is_piping
from fileproxy.tasks import Tasks

TICK_S = 0.1
SHARED_FROM = 128 * 1024  # a smaller file is not shared out from its beginning
FEWEST_LEFT = 16 * 1024  # a smaller rest is not shared out, only asked for again when it does not come
MEASURED_FROM = 32 * 1024  # what brought less tells more of the round trip than of the rate
ANEW_S = 1.0  # a reader that waits so long while all its pumps are silent gets another one
MOST_PUMPS = 3  # of one part; then the one that has been silent longest goes
FAR_LATER = 2.0  # times what asking again would take: then the part the reader waits for gets help
SPARE = 2  # connections beyond those that growth allows, for such help
UNLIMITED = 2**30
CUT_SHORT = 64 * 1024  # bytes that may be on their way in an answer that will be cut short: they come in vain
YOUNG_S = 0.5  # what a connection brings is not judged before
REST_S, LONGEST_REST_S = 0.1, 2.0  # before what could not be had is asked for again


class Ask(Protocol):
    """``Parts.ask``."""

    def __call__(
        self, first: int, end: int, *, avoid: frozenset[str] = ..., whole: bool = ...
    ) -> Awaitable[tuple[Body, int]]: ...


class Stream:
    """A :class:`fileproxy.model.Body`: see the module's docstring.

    Args:
        body: the answer at hand; its first ``skip`` bytes come before ``at``.
        at, end: the bytes that are wanted, end exclusive.
        reach: how far others do not bring what comes next; asked anew for each part.
        ahead: bytes that may be held before the reader takes them; asked anew for each part.
    """

    framed = True

    def __init__(
        self,
        body: Body,
        skip: int,
        at: int,
        end: int,
        *,
        ask: Ask,
        lanes: Lanes,
        reach: Callable[[], int],
        ahead: Callable[[], int],
        clock: Clock,
        tasks: Tasks,
        counters: Counters,
    ) -> None:
        self.length = end - at
        self.at = at
        self._end = end
        self._body: Body | None = body
        self._plain = aiter(body)
        self._pieces: AsyncIterator[Piece | PipeSlice] = self._plain
        self._skip = skip
        self._ask = ask
        self._lanes = lanes
        self._reach = reach
        self._ahead = ahead
        self._clock = clock
        self._tasks = tasks
        self._counters = counters
        connected = _connected(body)
        path = None if connected is None else connected.path
        self._mirror = "" if path is None else path.mirror
        self._patience = Patience(clock.now(), (path.rtt_s if path is not None else None) or 0.0, lanes.stall_s)
        watched = path if lanes.parallel == "auto" and lanes.most > 1 and end - at > SHARED_FROM else None
        self._alone = Alone(watched, clock.now(), known=lanes.remembered(clock.now()) == 1)
        self._slow = False  # at the last look that patience took
        self._patience_at = clock.now() + self._patience.next_look_s
        self._timer: asyncio.TimerHandle | None = None
        self._begun = False
        # From here on only when it was shared out:
        self._parts: deque[Part] | None = None
        if self._patience.rtt_s:
            lanes.paths.felt(self._mirror, self._patience.rtt_s, clock.now())
        self._growth = Growth(1, 1, clock.now())
        self._shared_at = 0.0
        self._cut: Pump | None = None  # the answer that asked for more than its part
        self._alone_again = False  # the origin sends no parts
        self._came = 0
        self._counted = 0  # connections in ``lanes.extra``
        lanes.running += 1
        self._first_byte_s: deque[float] = deque([self._patience.rtt_s] if self._patience.rtt_s else [], maxlen=32)
        self._hedge_left = hedge_budget(end - at)
        self._waiting: asyncio.Future[None] | None = None
        self._error: FileProxyError | None = None
        self._closed = False

    def __aiter__(self) -> Stream:
        return self

    def piped(self) -> AsyncIterator[Piece | PipeSlice]:
        """See ``model.Piping``: as long as one connection is enough, and all of its answer is wanted."""
        body: object = self._body
        if is_piping(body) and not self._skip and getattr(body, "length", None) == self.length:
            self._pieces = body.piped()
        return _Piped(self)

    async def __anext__(self) -> bytes:
        piece = await self.next_piece()
        assert isinstance(piece, bytes)
        return piece

    async def next_piece(self) -> bytes | PipeSlice:
        """The next piece, in a pipe only after :meth:`piped`."""
        if not self._begun:
            self._begun = True
            lanes, now = self._lanes, self._clock.now()
            if lanes.remembered(now) > 1 and lanes.may_add(1) and self._end - self.at > SHARED_FROM:
                self._share_out()  # one connection was too slow before
        if self._parts is None and (piece := await self._from_one()) is not None:
            return piece
        return await self._from_many()

    # --- one connection -----------------------------------------------------------------------------------------------

    async def _from_one(self) -> bytes | PipeSlice | None:
        """The next bytes of the answer at hand; None when it was too slow and was shared out."""
        patience, clock = self._patience, self._clock
        while True:
            if self._timer is None and self.at < self._end and self._lanes.most > 1:
                self._look_later(clock.now())
            patience.waits(clock.now())
            try:
                piece = await anext(self._pieces)
            except Nudged:
                patience.came(0, clock.now())
                self._share_out()
                return None
            now = clock.now()
            self._lanes.heard(self._mirror, now)
            if isinstance(piece, PipeSlice):
                patience.came(piece.length, now)
                self.at += piece.length
                return piece
            assert isinstance(piece, bytes)
            patience.came(len(piece), now)
            if self._skip:
                dropped = min(self._skip, len(piece))
                self._skip -= dropped
                piece = piece[dropped:]
                if not piece:
                    continue
            self.at += len(piece)
            return piece

    def _look(self) -> None:
        """Is one connection enough?"""
        self._timer = None
        if self._closed or self._parts is not None:
            return
        patience, lanes, now, body = self._patience, self._lanes, self._clock.now(), _connected(self._body)
        if now >= self._patience_at:
            self._slow = patience.too_slow(self._end - self.at, now)
            self._patience_at = now + patience.next_look_s
        alone = self._alone.look(now, patience.stall_s)
        if self._slow and not alone and body is not None:
            silent_s = lanes.silence_s(1, self._mirror, patience.stall_s, now)
            if lanes.may_add(1) or patience.silent_s(now) >= silent_s:
                body.nudge()  # whoever waits shares the rest out
        self._look_later(now)

    def _look_later(self, now: float) -> None:
        wait_s = min(max(0.0, self._patience_at - now), self._alone.next_look_s)
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._look)

    # --- many ---------------------------------------------------------------------------------------------------------

    def _share_out(self) -> None:
        """From now on parts: the first goes on with the answer at hand."""
        now, lanes, patience = self._clock.now(), self._lanes, self._patience
        self._cancel_timer()
        self._counters.add("stream.shared_out")
        lanes.streams += 1
        if (remembered := lanes.remembered(now)) and not self._alone.refuted:
            self._growth = Growth(remembered, lanes.most, now, fixed=lanes.fixed)
        elif (patience.rtt_s >= LONG_S and not remembered) or not patience.rate:
            self._growth = Growth(start_for(patience.rtt_s), lanes.most, now)
        else:
            self._growth = Growth(2, lanes.most, now, patience.rate)
        self._parts = deque()
        part = Part(self.at, self.at + self._length(self.at))
        self._parts.append(part)
        body, self._body = self._body, None
        assert body is not None
        self._pieces = self._plain  # parts are put together here
        # What it brought before counts for how fast it is.
        pump = Pump(part, self.at - self._skip, now, now - patience.silent_s(now), mirror=self._mirror, body=body)
        if patience.rate:
            pump.began, pump.came = now - 1.0, int(patience.rate)
        self._launch(pump)
        self._shared_at, self._cut = now, pump
        self._narrow()
        self._deal()
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _narrow(self, most: int = CUT_SHORT) -> None:
        """Keep small what the first answer's sender has on its way: it does not know that its part ends soon.

        On a long path a sender with BBR had 570 KiB of 8 MiB in flight when it was cut short, half a second of the
        link. Asked for again and again: the kernel widens the window as bytes are taken.
        """
        pump = self._cut
        connected = None if pump is None or pump not in pump.part.pumps else _connected(pump.body)
        if connected is None or connected.path is None:
            self._cut = None
        elif self._patience.rtt_s >= LONG_S:
            connected.path.narrow(most)

    async def _from_many(self) -> bytes:
        assert self._parts is not None
        while True:
            head = self._parts[0] if self._parts else None
            if head is not None and head.chunks:
                piece = head.chunks.popleft()
                self.at += len(piece)
                return piece
            if self.at >= self._end:
                raise StopAsyncIteration
            if head is not None and head.at >= head.end:
                self._parts.popleft()
                self._deal()
                continue
            if self._error is not None:
                raise self._error
            if self._closed:
                raise UpstreamReset("the body was closed")
            self._waiting = asyncio.get_running_loop().create_future()
            self._deal()
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
            try:
                await self._waiting
            finally:
                self._waiting = None

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _tick(self) -> None:
        """What time alone decides: growth, and what is late."""
        self._timer = None
        if self._closed:
            return
        if self._cut is not None:
            self._narrow()
        if self._waiting is not None:  # else the reader is what it waits for
            now = self._clock.now()
            self._growth.look(now, self._came, self._round_trip_s)
            for pump in self._pumps():
                old = now - pump.began > max(YOUNG_S, 3 * self._round_trip_s)
                if old and pump.mirror and (rate := pump.rate(now)) is not None:
                    self._lanes.measured(pump.mirror, rate, now)
            self._deal()
            self._help_head(now)
        if self._waiting is not None or self._pumps():
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    @property
    def _round_trip_s(self) -> float:
        """From asking to the first byte, as it usually is."""
        return median(self._first_byte_s) if self._first_byte_s else 0.05

    def _pumps(self) -> list[Pump]:
        return [pump for part in self._parts or () for pump in part.pumps]

    def _length(self, first: int) -> int:
        """Bytes of a part that begins at ``first``."""
        bound = self._bound(first)
        left = min(bound - first, self._ahead())
        length = segment_length(left, self._growth.target, self._lanes.usual_rate(self._clock.now()))
        # A rest that is not worth a request of its own goes along.
        return bound - first if bound - first < length + FEWEST_LEFT else length

    def _bound(self, first: int) -> int:
        """Where parts must end: others bring what comes then."""
        reach = min(self._reach(), self._end)
        return reach if reach > first else self._end

    def _deal(self) -> None:
        """Give connections to what is missing, from the front; what is left over helps what is late."""
        if self._closed or self._error is not None or self._parts is None:
            return
        now = self._clock.now()
        while (own := len(self._pumps())) < self._growth.target and self._lanes.may_add(own):
            part = self._missing(now) or self._overdue(now) or self._next_part()
            if part is None:
                if not self._help(now, list(self._parts)):
                    break
            else:
                self._pump(part, now)
        head = self._parts[0] if self._parts else self._next_part()
        if head is None or head.at >= head.end:
            return
        if not head.pumps and head.not_before <= now:
            self._pump(head, now)  # whatever else: the reader waits for it

    def _help_head(self, now: float) -> None:
        """The reader waits. Its bytes may come over a connection that is far slower than others, or dead."""
        head = self._parts[0] if self._parts else None
        if head is None or not head.pumps or head.at >= head.end or self._alone_again:
            return
        rest, usual = head.rest(now), self._usual_rate(now)
        own = len(self._pumps())
        if usual is not None and own < self._growth.target + SPARE and self._lanes.may_add(own):
            anew_s = self._round_trip_s + (head.end - head.at) / usual
            if takes(rest, self._round_trip_s, usual) > FAR_LATER * anew_s + TICK_S and self._help(now, [head]):
                return
        self._ask_anew(head, now)

    def _usual_rate(self, now: float) -> float | None:
        rates = [rate for pump in self._pumps() if (rate := pump.rate(now)) is not None]
        return self._lanes.usual_rate(now) or (median(rates) if rates else None)

    def _missing(self, now: float) -> Part | None:
        """The first part that nobody brings."""
        assert self._parts is not None
        return next((one for one in self._parts if not one.pumps and one.at < one.end and one.not_before <= now), None)

    def _overdue(self, now: float) -> Part | None:
        """The end of a part that would hold up all others."""
        assert self._parts is not None
        if not self._came or self._alone_again:
            return None
        dealt = self._parts[-1].end if self._parts else self.at
        left = max(0, min(self._bound(self.at), self.at + self._ahead()) - dealt)
        left += sum(part.end - part.at for part in self._parts)
        all_s = left * (now - self._shared_at) / self._came
        parts = [part for part in self._parts if part.pumps]
        young_s = max(YOUNG_S, 3 * self._round_trip_s)
        found = overdue([part.rest(now, young_s) for part in parts], all_s)
        return None if found is None else self._split(parts[found.index], found.first)

    def _split(self, part: Part, at: int) -> Part:
        """The end of a part, from ``at`` on, as one of its own."""
        assert self._parts is not None
        end = Part(at, part.end)
        part.end = at
        self._parts.insert(self._parts.index(part) + 1, end)
        return end

    def _next_part(self) -> Part | None:
        """The part behind the last one, while it is within what may be held."""
        assert self._parts is not None
        first = self._parts[-1].end if self._parts else self.at
        if first >= self._end or (self._parts and (self._alone_again or first >= self._reach())):
            return None
        if first >= self.at + self._ahead() and self._parts:
            return None
        end = self._end if self._alone_again else first + self._length(first)
        part = Part(first, min(end, self._end))
        self._parts.append(part)
        return part

    def _help(self, now: float, parts: list[Part]) -> bool:
        """A free connection for the part that is late. False when none is, or nothing can be done."""
        assert self._parts is not None
        parts = [part for part in parts if part.pumps and part.at < part.end]
        usual = self._usual_rate(now)
        if usual is None or self._alone_again:
            return False
        found = late(
            [part.rest(now) for part in parts],
            round_trip_s=self._round_trip_s,
            rate=usual,
            hedge_budget=self._hedge_left,
        )
        if found is None:
            return False
        behind = parts[found.index]
        avoid = frozenset(pump.mirror for pump in behind.pumps)
        if found.hedge:
            self._counters.add("stream.hedges")
            self._pump(behind, now, avoid)
            return True
        self._pump(self._split(behind, found.first), now, avoid)
        return True

    def _ask_anew(self, head: Part, now: float) -> None:
        """The reader waits, and whoever should bring its bytes is silent: one more, and the most silent one goes."""
        if self._lanes.most == 1:
            return
        lanes, own = self._lanes, len(self._pumps())
        last = max(head.pumps, key=lambda pump: pump.heard)
        if now - last.heard < lanes.silence_s(own, last.mirror, max(ANEW_S, 4 * self._round_trip_s), now):
            return
        if len(head.pumps) >= (MOST_PUMPS if lanes.may_add(own) else 1):
            oldest = min(head.pumps, key=lambda pump: pump.heard)
            if oldest.task is not None:
                oldest.task.cancel()
        self._counters.add("stream.hedges")
        self._pump(head, now, frozenset(pump.mirror for pump in head.pumps))

    # --- pumps --------------------------------------------------------------------------------------------------------

    def _pump(self, part: Part, now: float, avoid: frozenset[str] = frozenset()) -> None:
        self._launch(Pump(part, part.at, now, now), avoid | self._lanes.slow(now))

    def _launch(self, pump: Pump, avoid: frozenset[str] = frozenset()) -> None:
        pump.part.pumps.append(pump)
        self._count()
        pump.task = self._tasks.start(self._run(pump, avoid), "stream pump")
        pump.task.add_done_callback(lambda _: self._gone(pump))  # also when it was cancelled before its first step

    async def _run(self, pump: Pump, avoid: frozenset[str]) -> None:
        asked = pump.body is None
        pieces = self._pieces
        try:
            if asked:
                pump.body, _ = await self._ask(pump.position, pump.part.end, avoid=avoid, whole=False)
                connected = _connected(pump.body)
                path = None if connected is None else connected.path
                pump.mirror = "" if path is None else path.mirror
                if path is not None and path.rtt_s:
                    self._lanes.paths.felt(path.mirror, path.rtt_s, self._clock.now())
                pieces = aiter(pump.body)
                self._first_byte_s.append(self._clock.now() - pump.began)
            async for piece in pieces:
                assert isinstance(piece, bytes)
                if not self._land(pump, piece):
                    return
            if pump.part.at < pump.part.end and pump.position < pump.part.end and not (asked and pump.came):
                raise Truncated(f"{pump.position} of {pump.part.end} bytes came")
        except FileProxyError as error:
            self._broke(pump, error)
        except Exception:
            self._error = UpstreamReset("the fetch was stopped")  # a mistake of ours, told by whoever owns the tasks
            raise
        finally:
            if pump.body is not None:
                await pump.body.aclose()

    def _land(self, pump: Pump, piece: bytes) -> bool:
        """Bytes for a part; those that another pump brought first are dropped. False when the part is complete."""
        part, now = pump.part, self._clock.now()
        first, pump.position = pump.position, pump.position + len(piece)
        pump.heard = now
        self._lanes.heard(pump.mirror, now)
        pump.came += len(piece)
        fresh = piece[max(0, part.at - first) : max(0, part.end - first)]
        if fresh and first <= part.at:
            part.at += len(fresh)
            part.chunks.append(fresh)
            part.tries = 0
            self._came += len(fresh)
            if self._waiting is not None and self._parts and part is self._parts[0]:
                self._wake()
        if len(piece) > len(fresh) and len(part.pumps) > 1:
            self._hedge_left = max(0, self._hedge_left - (len(piece) - len(fresh)))
            self._counters.add("stream.bytes_twice", len(piece) - len(fresh))
        if part.at < part.end:
            return True
        for other in part.pumps:
            if other is not pump and other.task is not None:
                other.task.cancel()
        return False

    def _broke(self, pump: Pump, error: FileProxyError) -> None:
        """What it leaves undone is asked for again; who cannot be helped is told."""
        part, now = pump.part, self._clock.now()
        working = sum(1 for other in self._pumps() if other is not pump and other.came)
        if isinstance(error, NoParts):
            self._go_on_alone()
        elif not pump.came and working and isinstance(error, ConnectRefused | UpstreamReset | Shed):
            self._growth.pushed_back(working)
        others = [other for other in self._pumps() if other is not pump]
        if isinstance(error, FileChanged) or not others:
            self._error = error
            self._wake()
            return
        if not pump.came:
            part.tries += 1
            part.not_before = now + min(LONGEST_REST_S, REST_S * 2.0 ** (part.tries - 1))
        self._counters.add("stream.breaks")

    def _go_on_alone(self) -> None:
        """The origin sends no parts: the connection at the front takes all that nobody has begun to bring."""
        self._alone_again = True
        self._narrow(UNLIMITED)
        self._cut = None
        parts = self._parts
        if not parts:
            return
        head = parts[0]
        while len(parts) > 1 and not parts[-1].chunks and not any(pump.came for pump in parts[-1].pumps):
            for pump in parts.pop().pumps:
                if pump.task is not None:
                    pump.task.cancel()
        if len(parts) == 1:
            head.end = self._end

    def _gone(self, pump: Pump) -> None:
        """Its task is over."""
        now = self._clock.now()
        if pump in pump.part.pumps:
            pump.part.pumps.remove(pump)
        rate = pump.rate(now)
        if rate is not None and pump.mirror and pump.came >= MEASURED_FROM:
            self._lanes.measured(pump.mirror, rate, now)
        self._count()
        if not self._closed:
            self._deal()
            self._wake()

    def _count(self) -> None:
        """Tell the other downloads how many connections this one has beside its first."""
        extra = max(0, len(self._pumps()) - 1)
        self._lanes.extra += extra - self._counted
        self._counted = extra

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def aclose(self) -> None:
        """Stop everything; what was ahead of the reader is lost."""
        if self._closed:
            return
        self._closed = True
        self._lanes.running -= 1
        self._cancel_timer()
        self._wake()
        body, self._body = self._body, None
        if body is not None:
            await body.aclose()
        if self._parts is None:
            if self._alone.is_best:
                self._lanes.learn(1, self._clock.now())
            return
        self._lanes.streams -= 1
        if self._came:
            self._lanes.learn(1 if self._alone_again else self._growth.target, self._clock.now())
        pumps = self._pumps()
        running = [pump.task for pump in pumps if pump.task is not None]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        for pump in pumps:
            if pump.body is not None:
                await pump.body.aclose()  # of one that never got to its first step
        self._parts.clear()
        self._count()


class _Piped:
    """A stream read by who takes pipes."""

    __slots__ = ("_stream",)

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __aiter__(self) -> _Piped:
        return self

    async def __anext__(self) -> bytes | PipeSlice:
        return await self._stream.next_piece()


def _connected(body: object) -> Connected | None:
    """The body, if it arrives over a connection of its own."""
    return body if is_connected(body) else None
