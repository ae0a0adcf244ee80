"""One try with one HTTP server: the request goes out exactly as asked, the answer comes back as it was sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from fileproxy.clock import Clock
from fileproxy.control import controller
from fileproxy.control.quality import PathQuality, Quality, Sample
from fileproxy.errors import BadAnswer, UpstreamError, UpstreamReset
from fileproxy.http.fields import end_to_end
from fileproxy.model import Answer, Body, BytesBody, Counters, Fields, Headers, Want, header_values, without
from fileproxy.settings.resolve import ResolvedTimeouts
from fileproxy.tcpinfo import NetPath
from fileproxy.upstream.attempt import Attempt, Patience
from fileproxy.upstream.body import HttpBody
from fileproxy.upstream.connections import Connections
from fileproxy.upstream.progress import ProgressMeter
from fileproxy.upstream.redirects import Place
from fileproxy.upstream.translate import translate
from fileproxy.upstream.watch import Watch

# Kept connections that turn out closed are replaced this often before it counts as a failed try.
_STALE_TRIES = 3
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NO_BODY = frozenset({204, 304})  # RFC 9112 §6.3; 1xx never gets here
_BODILY = frozenset({"content-length"})
_OURS = frozenset({"host", "content-length", "transfer-encoding", "expect", "connection"})


class _Stale(Exception):
    """A kept connection was closed by the other side before it answered; nothing is known to have been served."""


class HttpTransport:
    """A :class:`fileproxy.model.Transport` to one server.

    Args:
        place: the server.
        prefix: path of the mirror's URL, put before every path.
        label: ``upstream/host:port``, the row it is counted under.
        host: ``upstream``, ``preserve`` or a fixed Host header.
        headers: set on every request.
        server_name: for SNI and verification; None = the host.
        quality: what is known of the path to it, and learned here; None: nothing is learned (the baseline).
        idle_by_quality: a body's idle timeout follows it.
    """

    def __init__(
        self,
        place: Place,
        *,
        prefix: str = "",
        label: str,
        connections: Connections,
        timeouts: ResolvedTimeouts,
        counters: Counters,
        clock: Clock,
        host: str = "upstream",
        headers: Mapping[str, str] | None = None,
        server_name: str | None = None,
        quality: PathQuality | None = None,
        idle_by_quality: bool = False,
    ) -> None:
        self.place = place
        self.quality = quality
        self._idle_by_quality = idle_by_quality and quality is not None
        self.prefix = prefix.rstrip("/")
        self.label = label
        self._connections = connections
        self._timeouts = timeouts
        self._counters = counters
        self._clock = clock
        self._host = host
        self._headers = dict(headers or {})
        self._server_name = server_name

    @property
    def patience(self) -> Patience:
        """What a try gets when its caller does not say."""
        return Patience(self._timeouts.first_byte, self._timeouts.first_byte, self.idle_s)

    @property
    def idle_s(self) -> float:
        """Seconds a body may make no progress now."""
        if not self._idle_by_quality or self.quality is None:
            return self._timeouts.idle
        return self._idle_of(self.quality.quality)

    def _idle_of(self, quality: Quality | None) -> float:
        return controller.idle_s(quality, self._timeouts.idle)

    async def fetch(self, want: Want, patience: Patience | None = None) -> Answer:
        """One try. For a GET with a known length the first piece of the body is waited for, too.

        Raises:
            UpstreamError: with the mirror's address in its text.
            Shed: no descriptor, or no free connection within ``patience.queue_s``.
        """
        for left in reversed(range(_STALE_TRIES)):
            try:
                return await self._try(want, patience or self.patience, may_be_stale=left > 0 and want.idempotent)
            except _Stale:
                continue
            except UpstreamError:
                if self.quality is not None:
                    self.quality.take(Sample(failed=True), self._clock.now())
                raise
        raise AssertionError("the last try never counts as stale")

    async def _try(self, want: Want, patience: Patience, *, may_be_stale: bool) -> Answer:
        told = None if want.on_interim is None else partial(_interim, want.on_interim)
        attempt = Attempt(self._clock, patience, uploads=want.body is not None, on_interim=told)
        response: aiohttp.ClientResponse | None = None
        body: Body | None = None
        answer: Answer | None = None
        deadline = attempt.deadline()
        try:
            async with deadline:
                response = await self._send(want, attempt)
                attempt.answered()
                path = NetPath(self.label, getattr(response, "wire", None), connect_s=attempt.timings.get("connect"))
                self._counters.observe("mirror.first_byte", attempt.timings["first_byte"], self.label)
                headers = self._checked_headers(response)
                body = self._body(want, response, headers, self._watch(path, attempt))
                if isinstance(body, HttpBody):
                    body.path = path
                if want.method == "GET" and isinstance(body, HttpBody) and body.length:
                    await body.prefetch()
            answer = Answer(
                response.status,
                _CONTROL.sub(" ", response.reason or ""),
                Fields(end_to_end(headers)),
                body,
                self.label,
                timings=attempt.timings,
                path=path,
            )
            return answer
        except (aiohttp.ClientError, OSError, UnicodeError, ValueError) as error:
            if deadline.expired():
                raise attempt.timed_out(self.place.address) from error
            if attempt.upload_error is not None:
                raise attempt.upload_error from error
            ours = translate(error, self.place.address)
            if may_be_stale and attempt.reused and response is None and isinstance(ours, UpstreamReset):
                raise _Stale from error
            raise ours from error
        finally:
            attempt.over()
            if attempt.reused:
                self._counters.add("upstream.reused")
            if answer is None:
                if body is not None:
                    await body.aclose()
                if response is not None:
                    response.close()

    async def _send(self, want: Want, attempt: Attempt) -> aiohttp.ClientResponse:
        place = self.place
        # The query travels inside the path: yarl would drop an empty one, and nothing here may be requoted.
        url = URL.build(
            scheme=place.scheme, host=place.host, port=place.port, path=f"{self.prefix}{want.target}", encoded=True
        )
        extra: dict[str, Any] = {}
        if want.body is not None:
            extra = {"data": attempt.upload(want.body), "chunked": True if want.body.length is None else None}
        if self._server_name is not None and place.scheme == "https":
            extra["server_hostname"] = self._server_name
        return await self._connections.session.request(
            want.method,
            url,
            headers=self._request_headers(want),
            allow_redirects=False,
            trace_request_ctx=attempt,
            **extra,
        )

    def _request_headers(self, want: Want) -> CIMultiDict[str]:
        authority = self.place.authority
        if self._host == "preserve":
            authority = want.authority or authority
        elif self._host != "upstream":
            authority = self._host
        configured = {name.lower() for name in self._headers}
        headers: CIMultiDict[str] = CIMultiDict({"Host": authority})
        spelling: dict[str, str] = {}  # aiohttp keeps duplicates only when they are spelled alike
        for name, value in want.headers:
            lowered = name.lower()
            if lowered not in _OURS and lowered not in configured:
                headers.add(spelling.setdefault(lowered, name), value)
        for name, value in self._headers.items():
            if name.lower() == "host":
                headers["Host"] = value
            else:
                headers.add(name, value)
        if want.body is not None and want.body.length is not None:
            headers["Content-Length"] = str(want.body.length)
        return headers

    def _checked_headers(self, response: aiohttp.ClientResponse) -> Fields:
        address = self.place.address
        raw = response.raw_headers
        if sum(len(name) + len(value) + 4 for name, value in raw) > self._connections.response_head:
            raise BadAnswer(f"{address}: the head of the answer is longer than limits.response_head")
        if response.status < 200:
            raise BadAnswer(f"{address}: switched protocols without being asked to")
        headers = _decoded(raw)
        coding = header_values(headers, "Transfer-Encoding")
        if coding and [one.strip().lower() for one in coding] != ["chunked"]:
            raise BadAnswer(f"{address}: an answer with a transfer coding that was not asked for")
        lengths = header_values(headers, "Content-Length")
        if len(lengths) > 1 or (lengths and coding):
            raise BadAnswer(f"{address}: an answer whose length is said twice")
        if lengths and not (lengths[0].isascii() and lengths[0].isdigit()):
            raise BadAnswer(f"{address}: an answer with an invalid Content-Length")
        return headers

    def _watch(self, path: NetPath, attempt: Attempt) -> Watch | None:
        if self.quality is None:
            return None
        first_byte_s = attempt.timings["first_byte"]
        return Watch(self.quality, path, self._clock, first_byte_s=first_byte_s, fresh=not attempt.reused)

    def _body(self, want: Want, response: aiohttp.ClientResponse, headers: Headers, watch: Watch | None) -> Body:
        if want.method == "HEAD" or response.status in _NO_BODY:
            return BytesBody()
        lengths = header_values(headers, "Content-Length")
        chunked = bool(header_values(headers, "Transfer-Encoding"))
        return HttpBody(
            response,
            length=int(lengths[0]) if lengths else None,
            framed=chunked or bool(lengths),
            meter=ProgressMeter(self.idle_s),
            clock=self._clock,
            on_bytes=self._count,
            address=self.place.address,
            watch=watch,
            idle_s=self._idle_of if self._idle_by_quality else None,
            tubes=self._connections.tubes if lengths else None,
        )

    def _count(self, amount: int) -> None:
        self._counters.add("bytes.from_upstreams", amount)
        self._counters.add("mirror.bytes", amount, self.label)

    async def close(self) -> None:
        """Nothing of its own: the connections belong to the upstream."""


def _decoded(raw: Iterable[tuple[bytes, bytes]]) -> Fields:
    """Control characters in a value are replaced by a space (RFC 9110 §5.5); names have none, the parser sees to it."""
    pairs = [(name.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")) for name, value in raw]
    if _CONTROL.search("".join([value for _, value in pairs])):
        pairs = [(name, _CONTROL.sub(" ", value)) for name, value in pairs]
    return Fields(pairs)


def _interim(tell: Callable[[int, str, Headers], None], message: Any) -> None:
    """Tell of a 1xx answer, without what is about this hop or a body."""
    headers = without(end_to_end(_decoded(message.raw_headers)), _BODILY)
    tell(message.code, _CONTROL.sub(" ", message.reason or ""), headers)
