"""A client's request body: read as the upstream takes it, counted, bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from fileproxy.errors import BodyTooLarge, ClientGone, FileProxyError
from fileproxy.model import Counters


class RequestBody:
    """Implements ``model.Incoming`` over an aiohttp request.

    ``failure`` keeps the error that ended the reading, because aiohttp's client wraps what its body source raises.
    """

    def __init__(self, request: web.BaseRequest, limit: int, counters: Counters, *, expects_continue: bool) -> None:
        self._request = request
        self._limit = limit
        self._counters = counters
        self._expects_continue = expects_continue
        self.length = request.content_length
        self.started = False
        self.failure: FileProxyError | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.started = True
        transport = self._request.transport
        if self._expects_continue and transport is not None:
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        taken = 0
        try:
            async for data in self._request.content.iter_any():
                taken += len(data)
                self._counters.add("bytes.from_clients", len(data))
                if taken > self._limit:
                    raise BodyTooLarge(f"The request body is longer than {self._limit} bytes.")
                yield data
        except BodyTooLarge as error:
            self.failure = error
            raise
        except (ConnectionError, web.RequestPayloadError) as error:
            self.failure = ClientGone("The client broke off while sending its request body.")
            raise self.failure from error


def has_body(request: web.BaseRequest) -> bool:
    """True when the head announces a body (RFC 9112 §6)."""
    return "Transfer-Encoding" in request.headers or (request.content_length or 0) > 0
