"""Every foreign exception becomes one of ours, with the mirror's address and on one printable line."""

from __future__ import annotations

import errno
import os
import ssl
from unittest.mock import Mock

import aiohttp
import pytest
from aiohttp import http_exceptions
from aiohttp.client_reqrep import ConnectionKey

from fileproxy import errors
from fileproxy.upstream.translate import AddressRefused, translate

KEY = ConnectionKey("a.example", 443, True, True, None, None, None)
WHERE = "a.example:443"


def system(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def payload_error(cause: BaseException) -> aiohttp.ClientPayloadError:
    error = aiohttp.ClientPayloadError("Response payload is not completed")
    error.__cause__ = cause
    return error


def expired() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "certificate has expired"
    return error


CASES: list[tuple[BaseException, type[errors.FileProxyError]]] = [
    (aiohttp.ClientConnectorDNSError(KEY, OSError(-2, "Name or service not known")), errors.DnsFailed),
    (aiohttp.ClientConnectorCertificateError(KEY, expired()), errors.TlsCertificate),
    (aiohttp.ClientConnectorSSLError(KEY, expired()), errors.TlsCertificate),
    (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, "[SSL] wrong version number")), errors.TlsFailed),
    (ssl.SSLError(1, "bad record mac"), errors.TlsFailed),
    (TimeoutError(), errors.ConnectTimeout),
    (aiohttp.ConnectionTimeoutError("slow"), errors.ConnectTimeout),
    (aiohttp.ClientConnectorError(KEY, system(errno.ETIMEDOUT)), errors.ConnectTimeout),
    (aiohttp.ClientConnectorError(KEY, system(errno.ECONNREFUSED)), errors.ConnectRefused),
    (aiohttp.ClientConnectorError(KEY, system(errno.ECONNRESET)), errors.UpstreamReset),
    (aiohttp.ClientConnectorError(KEY, system(errno.EHOSTUNREACH)), errors.UpstreamError),
    (aiohttp.ClientConnectorError(KEY, system(errno.EMFILE)), errors.Shed),
    (aiohttp.ClientConnectorError(KEY, AddressRefused("10.0.0.1", "private")), errors.RedirectRefused),
    # What aiohappyeyeballs makes of several failed addresses:
    (
        aiohttp.ClientConnectorError(KEY, OSError(f"Multiple exceptions: {AddressRefused('::1', 'loopback')}, no")),
        errors.RedirectRefused,
    ),
    (aiohttp.ServerDisconnectedError(), errors.UpstreamReset),
    (aiohttp.ClientOSError(errno.EPIPE, "Broken pipe"), errors.UpstreamReset),
    (ConnectionResetError(errno.ECONNRESET, "reset"), errors.UpstreamReset),
    (system(errno.EMFILE), errors.Shed),
    (system(errno.ENFILE), errors.Shed),
    (payload_error(ConnectionResetError(errno.ECONNRESET, "reset")), errors.UpstreamReset),
    (payload_error(http_exceptions.ContentLengthError("7 of 9")), errors.Truncated),
    (payload_error(http_exceptions.TransferEncodingError("no last chunk")), errors.Truncated),
    (payload_error(ValueError("bad chunk")), errors.BadAnswer),
    (aiohttp.ClientResponseError(Mock(), (), status=400, message="bad header"), errors.BadAnswer),
    (aiohttp.InvalidURL("http://"), errors.BadAnswer),
    (RuntimeError("what?"), errors.UpstreamError),
]


@pytest.mark.parametrize(("foreign", "ours"), CASES, ids=lambda value: getattr(value, "__name__", type(value).__name__))
def test_it_becomes(foreign: BaseException, ours: type[errors.FileProxyError]) -> None:
    error = translate(foreign, WHERE)
    assert type(error) is ours
    assert error.detail.startswith(WHERE)


def test_ours_pass_as_they_are() -> None:
    error = errors.IdleTimeout("x")
    assert translate(error, WHERE) is error


def test_why_a_certificate_was_refused_is_said() -> None:
    error = translate(aiohttp.ClientConnectorCertificateError(KEY, expired()), WHERE)
    assert "certificate has expired" in error.detail
    assert (error.ending, error.proxy_error, error.retryable) == ("upstream_tls", "tls_certificate_error", False)


def test_what_the_peer_sent_cannot_forge_lines_or_flood_them() -> None:
    message = "bad\r\nevil: 1\x1b[31m" + "x" * 5000
    error = translate(aiohttp.ClientResponseError(Mock(), (), status=400, message=message), WHERE)
    assert error.detail.isprintable()
    assert len(error.detail) < 300
