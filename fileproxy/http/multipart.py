"""Framing of multipart/byteranges (RFC 9110 §14.6) with its exact total length, before the first byte is read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fileproxy.http.ranges import Span, format_content_range

# A subset of RFC 2046 §5.1.1 that needs no quotes; long and random, so that it is not found in a file.
_BOUNDARY = re.compile(r"[0-9A-Za-z_-]{16,70}")
_UNSAFE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Framing:
    """``heads[i]`` goes before the bytes of the i-th span, ``tail`` after the last."""

    heads: tuple[bytes, ...]
    tail: bytes
    length: int  # of the whole body: heads, spans and tail
    content_type: str  # of the whole answer


def byteranges(boundary: str, content_type: str | None, size: int, spans: Sequence[Span]) -> Framing:
    """The framing of ``spans`` of a file of ``size`` bytes, whose own type is ``content_type``.

    ``boundary`` must be random, 16 to 70 letters, digits, ``_`` or ``-``; ValueError when it is not, when there are no
    spans, or when ``content_type`` would forge a line.
    """
    if _BOUNDARY.fullmatch(boundary) is None:
        raise ValueError(f"{boundary!r} is no safe boundary")
    if content_type is not None and _UNSAFE.search(content_type):
        raise ValueError(f"{content_type!r} holds control characters")
    if not spans:
        raise ValueError("no spans, no parts")
    kind = "" if content_type is None else f"Content-Type: {content_type}\r\n"
    lines = [
        f"--{boundary}\r\n{kind}Content-Range: {format_content_range(offset, length, size)}\r\n\r\n"
        for offset, length in spans
    ]
    heads = tuple(
        (line if number == 0 else f"\r\n{line}").encode("utf-8", "surrogateescape") for number, line in enumerate(lines)
    )
    tail = f"\r\n--{boundary}--\r\n".encode()
    total = sum(map(len, heads)) + sum(length for _, length in spans) + len(tail)
    return Framing(heads, tail, total, f"multipart/byteranges; boundary={boundary}")
