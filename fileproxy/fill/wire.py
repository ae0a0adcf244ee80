"""How workers of one service speak over their Unix sockets: length-prefixed frames. Pure but for reading and writing.

A request is one frame. An answer is a head, then the bytes as they land, then an end: the close of a connection proves
no end (law 2). While nothing lands the owner sends signs of life, so that a worker that hangs is told from an origin
that thinks. Both sides run the same code, in a folder only their user may enter; still nothing is believed beyond its
type.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec

from fileproxy.errors import UpstreamReset
from fileproxy.http.ranges import RangeSpec
from fileproxy.model import Headers

LARGEST_HEAD = 1024 * 1024
LARGEST_DATA = 1024 * 1024
ALIVE_EVERY_S = 1.0
DEAD_AFTER_S = 5.0

HEAD, DATA, END, ALIVE, ERROR = b"H", b"D", b"E", b"A", b"X"
T = TypeVar("T")


class PeerAsk(msgspec.Struct, array_like=True):
    """What the worker that does not own a key asks the one that does. ``rid`` names the entry of a segment."""

    upstream: str
    route: tuple[str, tuple[str, ...]]  # path and hosts: names the policy
    url: bytes
    primary: bytes
    key: bytes
    method: str
    conditional: bool
    headers: tuple[tuple[bytes, bytes], ...]
    path: bytes
    query: bytes | None
    want: tuple[tuple[bytes, bytes], ...]
    authority: str
    id: str
    ranges: tuple[tuple[int | None, int | None], ...] | None
    rid: bytes = b""
    first: int = 0
    end: int = 0
    client: str = ""


class PeerHead(msgspec.Struct, array_like=True):
    """The owner's answer. ``meta``: an entry, its bytes follow from ``offset`` on. Else what is for this ask alone."""

    meta: bytes = b""
    offset: int = 0
    end: int | None = None
    vary: tuple[str, ...] = ()
    shared: bool = True
    confirmed: bool = False
    status: int = 0  # of an answer for this ask alone; 0 = there is none
    reason: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    length: int | None = None
    why: str = ""
    not_cached: bool = False


class PeerError(msgspec.Struct, array_like=True):
    """Why the owner could not: the ending and sentence of its error."""

    ending: str
    detail: str
    retry_after_s: float | None = None
    retryable: bool = True


def packed(headers: Headers) -> tuple[tuple[bytes, bytes], ...]:
    """Header text as bytes: it may hold what is no UTF-8."""
    return tuple((encoded(name), encoded(value)) for name, value in headers)


def unpacked(headers: tuple[tuple[bytes, bytes], ...]) -> Headers:
    return tuple((decoded(name), decoded(value)) for name, value in headers)


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def decoded(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def specs_of(ranges: tuple[tuple[int | None, int | None], ...] | None) -> tuple[RangeSpec, ...] | None:
    return None if ranges is None else tuple(RangeSpec(first, last) for first, last in ranges)


def frame(kind: bytes, data: bytes = b"") -> bytes:
    """One frame as it travels: kind, length, data."""
    return opening(kind, len(data)) + data


def opening(kind: bytes, length: int) -> bytes:
    """What goes before so many bytes of data, for who does not want to copy them."""
    return kind + length.to_bytes(4, "big")


def message(kind: bytes, value: msgspec.Struct) -> bytes:
    return frame(kind, msgspec.msgpack.encode(value))


async def read_frame(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The next frame. Raises UpstreamReset when the other side is gone or sends something else."""
    try:
        head = await reader.readexactly(5)
        kind, length = head[:1], int.from_bytes(head[1:], "big")
        if kind not in (HEAD, DATA, END, ALIVE, ERROR) or length > max(LARGEST_HEAD, LARGEST_DATA):
            raise UpstreamReset("the worker that owns the file sent something else")
        return kind, await reader.readexactly(length) if length else b""
    except (asyncio.IncompleteReadError, OSError) as error:
        raise UpstreamReset("the worker that owns the file is gone") from error


def decode(data: bytes, kind: type[T]) -> T:
    """A message. Raises UpstreamReset when it is none."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:  # the latter where text is none
        raise UpstreamReset("the worker that owns the file sent something else") from error
