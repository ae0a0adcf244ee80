"""Options of an upstream: its mirrors, how it is asked, and what is done when it does not answer."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from annotated_types import Ge, Le
from pydantic import Field, Strict, StringConstraints, Tag, field_validator

from fileproxy.settings.sockets import Sockets
from fileproxy.settings.types import (
    HOST,
    SECRET,
    Auto,
    Count,
    Duration,
    HostName,
    Meaning,
    Off,
    OrOff,
    Positive,
    Row,
    Size,
    Switch,
    Text,
    Token,
    Whole,
)

FieldName = Annotated[
    str, Meaning("a name like load or system.load"), StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,100}$")
]

# Schemes of servers that SRV records name, and how those are asked.
SERVICE_SCHEMES = {"srv+http": "http", "srv+https": "https"}


class Mirror(Row):
    """One server of an upstream; its URL alone is short for it."""

    url: str = Field(
        description="http://, https:// or file:/// URL of one server, its path is put before ours; or srv+http:// with "
        "the name of a service, for the servers that its SRV records name."
    )
    weight: Whole = Field(1, ge=1, le=1000, description="Share of the requests relative to its siblings.")
    priority: Whole = Field(
        0, ge=0, le=65535, description="Asked only when no mirror with a lower number can take a request (a backup)."
    )

    @classmethod
    def long_form(cls, value: object) -> object:
        return {"url": value} if isinstance(value, str) else value

    @field_validator("url")
    @classmethod
    def _supported(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            port = parts.port  # raises ValueError, too, when it is none
        except ValueError:
            raise ValueError("the host or port of the URL is not valid") from None
        if "@" in parts.netloc:
            raise ValueError("an upstream URL must not carry a password; use upstreams.NAME.headers")
        if parts.scheme not in ("http", "https", "file", *SERVICE_SCHEMES):
            raise ValueError(f"{url!r} must start with http://, https:// or file:/// (or srv+http:// for a service)")
        if parts.scheme in SERVICE_SCHEMES and (port is not None or not re.search("[A-Za-z_]", parts.netloc)):
            raise ValueError(f"{url!r} must name a service and no port, like srv+http://_http._tcp.example.org")
        if not re.fullmatch(r"[!-~]+", url) or "\\" in url:
            raise ValueError(f"{url!r} must be plain ASCII; write other characters as %XX")
        if "?" in url or "#" in url:
            raise ValueError(f"{url!r} must not carry a query or fragment")
        if parts.scheme == "file" and (parts.netloc or not parts.path.startswith("/")):
            raise ValueError(f"{url!r} must be an absolute folder: file:///srv/files")
        if parts.scheme != "file" and (not parts.hostname or port == 0):
            raise ValueError(f"{url!r} names no host that can be asked")
        if parts.scheme != "file" and parts.path == "/":
            parts = parts._replace(path="")
        return "file://" + parts.path if parts.scheme == "file" else parts.geturl()


class Timeouts(Row):
    connect: Positive | Auto = Field("auto", description="To open a connection, each address; auto = the profile's.")
    first_byte: Positive = Field(30.0, description="From the request sent to the first byte of the answer.")
    stall: Positive | Auto = Field(
        "auto",
        description="Ask elsewhere after this long without a byte; auto = 10s for the first byte while another mirror "
        "is left, 0.75s or four round trips in the middle of a file.",
    )
    idle: Positive | Auto = Field(
        "auto",
        description="A body that makes less than 1 KiB of progress in this time is given up; auto = 45s to 120s by the"
        " quality of its path, 60s while nothing is known of it.",
    )


class Retry(Row):
    attempts: Whole = Field(12, ge=1, le=100, description="Tries for one request, the first included.")
    within: Duration = Field(60.0, description="No new try starts later than this after the first.")
    statuses: list[Annotated[Whole, Ge(400), Le(599)]] = Field(
        [429, 500, 502, 503, 504, 524], description="Answers that are tried again (idempotent requests only)."
    )
    base: Duration = Field(0.1, description="First pause; doubles with each try, with full jitter.")
    cap: Duration = Field(60.0, description="Longest pause, and the longest Retry-After that is waited for.")
    budget: Annotated[float, Strict()] = Field(0.2, ge=0, le=1, description="Retries allowed per first try, over 10 s.")
    budget_floor: Whole = Field(10, ge=0, description="Retries a second that are always allowed.")


class Pool(Row):
    """The connection pool of one upstream in one worker. `auto` = the profile's value (optimized / baseline)."""

    limit: Count | Auto = Field("auto", description="Connections altogether (200 / 100).")
    per_host: Count | Auto = Field("auto", description="Connections to one host (50 / 30).")
    keepalive: Duration | Auto = Field("auto", description="An idle connection is kept this long (60s / 30s).")
    dns_cache: Duration | Auto = Field("auto", description="A resolved name is kept this long (600s / 500s).")
    buffer: Annotated[Size, Ge(1024), Le(1024**3)] | Auto = Field(
        "auto", description="Bytes read ahead of the client for each download (128KiB / 64KiB)."
    )
    happy_eyeballs: Duration | Off = Field(
        0.25, description="Head start of IPv6 over IPv4 when a name has both (RFC 8305)."
    )


class Tls(Row):
    ca: Text | None = Field(
        None, description="PEM file of the certificate authorities to trust instead of the system's."
    )
    server_name: HostName | None = Field(None, description="Name for SNI and verification; null = the host of the URL.")
    verify: Switch = Field(True, description="Check the upstream's certificate. Turning it off invites tampering.")


class Redirects(Row):
    hops: Whole = Field(5, ge=1, le=20, description="Redirects followed one after the other.")
    hosts: list[HostName] = Field([], description="Hosts that may be followed to, besides the upstream's own servers.")
    private: Switch = Field(
        False, description="Allow these hosts to have private or loopback addresses (own servers always may)."
    )


class HealthCheck(Row):
    """Asking each mirror how it is, whether or not clients ask for files."""

    path: Annotated[str, Meaning("a path that begins with a /"), StringConstraints(pattern=r"^/[!-~]*$")] = Field(
        "/", description="Path (and query) that is asked for with GET, behind the path of the mirror's URL."
    )
    interval: Positive = Field(5.0, description="How often.")
    timeout: Positive = Field(2.0, description="An answer that takes longer is a bad one.")
    statuses: list[Annotated[Whole, Ge(200), Le(599)]] = Field(
        [200, 204], min_length=1, description="Answers of a mirror that is well."
    )
    load_field: FieldName | None = Field(
        None, description="Where in the answer's JSON the mirror reports its load, 0.9 or 90% (resource_based)."
    )


class CircuitBreaker(Row):
    """When a mirror that fails is left alone for a while. The last usable one never is altogether."""

    failure_threshold: Whole = Field(5, ge=1, le=1000, description="Failures in a row that shut a mirror off.")
    timeout: Positive = Field(60.0, description="Longest time it is asked nothing; a good probe ends it earlier.")
    half_open_max_calls: Whole = Field(
        3, ge=1, le=1000, description="Requests at a time that then try it; as many successes take it back."
    )
    failure_rate: Annotated[float, Strict()] = Field(
        0.5, gt=0, le=1, description="Share of failures in 10 s (of at least 20 answers) that shuts it off, too."
    )


Balance = Literal[
    "round_robin",
    "weighted_round_robin",
    "least_connections",
    "fastest_response",
    "resource_based",
    "consistent_hash",
]

# Headers that frame a message or choose its receiver: setting them would break the connection or the download.
FRAMING = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect"}
    | {"range", "if-range"}
)


class Segments(Row):
    parallel: Auto | Off | Annotated[Count, Le(64)] = Field(
        "auto",
        description="Connections one download may have when one is too slow; auto = as many as bring more, at most 16; "
        "off = one (as in the baseline). Beyond half of what pool.per_host allows only for help.",
    )


class Upstream(Row):
    servers: list[Mirror] = Field(min_length=1, description="The mirrors: servers that hold the same files.")
    balance: Balance = Field("fastest_response", description="How requests are spread over the mirrors.")
    mirrors_match: Literal["etag", "size+mtime"] = Field(
        "etag",
        description="When two mirrors are taken to hold the same bytes: equal ETags, or equal size and Last-Modified.",
    )
    load_header: Token = Field(
        "X-Load", description="Header of answers in which mirrors report their load, 0.9 or 90% (resource_based)."
    )
    slow_start: Duration = Field(
        10.0, description="A mirror that was shut off gets its share back little by little in this time; 0 = at once."
    )
    segments: Segments = Field(Segments(), description="Parts of one file that are fetched at the same time.")
    timeouts: Timeouts = Field(Timeouts(), description="How long to wait for what. There is no total timeout.")
    retry: Retry = Field(Retry(), description="Trying again before the first byte.")
    circuit_breaker: Annotated[Annotated[CircuitBreaker, Tag("group")] | Annotated[Off, Tag("off")], OrOff] = Field(
        CircuitBreaker(), description="When a failing mirror is left alone, or `off` (as in the baseline)."
    )
    health_check: Annotated[Annotated[HealthCheck, Tag("group")] | Annotated[Off, Tag("off")], OrOff] = Field(
        "off", description="Ask mirrors how they are; as many bad answers as the breaker allows shut one off."
    )
    rate_limit: Auto | Off | Count = Field(
        "auto",
        description="Requests a second from the whole machine; auto = 10 to 1000, by its errors; off; or a number.",
    )
    concurrency: Auto | Off | Count = Field(
        "auto",
        description="Requests on their way at a time, each worker; auto = by its response times; off; or a number.",
    )
    pool: Pool = Field(Pool(), description="Connections kept and opened.")
    sockets: Sockets = Field(Sockets(), description="TCP options towards the mirrors.")
    headers: dict[
        Token, Annotated[str, Meaning("text of one line"), StringConstraints(pattern=r"^[\t -~\x80-\xff]*$")]
    ] = Field(
        {}, description="Headers set on every request to it, for example Authorization.", json_schema_extra=SECRET
    )
    host: Annotated[
        str,
        Meaning("upstream, preserve or a host name, with :port where needed"),
        StringConstraints(pattern=rf"^{HOST}(:[0-9]{{1,5}})?$"),
    ] = Field(
        "upstream", description="Host header sent: `upstream` (of its URL), `preserve` (the client's) or a fixed name."
    )
    tls: Tls = Field(Tls(), description="Verification of https:// servers.")
    follow_redirects: Annotated[Annotated[Redirects, Tag("group")] | Annotated[Off, Tag("off")], OrOff] = Field(
        "off", description="Follow redirects instead of passing them on; within the upstream's own hosts."
    )

    @classmethod
    def long_form(cls, value: object) -> object:
        """``upstreams: {files: "http://a"}`` and a plain list of URLs are short for the whole form."""
        if isinstance(value, str):
            return {"servers": [value]}
        return {"servers": value} if isinstance(value, list) else value

    @field_validator("headers")
    @classmethod
    def _not_ours(cls, headers: dict[str, str]) -> dict[str, str]:
        names = [name.lower() for name in headers]
        for name in names:
            if name in FRAMING:
                raise ValueError(f"{name} is set by FileProxy itself" + ("; use `host`" if name == "host" else ""))
            if names.count(name) > 1:
                raise ValueError(f"{name} is given twice; case does not matter in names of headers")
        return headers
