"""Frozen values that cross the borders between rooms, and the Protocols the rooms meet through.

Laws kept here:

* Headers are kept as the peer sent them: a tuple of ``(name, value)`` pairs in order, duplicates included. Text is
  decoded as UTF-8 with ``surrogateescape``, so any byte survives the trip unchanged.
* A :class:`Body` hands on pieces: ``bytes``, or a :class:`FileSlice` (descriptor, offset, length). Only
  ``server/deliver.py`` decides how a piece reaches the client.
* A body that ends without having proved its end raises; it never just stops (law 2 of ``ARCHITECTURE.md``).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeGuard, runtime_checkable

import msgspec

from fileproxy.errors import FileProxyError
from fileproxy.tcpinfo import NetPath

Headers = tuple[tuple[str, str], ...]
OnInterim = Callable[[int, str, Headers], None]  # told of 1xx answers: status, reason, headers


class Fields(tuple[tuple[str, str], ...]):
    """Headers that are looked at many times: equal to the plain tuple, and they know what stands where.

    ``values``: by lower-case name, every value in order.
    """

    values: dict[str, list[str]]

    def __new__(cls, pairs: Iterable[tuple[str, str]] = ()) -> Self:
        self = super().__new__(cls, pairs)
        values = self.values = {}
        for name, value in self:
            if (lowered := name.lower()) in values:
                values[lowered].append(value)
            else:
                values[lowered] = [value]
        return self


def header(headers: Headers, name: str) -> str | None:
    """The first value of ``name`` (compared without case), or None."""
    wanted = name.lower()
    if isinstance(headers, Fields):
        values = headers.values.get(wanted)
        return None if values is None else values[0]
    for key, value in headers:
        if key.lower() == wanted:
            return value
    return None


def header_values(headers: Headers, name: str) -> list[str]:
    """Every field line's value of ``name``, in order."""
    wanted = name.lower()
    if isinstance(headers, Fields):
        return [*headers.values.get(wanted, ())]
    return [value for key, value in headers if key.lower() == wanted]


def header_list(headers: Headers, name: str) -> str | None:
    """All field lines of ``name`` joined by a comma (RFC 9110 §5.3), or None when there is none."""
    values = header_values(headers, name)
    return ", ".join(values) if values else None


def names_any(headers: Headers, names: frozenset[str]) -> bool:
    """Whether a header has one of these (lower-case) names."""
    return not names.isdisjoint(headers.values if isinstance(headers, Fields) else [key.lower() for key, _ in headers])


def without(headers: Headers, names: frozenset[str]) -> Headers:
    """The headers whose lower-cased name is not in ``names``."""
    if isinstance(headers, Fields) and names.isdisjoint(headers.values):
        return headers
    return tuple([pair for pair in headers if pair[0].lower() not in names])


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked for: the path and query exactly as sent. The key, the check and the forwarded path all use this."""

    path: str
    query: str | None = None

    def __str__(self) -> str:
        return self.path if self.query is None else f"{self.path}?{self.query}"


@dataclass(frozen=True, slots=True)
class FileSlice:
    """``length`` bytes of an open file from ``offset``. Whoever holds the body owns the descriptor.

    ``stamp`` is (size, mtime_ns) when the file was opened; ``deliver`` compares it while sending, because a file
    changed in place must abort the download rather than mix two versions (law 1). None: the bytes cannot change.
    """

    descriptor: int
    offset: int
    length: int
    stamp: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class PipeSlice:
    """``length`` bytes that lie in a pipe (``descriptor``) and were never in this process.

    Who gets one takes all of it out before asking for the next piece. See :class:`Piping`.
    """

    descriptor: int
    length: int


Piece = bytes | FileSlice
Bytes = bytes | memoryview  # of a block; a view where they came in a longer piece


@runtime_checkable
class Body(Protocol):
    """The bytes of one message, read once.

    ``length`` is the number of bytes that will come when that is known. ``framed`` is False when only the close of the
    connection marks the end, which proves nothing (law 2). Iterating raises a ``FileProxyError`` on a break.
    ``aclose`` may be called at any time, more than once; it releases what the body holds.
    """

    @property
    def length(self) -> int | None: ...

    @property
    def framed(self) -> bool: ...

    def __aiter__(self) -> AsyncIterator[Piece]: ...

    async def aclose(self) -> None: ...


@runtime_checkable
class Seekable(Protocol):
    """A complete representation of which any part can be read without reading what lies before it."""

    def pieces(self, offset: int, length: int) -> AsyncIterator[Piece]:
        """``length`` bytes from ``offset``. A slice's descriptor is the body's, until the next piece is asked for."""
        ...


class Nudged(Exception):
    """Who waited for a body's next bytes was told to look up (``Connected.nudge``). The body is as it was."""


@runtime_checkable
class Piping(Protocol):
    """A body whose bytes need not pass through this process, where its reader can do with a pipe of them."""

    def piped(self) -> AsyncIterator[Piece | PipeSlice]:
        """To be read instead of the body itself: the same bytes."""
        ...


@runtime_checkable
class Connected(Protocol):
    """A body that arrives over a connection of its own, which may be too slow or break."""

    path: NetPath | None

    def nudge(self) -> None:
        """Whoever waits for the next bytes gets :class:`Nudged` at once; nothing is lost. Else nothing happens."""
        ...


# ``isinstance`` with a Protocol costs more than most of what is done with the answer.


def is_seekable(body: object) -> TypeGuard[Seekable]:
    return hasattr(body, "pieces")


def is_piping(body: object) -> TypeGuard[Piping]:
    return hasattr(body, "piped")


def is_connected(body: object) -> TypeGuard[Connected]:
    return hasattr(body, "nudge") and hasattr(body, "path")


def has_landed(body: object) -> bool:
    """Whether all of it is here, so that it can neither break nor be too slow."""
    return getattr(body, "landed", False)


class BytesBody:
    """A body that is already in memory."""

    __slots__ = ("_data",)
    framed = True

    def __init__(self, data: bytes = b"") -> None:
        self._data = data

    @property
    def length(self) -> int:
        return len(self._data)

    @property
    def data(self) -> bytes:
        return self._data

    async def __aiter__(self) -> AsyncIterator[Piece]:
        if self._data:
            yield self._data

    async def aclose(self) -> None:
        return None


class FileBody:
    """A regular file, handed on as one descriptor slice, so that any range of it costs nothing."""

    __slots__ = ("_descriptor", "length", "offset", "stamp")
    framed = True

    def __init__(self, descriptor: int, offset: int, length: int, stamp: tuple[int, int]) -> None:
        self._descriptor: int | None = descriptor
        self.offset = offset
        self.length = length
        self.stamp = stamp  # see FileSlice

    def slice(self, offset: int, length: int) -> FileSlice:
        """``length`` bytes from ``offset`` (relative to what this body covers). The body keeps the descriptor."""
        if self._descriptor is None:
            raise ValueError("body was closed")
        if offset < 0 or length < 0 or offset + length > self.length:
            raise ValueError(f"[{offset}, {offset + length}) lies outside a body of {self.length} bytes")
        return FileSlice(self._descriptor, self.offset + offset, length, self.stamp)

    async def pieces(self, offset: int, length: int) -> AsyncIterator[Piece]:
        yield self.slice(offset, length)

    async def __aiter__(self) -> AsyncIterator[Piece]:
        if self.length:
            yield self.slice(0, self.length)

    async def aclose(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


class Incoming(Protocol):
    """A client's request body, streamed. Starting to iterate answers ``Expect: 100-continue``."""

    @property
    def length(self) -> int | None: ...

    @property
    def started(self) -> bool:
        """True once any of it was read: such a request cannot be tried again."""
        ...

    @property
    def failure(self) -> FileProxyError | None:
        """Why reading it failed (the client broke off, or sent too much)."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class Ask:
    """What one client wants, and who it is."""

    id: str
    method: str
    target: Target
    authority: str  # Host as sent (or of an absolute-form target); may carry a port
    scheme: str  # http or https as the client saw it, after trusted proxies
    client: str  # address after trusted proxies; what limits, logs and checks use
    peer: str  # address of the TCP peer
    trusted_peer: bool  # the peer is one of trusted_proxies
    headers: Headers
    http10: bool = False
    body: Incoming | None = None
    received_at: float = 0.0  # clock.now() when the head was complete

    @property
    def host(self) -> str:
        """Lower-case host name without the port (IPv6 keeps its brackets)."""
        name = self.authority.lower()
        if name.startswith("["):
            return name[: name.find("]") + 1]
        return name.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the guard says of an ask, what that depends on, and until when it holds.

    ``depends_on`` names what of the ask or the world the verdict looked at ("client", "path", "method", "time",
    "load" …). A later fast path may repeat a verdict only for asks that agree in all of these, until ``until``
    (``clock.now()``; None = as long as the settings generation lives).
    """

    allowed: bool
    depends_on: frozenset[str] = frozenset()
    until: float | None = None
    ending: str = ""  # the name this refusal is counted under
    status: int = 0
    title: str = ""
    detail: str = ""
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Load:
    """How a worker is doing: what the guard sheds by, and whether the worker is leaving."""

    lagging: bool = False  # the event loop runs late (guard/load.py)
    descriptors_low: bool = False  # too few file descriptors are left for a download
    draining: bool = False  # the worker is leaving: not ready for balancers, connections close after their answer


@dataclass(frozen=True, slots=True)
class Want:
    """What ``upstream/`` is asked to fetch. Headers are ready to send, hop-by-hop ones removed."""

    method: str
    target: Target
    headers: Headers
    authority: str = ""  # the client's Host, for ``host: preserve``
    body: Incoming | None = None
    id: str = ""  # of the ask; the parallel requests of one download have the same
    client: str = ""  # who asks (Ask.client): those who wait take turns; a fill is its first asker's
    avoid: frozenset[str] = frozenset()  # labels of mirrors that are asked only when there is no other
    on_interim: OnInterim | None = None

    @property
    def idempotent(self) -> bool:
        """May be sent twice (RFC 9110 §9.2.2) and has no body that was or would be consumed."""
        return self.method in IDEMPOTENT and self.body is None


IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})


@dataclass(slots=True)
class Answer:
    """What came back for a :class:`Want`: the head, and a body still to be read. Close the body whatever happens."""

    status: int
    reason: str
    headers: Headers
    body: Body
    mirror: str = ""
    tries: int = 1
    timings: Mapping[str, float] = field(default_factory=dict)  # seconds: queue, connect, first_byte
    whole: bool = False  # no part of it can be had without all that lies before: a Range gets the whole
    stored: bool = False  # from the cache, or a fill that others share
    path: NetPath | None = None  # the connection it came over; None for files and what is stored


class Transport(Protocol):
    """The narrow waist to whatever holds the files: HTTP servers, folders, later buckets and sibling workers."""

    async def fetch(self, want: Want) -> Answer:
        """One try. Raises ``UpstreamError``; never retries by itself."""
        ...

    async def close(self) -> None:
        """Close idle connections and wait for what runs. Called once, when no download uses it any more."""
        ...


class Counters(Protocol):
    """Where rooms count. Names are declared in ``observe/table.py``; an undeclared one raises KeyError."""

    def add(self, name: str, amount: int = 1, label: str | None = None) -> None:
        """Add to a counter or gauge, or to the row ``label`` of a labelled family (see the table)."""
        ...

    def observe(self, name: str, seconds: float, label: str | None = None, times: int = 1) -> None:
        """Put one duration into a histogram, or so many of the same length."""
        ...

    def traffic(self, amount: int) -> None:
        """Body bytes that went to a client just now (feeds totals and the 60 s throughput window)."""
        ...


# --- what is kept -----------------------------------------------------------------------------------------------------


UNKNOWN_SIZE = 2**62  # of an entry whose length nobody has said yet


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """One stored representation, without its bytes. Its blocks are named by ``rid`` and never change (law 1).

    Times are seconds since the epoch. ``headers`` are as they may be sent again (RFC 9111 §3.1), without ``Age``.
    """

    key: bytes  # 16 bytes it is found under (of the variant, where the answer varies)
    rid: bytes  # 16 random bytes, one for each representation
    url: str  # ``upstream/host/path?query``: what purges by prefix and reports go by
    status: int
    reason: str
    headers: Headers
    size: int  # bytes of the whole representation
    block: int  # bytes of a block; the last one may be shorter
    pinned: bool  # strong validator and known size: its bytes may be joined over several responses
    requested_at: float  # when the request was sent that this answers (or that revalidated it)
    received_at: float  # when its head came
    age_s: float  # corrected_initial_age (RFC 9111 §4.2.3) at ``received_at``
    ban: int = 0  # newest ban it was tested against
    expired_at: float | None = None  # a soft purge: stale since then, whatever the headers say
    tags: tuple[str, ...] = ()  # Cache-Tag, Surrogate-Key
    verified: bool = False  # its bytes had the digest that the origin said

    @property
    def blocks(self) -> int:
        """How many blocks it has; an empty file has none."""
        return -(-self.size // self.block)

    def length_of(self, index: int) -> int:
        """Bytes of block ``index``."""
        return min(self.block, self.size - index * self.block)


class VaryRule(msgspec.Struct, frozen=True, kw_only=True):
    """What stands under a primary key whose answers vary: the request fields that choose among them (§4.1)."""

    key: bytes
    url: str
    fields: tuple[str, ...]  # lower-case, sorted
    ban: int = 0
    stored_at: float = 0.0


Record = Meta | VaryRule


class Tier(Protocol):
    """One level of the cache. Passive: it keeps what it is given and finds it again, or not.

    Nothing raises for want of space, a broken disk or a missing server: ``None`` and ``False`` say so, ``statistics``
    counts why. Every block handed out was checked against its checksum (law 10).
    """

    async def find(self, key: bytes) -> Record | None:
        """The record under this key."""
        ...

    async def save(self, record: Record) -> bool:
        """Keep a record, instead of an older one under its key."""
        ...

    async def held(self, meta: Meta) -> frozenset[int]:
        """The blocks of this representation that are here."""
        ...

    async def read(self, meta: Meta, index: int, most: int) -> Piece | None:
        """Block ``index`` as bytes, or it and up to ``most - 1`` that follow as one slice of a file.

        The caller owns the descriptor of a slice.
        """
        ...

    async def write(self, meta: Meta, index: int, data: bytes) -> bool:
        """Keep one whole block."""
        ...

    async def drop(self, record: Record) -> None:
        """Forget the record, and its blocks unless they serve another one."""
        ...

    def statistics(self) -> dict[str, Any]:
        """For ``/stats`` and ``/health``; ``status`` and ``detail`` in it when something is wrong."""
        ...

    async def close(self) -> None: ...
