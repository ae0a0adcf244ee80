"""What can go wrong, in few types. Each says whose fault it is, whether to try again, and the status a client gets.

Foreign exceptions are translated into these once, at the border (``upstream/transport.py``, ``server/front.py``).
``ending`` is the name the request is counted under (``observe/table.py``), so nothing ends without a name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fileproxy.model import Verdict


class FileProxyError(Exception):
    """Base of all errors the proxy raises on purpose.

    Attributes:
        source: whose fault: ``client``, ``proxy`` or ``upstream``.
        retryable: the same idempotent request may succeed when sent again.
        status: HTTP status for the client when no byte of an answer was sent yet.
        ending: the counted name of this way to end.
        proxy_error: error type of the Proxy-Status header (RFC 9209 §2.3), or None.
        retry_after_s: seconds for a Retry-After header, or None.
    """

    source = "proxy"
    status = 500
    ending = "internal_error"
    retryable = False
    proxy_error: str | None = "proxy_internal_error"

    def __init__(
        self,
        detail: str,
        *,
        retryable: bool | None = None,
        retry_after_s: float | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        if retryable is not None:
            self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.headers = headers


# --- the client's side ------------------------------------------------------------------------------------------------


class ClientError(FileProxyError):
    """The request itself cannot be served."""

    source = "client"
    status = 400
    ending = "bad_request"
    proxy_error: str | None = "http_request_error"


class BadTarget(ClientError):
    """The request target is malformed or ambiguous (dot segments, backslash, NUL, encoded slash in a route)."""

    ending = "bad_target"


class NoRoute(ClientError):
    """No route serves this host and path."""

    status = 404
    ending = "no_route"


class Refused(ClientError):
    """The guard said no; the verdict carries status, ending and headers."""

    ending = "forbidden"

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.detail, headers=verdict.headers)
        self.status = verdict.status
        self.ending = verdict.ending
        self.title = verdict.title
        self.proxy_error = _REFUSALS.get(verdict.status, "http_request_error")
        if verdict.status in (503, 508):
            self.source = "proxy"


# What Proxy-Status calls a refusal by its status (RFC 9209 §2.3); other statuses are errors of the request.
_REFUSALS = {
    403: "http_request_denied",
    405: "http_request_denied",
    429: "http_request_denied",
    503: "proxy_internal_response",
    508: "proxy_loop_detected",
}


class BodyTooLarge(ClientError):
    """The request body is over ``limits.request_body``."""

    status = 413
    ending = "body_too_large"


class ExpectationFailed(ClientError):
    """An ``Expect`` other than 100-continue (RFC 9110 §10.1.1)."""

    status = 417
    ending = "expectation_failed"


class NotCached(ClientError):
    """The request wants only what is stored, and nothing that is stored may answer it (RFC 9111 §5.2.1.7)."""

    status = 504
    ending = "only_if_cached"


class ClientGone(ClientError):
    """The client reset or closed its connection while being served."""

    status = 499
    ending = "client_gone"
    proxy_error = None


class ClientStalled(ClientError):
    """The client took (or sent) less than 1 KiB in an idle window."""

    status = 408
    ending = "client_stalled"
    proxy_error = None


# --- the upstream's side ----------------------------------------------------------------------------------------------


class UpstreamError(FileProxyError):
    """The upstream could not be asked, or did not answer as HTTP demands."""

    source = "upstream"
    status = 502
    ending = "upstream_error"
    retryable = True
    proxy_error = "destination_unavailable"


class DnsFailed(UpstreamError):
    """The mirror's name could not be resolved."""

    ending = "upstream_dns"
    proxy_error = "dns_error"


class ConnectRefused(UpstreamError):
    """The mirror refused the connection."""

    ending = "upstream_refused"
    proxy_error = "connection_refused"


class ConnectTimeout(UpstreamError):
    """No connection to the mirror within ``timeouts.connect``."""

    status = 504
    ending = "upstream_connect_timeout"
    proxy_error = "connection_timeout"


class TlsFailed(UpstreamError):
    """Handshake or certificate verification failed. Not retried on the same mirror: it will not mend itself."""

    ending = "upstream_tls"
    retryable = False
    proxy_error = "tls_protocol_error"


class TlsCertificate(TlsFailed):
    """The certificate is not vouched for, has expired, or is another name's (RFC 9209 §2.3.19)."""

    proxy_error = "tls_certificate_error"


class UpstreamReset(UpstreamError):
    """The connection broke before or within the answer's head, or inside its body."""

    ending = "upstream_reset"
    proxy_error = "connection_terminated"


class FirstByteTimeout(UpstreamError):
    """Connected and asked, but no answer came within ``timeouts.first_byte`` (or ``stall`` with mirrors left)."""

    status = 504
    ending = "upstream_first_byte_timeout"
    proxy_error = "http_response_timeout"


class IdleTimeout(UpstreamError):
    """The body made less than 1 KiB of progress within ``timeouts.idle``."""

    status = 504
    ending = "upstream_idle_timeout"
    proxy_error = "http_response_timeout"


class Truncated(UpstreamError):
    """The body ended before its declared end."""

    ending = "upstream_truncated"
    proxy_error = "http_response_incomplete"


class BadAnswer(UpstreamError):
    """The answer is not valid HTTP, contradicts itself, or is larger than what is allowed."""

    ending = "upstream_bad_answer"
    proxy_error = "http_protocol_error"


class ShutOff(UpstreamError):
    """Every mirror was failing, and none had room for one more trial within ``retry.within``."""

    status = 503
    ending = "upstream_shut_off"
    retryable = False


class FileChanged(UpstreamError):
    """A local file changed while it was being sent."""

    ending = "upstream_changed"
    retryable = False
    proxy_error = "http_response_incomplete"


class BadDigest(UpstreamError):
    """The bytes do not have the digest that the origin said (RFC 9530)."""

    ending = "upstream_digest"
    proxy_error = "http_response_incomplete"


class CannotContinue(UpstreamError):
    """Bytes are missing that nothing allows to be fetched again: the file has no strong validator."""

    ending = "cannot_continue"
    retryable = False
    proxy_error = "http_response_incomplete"


class RedirectRefused(UpstreamError):
    """A redirect led outside the upstream's own hosts, to a forbidden address, or in circles."""

    ending = "upstream_redirect"
    retryable = False
    proxy_error = "destination_ip_prohibited"


# --- ourselves --------------------------------------------------------------------------------------------------------


class Shed(FileProxyError):
    """Too much to do: this request is turned away so that the others go on. 503 with Retry-After."""

    status = 503
    ending = "shed"
    proxy_error = "proxy_internal_response"

    def __init__(self, detail: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(detail, retry_after_s=retry_after_s)


class CodingFailed(FileProxyError):
    """A compressor failed. Nothing tells what came out of it from a whole answer, so the download ends by it."""

    ending = "coding_failed"
    proxy_error = "proxy_internal_error"


class LoopDetected(FileProxyError):
    """The request has been through this proxy already (RFC 8586)."""

    status = 508
    ending = "loop_detected"
    proxy_error = "proxy_loop_detected"


class ConfigurationError(FileProxyError):
    """The configuration is wrong. ``problems`` has one line for each thing to mend, with file and line."""

    ending = "bad_configuration"
    proxy_error = "proxy_configuration_error"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
