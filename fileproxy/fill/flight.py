"""One segment being filled: one fill, any number of readers, and a table of states.

Rules:

1. Bytes land in order. What has landed is in ``buffer`` (``base`` to ``position``) until it is ahead of the window.
2. It runs at its fastest reader's pace: at most a window ahead of it. Who lags behind ``base`` reads stored blocks, or
   asks anew where bytes can be joined. Where they cannot (``meta.pinned`` is false), nothing a reader needs is let go
   before it is stored.
3. A whole block is handed to the store when it has landed; half a block never is.
4. Failure is never an end: readers get the error. A pinned flight first goes on by itself, at the next missing byte.
5. Nobody reads: it stops, unless little is missing (``fill_after_abort``). Blocks that were stored stay.
6. A digest the origin sent is checked before the last byte is shown (RFC 9530); for a file of one block, before any is.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from typing import TYPE_CHECKING

from fileproxy.errors import BadDigest, FileChanged, FileProxyError, Shed, Truncated, UpstreamError, UpstreamReset
from fileproxy.fill.landed import Cursor, Landed
from fileproxy.fill.states import EDGES, OVER, State
from fileproxy.fill.values import Span
from fileproxy.http.digests import Verifier
from fileproxy.model import Body, Bytes

if TYPE_CHECKING:
    from fileproxy.fill.entry import Entry
    from fileproxy.fill.values import Need

UNREAD_S = 10.0  # nobody reads, little is missing, and no byte came for so long: it is not worth the wait
HOLD_S = 0.5  # how long a flight without readers waits for its first, or its next
BARREN_MOST = 12  # times in a row that going on may fail without a new byte
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
DIGEST_TRIES = 3
REACH = 32 * 1024 * 1024  # no window is larger
WRONG = "The file does not have the digest that its origin said."


def pause_s(barren: int) -> float:
    """Seconds before going on after so many tries in a row without a new byte."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (barren - 1))


class Flight(Landed):
    """Bytes ``first`` to ``end`` (exclusive; None = until the framed end) of an entry.

    ``body`` and ``skip`` are given when the answer is already here (first contact); else it asks by itself.
    ``run`` is its work, to be started as an owned task.
    """

    def __init__(
        self, entry: Entry, need: Need, first: int, end: int | None, body: Body | None = None, skip: int = 0
    ) -> None:
        super().__init__(first)
        self.entry = entry
        self.need = need
        self.first = first
        self.end = end
        self.state = State.CONNECTING
        self.error: FileProxyError | None = None
        self.readers: set[Cursor] = set()
        self.resumed = 0
        self._body = body
        self._skip = skip
        self._parts: list[Bytes] = []  # of the block that is landing
        self._whole_from = -(-first // entry.meta.block) * entry.meta.block  # first byte of the first whole block
        self._committed_to = self._whole_from
        self._waiting: set[asyncio.Future[None]] = set()
        self._moved = asyncio.Event()  # a reader came, went or took bytes
        self._alone = asyncio.Event()  # the last reader went, or it is over
        self.task: asyncio.Task[None] | None = None
        self._loose: list[int] = []  # blocks that landed and are nowhere else, or only where they may vanish
        self._hold_until = entry.shared.clock.now() + HOLD_S
        self._verifier: Verifier | None = None
        self._left = False
        self._counted = True
        self._begin_digest()

    def _begin_digest(self) -> None:
        entry = self.entry
        if self.first == 0 and entry.digest and self.end in (None, entry.meta.size):
            self._verifier = Verifier(entry.digest)

    # --- for readers --------------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        return self.state in OVER

    @property
    def next_block(self) -> int:
        """The first block that it has still to bring whole."""
        return max(self._whole_from, self.position) // self.entry.meta.block

    def serves(self, position: int, ahead: int) -> bool:
        """Whether a reader at ``position`` should follow: it is still here, or lands within ``ahead`` bytes."""
        if position < self.base or self.over:
            return False
        return position < (self.end if self.end is not None else position + 1) and position - self.position <= ahead

    def attach(self, position: int) -> Cursor:
        cursor = Cursor(position)
        self.readers.add(cursor)
        self._moved.set()
        return cursor

    def detach(self, cursor: Cursor) -> None:
        self.readers.discard(cursor)
        self._moved.set()
        if not self.readers:
            self._hold_until = self.entry.shared.clock.now() + HOLD_S
            self._alone.set()
            self._let_go()

    def move(self, cursor: Cursor, position: int) -> None:
        """A reader got the bytes before ``position`` from elsewhere."""
        cursor.position = position
        self._moved.set()

    def take(self, cursor: Cursor, stop: int | None) -> bytes | None:
        """The bytes at the cursor that have landed (a chunk as it came, cut at ``stop``), or None for now."""
        chunk = self.at(cursor.position, stop)
        if chunk is not None:
            cursor.position += len(chunk)
            if self.state is State.PAUSED:
                self._moved.set()
        return chunk

    async def landed(self) -> None:
        """Wait until something changed: bytes, or the state."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)

    # --- its work -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Fill until the end. Never raises but for cancellation: how it ended is its state."""
        counters = self.entry.shared.counters
        try:
            await self._fill()
        except asyncio.CancelledError:
            self._turn(State.STOPPED)
            raise
        except FileProxyError as error:
            self.error = error
            if not self.over:
                counters.add("flight.failed")
                self._turn(State.FAILED)
        finally:
            self.ended()
            await self._close_body()

    def ended(self, _task: asyncio.Task[None] | None = None) -> None:
        """Its work is over, also when it was cancelled before it began."""
        if not self.over:  # a mistake of ours, or the house closes: readers must still learn that nothing more comes
            self.error = UpstreamReset("the fill was stopped")
            self.state = State.FAILED
        if not self._left:
            self._left = True
            self._wake()
            self._alone.set()
            self.entry.left(self)
            self._let_go()

    def _let_go(self) -> None:
        """What is over and nobody reads counts no more for what all flights may hold."""
        if self._left and not self.readers and self._counted:
            self._counted = False
            self.entry.shared.windows.flights -= 1

    async def watch(self) -> None:
        """Stop the work when nobody wants it any more, also while it waits for its origin."""
        while not self.over:
            if not self.readers and not await self._wanted():
                break
            self._alone.clear()
            if self.readers or not self.entry.meta.pinned:  # what cannot be continued is worth any wait
                await self._alone.wait()
                continue
            before = self.position
            await self._happens(self._alone, UNREAD_S)
            if not self.readers and self.position == before:
                break
        if not self.over and self.task is not None:
            self._turn(State.STOPPED)  # before anybody can join it
            self.task.cancel()

    async def _fill(self) -> None:
        barren = 0
        while True:
            before = self.position
            try:
                if self._body is None:
                    self._body, self._skip = await self.entry.segment(self)
                self._share()
                self._turn(State.STREAMING)
                await self._stream(self._body)
                return
            except BadDigest:
                barren += 1
                self.entry.shared.counters.add("cache.digest_mismatches")
                if self.shown > self.first or barren >= DIGEST_TRIES or not self.entry.meta.pinned:
                    self.entry.condemn(wrong=True)
                    raise
                self._start_over()
            except (UpstreamError, Shed) as error:
                if isinstance(error, FileChanged):
                    self.entry.condemn()
                barren = 0 if self.position > before else barren + 1
                if not (self.entry.meta.pinned and error.retryable) or barren >= BARREN_MOST:
                    raise
                self.resumed += 1
                self.entry.shared.counters.add("flight.resumed")
            self._turn(State.RESUMING)
            await self._close_body()
            if (barren > 1 and not self.readers) or not await self._wanted():
                self._turn(State.STOPPED)  # for nobody it is not insisted
                return
            if barren:
                await self.entry.shared.clock.sleep(pause_s(barren))
            self._turn(State.CONNECTING)

    def _share(self) -> None:
        """Where one connection is too slow, others may help."""
        assert self._body is not None
        if self.entry.meta.pinned and self.end is not None:
            span = Span(self.end, self._reach)
            got = self._body, self._skip
            self._body, self._skip = self.need.source.stream(self.entry.meta, self.need, got, self.position, span)

    def _reach(self) -> int:
        """Where the next block begins that is held, or that another flight brings; seen only so far as it matters."""
        assert self.end is not None
        meeting = self._meeting(REACH)
        return min(self.end, self.position + REACH) if meeting is None else meeting

    async def _stream(self, body: Body) -> None:
        skip = self._skip
        async for piece in body:
            if not isinstance(piece, bytes):
                raise TypeError("an upstream's body hands on bytes")
            if skip:
                dropped = min(skip, len(piece))
                skip -= dropped
                piece = piece[dropped:]  # noqa: PLW2901 (the rest of it)
                if not piece:
                    continue
            if self.end is not None and self.position + len(piece) > self.end:
                piece = piece[: self.end - self.position]  # noqa: PLW2901 (what follows belongs to another flight)
            if (meeting := self._meeting(len(piece))) is not None:
                self.end, piece = meeting, piece[: meeting - self.position]  # noqa: PLW2901 (the same)
            self._land(piece)
            if self.position == self.end:
                break
            if not await self._room():
                self._turn(State.STOPPED)
                return
        if self.end is None:
            self._finish(body)
        elif self.position < self.end:
            raise Truncated(f"{self.position} of {self.end} bytes came")
        else:
            self.entry.filled(self)
        self._turn(State.DONE)

    def _land(self, piece: bytes) -> None:
        at = self.position
        self.append(piece)
        if self._verifier is not None:
            self._verifier.update(piece)
        self._show()
        self._collect(piece, at)  # after the digest was checked: what is wrong is not kept
        self._trim()
        self._wake()

    def _meeting(self, length: int) -> int | None:
        """Where within the next ``length`` bytes it ends: a block begins that is held already, or that another flight
        brings which began ahead.
        """
        meta, end = self.entry.meta, self.end
        if end is None or self._verifier is not None or not meta.pinned:  # what cannot be joined is not left to others
            return None
        for at in range((self.position // meta.block + 1) * meta.block, self.position + length + 1, meta.block):
            if at >= end:
                return None
            if at // meta.block in self.entry.held:
                return at
            if any(self.first < one.first <= at < (one.end or meta.size) for one in self.entry.flights):
                return at
        return None

    def _show(self) -> None:
        """What readers may see: all, or where a digest is checked all but the end of the file until it was."""
        if self._verifier is None:
            self.shown = self.position
        elif self.position == self.entry.meta.size and self.end is not None:
            if not self._verifier.agrees():
                raise BadDigest(WRONG)
            self.entry.proved()
            self.shown = self.position
        elif self.entry.meta.size > self.entry.meta.block or self.end is None:
            self.shown = max(self.shown, self.before_last)

    def _collect(self, piece: Bytes, at: int) -> None:
        """Cut what landed at ``at`` into blocks without copying it, and hand whole ones on."""
        meta = self.entry.meta
        if at < self._whole_from:
            cut = self._whole_from - at
            piece, at = piece[cut:], at + min(cut, len(piece))
        while piece:
            if self.end is None and self._parts and at % meta.block == 0:
                self._commit(at)  # not before more has come: the last block is for ``ended``
            room = meta.block - at % meta.block
            part = piece if len(piece) <= room else memoryview(piece)[:room]
            self._parts.append(part)
            piece, at = memoryview(piece)[room:], at + len(part)
            if self.end is not None and (at % meta.block == 0 or at == meta.size):
                self._commit(at)

    def _commit(self, at: int) -> None:
        """The block that ends before ``at`` is whole."""
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts = []
        index = (at - 1) // self.entry.meta.block
        self._committed_to = at
        if not self.entry.commit(index, data) and not self.entry.meta.pinned:
            self._loose.append(index)

    def _finish(self, body: Body) -> None:
        """The framed end of a body whose length nobody said: now the size is known."""
        if not body.framed:
            raise Truncated("only the close of the connection marks the end of the body, which proves nothing")
        if self._verifier is not None and not self._verifier.agrees():
            raise BadDigest(WRONG)
        self.shown = self.end = self.position
        rest = b"".join(self._parts)
        self._parts = []
        self.entry.ended(self.position, rest, verified=self._verifier is not None)

    def _trim(self) -> None:
        """Let go of what is more than a window behind, but of nothing that nobody could read yet."""
        keep_from = min(self.position - self.entry.shared.windows.size, self.shown, self._fastest(self.position))
        if keep_from <= self.base:
            return
        if not self.entry.meta.pinned:
            keep_from = min([keep_from, *(self._needs(cursor.position) for cursor in self.readers)])
        self.trim(keep_from)

    async def _room(self) -> bool:
        """Wait until the window has room. False when nobody wants the rest."""
        while True:
            if not self.readers and not await self._wanted():
                return False
            window = self.entry.shared.windows.size
            pace = self._fastest() if self.readers else self._unread_pace()
            if not self.entry.meta.pinned and self.readers:
                # What no reader may miss is kept: then the slowest sets the pace.
                self._trim()
                pace = min([pace, *(self._needs(one.position) for one in self.readers)])
            if self.shown - pace < window:
                self._turn(State.STREAMING)
                return True
            self._turn(State.PAUSED)
            self._moved.clear()
            await self._moved.wait()

    def _needs(self, position: int) -> int:
        """The first byte that a reader at ``position`` may get from here alone, where nothing can be fetched again."""
        block = self.entry.meta.block
        loose = bisect_left(self._loose, position // block)
        return max(position, self._loose[loose] * block if loose < len(self._loose) else self._committed_to)

    def _fastest(self, otherwise: int = 0) -> int:
        """Where the fastest reader stands."""
        if len(self.readers) == 1:
            (cursor,) = self.readers
            return cursor.position
        return max([cursor.position for cursor in self.readers], default=otherwise)

    def _unread_pace(self) -> int:
        """Without readers what is left is little, or a reader is expected any moment: it runs on, but not away."""
        return self.position if self._little_is_missing() else self.first

    async def _wanted(self) -> bool:
        """Whether somebody reads, or little is missing; a short wait for a reader lies in between."""
        clock = self.entry.shared.clock
        while not self.readers and not self.over:
            if self._little_is_missing():
                return True
            left = self._hold_until - clock.now()
            if left <= 0:
                return False
            self._moved.clear()
            await self._happens(self._moved, left)
        return not self.over

    async def _happens(self, event: asyncio.Event, within_s: float) -> None:
        """Wait for the event, but not longer."""
        shared = self.entry.shared
        waiting = shared.tasks.start(shared.clock.sleep(within_s), "flight hold")
        happens = shared.tasks.start(event.wait(), "flight moved")
        try:
            await asyncio.wait({waiting, happens}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            happens.cancel()

    def _little_is_missing(self) -> bool:
        return self.end is not None and self.end - self.position <= self.entry.shared.fill_after_abort

    def _start_over(self) -> None:
        """Nobody has seen a byte of what was wrong: ask again, and another mirror if there is one."""
        self.clear(self.first)
        self._parts = []
        self._begin_digest()

    async def _close_body(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            await body.aclose()

    def _turn(self, state: State) -> None:
        if state is self.state:
            return
        if state not in EDGES[self.state]:
            raise RuntimeError(f"a flight cannot go from {self.state.name} to {state.name}")
        self.state = state
        if state in OVER:
            self._wake()

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()
