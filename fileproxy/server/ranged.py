"""A body stage: only the asked ranges of a complete representation, as one part or as multipart/byteranges.

Where the source can seek (a local file, an entry of the cache) only the ranges are read; over a stream the bytes
between them are read and dropped, which is worth it only when little lies before and between them (``SKIP_LIMIT``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import cast

from fileproxy.errors import Truncated
from fileproxy.model import Body, Piece, Seekable

Span = tuple[int, int]  # (offset, length)

# Reading this much to reach a range is taken to be quicker than asking again (design.md, First contact 4).
SKIP_LIMIT = 8 * 1024 * 1024


def seekable(body: Body) -> Seekable | None:
    """The body, when any part of it can be read. (``isinstance`` with a Protocol costs more than the rest of this.)"""
    return cast(Seekable, body) if hasattr(body, "pieces") else None


def skipped(spans: Sequence[Span]) -> int:
    """Bytes of the stream that are dropped before and between ascending spans."""
    end = dropped = 0
    for offset, length in spans:
        dropped += offset - end
        end = offset + length
    return dropped


class Ranged:
    """``spans`` of ``source``, ascending; before each its part head (empty for a single range), at the end ``tail``."""

    framed = True

    def __init__(self, source: Body, spans: Sequence[Span], heads: Sequence[bytes] = (), tail: bytes = b"") -> None:
        self._source = source
        self._spans = spans
        self._heads = heads or [b""] * len(spans)
        self._tail = tail
        self.length = sum(length for _, length in spans) + sum(map(len, self._heads)) + len(tail)

    async def __aiter__(self) -> AsyncIterator[Piece]:
        if (source := seekable(self._source)) is not None:
            for head, (offset, length) in zip(self._heads, self._spans, strict=True):
                if head:
                    yield head
                async for piece in source.pieces(offset, length):
                    yield piece
        else:
            async for piece in self._cut_stream():
                yield piece
        if self._tail:
            yield self._tail

    async def _cut_stream(self) -> AsyncIterator[bytes]:
        position = 0
        todo = [
            (head, offset, offset + length) for head, (offset, length) in zip(self._heads, self._spans, strict=True)
        ]
        todo.reverse()
        async for piece in self._source:
            if not isinstance(piece, bytes):
                raise TypeError("a stream hands on bytes")
            start, position = position, position + len(piece)
            while todo and todo[-1][1] < position:
                head, begin, end = todo[-1]
                if head and begin >= start:
                    yield head
                yield piece[max(begin, start) - start : end - start]
                if end > position:
                    break
                todo.pop()
            if not todo:
                return
        if todo:
            raise Truncated("The upstream's body ended before the asked range did.")

    async def aclose(self) -> None:
        await self._source.aclose()
