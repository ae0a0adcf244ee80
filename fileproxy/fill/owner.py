"""Which worker owns a key: the one that alone contacts mirrors for it and writes it to disk. Pure.

Rendezvous hashing (Thaler and Ravishankar, 1998): every worker finds the same owner from the same list, and when a
worker comes or goes only the keys it owns change hands. Correctness never rests on it: names and checksums do that.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b


def owner_of(key: bytes, slots: Iterable[int]) -> int | None:
    """The slot that owns ``key``, or None when there is none."""
    return max(slots, key=lambda slot: _weight(key, slot), default=None)


def _weight(key: bytes, slot: int) -> bytes:
    return blake2b(key, digest_size=8, salt=slot.to_bytes(8, "little")).digest()
