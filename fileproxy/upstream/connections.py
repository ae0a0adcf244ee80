"""The tuned connector and session that all mirrors of one upstream share in one worker."""

from __future__ import annotations

import socket
import ssl
import weakref
from collections.abc import Callable
from typing import Any

import aiohttp
import aiohttp.http_parser
from aiohttp.connector import Connection

from fileproxy import sockets
from fileproxy.errors import ConfigurationError
from fileproxy.model import Counters
from fileproxy.settings.resolve import ResolvedPool
from fileproxy.settings.schema import Sockets, Tls
from fileproxy.upstream.attempt import TRACE
from fileproxy.upstream.names import Names
from fileproxy.upstream.request import ExactRequest, WiredResponse
from fileproxy.upstream.translate import AddressRefused
from fileproxy.upstream.tube import Tubes

# aiohttp would add these on its own; what the client did not say is not said for it.
_INVENTED = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
_FEWEST_HEADER_BYTES = 64  # a head of N bytes may hold N/64 lines; the exact size is checked after parsing
AddressCheck = Callable[[str], str | None]


def refuse_python_parser() -> None:
    """Serve nothing without aiohttp's C parser: the fallback in pure Python is laxer and slow.

    Raises:
        ConfigurationError: when aiohttp runs without its C extensions.
    """
    if aiohttp.http_parser.HttpResponseParser is aiohttp.http_parser.HttpResponseParserPy:
        raise ConfigurationError(
            ["aiohttp runs without its C parser; install a binary wheel and unset AIOHTTP_NO_EXTENSIONS"]
        )


def tls_context(tls: Tls, where: str) -> ssl.SSLContext:
    """Certificates of ``tls.ca`` (or the system's), verification on unless switched off, HTTP/1.1 by ALPN.

    Raises:
        ConfigurationError: the CA file cannot be read. ``where`` names the upstream's key.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError([f"{where}.tls.ca: {tls.ca}: {error.strerror or error}"]) from error
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


class Connections:
    """A pool of connections, opened with our TCP options.

    Args:
        pool: resolved ``upstreams.NAME.pool``.
        connect_s: longest time for one address, TLS handshake included.
        options: TCP options; None leaves sockets as the system makes them.
        context: for https.
        response_head: longest head of an answer in bytes.
        forbidden: says why an IP address must not be connected to, or None. Asked with the address that is about to be
            connected to, so that a name which resolves differently the second time cannot pass.
    """

    def __init__(
        self,
        pool: ResolvedPool,
        *,
        connect_s: float,
        options: Sockets | None,
        context: ssl.SSLContext | None,
        response_head: int,
        counters: Counters,
        forbidden: AddressCheck | None = None,
    ) -> None:
        refuse_python_parser()
        self._pool = pool
        self._connect_s = connect_s
        self._options = options
        self._context = context
        self._counters = counters
        self._forbidden = forbidden
        self._session: aiohttp.ClientSession | None = None
        self._names: Names | None = None
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()
        self._granted: dict[str, Any] | None = None
        self._refused: dict[str, str] = {}
        self.response_head = response_head
        self.tubes = Tubes(counters)

    @property
    def session(self) -> aiohttp.ClientSession:
        """Made at first use, because it belongs to the running event loop."""
        if self._session is None:
            self._session = self._open()
        return self._session

    def _open(self) -> aiohttp.ClientSession:
        pool = self._pool
        self._names = Names(timeout_s=self._connect_s, keep_s=pool.dns_cache)
        connector = aiohttp.TCPConnector(
            limit=pool.limit,
            limit_per_host=pool.per_host,
            keepalive_timeout=pool.keepalive,
            use_dns_cache=False,  # ``names`` has its own
            happy_eyeballs_delay=None if pool.happy_eyeballs == "off" else pool.happy_eyeballs,
            socket_factory=self._socket,
            resolver=self._names,
            ssl=self._context or True,
        )
        session = aiohttp.ClientSession(
            connector=connector,
            request_class=type(
                "BoundRequest", (ExactRequest,), {"known": self._known, "on_new": staticmethod(self._opened)}
            ),
            response_class=WiredResponse,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            skip_auto_headers=_INVENTED,
            read_bufsize=pool.buffer,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_s),
            max_line_size=self.response_head,
            max_field_size=self.response_head,
            max_headers=max(16, self.response_head // _FEWEST_HEADER_BYTES),
            trace_configs=[TRACE],
        )
        # aiohttp would resend by itself, uncounted, even after a fresh connection broke. Which tries are made is ours.
        session._retry_connection = False  # noqa: SLF001 - there is no public switch
        return session

    def _socket(self, info: tuple[Any, ...]) -> socket.socket:
        """What the connector connects with; asked for every address it tries."""
        family, kind, protocol, _, address = info
        if self._forbidden is not None and (reason := self._forbidden(address[0])) is not None:
            raise AddressRefused(address[0], reason)
        if self._names is not None:
            self._names.trying(address[0])
        sock = socket.socket(family, kind, protocol)
        if self._options is not None:
            self._refused = sockets.apply(sock, self._options)
        return sock

    def _opened(self, connection: Connection) -> None:
        """A connection is about to carry its first request."""
        self._counters.add("upstream.connections")
        transport = connection.transport
        sock = None if transport is None else transport.get_extra_info("socket")
        if sock is None:
            return
        if self._names is not None and transport is not None and (peer := transport.get_extra_info("peername")):
            self._names.connected(peer[0])
        if self._options is not None:
            sockets.tune_connected(sock, self._options)
        self._granted = sockets.granted(sock)

    def describe(self) -> dict[str, Any]:
        """Limits, and the TCP options: asked for, granted to the newest connection, refused with the reason."""
        pool = self._pool
        return {
            "limit": pool.limit,
            "per_host": pool.per_host,
            "keepalive_s": pool.keepalive,
            "dns_cache_s": pool.dns_cache,
            "names": {} if self._names is None else self._names.describe(),
            "buffer_bytes": pool.buffer,
            "happy_eyeballs_s": pool.happy_eyeballs,
            "connect_s": self._connect_s,
            "open": len([one for one in self._known if one.is_connected()]),
            "sockets": {
                "asked": None if self._options is None else sockets.asked(self._options),
                "granted": self._granted,
                "refused": dict(self._refused),
            },
        }

    async def close(self) -> None:
        """Close every connection; what still runs on them breaks."""
        if self._session is not None:
            await self._session.close()
            self._session = None
