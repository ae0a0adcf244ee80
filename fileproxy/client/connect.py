"""Opening connections for ``http1.py``: names, addresses tried side by side, TLS. Foreign errors become ours here."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from fileproxy import errors

if TYPE_CHECKING:
    from fileproxy.upstream.redirects import Place

HAPPY_EYEBALLS_S = 0.25  # RFC 8305 §5: the next address is tried after this long
_OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_CONNECT: dict[int, type[errors.UpstreamError]] = {
    errno.ECONNREFUSED: errors.ConnectRefused,
    errno.ETIMEDOUT: errors.ConnectTimeout,
    errno.ECONNRESET: errors.UpstreamReset,
    errno.EPIPE: errors.UpstreamReset,
}
P = TypeVar("P", bound=asyncio.BaseProtocol)


class Dialer:
    """Opens connections to any server.

    Args:
        connect_s: seconds for name, connection and TLS together.
        ca: PEM file of the authorities to trust instead of the system's. verify: False trusts anybody.
    """

    def __init__(self, *, connect_s: float, ca: str | None, verify: bool) -> None:
        self._connect_s = connect_s
        self._ca = ca
        self._verify = verify
        self._context: ssl.SSLContext | None = None

    async def dial(self, place: Place, make: Callable[[], P], sock: socket.socket | None = None) -> P:
        """A connection of the protocol that ``make`` makes, over ``sock`` if given. Raises UpstreamError, Shed."""
        address = place.address
        try:
            async with asyncio.timeout(self._connect_s):
                return await self._open(place, make, sock)
        except TimeoutError as error:
            raise errors.ConnectTimeout(f"{address}: no connection in time") from error
        except socket.gaierror as error:
            raise errors.DnsFailed(f"{address}: the name could not be resolved ({_reason(error)})") from error
        except UnicodeError as error:
            raise errors.DnsFailed(f"{address}: the name could not be resolved") from error
        except ssl.SSLError as error:
            raise _tls_failed(error, address) from error
        except OSError as error:
            if error.errno in _OUT_OF_DESCRIPTORS:
                raise errors.Shed(f"{address}: {_reason(error)}") from error
            kind = _CONNECT.get(error.errno or 0, errors.UpstreamError)
            raise kind(f"{address}: no connection ({_reason(error)})") from error

    async def _open(self, place: Place, make: Callable[[], P], sock: socket.socket | None) -> P:
        loop = asyncio.get_running_loop()
        context = self._tls() if place.scheme == "https" else None
        name = place.host if context is not None else None
        if sock is None and is_address(place.host):
            _, made = await loop.create_connection(make, place.host, place.port, ssl=context, server_hostname=name)
            return made
        if sock is None:
            from aiohappyeyeballs import start_connection  # noqa: PLC0415 - only names need it

            found = await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
            sock = await start_connection(found, happy_eyeballs_delay=HAPPY_EYEBALLS_S, interleave=1)
        try:
            _, made = await loop.create_connection(make, sock=sock, ssl=context, server_hostname=name)
        except BaseException:
            sock.close()
            raise
        return made

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            context = ssl.create_default_context(cafile=self._ca)
            context.set_alpn_protocols(["http/1.1"])
            if not self._verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            self._context = context
        return self._context


def is_address(host: str) -> bool:
    """Whether a URL names its server by number."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def broken(error: Exception, said: str) -> errors.UpstreamError:
    """What ended a connection."""
    return errors.UpstreamReset(f"{said} ({_reason(error)})")


def _tls_failed(error: ssl.SSLError, address: str) -> errors.TlsFailed:
    reason = _short(getattr(error, "verify_message", None) or error.reason or str(error))
    if isinstance(error, ssl.SSLCertVerificationError):
        return errors.TlsCertificate(f"{address}: the certificate was refused ({reason})")
    return errors.TlsFailed(f"{address}: TLS failed ({reason})")


def _reason(error: BaseException) -> str:
    return _short(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def _short(text: str) -> str:
    """One line, printable, not too long."""
    line = " ".join(text.split())[:200]
    return "".join(char if char.isprintable() else "?" for char in line)
