"""Bans between machines: the stream ``fileproxy:bans`` in the shared store.

One worker of each machine (the one that leads) looks each second: what this machine added is appended, what others
added goes into the machine's own list, once. The place of a ban in the stream is noted in that list, so nothing else
has to be remembered. While the store is away the list simply waits; when the stream was lost (a store that restarted
empty), every machine appends its own bans again, and their identities keep them from being added twice.

Entries carry a keyed BLAKE2 tag (law 10): machines that share a store need the same ``redis.secret``.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from fileproxy.cache.ban import NOT_FED, Ban, FeedId, Kind
from fileproxy.cache.banlist import READ
from fileproxy.cache.bans import Bans
from fileproxy.clock import Clock
from fileproxy.model import Counters
from fileproxy.shared import PREFIX, SharedStore, decode, encode

STREAM = f"{PREFIX}bans"
EVERY_S = 1.0
LONGEST_STREAM = 10_000  # entries the store keeps
_AT_ONCE = 500  # entries read or appended in one call
_TAG = 16
_FIELD = b"b"


class _Entry(msgspec.Struct, array_like=True, frozen=True):
    uid: str
    machine: str
    kind: Kind
    value: bytes
    soft: bool
    at: float

    def ban(self, feed: FeedId) -> Ban:
        """Another machine's ban at its place in the stream; it has no number of ours yet."""
        value = self.value.decode("utf-8", "surrogateescape")
        return Ban(0, self.kind, value, self.soft, self.at, self.uid, own=False, feed=feed)


class _Found(NamedTuple):
    entries: list[tuple[FeedId, bytes | None]]  # what follows the one that was read last
    there: bool  # is that one still in the stream?
    length: int  # of the whole stream


class BanFeed:
    """Keeps ``bans`` and the stream in step. ``leads()``: does this worker speak for its machine?"""

    def __init__(
        self,
        bans: Bans,
        store: SharedStore,
        *,
        secret: bytes,
        leads: Callable[[], bool],
        counters: Counters,
        clock: Clock,
    ) -> None:
        self._bans = bans
        self._store = store
        self._secret = secret
        self._leads = leads
        self._counters = counters
        self._clock = clock
        self._read: FeedId | None = None  # the entry that was read last; at first what the list says
        self._whole: set[str] | None = None  # while the stream is read from its start: the bans it has
        self._refused = 0
        self._problem: str | None = None

    async def run(self) -> None:
        """Look each second until cancelled."""
        while True:
            if self._store.state == "ok" and self._bans.problem is None and self._leads():
                try:
                    await self.turn()
                    self._problem = None
                except OSError as error:  # the disk, not the store: tried again next time
                    self._problem = f"bans of other machines cannot be kept: {error.strerror or error}"
            await self._clock.sleep(EVERY_S)

    async def turn(self) -> bool:
        """Bring both sides up to date. False when the store did not answer. Raises OSError: the list cannot be kept."""
        if not await self._pull():
            return False
        ours = [ban for ban in self._bans.kept if ban.own]
        if self._whole is None:
            missing = [ban for ban in ours if ban.feed == NOT_FED]
        else:  # also what had been appended to a stream that was lost
            missing = [ban for ban in ours if ban.uid not in self._whole]
        if not await self._push(missing):
            return False
        self._whole = None
        # Reading our own back at once: what this machine stores from now on was tested up to there.
        return await self._pull() if missing else True

    def statistics(self) -> dict[str, Any]:
        """For ``/health``."""
        detail = self._problem
        if detail is None and self._refused:
            detail = f"{self._refused} bans of others are not genuine; is redis.secret the same everywhere?"
        return {"status": "degraded", "detail": detail} if detail else {"status": "ok"}

    async def _pull(self) -> bool:
        """Read to the end of the stream; False when the store did not answer."""
        while True:
            self._bans.catch_up()
            last = self._bans.read if self._read is None else self._read
            found = await self._store.call(partial(_look, last=last))
            if found is None:
                return False
            if last == NOT_FED:
                self._whole = self._whole or set()
            elif not found.there:
                await self._begin_again(found.length)
                continue
            await self._take(found.entries, last)
            if len(found.entries) < _AT_ONCE:
                return True

    async def _begin_again(self, length: int) -> None:
        """The last entry is not in the stream: it was lost, or it has moved on too far while this machine was away."""
        if length >= LONGEST_STREAM * 9 // 10:
            now = self._clock.time()
            await asyncio.to_thread(self._bans.receive, [Ban(0, "all", "", False, now, f"missed {now}", own=False)])
        self._read, self._whole = NOT_FED, set()

    async def _take(self, entries: Sequence[tuple[FeedId, bytes | None]], last: FeedId) -> None:
        """Add what is new, note the places of what is known."""
        fresh: dict[str, Ban] = {}
        places: dict[str, FeedId] = {}
        for feed, data in entries:
            entry = self._genuine(data)
            if entry is None:
                self._refused += 1
                self._counters.add("bans.refused")
                continue
            if self._whole is not None:
                self._whole.add(entry.uid)
            if (known := self._bans.known(entry.uid)) is None:
                fresh[entry.uid] = entry.ban(feed)
            elif known.feed != feed:
                places[entry.uid] = feed
        if fresh:
            await asyncio.to_thread(self._bans.receive, list(fresh.values()))
            self._counters.add("bans.received", len(fresh))
        self._read = last
        if entries:
            self._read = places[READ] = entries[-1][0]
        # What stands for lost lines is nobody's to append; it holds for all that was written up to here.
        if self._read != NOT_FED:
            places |= {ban.uid: self._read for ban in self._bans.kept if not ban.own and ban.feed == NOT_FED}
        if places:
            await asyncio.to_thread(self._bans.mark, list(places.items()))
        self._bans.catch_up()

    async def _push(self, bans: list[Ban]) -> bool:
        """Append bans of ours, and note their places."""
        for start in range(0, len(bans), _AT_ONCE):
            some = bans[start : start + _AT_ONCE]
            got = await self._store.call(partial(_append, values=[self._sealed(ban) for ban in some]))
            if got is None:
                return False
            await asyncio.to_thread(self._bans.mark, [(ban.uid, feed) for ban, feed in zip(some, got, strict=True)])
            self._bans.catch_up()
        return True

    def _sealed(self, ban: Ban) -> bytes:
        value = ban.value.encode("utf-8", "surrogateescape")
        data = encode(_Entry(ban.uid, self._bans.machine, ban.kind, value, ban.soft, ban.at))
        return self._tag(data) + data

    def _genuine(self, data: bytes | None) -> _Entry | None:
        if data is None or not hmac.compare_digest(data[:_TAG], self._tag(data[_TAG:])):
            return None
        return decode(data[_TAG:], _Entry)

    def _tag(self, data: bytes) -> bytes:
        return blake2b(data, digest_size=_TAG, key=self._secret, person=b"fileproxy-ban").digest()


async def _look(redis: Redis, last: FeedId) -> _Found:
    name = f"{last[0]}-{last[1]}"
    async with redis.pipeline(transaction=False) as pipe:
        pipe.xrange(STREAM, name, name, count=1)
        pipe.xlen(STREAM)
        pipe.xrange(STREAM, f"({name}", "+", count=_AT_ONCE)
        there, length, entries = await pipe.execute()
    return _Found([(_place(place), fields.get(_FIELD)) for place, fields in entries], bool(there), int(length))


async def _append(redis: Redis, values: list[bytes]) -> list[FeedId]:
    async with redis.pipeline(transaction=False) as pipe:
        for value in values:
            pipe.xadd(STREAM, {_FIELD: value}, maxlen=LONGEST_STREAM, approximate=True)
        return [_place(place) for place in await pipe.execute()]


def _place(name: bytes) -> FeedId:
    try:
        first, _, second = name.decode("ascii").partition("-")
        return int(first), int(second)
    except ValueError as error:
        raise ResponseError(f"not the place of a stream's entry: {name!r}") from error
