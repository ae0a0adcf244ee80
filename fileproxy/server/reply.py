"""The answer as it goes to a client: an aiohttp response whose head is written exactly as we say.

aiohttp adds a Content-Type, a Server and its own idea of framing, and drops bytes that are not UTF-8; a proxy must do
none of these. Everything else (the writer, HEAD handling, keep-alive) stays aiohttp's.
"""

from __future__ import annotations

import re
import time
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11
from multidict import CIMultiDict

from fileproxy.http.dates import format_date
from fileproxy.model import Headers

# Framing and connection handling are this hop's own (RFC 9112 §6, §9.6).
_OURS = frozenset({"content-length", "transfer-encoding", "connection", "keep-alive"})
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NO_BODY = frozenset({204, 304})


class Reply(web.StreamResponse):
    """One answer head.

    Args:
        status, reason: status line; an empty reason is sent as such.
        fields: end-to-end headers in order, duplicates kept.
        length: body bytes that will follow, when known. For HEAD and 304 it is what a GET would carry.
        framed: False when the end of the body cannot be told from a break; then it is close-delimited for the client
            too, because a final chunk would claim a completeness nobody proved (law 2).
        close: close the connection after this answer.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        fields: Headers,
        *,
        length: int | None,
        framed: bool = True,
        close: bool = False,
    ) -> None:
        headers = CIMultiDict([pair for pair in fields if pair[0].lower() not in _OURS])
        super().__init__(status=status, reason=reason, _real_headers=headers)
        self._declared = length
        self._framed = framed
        self.close_delimited = False
        self.aborted = False
        self.head = b""  # as it was sent
        if close:
            self.force_close()

    @property
    def declared(self) -> int | None:
        """Bytes of the body it announces."""
        return self._declared

    def abandon(self) -> None:
        """The connection was aborted: whatever aiohttp still wants to write must fail, not complete the answer."""
        self.aborted = True

    async def _start(self, request: web.BaseRequest) -> AbstractStreamWriter:
        self._req = request
        writer = self._payload_writer = request._payload_writer  # noqa: SLF001  (aiohttp's own hand-over)
        assert writer is not None
        self._frame(request, writer)
        await request._prepare_hook(self)  # noqa: SLF001  (CORS headers are added here)
        head = self.head = self._head(request)
        # The writer sends a buffered head together with the first bytes of the body: one segment less.
        writer._headers_buf = head  # type: ignore[attr-defined]  # noqa: SLF001
        writer._headers_written = False  # type: ignore[attr-defined]  # noqa: SLF001
        return writer

    def _frame(self, request: web.BaseRequest, writer: Any) -> None:
        """Choose Content-Length, chunked or close (RFC 9112 §6.3)."""
        headers = self._headers
        # The writer is the request's: an answer that failed before its head went out may have left its framing there.
        writer.chunked, writer.length = False, None
        keep_alive = request.keep_alive if self._keep_alive is None else self._keep_alive
        bodiless = request.method == "HEAD" or self.status in _NO_BODY
        if bodiless:
            if self._declared is not None and self.status != 204:
                headers["Content-Length"] = str(self._declared)
            writer.length = 0
        elif self._declared is not None:
            headers["Content-Length"] = str(self._declared)
            writer.length = self._declared
        elif self._framed and request.version >= HttpVersion11:
            headers["Transfer-Encoding"] = "chunked"
            writer.enable_chunking()
        else:
            self.close_delimited = True
            keep_alive = False
        if keep_alive and request.version < HttpVersion11:
            headers["Connection"] = "keep-alive"
        elif not keep_alive:
            headers["Connection"] = "close"
        if "Date" not in headers:
            headers["Date"] = format_date(time.time())
        self._keep_alive = keep_alive

    def _head(self, request: web.BaseRequest) -> bytes:
        version = "1.1" if request.version >= HttpVersion11 else "1.0"
        lines = [f"HTTP/{version} {self.status} {self.reason}"]
        lines += [f"{name}: {value}" for name, value in self._headers.items()]
        if _FORBIDDEN.search("".join(lines)):
            raise ValueError("a header holds a control character and was not sent")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")

    def take_head(self) -> bytes:
        """The head, when it has not left yet; whoever takes it sends it, before anything else."""
        writer: Any = self._payload_writer
        head = writer._headers_buf  # noqa: SLF001
        if not head or writer._headers_written:  # noqa: SLF001
            return b""
        writer._headers_buf, writer._headers_written = None, True  # noqa: SLF001
        return bytes(head)

    def went(self, length: int) -> None:
        """So many bytes of the body went past the writer."""
        writer: Any = self._payload_writer
        writer.output_size += length
        if writer.length is not None:
            writer.length -= length

    async def write_eof(self, data: bytes = b"") -> None:
        if self.aborted:
            raise ConnectionResetError("the answer was aborted")
        await super().write_eof(data)
