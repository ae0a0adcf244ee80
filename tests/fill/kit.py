"""A fill without sockets: a store in a dictionary, bodies a test feeds by hand, a clock it moves."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from fileproxy.cache.freshness import AUTO
from fileproxy.clock import ManualClock
from fileproxy.errors import FileProxyError, UpstreamReset
from fileproxy.fill.entry import Entry, Shared
from fileproxy.fill.flight import Flight
from fileproxy.fill.reader import EntryBody
from fileproxy.fill.states import State
from fileproxy.fill.values import Contacted, Kept, Need, Span
from fileproxy.fill.window import Windows
from fileproxy.http.digests import digest_of, format_digests
from fileproxy.http.ranges import RangeSpec
from fileproxy.model import UNKNOWN_SIZE, Body, Bytes, FileSlice, Meta, Piece, Record, Target, Want
from fileproxy.tasks import Tasks
from tests.house import Watched

BLOCK = 64 * 1024
WINDOW = 256 * 1024
FILE = bytes(range(256)) * 4096  # 1 MiB, 16 blocks; no two neighbouring blocks are told apart by content alone
ETAG = ("ETag", '"one"')


class Feed:
    """A body: ``give`` bytes, then ``end`` it or ``fail`` it. ``taken`` counts what was read."""

    def __init__(self, *pieces: bytes, end: bool = False, framed: bool = True, length: int | None = None) -> None:
        self.framed = framed
        self.length = length
        self.taken = 0
        self.closed = 0
        self._queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        for piece in pieces:
            self.give(piece)
        if end:
            self.end()

    def give(self, data: bytes, size: int = 16 * 1024) -> None:
        for at in range(0, len(data), size):
            self._queue.put_nowait(data[at : at + size])

    def end(self) -> None:
        self._queue.put_nowait(None)

    def fail(self, error: Exception | None = None) -> None:
        self._queue.put_nowait(error or UpstreamReset("it broke"))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (item := await self._queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            self.taken += len(item)
            yield item

    async def aclose(self) -> None:
        self.closed += 1


class Kit:
    """Everything one entry needs; also the ``Keep`` and the ``Source`` in it.

    ``keeps``: "below" (all blocks stay), "memory" or "" (none). ``plays``: what each further request is answered with.
    """

    writes = True

    def __init__(
        self,
        *,
        pinned: bool = True,
        size: int = len(FILE),
        keeps: Kept = "below",
        finish: int = 0,
        digest: bytes | None = None,
        window: int = WINDOW,
    ) -> None:
        self.clock = ManualClock()
        self.counts = Watched()
        self.failures: list[BaseException] = []
        self.tasks = Tasks(lambda name, error: None if name == "client" else self.failures.append(error))
        self.keeps = keeps
        self.blocks: dict[int, bytes] = {}
        self.saved: list[Record] = []
        self.dropped: list[Record] = []
        self.finished_with: list[Meta] = []
        self.asked: list[tuple[int, int]] = []
        self.lost: Callable[[int], None] = lambda index: None
        self.plays: deque[Feed | Exception | Callable[[int, int], Feed]] = deque()
        self.answers = asyncio.Event()  # cleared: the origin thinks
        self.answers.set()
        self.windows = Windows(window, 2**40)
        self.shared = Shared(self, self.clock, self.tasks, self.counts, self.windows, finish, BLOCK)
        headers = (ETAG,) if digest is None else (ETAG, ("Repr-Digest", format_digests({"sha-256": digest})))
        self.meta = Meta(
            key=b"k" * 16,
            rid=b"r" * 16,
            url="files//f",
            status=200,
            reason="OK",
            headers=headers,
            size=size,
            block=BLOCK,
            pinned=pinned,
            requested_at=0.0,
            received_at=0.0,
            age_s=0.0,
        )
        self.need = Need(
            primary=self.meta.key,
            key=self.meta.key,
            url=self.meta.url,
            headers=(),
            wanted=Want("GET", Target("/f"), ()),
            policy=AUTO,
            source=self,
        )
        self.entry = Entry(self.shared, self.meta, set(), writes=True)

    # --- what a test says ---

    def fly(self, body: Feed | None = None, first: int = 0, end: int | None = -1) -> Flight:
        """A flight over the whole file, or up to ``end``."""
        if end == -1:
            end = None if self.meta.size == UNKNOWN_SIZE else self.meta.size
        return self.entry.launch(Flight(self.entry, self.need, first, end, body))

    def reader(self, position: int = 0) -> EntryBody:
        body = EntryBody(self.entry, self.need)
        body.expect(position)
        return body

    def client(self, offset: int = 0, length: int | None = None) -> asyncio.Task[bytes]:
        """A client that takes what comes, at once."""
        body = self.reader(offset)
        stop = self.entry.meta.size - offset if length is None else length

        async def work() -> bytes:
            got = bytearray()
            async for piece in body.pieces(offset, stop):
                assert isinstance(piece, bytes)
                got += piece
            return bytes(got)

        task = self.tasks.start(work(), "client")
        task.add_done_callback(lambda _: self.tasks.start(body.aclose(), "close"))  # also when it never began
        return task

    async def until(self, condition: Callable[[], object], turns: int = 3000) -> None:
        """Let the loop turn until it is so."""
        for _ in range(turns):
            if condition():
                return
            await asyncio.sleep(0)
        raise AssertionError("it never was")

    async def state(self, flight: Flight, state: State) -> None:
        await self.until(lambda: flight.state is state)

    async def turns(self, count: int = 100) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Nothing may be left behind."""
        await self.tasks.close()
        await self.turns(5)
        assert not self.failures
        assert not self.entry.flights
        assert self.windows.flights == 0
        assert self.counts["flight.running"] == 0

    # --- Source ---

    async def contact(self, need: Need, spec: RangeSpec | None, stale: Meta | None) -> Contacted:
        raise NotImplementedError

    async def segment(self, meta: Meta, need: Need, first: int, end: int) -> tuple[Body, int]:
        self.asked.append((first, end))
        await self.answers.wait()
        play = self.plays.popleft() if self.plays else Feed(FILE[first:end], end=True)
        if isinstance(play, Exception):
            raise play
        return (play if isinstance(play, Feed) else play(first, end)), 0

    def stream(self, meta: Meta, need: Need, got: tuple[Body, int], at: int, span: Span) -> tuple[Body, int]:
        return got

    # --- Keep ---

    def find_now(self, key: bytes) -> Record | None:
        return None

    async def find(self, key: bytes) -> Record | None:
        return None

    async def held(self, meta: Meta) -> set[int]:
        return set(self.blocks)

    def held_now(self, meta: Meta) -> frozenset[int]:
        return frozenset(self.blocks)

    def read_now(self, meta: Meta, index: int) -> bytes | None:
        return None

    def slice_now(self, meta: Meta, index: int, most: int) -> FileSlice | None:
        return None

    async def read(self, meta: Meta, index: int, most: int) -> Piece | None:
        await asyncio.sleep(0)
        return self.blocks.get(index)

    def put(
        self, meta: Meta, index: int, data: Bytes, *, disk: bool, lost: Callable[[int], None] = lambda index: None
    ) -> Kept:
        self.lost = lost
        if self.keeps:
            self.blocks[index] = bytes(data)
        return self.keeps

    def save(self, record: Record, *, disk: bool) -> None:
        self.saved.append(record)

    def finished(self, meta: Meta) -> None:
        self.finished_with.append(meta)

    def drop(self, record: Record) -> None:
        self.dropped.append(record)
        self.blocks.clear()

    def judged(self, record: Record) -> Record | None:
        return record


def sha256(data: bytes) -> bytes:
    return digest_of(data)


async def drained(body: EntryBody) -> tuple[bytes, FileProxyError | None]:
    """All bytes of a body, and why it ended too soon."""
    got = b""
    try:
        async for piece in body.pieces(0, UNKNOWN_SIZE if body.length is None else body.length):
            assert isinstance(piece, bytes)
            got += piece
    except FileProxyError as error:
        return got, error
    return got, None


MakeKit = Callable[..., Kit]
