"""The second tier: small objects, whole, in the store that machines share. Never required (law 9).

Laws kept here:

* One round trip finds a record together with its bytes; the bytes are kept at hand for the read that follows.
* Nobody waits longer than ``redis.timeout`` for the store, and nobody at all while it is down (``shared.py``). What
  takes more than a moment of computing (long values) runs in a thread.
* What the store holds is bounded in number (the set ``fileproxy:objects``, oldest first out) and in time. Objects are
  all that has a lifetime there, so ``volatile-lru`` may take them, and never bans or counters.
* A value that is not genuine, not whole, or not ours is removed and counted, and never served (law 10).
* Numbers of bans mean nothing on another machine: what one wrote is tested by its place in the stream (``bans.py``).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

from redis.asyncio import Redis

from fileproxy.cache.bans import Bans
from fileproxy.cache.sealed import RID, Sealed, seal, unseal
from fileproxy.clock import Clock
from fileproxy.model import Counters, Meta, Piece, Record, VaryRule
from fileproxy.shared import PREFIX, SharedStore

OBJECT = f"{PREFIX}o:"
OBJECTS = f"{PREFIX}objects"
LIVES_S = 7 * 24 * 3600
AT_HAND = 16  # objects kept for the read that follows a find
AT_HAND_BYTES = 8 * 1024**2
_MOMENT = 64 * 1024  # bytes; longer values are sealed and unsealed in a thread
_TRIM_AT_ONCE = 1000

T = TypeVar("T")


class RedisTier:
    """Implements ``model.Tier``. ``secret`` is the key of the tags (32 bytes; ``keyfile.store_key``).

    It holds representations of one block (or none) of at most ``max_object`` bytes, and rules of Vary.
    """

    def __init__(
        self,
        store: SharedStore,
        bans: Bans,
        *,
        secret: bytes,
        max_object: int,
        max_entries: int,
        counters: Counters,
        clock: Clock,
    ) -> None:
        self._store = store
        self._bans = bans
        self._secret = secret
        self._max_object = max_object
        self._max_entries = max_entries
        self._counters = counters
        self._clock = clock
        self._at_hand: OrderedDict[bytes, bytes] = OrderedDict()  # rid → bytes
        self._at_hand_bytes = 0
        self._touched: dict[str, float] = {}
        self._counts = dict.fromkeys(("hits", "misses", "saved", "damaged", "trimmed"), 0)

    # --- model.Tier ---------------------------------------------------------------------------------------------------

    async def find(self, key: bytes) -> Record | None:
        sealed = await self._load(key)
        if sealed is None:
            return None
        record = self._ours(sealed)
        if record is None:
            await self.drop(sealed.record)
            return None
        self._count("hits")
        self._touched[_name(key)] = self._clock.time()  # told with the next look-up, which costs no trip of its own
        if isinstance(record, Meta) and record.size:
            self._keep_at_hand(record.rid, sealed.data)
        return record

    async def save(self, record: Record) -> bool:
        """Keep a rule, an empty object, or a newer head of the object that is here.

        A head whose bytes are not here is not found before its block is written, nor is what stood there before. False:
        it has no place here.
        """
        if isinstance(record, VaryRule) or record.size == 0:
            return await self._put(record, b"")
        if not self._fits(record) or self._store.state != "ok":
            return False
        data = self._at_hand.get(record.rid)
        if data is None:
            there = await self._load(record.key)
            if there is None:
                return self._store.state == "ok"
            if not isinstance(there.record, Meta) or there.record.rid != record.rid:
                return await self._remove(record.key)
            data = there.data
        return await self._put(record, data)

    async def held(self, meta: Meta) -> frozenset[int]:
        if meta.size == 0 or not self._fits(meta):
            return frozenset()
        return frozenset({0}) if await self._data(meta) is not None else frozenset()

    async def read(self, meta: Meta, index: int, most: int) -> Piece | None:
        return await self._data(meta) if index == 0 and meta.size and self._fits(meta) else None

    async def write(self, meta: Meta, index: int, data: bytes) -> bool:
        if index != 0 or not self._fits(meta) or len(data) != meta.size:
            return False
        return await self._put(meta, data)

    async def drop(self, record: Record) -> None:
        rid = record.rid if isinstance(record, Meta) else bytes(16)
        if isinstance(record, Meta):
            if not self._fits(record):
                return
            self._forget(rid)
        name = _name(record.key)

        async def work(redis: Redis) -> bool:
            # Only this one: what was stored after it under the same key stays.
            if await redis.getrange(name, RID.start, RID.stop - 1) == rid:
                await _delete(redis, name)
            return True

        await self._store.call(work)

    def statistics(self) -> dict[str, Any]:
        state = self._store.state
        wrong = {} if state == "ok" else {"status": "down", "detail": "the shared store does not answer"}
        return {"max_entries": self._max_entries, "max_object": self._max_object, **self._counts, **wrong}

    async def close(self) -> None:
        """The store is its owner's to close."""
        self._at_hand.clear()
        self._at_hand_bytes = 0

    # --- the store ----------------------------------------------------------------------------------------------------

    async def _load(self, key: bytes) -> Sealed | None:
        name = _name(key)
        touched, self._touched = self._touched, {}

        async def work(redis: Redis) -> list[Any]:
            async with redis.pipeline(transaction=False) as pipe:
                pipe.get(name)
                if touched:
                    pipe.zadd(OBJECTS, touched)
                return list(await pipe.execute())

        got = await self._store.call(work)
        if got is None:
            return None
        value = got[0]
        if not isinstance(value, bytes):
            self._count("misses")
            return None
        sealed = await _briefly(len(value), lambda: unseal(key, value, self._secret, self._max_object))
        if sealed is None or (isinstance(sealed.record, Meta) and not self._fits(sealed.record)):
            self._count("damaged")
            await self._remove(key)
            return None
        return sealed

    async def _put(self, record: Record, data: bytes) -> bool:
        if self._store.state != "ok":
            return False
        sealed = Sealed(record, data, self._bans.machine, self._bans.position(record.ban))
        value = await _briefly(len(data), lambda: seal(sealed, self._secret))
        name, now = _name(record.key), self._clock.time()
        most = self._max_entries

        async def work(redis: Redis) -> int:
            async with redis.pipeline(transaction=False) as pipe:
                pipe.set(name, value, ex=LIVES_S)
                pipe.zadd(OBJECTS, {name: now})
                pipe.zcard(OBJECTS)
                count: int = (await pipe.execute())[2]
            over = min(count - most, _TRIM_AT_ONCE)
            if over <= 0:
                return 0
            oldest: list[Any] = list(await redis.zpopmin(OBJECTS, over))
            return int(await redis.unlink(*[member for member, _ in oldest]))

        trimmed = await self._store.call(work)
        if trimmed is None:
            return False
        self._count("saved")
        self._counts["trimmed"] += trimmed
        return True

    async def _remove(self, key: bytes) -> bool:
        async def work(redis: Redis) -> bool:
            await _delete(redis, _name(key))
            return True

        return await self._store.call(work) is True

    # ------------------------------------------------------------------------------------------------------------------

    def _fits(self, meta: Meta) -> bool:
        """Is it small enough to be here, as a whole?"""
        return meta.size <= min(self._max_object, meta.block)

    def _ours(self, sealed: Sealed) -> Record | None:
        """The record with a number of ours, or None when a ban has taken it."""
        if sealed.machine == self._bans.machine:
            return sealed.record
        return self._bans.judge_foreign(sealed.record, sealed.position).record

    async def _data(self, meta: Meta) -> bytes | None:
        data = self._at_hand.get(meta.rid)
        if data is not None:
            return data if len(data) == meta.size else None
        sealed = await self._load(meta.key)
        if sealed is None or not isinstance(sealed.record, Meta):
            return None
        if sealed.record.rid != meta.rid or len(sealed.data) != meta.size:
            return None
        self._keep_at_hand(meta.rid, sealed.data)
        return sealed.data

    def _keep_at_hand(self, rid: bytes, data: bytes) -> None:
        self._forget(rid)
        self._at_hand[rid] = data
        self._at_hand_bytes += len(data)
        while len(self._at_hand) > AT_HAND or self._at_hand_bytes > AT_HAND_BYTES:
            _, gone = self._at_hand.popitem(last=False)
            self._at_hand_bytes -= len(gone)

    def _forget(self, rid: bytes) -> None:
        if (data := self._at_hand.pop(rid, None)) is not None:
            self._at_hand_bytes -= len(data)

    def _count(self, what: str) -> None:
        self._counts[what] += 1
        self._counters.add(f"cache.redis_{what}")


async def _briefly(size: int, work: Callable[[], T]) -> T:
    """Run ``work`` here, or in a thread when it has much to chew."""
    return work() if size <= _MOMENT else await asyncio.to_thread(work)


def _name(key: bytes) -> str:
    return f"{OBJECT}{key.hex()}"


async def _delete(redis: Redis, name: str) -> Any:
    async with redis.pipeline(transaction=False) as pipe:
        pipe.unlink(name)
        pipe.zrem(OBJECTS, name)
        return await pipe.execute()
