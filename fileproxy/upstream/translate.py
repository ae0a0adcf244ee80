"""Foreign exceptions become ours here, once, with the mirror's address and never with credentials."""

from __future__ import annotations

import errno
import ssl

import aiohttp
from aiohttp import http_exceptions

from fileproxy import errors

_OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_CUT_SHORT = (http_exceptions.ContentLengthError, http_exceptions.TransferEncodingError)
_DETAIL_CHARS = 200

# errno of a failed connect → what it means; anything else is the general UpstreamError
_CONNECT: dict[int, type[errors.UpstreamError]] = {
    errno.ECONNREFUSED: errors.ConnectRefused,
    errno.ETIMEDOUT: errors.ConnectTimeout,
    errno.ECONNRESET: errors.UpstreamReset,
    errno.EPIPE: errors.UpstreamReset,
}


class AddressRefused(OSError):
    """Raised by our socket factory instead of connecting to an address that a redirect must not reach."""

    MARK = "is not an address that a redirect may lead to"

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(errno.EACCES, f"{address} ({reason}) {self.MARK}")


def translate(error: BaseException, address: str) -> errors.FileProxyError:
    """The error of ours for anything that aiohttp, ssl or the system raised while ``address`` was asked.

    Args:
        error: what was raised.
        address: ``host:port`` of the mirror, for the text.
    """
    if isinstance(error, errors.FileProxyError):
        return error
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return errors.DnsFailed(f"{address}: the name could not be resolved ({_reason(error.os_error)})")
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError | ssl.SSLError):
        return _tls_failed(error, address)
    if isinstance(error, TimeoutError) and not getattr(error, "errno", None):
        return errors.ConnectTimeout(f"{address}: no connection in time")
    if isinstance(error, aiohttp.ClientConnectorError):
        return _not_connected(error.os_error, address)
    if isinstance(error, aiohttp.ClientPayloadError):
        return _broken_body(error, address)
    if isinstance(error, aiohttp.ClientResponseError):
        return errors.BadAnswer(f"{address}: not a valid HTTP answer ({_short(error.message)})")
    if isinstance(error, aiohttp.InvalidURL):
        return errors.BadAnswer(f"{address}: cannot be asked for this", retryable=False)
    if isinstance(error, OSError) and error.errno in _OUT_OF_DESCRIPTORS:
        return errors.Shed(f"{address}: {_reason(error)}")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return errors.UpstreamReset(f"{address}: the connection was closed before an answer came")
    if isinstance(error, aiohttp.ClientOSError | ConnectionError):
        return errors.UpstreamReset(f"{address}: the connection broke ({_reason(error)})")
    return errors.UpstreamError(f"{address}: {type(error).__name__} ({_short(str(error))})")


def _not_connected(error: OSError, address: str) -> errors.FileProxyError:
    if isinstance(error, AddressRefused) or AddressRefused.MARK in str(error):
        return errors.RedirectRefused(f"{address}: {_reason(error)}")
    if error.errno in _OUT_OF_DESCRIPTORS:
        return errors.Shed(f"{address}: {_reason(error)}")
    kind = _CONNECT.get(error.errno or 0, errors.UpstreamError)
    return kind(f"{address}: no connection ({_reason(error)})")


def _broken_body(error: aiohttp.ClientPayloadError, address: str) -> errors.UpstreamError:
    cause = error.__cause__
    if isinstance(cause, OSError):
        return errors.UpstreamReset(f"{address}: the connection broke inside the body ({_reason(cause)})")
    if isinstance(cause, _CUT_SHORT):
        return errors.Truncated(f"{address}: the body ended before its end ({_short(str(cause.message))})")
    return errors.BadAnswer(f"{address}: the body is not valid HTTP ({_short(str(error))})")


def _tls_failed(error: BaseException, address: str) -> errors.TlsFailed:
    inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    reason = _short(getattr(inner, "verify_message", None) or getattr(inner, "reason", None) or str(inner))
    if isinstance(inner, ssl.SSLCertVerificationError):
        return errors.TlsCertificate(f"{address}: the certificate was refused ({reason})")
    return errors.TlsFailed(f"{address}: TLS failed ({reason})")


def _reason(error: BaseException) -> str:
    return _short(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def _short(text: str) -> str:
    """One line, printable, not too long: some of these texts quote what the peer sent."""
    line = " ".join(text.split())[:_DETAIL_CHARS]
    return "".join(char if char.isprintable() else "?" for char in line)
