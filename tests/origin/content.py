"""Deterministic pseudo-random bytes, made by offset: any part of any size, without memory.

Every 64 KiB block starts with a hash of (seed, block number), so a block that is missing, moved, doubled or of another
file never compares equal.
"""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Iterator

KIB = 1024
MIB = 1024 * 1024
_BLOCK = 64 * KIB
_MARK = 32


@functools.cache
def _noise() -> bytes:
    return random.Random(27804).randbytes(4 * _BLOCK)


class Content:
    """``size`` bytes that follow from ``seed``. Equal seeds and sizes are equal files."""

    def __init__(self, seed: int, size: int) -> None:
        self.seed = seed
        self.size = size
        self._digest = hashlib.sha256()
        self._digested = 0

    def __repr__(self) -> str:
        return f"Content(seed={self.seed}, size={self.size})"

    def _block(self, number: int) -> bytes:
        mark = hashlib.blake2b(b"%d/%d" % (self.seed, number), digest_size=_MARK).digest()
        start = int.from_bytes(mark[:4], "big") % (3 * _BLOCK)
        return mark + _noise()[start : start + _BLOCK - _MARK]

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """The bytes from ``offset``, at most ``length`` of them, none after the end."""
        end = self.size if length is None else min(self.size, offset + length)
        if offset >= end:
            return b""
        first, last = offset // _BLOCK, (end - 1) // _BLOCK
        whole = b"".join(self._block(number) for number in range(first, last + 1))
        return whole[offset - first * _BLOCK : end - first * _BLOCK]

    def pieces(self, offset: int = 0, length: int | None = None, piece: int = _BLOCK) -> Iterator[bytes]:
        """The same in pieces of ``piece`` bytes."""
        end = self.size if length is None else min(self.size, offset + length)
        while offset < end:
            yield self.read(offset, min(piece, end - offset))
            offset += piece

    def sha256(self, prefix: int | None = None) -> str:
        """Hex digest of the first ``prefix`` bytes (all of them by default). Growing prefixes are computed once."""
        length = self.size if prefix is None else min(prefix, self.size)
        if length < self._digested:
            self._digest, self._digested = hashlib.sha256(), 0
        for piece in self.pieces(self._digested, length - self._digested):
            self._digest.update(piece)
        self._digested = length
        return self._digest.hexdigest()

    @property
    def etag(self) -> str:
        """A strong validator that changes with the content."""
        return f'"{self.seed:x}-{self.size:x}"'
