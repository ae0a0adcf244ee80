"""What the fast front is told and asks: the proof that an answer may be known, and the tiers it looks things up in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fileproxy.http.cache_status import CacheStatus
from fileproxy.model import Ask, FileSlice, Meta, Record, VaryRule

if TYPE_CHECKING:
    from fileproxy.server.service import Generation
    from fileproxy.settings.schema import Route


class Newest(Protocol):
    """A number that other processes may move."""

    newest: memoryview  # its only cell; another view when it could not be shared for a while


class Bans(Protocol):
    """The purges (``cache/bans.py``)."""

    def by_heart(self) -> Newest:
        """Where the newest one's number stands."""
        ...


class Memory(Protocol):
    """The memory tier (``cache/memory.py``)."""

    @property
    def budget(self) -> int: ...

    def by_heart(self) -> tuple[Callable[[bytes], Record | None], Callable[[bytes], bytes | None]]:
        """Look-ups of records by key, and of the first blocks of files by ``first_block``."""
        ...

    def first_block(self, rid: bytes) -> bytes: ...

    def used_now(self, meta: Meta, times: int) -> None:
        """It was handed out so often."""
        ...


class Disk(Protocol):
    """What lies below memory (``cache/store.py``)."""

    def slice_now(self, meta: Meta, index: int, most: int) -> FileSlice | None:
        """A file that is open and was checked; its descriptor is the caller's."""
        ...


class Standing(NamedTuple):
    """What the cache says of a row's file: it is fresh, and this is how its head looks now."""

    record: Meta
    rule: VaryRule | None
    age_s: float
    age: str  # as Age says it
    status: CacheStatus


Renew = Callable[[], Standing | None]


class Proof(NamedTuple):
    """What the slow path knows when it has served a hit, in full and unchanged."""

    ask: Ask
    generation: Generation
    route: Route
    head: bytes  # of the answer, as it was sent
    record: Meta  # that the head was made of
    depends_on: frozenset[str]  # of the guard's verdict
    renew: Renew
