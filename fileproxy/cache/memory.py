"""The first tier: records and whole blocks in this process, bounded by a budget of bytes.

Laws kept here:

* The budget holds for everything together, Python's own overhead included (but for the sketch of ``admission.py``,
  0.2 to 0.4 % of the largest budget so far); ``admission.py`` says what stays.
* What is in memory cannot rot, so blocks carry no checksum here; whoever writes one has just checked it.
* A block of a representation never changes (law 1), so writing it again changes nothing. Blocks of a representation
  that was replaced stay until they fade: somebody may still be reading them.
* Nothing here waits. The methods of the ``Tier`` protocol call their synchronous twins (``…_now``), which the hot path
  calls by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fileproxy.cache.admission import Admission
from fileproxy.cache.records import encode
from fileproxy.model import Counters, Meta, Record

# Measured with tracemalloc (tests/cache/test_memory.py): dictionaries, keys and objects around an entry.
BLOCK_OVERHEAD = 448
RECORD_OVERHEAD = 1200
RECORD_FACTOR = 3  # a record as objects to the same as MessagePack
_FIRST = bytes(8)  # behind the rid, in the key of a file's first block
TOUCH_EVERY = 8  # blocks read until their record is touched, so that it does not fade before them


class MemoryTier:
    """``budget_bytes`` of one worker; 0 keeps nothing."""

    def __init__(self, budget_bytes: int, counters: Counters) -> None:
        self._counters = counters
        self._policy = Admission(0)
        self._records: dict[bytes, Record] = {}
        self._users: dict[bytes, int] = {}  # rid → records that name it
        self._blocks: dict[bytes, bytes] = {}
        self._held: dict[bytes, set[int]] = {}  # rid → indices, of representations of several blocks
        self._hits = self._misses = self._admitted = self._rejected = self._evicted = 0
        self.resize(budget_bytes)

    # --- the hot path ---

    def find_now(self, key: bytes) -> Record | None:
        """The record under ``key``."""
        record = self._records.get(key)
        if record is None:
            self._misses += 1
            self._counters.add("cache.memory_misses")
        else:
            self._policy.access(key)
        return record

    def read_now(self, meta: Meta, index: int) -> bytes | None:
        """Block ``index``."""
        key = _block_key(meta.rid, index)
        data = self._blocks.get(key)
        if data is None:
            self._misses += 1
            self._counters.add("cache.memory_misses")
            return None
        self._policy.access(key)
        if index % TOUCH_EVERY == TOUCH_EVERY - 1:
            self._policy.access(meta.key)
        self._hits += 1
        self._counters.add("cache.memory_hits")
        return data

    def by_heart(self) -> tuple[Callable[[bytes], Record | None], Callable[[bytes], bytes | None]]:
        """Look-ups of records by key and of blocks by ``first_block``. They count nothing: for the fast front.

        A block is of use only while its record is the one under its key; whether that was purged is not looked at.
        """
        return self._records.get, self._blocks.get

    def first_block(self, rid: bytes) -> bytes:
        """The key of a representation's first block."""
        return rid + _FIRST

    def used_now(self, meta: Meta, times: int) -> None:
        """A file of one block was handed out so often, all but at once: to what stays in memory that is one use."""
        self._policy.access(meta.key)
        self._policy.access(meta.rid + _FIRST)
        self._hits += times
        self._counters.add("cache.memory_hits", times)

    @property
    def budget(self) -> int:
        """Bytes it may hold now."""
        return self._policy.budget

    @property
    def room(self) -> int:
        """Bytes of it that nothing takes now."""
        return self._policy.budget - self._policy.used

    def held_now(self, meta: Meta) -> frozenset[int]:
        """The blocks of this representation that are here."""
        if meta.blocks > 1:
            return frozenset(self._held.get(meta.rid, ()))
        return frozenset((0,)) if _block_key(meta.rid, 0) in self._blocks else frozenset()

    def save_now(self, record: Record) -> bool:
        """Keep a record, instead of an older one under its key. False: not admitted, and the older one is gone, too."""
        if not self._policy.budget:
            return False
        self._unuse(self._records.pop(record.key, None))
        if not self._insert(record.key, RECORD_FACTOR * len(encode(record)) + RECORD_OVERHEAD):
            return False
        self._records[record.key] = record
        if isinstance(record, Meta):
            self._users[record.rid] = self._users.get(record.rid, 0) + 1
        return True

    def write_now(self, meta: Meta, index: int, data: bytes) -> bool:
        """Keep one whole block. False: it was not admitted, or it is not the whole of that block (law 2)."""
        if not self._policy.budget or not 0 <= index < meta.blocks or len(data) != meta.length_of(index):
            return False
        key = _block_key(meta.rid, index)
        if key in self._blocks:
            return True
        if not self._insert(key, len(data) + BLOCK_OVERHEAD):
            return False
        self._blocks[key] = bytes(data)  # a view would keep its whole buffer alive
        if meta.blocks > 1:
            self._held.setdefault(meta.rid, set()).add(index)
        return True

    def drop_now(self, record: Record) -> None:
        """Forget the record if it is the one under its key, and its blocks unless another record names them."""
        before = self._policy.used
        found = self._records.get(record.key)
        if found is not None and getattr(found, "rid", None) == getattr(record, "rid", None):
            self._policy.remove(record.key)
            self._unuse(self._records.pop(record.key))
        if isinstance(record, Meta) and record.rid not in self._users:
            for index in self.held_now(record):
                key = _block_key(record.rid, index)
                self._policy.remove(key)
                self._forget(key)
        self._gauge(before)

    def resize(self, budget_bytes: int) -> None:
        """Keep within ``budget_bytes`` from now on; what is least wanted goes."""
        budget_bytes = max(0, budget_bytes)
        before = self._policy.used
        self._counters.add("cache.memory_budget", budget_bytes - self._policy.budget)
        self._evict(self._policy.resize(budget_bytes))
        self._gauge(before)

    def statistics(self) -> dict[str, Any]:
        """Sizes in bytes; ``entries`` are records. Of this worker alone."""
        return {
            "bytes": self._policy.used,
            "budget": self._policy.budget,
            "entries": len(self._records),
            "blocks": len(self._blocks),
            "hits": self._hits,
            "misses": self._misses,
            "admitted": self._admitted,
            "rejected": self._rejected,
            "evicted": self._evicted,
        }

    # --- the Tier protocol ---

    async def find(self, key: bytes) -> Record | None:
        return self.find_now(key)

    async def save(self, record: Record) -> bool:
        return self.save_now(record)

    async def held(self, meta: Meta) -> frozenset[int]:
        return self.held_now(meta)

    async def read(self, meta: Meta, index: int, most: int) -> bytes | None:
        return self.read_now(meta, index)

    async def write(self, meta: Meta, index: int, data: bytes) -> bool:
        return self.write_now(meta, index, data)

    async def drop(self, record: Record) -> None:
        self.drop_now(record)

    async def close(self) -> None:
        """Give everything back. A closed tier keeps nothing more."""
        before = self._policy.used
        self._policy.clear()
        for kept in (self._records, self._users, self._blocks, self._held):
            kept.clear()
        self._gauge(before)
        self.resize(0)

    # --- within ---

    def _insert(self, key: bytes, weight: int) -> bool:
        before = self._policy.used
        evicted = self._policy.insert(key, weight)
        admitted = key in self._policy
        if admitted:
            self._admitted += 1
            self._counters.add("cache.memory_admitted")
        else:
            evicted.remove(key)
            self._rejected += 1
            self._counters.add("cache.memory_rejected")
        self._evict(evicted)
        self._gauge(before)
        return admitted

    def _evict(self, keys: list[bytes]) -> None:
        if keys:
            self._evicted += len(keys)
            self._counters.add("cache.memory_evicted", len(keys))
            for key in keys:
                self._forget(key)

    def _forget(self, key: bytes) -> None:
        """The policy no longer keeps ``key``, whatever it stands for."""
        if self._blocks.pop(key, None) is None:
            self._unuse(self._records.pop(key, None))
            return
        rid, index = key[:-8], int.from_bytes(key[-8:], "big")
        if (held := self._held.get(rid)) is not None:
            held.discard(index)
            if not held:
                del self._held[rid]

    def _unuse(self, record: Record | None) -> None:
        if isinstance(record, Meta):
            users = self._users.get(record.rid, 0) - 1
            if users > 0:
                self._users[record.rid] = users
            else:
                self._users.pop(record.rid, None)

    def _gauge(self, before: int) -> None:
        if (grown := self._policy.used - before) != 0:
            self._counters.add("cache.memory_bytes", grown)


def _block_key(rid: bytes, index: int) -> bytes:
    """Longer than the 16 bytes of a record's key, so the two never meet."""
    return rid + index.to_bytes(8, "big")
