"""Where a request's body ends (pure; RFC 9112 §6, §7).

The scanners are fed whatever bytes come and say how many of them are the body's, so that a body is never read as the
next request. They are stricter than the RFC where that costs nobody: no white space around a chunk's size.

What they hand on is chunked as it came, but extensions and trailer fields are left out: RFC 9112 §7.1 allows to ignore
both, and a parser behind us cannot mistake a trailer for a header.
"""

from __future__ import annotations

import re
from typing import Protocol

from fileproxy.server.heads import BadHead, Head

LONGEST_CHUNK_LINE = 4096  # bytes, with its extensions
LONGEST_TRAILERS = 8192  # bytes altogether
_LONGEST_CHUNK = 2**63 - 1
_is_chunk_line = re.compile(rb"([0-9A-Fa-f]{1,16})(;[\t\x20-\x7e\x80-\xff]*+)?\r\n").fullmatch
_is_trailer = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+\r\n").fullmatch


class BodyScanner(Protocol):
    """Finds the end of one body in the stream of a connection."""

    @property
    def done(self) -> bool:
        """The body has ended; nothing more must be fed."""
        ...

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Take bytes of the stream. Returns what to hand on, and how many of ``data`` were the body's.

        Fewer than ``len(data)`` only when the body is done. Raises BadHead(400); the scanner is useless then.
        """
        ...


def scanner(head: Head) -> BodyScanner | None:
    """The scanner of a checked head's body, or None when it has none."""
    if head.chunked:
        return ChunkedScanner()
    return LengthScanner(head.length) if head.length else None


class LengthScanner:
    """A body of ``length`` bytes."""

    __slots__ = ("_left",)

    def __init__(self, length: int) -> None:
        self._left = length

    @property
    def done(self) -> bool:
        return self._left == 0

    def feed(self, data: bytes) -> tuple[bytes, int]:
        used = min(self._left, len(data))
        self._left -= used
        return (data if used == len(data) else data[:used]), used


_SIZE, _DATA, _AFTER, _TRAILERS, _DONE = range(5)  # a chunk's line, its bytes, its CRLF; the trailers; the end


class ChunkedScanner:
    """A chunked body. A line is handed on only when it is complete and good."""

    __slots__ = ("_left", "_line", "_state", "_trailers")

    def __init__(self) -> None:
        self._state = _SIZE
        self._left = 0  # bytes of this chunk still to come (in _DATA), or of its CRLF (in _AFTER)
        self._line = b""  # the beginning of a line that is not complete
        self._trailers = 0  # bytes of trailers so far

    @property
    def done(self) -> bool:
        return self._state == _DONE

    def feed(self, data: bytes) -> tuple[bytes, int]:
        handed_on: list[bytes] = []
        at, end = 0, len(data)
        while at < end and self._state != _DONE:
            if self._state == _DATA:
                begin, at = at, min(end, at + self._left)
                self._left -= at - begin
                handed_on.append(data[begin:at])
                if not self._left:
                    self._state, self._left = _AFTER, 2
            elif self._state == _AFTER:
                begin, at = at, min(end, at + self._left)
                expected = b"\r\n"[2 - self._left :]
                self._left -= at - begin
                if not expected.startswith(data[begin:at]):
                    raise BadHead(400, "A chunk of the request body is not as long as it says.")
                handed_on.append(data[begin:at])
                if not self._left:
                    self._state = _SIZE
            else:
                at = self._read_line(data, at, handed_on)
        return (handed_on[0] if len(handed_on) == 1 else b"".join(handed_on)), at

    def _read_line(self, data: bytes, at: int, handed_on: list[bytes]) -> int:
        """Read on in a chunk's line or a trailer; returns where to read on."""
        newline = data.find(b"\n", at)
        stop = newline + 1 if newline >= 0 else len(data)
        room = LONGEST_CHUNK_LINE if self._state == _SIZE else LONGEST_TRAILERS - self._trailers
        if len(self._line) + stop - at > room:
            raise BadHead(400, "A chunk's extensions or the trailers of the request body are too long.")
        line = self._line + data[at:stop]
        if newline < 0:
            self._line = line
            return stop
        self._line = b""
        if self._state == _SIZE:
            self._size_line(line, handed_on)
        else:
            self._trailer_line(line, handed_on)
        return stop

    def _size_line(self, line: bytes, handed_on: list[bytes]) -> None:
        match = _is_chunk_line(line)
        if match is None or (size := int(match[1], 16)) > _LONGEST_CHUNK:
            raise BadHead(400, "The size of a chunk of the request body is not valid.")
        handed_on.append(line if match[2] is None else match[1] + b"\r\n")
        self._left = size
        self._state = _DATA if size else _TRAILERS

    def _trailer_line(self, line: bytes, handed_on: list[bytes]) -> None:
        self._trailers += len(line)
        if line == b"\r\n":
            handed_on.append(line)
            self._state = _DONE
        elif _is_trailer(line) is None:
            raise BadHead(400, "A trailer of the request body is not valid.")
