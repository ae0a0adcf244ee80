"""The same URL gives the same bytes. Pure; bounded in what it remembers.

A file may change while it is loaded: then its validator changes too. Other bytes (or another length) under the same
validator, or without one, are a fault of the service or its origin, and so is a range that is not the one asked for.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

MOST = 200_000  # representations and places remembered
Verdict = Literal["same", "first", "changed", "different"]


class Bytes(NamedTuple):
    """What was received under a name: how many, and their SHA-256 (empty when it was not wanted)."""

    length: int
    digest: bytes


class Consistency:
    """What each URL (and place of it) gave first."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, tuple[int, int] | None], tuple[bytes, Bytes]] = {}

    def judge(self, url: int, place: tuple[int, int] | None, validator: bytes, got: Bytes) -> Verdict:
        """``changed`` is a new version (told, no error), ``different`` is not."""
        key = (url, place)
        known = self._seen.get(key)
        if known is None or known == (validator, got):
            if known is None and len(self._seen) < MOST:
                self._seen[key] = (validator, got)
            return "first" if known is None else "same"
        if known[0] == validator:
            return "different"
        self._seen[key] = (validator, got)
        return "changed"
