"""Answers of HTTP/1.1, read without I/O. Only framing proves an end (RFC 9112 §6.3)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

_FIELDS = re.compile(
    rb"\r\n(content-length|transfer-encoding|connection|etag|last-modified|content-range)"
    rb":[ \t]*([^\r\n]*?)[ \t]*(?=\r\n)",
    re.IGNORECASE,
)
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])[ \r]")
_RANGE = re.compile(rb"bytes (\d+)-(\d+)/(\d+|\*)")
_MOST_HEAD = 64 * 1024
_MOST_SIZE_LINE = 256


class BadAnswer(Exception):
    """No HTTP/1.x answer, or one whose framing is wrong."""


class Head(NamedTuple):
    """What a load needs to know of a response head."""

    status: int
    length: int | None  # None: chunked, or up to the close
    chunked: bool
    close: bool
    validator: bytes  # the ETag, else Last-Modified, else nothing
    range: tuple[int, int, int | None] | None  # first, last, size


def parse_head(head: bytes) -> Head:
    """``head`` with its last empty line. Raises BadAnswer."""
    status = _STATUS.match(head)
    if status is None:
        raise BadAnswer("no HTTP/1.x status line")
    fields: dict[bytes, bytes] = {}
    for name, value in _FIELDS.findall(head):
        key = name.lower()
        if key == b"content-length" and fields.get(key, value) != value:
            raise BadAnswer("two lengths")
        fields[key] = value
    code = int(status[2])
    chunked = fields.get(b"transfer-encoding", b"").lower() == b"chunked"
    length: int | None = None
    if code in (204, 304) or code < 200:
        length, chunked = 0, False
    elif not chunked and (said := fields.get(b"content-length")) is not None:
        if not said.isdigit():
            raise BadAnswer("a length that is no number")
        length = int(said)
    tokens = fields.get(b"connection", b"").lower()
    close = b"close" in tokens or (status[1] == b"0" and b"keep-alive" not in tokens)
    part = _RANGE.fullmatch(fields.get(b"content-range", b""))
    return Head(
        code,
        length,
        chunked,
        close or (length is None and not chunked),
        fields.get(b"etag") or fields.get(b"last-modified", b""),
        None if part is None else (int(part[1]), int(part[2]), None if part[3] == b"*" else int(part[3])),
    )


@dataclass
class Answer:
    """One answer to a GET as it comes in: feed it until ``done``. ``rest``: what came behind it (should be empty)."""

    head: Head | None = None
    size: int = 0  # bytes of the body so far
    done: bool = False
    rest: bytes = b""
    _held: bytes = b""
    _left: int = 0  # of the body, or of the chunk and its CRLF
    _trailer: bool = False

    def feed(self, data: bytes) -> list[bytes]:
        """The pieces of the body in ``data``. Raises BadAnswer."""
        if self.head is None and not (data := self._begin(data)) and not self.done:
            return []
        head = self.head
        if head is None or self.done:
            return []
        if head.chunked:
            return self._chunks(data)
        if head.length is None:
            self.size += len(data)
            return [data]
        piece, self.rest = (data, b"") if len(data) <= self._left else (data[: self._left], data[self._left :])
        self._left -= len(piece)
        self.size += len(piece)
        self.done = self._left == 0
        return [piece] if piece else []

    def end(self) -> bool:
        """The connection ended. Whether that is the proper end of this answer."""
        self.done = self.done or (self.head is not None and self.head.length is None and not self.head.chunked)
        return self.done

    def _begin(self, data: bytes) -> bytes:
        """Take the head off; interim answers are passed over. What is left of ``data``."""
        data = self._held + data
        while (at := data.find(b"\r\n\r\n")) >= 0:
            head = parse_head(data[: at + 4])
            data = data[at + 4 :]
            if head.status >= 200:
                self.head, self._held = head, b""
                self._left = head.length or 0
                if head.length == 0:
                    self.done, self.rest = True, data
                return data
        if len(data) > _MOST_HEAD or not b"HTTP/1.".startswith(data[:7]):
            raise BadAnswer("no HTTP/1.x head")
        self._held = data
        return b""

    def _chunks(self, data: bytes) -> list[bytes]:
        data, self._held = self._held + data, b""
        pieces: list[bytes] = []
        while True:
            if self._left > 2:
                piece = data[: self._left - 2]
                pieces.append(piece)
                self.size += len(piece)
                self._left -= len(piece)
                data = data[len(piece) :]
                if self._left > 2:
                    return pieces
            if self._left:
                if len(data) < 2:
                    break
                if data[:2] != b"\r\n":
                    raise BadAnswer("a chunk that does not end where it said")
                data, self._left = data[2:], 0
            at = data.find(b"\r\n")
            if at < 0:
                if len(data) > (_MOST_HEAD if self._trailer else _MOST_SIZE_LINE):
                    raise BadAnswer("an endless chunk line")
                break
            line, data = data[:at], data[at + 2 :]
            if self._trailer:
                if not line:
                    self.done, self.rest = True, data
                    return pieces
                continue
            size = line.partition(b";")[0].strip()
            if not re.fullmatch(rb"[0-9a-fA-F]{1,15}", size):
                raise BadAnswer("a chunk size that is no number")
            count = int(size, 16)
            self._trailer = count == 0
            self._left = count + 2 if count else 0
        self._held = data
        return pieces
