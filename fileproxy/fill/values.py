"""What crosses the borders of this room: what is needed, and the Protocols it is got through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from fileproxy.cache.freshness import CachePolicy
from fileproxy.http.ranges import RangeSpec
from fileproxy.model import Answer, Body, Bytes, FileSlice, Headers, Meta, Piece, Record, Want

Kept = Literal["", "memory", "below"]
"""Where a block is that was put: nowhere, in memory (which may lose it), or below, or on its way there."""


class Keep(Protocol):
    """The store (``cache/store.py``)."""

    def find_now(self, key: bytes) -> Record | None: ...

    async def find(self, key: bytes) -> Record | None: ...

    async def held(self, meta: Meta) -> set[int]: ...

    def held_now(self, meta: Meta) -> frozenset[int]: ...

    def read_now(self, meta: Meta, index: int) -> bytes | None: ...

    def slice_now(self, meta: Meta, index: int, most: int) -> FileSlice | None: ...

    async def read(self, meta: Meta, index: int, most: int) -> Piece | None: ...

    def put(self, meta: Meta, index: int, data: Bytes, *, disk: bool, lost: Callable[[int], None] = ...) -> Kept: ...

    def save(self, record: Record, *, disk: bool) -> None: ...

    def finished(self, meta: Meta) -> None: ...

    def drop(self, record: Record) -> None: ...

    def judged(self, record: Record) -> Record | None: ...


class Later:
    """A want that is made when it is first looked at, and then kept: most that is stored needs no fetch."""

    __slots__ = ("_make", "_want")

    def __init__(self, make: Callable[[], Want]) -> None:
        self._make: Callable[[], Want] | None = make
        self._want: Want | None = None

    def __call__(self) -> Want:
        if self._want is None:
            assert self._make is not None
            self._want, self._make = self._make(), None
        return self._want


@dataclass(frozen=True, slots=True)
class Need:
    """What an ask needs of the cache, and how to fetch it when it is not there.

    ``want`` is a GET of the whole file with none of the client's conditions and ranges. ``source`` fetches for it.
    """

    primary: bytes  # key of the URL
    key: bytes  # the same, or that of the variant once Vary is known
    url: str  # as in Meta.url
    headers: Headers  # the client's, for Vary and request directives
    wanted: Want | Later
    policy: CachePolicy
    source: Source
    ranges: tuple[RangeSpec, ...] | None = None
    conditional: bool = False  # has preconditions that an origin could answer
    for_origin: bool = False  # has preconditions that only an origin may judge (If-Match, If-Unmodified-Since)
    method: str = "GET"
    counted: bool = True  # False: another worker counts how its client was answered

    @property
    def want(self) -> Want:
        return self.wanted if isinstance(self.wanted, Want) else self.wanted()


@dataclass(frozen=True, slots=True)
class Contacted:
    """The answer to a first contact or a revalidation.

    ``meta`` when it may be kept, else None and ``answer`` is for one client only. ``answer`` is None after a 304: the
    entry is what it was, with the headers of ``meta``. ``offset`` is where in the file the body begins.
    """

    meta: Meta | None
    answer: Answer | None
    offset: int = 0
    end: int | None = None  # exclusive; None when only the end of the body tells
    vary: tuple[str, ...] = ()
    shared: bool = True  # those who waited for it may have it as it comes
    ranges: bool = True  # False: the origin answered a Range with the whole file
    keep: bool = True  # False: what was confirmed may not be kept any longer
    reason: str = ""
    hit_for_miss_s: float = 0.0  # how long to remember that answers for this key cannot be shared


@dataclass(frozen=True, slots=True)
class Span:
    """How far a fill's bytes are wanted. ``end``: exclusive. ``reach``: where others begin to bring what comes next."""

    end: int
    reach: Callable[[], int]


class Source(Protocol):
    """Where missing bytes come from: the upstream, or the worker that owns the key."""

    @property
    def writes(self) -> bool:
        """Whether what it brings may be kept on disk by this worker."""
        ...

    async def contact(self, need: Need, spec: RangeSpec | None, stale: Meta | None) -> Contacted:
        """The first answer for a key, or the revalidation of ``stale``. Raises FileProxyError."""
        ...

    async def segment(self, meta: Meta, need: Need, first: int, end: int) -> tuple[Body, int]:
        """A body that holds bytes from ``first`` on to at most ``end`` (exclusive), after as many to skip as is said.

        Raises UpstreamError; :class:`fileproxy.errors.FileChanged` when the file is another one now.
        """
        ...

    def stream(self, meta: Meta, need: Need, got: tuple[Body, int], at: int, span: Span) -> tuple[Body, int]:
        """The bytes from ``at`` on as a body, after as many to skip as is said: ``got``, or one that asks for more
        parts of the file beside it where that is too slow.
        """
        ...


class Journal(Protocol):
    """Where a fill says what went wrong (an error log line)."""

    def event(self, level: str, event: str, **fields: object) -> None: ...
