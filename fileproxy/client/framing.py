"""What the octets of an HTTP/1.1 answer say: its head, how its body is framed, the chunked coding. Pure.

An answer that is not exactly framed (RFC 9112 §6) is refused: BadAnswer, with ``address`` in its text.
"""

from __future__ import annotations

import re

from fileproxy.errors import BadAnswer
from fileproxy.http.fields import connection_options
from fileproxy.model import Headers, header_values

HEAD_BYTES = 64 * 1024  # the longest head of an answer
_LINE_BYTES = 4096  # of a chunk
_NO_BODY = frozenset({204, 304})
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: (.*))?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*", re.DOTALL)
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def parse_head(lines: list[bytes], address: str) -> tuple[int, str, Headers, bool]:
    """Status, reason, headers, and whether the connection stays open after the answer (RFC 9112 §4, §5, §9.3)."""
    first = _STATUS.fullmatch(lines[0])
    if first is None:
        raise BadAnswer(f"{address}: not a valid HTTP answer (its first line)")
    found = []
    for line in lines[1:]:
        field = _FIELD.fullmatch(line)
        if field is None or b"\n" in line or b"\r" in line:
            raise BadAnswer(f"{address}: not a valid HTTP answer (a header line)")
        found.append((_text(field[1]), _text(field[2])))
    headers = tuple(found)
    options = connection_options(headers)
    keep = "close" not in options and (first[1] == b"1" or "keep-alive" in options)
    return int(first[2]), _text(first[3] or b""), headers, keep


def _text(raw: bytes) -> str:
    """Control characters are replaced by a space (RFC 9110 §5.5)."""
    return _CONTROL.sub(" ", raw.decode("utf-8", "surrogateescape"))


def framing(status: int, headers: Headers, address: str) -> tuple[int | None, bool]:
    """``(length, chunked)`` of the body of an answer to GET; no length and not chunked: it ends with the connection."""
    coding = header_values(headers, "Transfer-Encoding")
    lengths = header_values(headers, "Content-Length")
    if coding and [one.strip().lower() for one in coding] != ["chunked"]:
        raise BadAnswer(f"{address}: an answer with a transfer coding that was not asked for")
    if len(lengths) > 1 or (lengths and coding):
        raise BadAnswer(f"{address}: an answer whose length is said twice")
    if lengths and not (lengths[0].isascii() and lengths[0].isdigit() and len(lengths[0]) < 19):
        raise BadAnswer(f"{address}: an answer with an invalid Content-Length")
    if status in _NO_BODY:
        return 0, False
    return int(lengths[0]) if lengths else None, bool(coding)


class Chunks:
    """The chunked coding (RFC 9112 §7.1), undone; extensions and trailers are passed over."""

    def __init__(self, address: str) -> None:
        self.over = False
        self._address = address
        self._left = 0  # of the chunk
        self._state = "size"  # size → data → end → size … → trailers
        self._line = bytearray()
        self._trailers = 0

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """``(content, what follows the body)``. Raises BadAnswer."""
        pieces: list[bytes] = []
        at = 0
        while at < len(data) and not self.over:
            if self._state == "data":
                piece = data[at : at + self._left]
                pieces.append(piece)
                at, self._left = at + len(piece), self._left - len(piece)
                if not self._left:
                    self._state = "end"
                continue
            end = data.find(b"\n", at)
            self._line += data[at : end if end >= 0 else len(data)]
            at = end + 1 if end >= 0 else len(data)
            if len(self._line) > _LINE_BYTES:
                raise self._bad("a line is too long")
            if end >= 0:
                if self._line[-1:] != b"\r":
                    raise self._bad("a line does not end as it must")
                line = bytes(self._line[:-1])
                self._line.clear()
                self._take(line)
        return pieces, data[at:]

    def _take(self, line: bytes) -> None:
        if self._state == "size":
            size = _CHUNK.fullmatch(line)
            if size is None:
                raise self._bad("a chunk's size")
            self._left = int(size[1], 16)
            self._state = "data" if self._left else "trailers"
        elif self._state == "end":
            if line:
                raise self._bad("a chunk is longer than it said")
            self._state = "size"
        elif not line:
            self.over = True
        else:
            self._trailers += len(line)
            if self._trailers > HEAD_BYTES:
                raise self._bad("the trailers are too long")

    def _bad(self, why: str) -> BadAnswer:
        return BadAnswer(f"{self._address}: the body is not valid HTTP ({why})")
