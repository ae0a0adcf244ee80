"""The aiohttp side of a client connection: its RequestHandler, and the transport that it sees.

The front feeds the handler one checked request at a time; both tell the front what it could not see otherwise: when an
answer has ended, that bytes were written, and when the handler wants to pause, go on or close.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader

from fileproxy.server.heads import BadHead

if TYPE_CHECKING:
    from fileproxy.server.front import Front
    from fileproxy.server.pace import ClientPace

_Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
_UNLIMITED = 2**20  # the front has checked all sizes; the parser's own limits must never bite first
_DRAIN_S = 10.0  # how long a body nobody reads is drained after its answer, before the connection is closed instead


class Serving(web.RequestHandler):
    """aiohttp's RequestHandler without timers, access log and decompression. ``front`` owns the connection."""

    __slots__ = ("_body", "front", "pace")

    def __init__(self, server: web.Server, front: Front, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=0,
            tcp_keepalive=False,
            access_log=None,  # type: ignore[arg-type]  # None is what switches it off
            max_line_size=_UNLIMITED,
            max_headers=_UNLIMITED,
            max_field_size=_UNLIMITED,
            lingering_time=_DRAIN_S,
            auto_decompress=False,
        )
        self.front = front  # what handlers reach by front_of(request)
        self.pace: ClientPace | None = None  # how its client is served; None: no TCP
        self._body: StreamReader | None = None  # of the request taken last

    def take_head(self, raw: bytes) -> BadHead | None:
        """Take a request's head; its bytes of body follow by ``data_received``.

        Returns the parser's objection when it refuses what the front let pass; the handler answers it by itself.
        """
        self.data_received(raw)
        message, self._body = self._messages[-1]
        error = getattr(message, "exc", None)
        return None if error is None else _translated(error)

    @property
    def task(self) -> asyncio.Task[None] | None:
        """What runs the requests, until it has ended."""
        return self._task_handler

    def retire(self) -> None:
        """End for good while nothing is being served; the connection stays open."""
        self.transport = None  # which it would close
        self.connection_lost(None)

    def spoil(self, error: Exception) -> None:
        """Whoever reads the body of the request taken last gets ``error``."""
        if self._body is not None:
            self._body.set_exception(error)

    def _process_keepalive(self) -> None:
        """The front's sweep closes idle connections; aiohttp's timer does nothing."""

    async def _handle_request(
        self, request: web.BaseRequest, start_time: float | None, request_handler: _Handle
    ) -> tuple[web.StreamResponse, bool]:
        response, reset = await super()._handle_request(request, start_time, request_handler)
        if reset:
            self.front.abort("client_gone")
        elif not self.front.answered(bool(response.keep_alive)):
            self._lingering_time = 0.0  # the front does that after the FIN
            self.close()
        return response, reset

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer when the parser refused a head (400) or a handler let an exception pass (500)."""
        if request.writer is not None and getattr(request.writer, "output_size", 0) > 0:
            raise ConnectionError("an answer has begun; only cutting the connection can show the error") from exc
        if isinstance(exc, HttpProcessingError):
            return self._problem(_translated(exc))
        self.log_exception("unhandled error while serving %s", request.remote, exc_info=exc)
        return self._problem(None)

    def _problem(self, error: BadHead | None) -> web.Response:
        status, body, headers = self.front.problem(error)
        response = web.Response(status=status, body=body, headers=headers)
        response.force_close()
        return response


def _translated(error: BaseException) -> BadHead:
    """A parser's error as ours, without the excerpt of the head it carries."""
    message = getattr(error, "message", "") or type(error).__name__
    return BadHead(400, f"The request head is not valid ({message.splitlines()[0].rstrip(':')[:200]}).")


class Tap(asyncio.Transport):
    """The transport as aiohttp sees it: writes are noticed, pausing and closing go through the front."""

    __slots__ = ("_front", "_transport")

    def __init__(self, front: Front, transport: asyncio.Transport) -> None:
        self._front = front
        self._transport = transport

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self._front.written = True
        self._transport.write(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        self._front.written = True
        self._transport.writelines(list_of_data)

    def pause_reading(self) -> None:
        self._front.hold_body(True)

    def resume_reading(self) -> None:
        self._front.hold_body(False)

    def close(self) -> None:
        self._front.finish()

    def abort(self) -> None:
        self._front.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._transport.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def can_write_eof(self) -> bool:
        return False  # ending our side is the front's

    def is_reading(self) -> bool:
        return self._transport.is_reading()

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._transport.get_protocol()
