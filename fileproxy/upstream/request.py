"""aiohttp's request, made exact.

Rule 1: a kept connection on which anything arrived since its last answer is not used. aiohttp would take what is
there for the answer to the next request, and a mirror could so put its bytes under any name.

Rule 2: what a client sent arrives as it was sent. aiohttp encodes heads as UTF-8 and drops what is not; header bytes
outside UTF-8 (kept by us as surrogates) therefore go out through a writer that replaces the head by the exact one.

Rule 3: interim answers (1xx) are told before the final one. aiohttp drops them, without end.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.connector import Connection
from multidict import CIMultiDict

from fileproxy.errors import BadAnswer

MOST_INTERIM = 32  # 1xx answers before the final one; who sends more is not well
_SURROGATE = re.compile("[\ud800-\udfff]")


class WiredResponse(aiohttp.ClientResponse):
    """An answer that remembers its connection's transport: aiohttp lets go of it as soon as the last byte is here."""

    wire: asyncio.BaseTransport | None = None

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        self.wire = connection.transport
        ask = self._traces[0]._trace_config_ctx if self._traces else None  # noqa: SLF001 - nothing public leads there
        if ask is not None and ask.on_interim is not None and connection.protocol is not None:
            await _tell_interim(connection.protocol, ask.on_interim)
        return await super().start(connection)


async def _tell_interim(protocol: Any, tell: Callable[[Any], None]) -> None:
    """Take 1xx answers off the connection; the final one stays. Raises BadAnswer when there is no end of them."""
    for _ in range(MOST_INTERIM + 1):
        try:
            read = await protocol.read()
        except Exception:
            return
        code = read[0].code
        if not 100 <= code < 200 or code == 101:
            protocol._buffer.appendleft((read, 0))  # noqa: SLF001 - for aiohttp's own read
            return
        if code != 100:  # which answers an Expect, and none was sent
            tell(read[0])
    raise BadAnswer("more interim answers than anybody needs")


class ExactRequest(aiohttp.ClientRequest):
    """One subclass of this is made for each connector (``on_new`` differs)."""

    known: weakref.WeakSet[Any]  # the connections that carried a request before
    on_new: Callable[[Connection], None]

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        protocol = conn.protocol
        if protocol is None or protocol.should_close:
            raise aiohttp.ServerDisconnectedError("unasked bytes on a kept connection")
        if protocol not in self.known:
            self.known.add(protocol)
            type(self).on_new(conn)
        head = exact_head(self.method, self.url.raw_path_qs, self.headers)
        if head is not None:
            protocol.transport = _HeadWriter(protocol, head)  # type: ignore[assignment]
        return await super().send(conn)

    async def write_bytes(
        self, writer: AbstractStreamWriter, conn: Connection, content_length: int | None = None
    ) -> None:
        """The head goes at once; aiohttp would keep it until the body begins, which the origin may want to refuse."""
        with contextlib.suppress(ConnectionError):  # writing the body meets it again, and tells the right place
            writer.send_headers()
        await super().write_bytes(writer, conn, content_length)


def exact_head(method: str, path_query: str, headers: CIMultiDict[str]) -> bytes | None:
    """The head as bytes when aiohttp's own writer would lose some of it, else None."""
    if _SURROGATE.search("".join([method, path_query, *headers, *headers.values()])) is None:
        return None
    text = f"{method} {path_query} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{text}\r\n".encode("utf-8", "surrogateescape")


class _HeadWriter:
    """Stands before a transport until the first write, and puts the exact head in the place of aiohttp's."""

    def __init__(self, protocol: Any, head: bytes) -> None:
        self._protocol = protocol
        self._transport = protocol.transport
        self._head = head

    def write(self, data: bytes) -> None:
        if self._protocol.transport is self:
            self._protocol.transport = self._transport
        self._transport.write(self._head + bytes(data).partition(b"\r\n\r\n")[2])

    def writelines(self, pieces: Iterable[bytes]) -> None:
        self.write(b"".join(pieces))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
