"""The worker that owns a key as a source of bytes: to a flight it is one more origin, resume included.

When it is gone or hangs, the next owner is asked; when that does not help either, the file is fetched alone, and what
comes is not put on disk (design.md, "One fetch over workers").
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from fileproxy import errors
from fileproxy.cache import records
from fileproxy.errors import FileProxyError, NotCached, UpstreamError, UpstreamReset
from fileproxy.fill import wire
from fileproxy.fill.values import Contacted, Need, Source, Span
from fileproxy.http.ranges import RangeSpec
from fileproxy.model import UNKNOWN_SIZE, Answer, Body, Counters, Meta

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
CONNECT_S = 1.0


class Owners(Protocol):
    """Which worker owns what (``owners.py``)."""

    def owner(self, key: bytes) -> int | None:
        """The slot of another worker that owns the key; None when it is this one (or nobody)."""
        ...

    def lost(self, slot: int, *, hangs: bool = False) -> None:
        """An owner could not be reached: look again who there is. One that hangs is left alone for a while."""
        ...

    async def connect(self, slot: int) -> Stream: ...


@dataclass(frozen=True, slots=True)
class PeerSource:
    """A ``Source``. ``alone`` fetches from the upstream when no owner can be reached."""

    owners: Owners
    upstream: str
    route: tuple[str, tuple[str, ...]]
    alone: Source
    counters: Counters
    writes: bool = False

    async def contact(self, need: Need, spec: RangeSpec | None, stale: Meta | None) -> Contacted:
        try:
            return await self._contact(need, stale)
        except _Unreachable:
            self.counters.add("peer.alone")
            return await self.alone.contact(need, spec, stale)

    async def segment(self, meta: Meta, need: Need, first: int, end: int) -> tuple[Body, int]:
        try:
            ask = self._ask(need)
            ask.rid, ask.first, ask.end, ask.key = meta.rid, first, end, meta.key
            stream, _ = await self._opened(ask)
            return PeerBody(stream, end - first), 0
        except _Unreachable:
            self.counters.add("peer.alone")
            return await self.alone.segment(meta, need, first, end)

    def stream(self, meta: Meta, need: Need, got: tuple[Body, int], at: int, span: Span) -> tuple[Body, int]:
        """What the owner sends is fast; what was fetched alone is as from any origin."""
        return self.alone.stream(meta, need, got, at, span)

    async def _contact(self, need: Need, stale: Meta | None) -> Contacted:
        stream, head = await self._opened(self._ask(need))
        if head.not_cached:
            stream.close()
            raise NotCached("Nothing that is stored may answer this (only-if-cached).")
        if not head.meta:
            if not head.status:
                stream.close()
                return Contacted(None, None, reason=head.why, hit_for_miss_s=need.policy.hit_for_miss_s)
            body = PeerBody(stream, head.length)
            answer = Answer(head.status, wire.decoded(head.reason), wire.unpacked(head.headers), body)
            return Contacted(None, answer, reason=head.why)
        meta = records.decode(head.meta)
        if not isinstance(meta, Meta):
            stream.close()
            raise UpstreamReset("the worker that owns the file sent something else")
        if head.offset == head.end or (stale is not None and stale.rid == meta.rid):
            stream.close()
            return Contacted(meta, None, vary=head.vary, shared=head.shared)
        end = None if meta.size == UNKNOWN_SIZE else head.end
        body = PeerBody(stream, None if end is None else end - head.offset)
        answer = Answer(meta.status, meta.reason, meta.headers, body)
        return Contacted(meta, answer, head.offset, end, head.vary, head.shared)

    def _ask(self, need: Need) -> wire.PeerAsk:
        want = need.want
        return wire.PeerAsk(
            upstream=self.upstream,
            route=self.route,
            url=wire.encoded(need.url),
            primary=need.primary,
            key=need.key,
            method=need.method,
            conditional=need.conditional,
            headers=wire.packed(need.headers),
            path=wire.encoded(want.target.path),
            query=None if want.target.query is None else wire.encoded(want.target.query),
            want=wire.packed(want.headers),
            authority=want.authority,
            id=want.id,
            client=want.client,
            ranges=None if need.ranges is None else tuple((spec.first, spec.last) for spec in need.ranges),
        )

    async def _opened(self, ask: wire.PeerAsk) -> tuple[_Stream, wire.PeerHead]:
        """The owner's answer. Raises what the owner raised, or _Unreachable when there is no other owner to ask."""
        for _ in range(2):
            slot = self.owners.owner(ask.primary)
            if slot is None:
                break
            stream = None
            try:
                async with asyncio.timeout(CONNECT_S):
                    stream = _Stream(*await self.owners.connect(slot), partial(self.owners.lost, slot, hangs=True))
                stream.write(wire.message(wire.HEAD, ask))
                kind, data = await stream.frame()
            except _Silent:
                assert stream is not None
                stream.close()
                break  # it stalls: fetch alone (the next ask finds the next owner)
            except (OSError, TimeoutError, UpstreamReset):
                if stream is not None:
                    stream.close()
                self.owners.lost(slot)
                continue
            except BaseException:
                if stream is not None:
                    stream.close()
                raise
            if kind == wire.HEAD:
                return stream, wire.decode(data, wire.PeerHead)
            stream.close()
            if kind == wire.ERROR:
                raise _raised(wire.decode(data, wire.PeerError))
        raise _Unreachable


class _Unreachable(Exception):
    """No other worker owns the key, or the one that does cannot be reached."""


class _Silent(UpstreamReset):
    """The worker that owns the file hangs."""


class _Stream:
    """A connection to an owner: frames, without its signs of life. ``hangs`` is told when there are none."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hangs: Callable[[], None]) -> None:
        self._reader = reader
        self._writer = writer
        self._hangs = hangs

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def frame(self) -> tuple[bytes, bytes]:
        """The next frame that says something. UpstreamReset after a silence without a sign of life."""
        while True:
            try:
                async with asyncio.timeout(wire.DEAD_AFTER_S):
                    kind, data = await wire.read_frame(self._reader)
            except TimeoutError:
                self._hangs()
                raise _Silent("the worker that owns the file does not answer") from None
            if kind != wire.ALIVE:
                return kind, data

    def close(self) -> None:
        self._writer.transport.abort()


class PeerBody:
    """The bytes an owner sends; its end is said, or an error raised."""

    framed = True

    def __init__(self, stream: _Stream, length: int | None) -> None:
        self._stream = stream
        self.length = length

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            kind, data = await self._stream.frame()
            if kind == wire.DATA:
                yield data
            elif kind == wire.END:
                return
            elif kind == wire.ERROR:
                raise _raised(wire.decode(data, wire.PeerError))
            else:
                raise UpstreamReset("the worker that owns the file sent something else")

    async def aclose(self) -> None:
        self._stream.close()


def _raised(error: wire.PeerError) -> FileProxyError:
    """The owner's error as one of ours, of the same kind."""
    for kind in _kinds(UpstreamError):
        if kind.ending == error.ending:
            return kind(error.detail, retryable=error.retryable, retry_after_s=error.retry_after_s)
    if error.ending == errors.Shed.ending:
        return errors.Shed(error.detail, retry_after_s=error.retry_after_s or 1.0)
    return UpstreamError(error.detail, retryable=error.retryable)


def _kinds(kind: type[UpstreamError]) -> list[type[UpstreamError]]:
    return [kind, *(one for below in kind.__subclasses__() for one in _kinds(below))]
