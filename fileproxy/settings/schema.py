"""The options. Each row: name, type, default, one sentence with the unit.

``apply`` of a row says what a reload does with a change: ``live`` (the default: the next request sees it), ``rolling``
(new workers take over, the old ones drain) or ``restart`` (only a new start can apply it; a reload refuses it).
"""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from annotated_types import Ge, Le
from pydantic import Field, Strict, StringConstraints, Tag, field_validator, model_validator

from fileproxy.http.coding import Coding
from fileproxy.settings.types import (
    HOST,
    LIVE,
    RESTART,
    ROLLING,
    SECRET,
    Auto,
    Contradiction,
    Duration,
    HostName,
    Meaning,
    Network,
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

Count = Annotated[Whole, Ge(1)]
FieldName = Annotated[
    str, Meaning("a name like load or system.load"), StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,100}$")
]
# setsockopt takes whole seconds and a C int.
KernelSeconds = Annotated[Duration, Ge(1), Le(32767), Meaning("a time of whole seconds like 60s"), Field(multiple_of=1)]
MediaType = Annotated[
    str,
    Meaning("a media type like text/html, text/* or *+json"),
    StringConstraints(pattern=r"^([A-Za-z0-9.+-]+/([A-Za-z0-9.+-]+|\*)|\*\+[A-Za-z0-9.-]+)$", to_lower=True),
]
KernelBytes = Annotated[Size, Ge(1024), Le(1024**3)]


class KeepAlive(Row):
    idle: KernelSeconds = Field(60.0, description="Silence before the kernel asks whether the peer is still there.")
    interval: KernelSeconds = Field(10.0, description="Time between two such probes.")
    count: Whole = Field(6, ge=1, le=127, description="Probes without an answer until the connection counts as dead.")


class Sockets(Row):
    """TCP options of one side. `auto` leaves a value to the kernel, which tunes buffers better than a fixed size."""

    nodelay: Switch = Field(True, description="Send small segments at once (TCP_NODELAY).")
    quickack: Switch = Field(True, description="Acknowledge at once at the start of a connection (TCP_QUICKACK).")
    keepalive: Annotated[Annotated[KeepAlive, Tag("group")] | Annotated[Off, Tag("off")], OrOff] = Field(
        KeepAlive(), description="Probe silent peers (SO_KEEPALIVE), or `off`."
    )
    send_buffer: KernelBytes | Auto = Field("auto", description="SO_SNDBUF in bytes; a fixed size stops autotuning.")
    receive_buffer: KernelBytes | Auto = Field("auto", description="SO_RCVBUF in bytes; a fixed size stops autotuning.")
    notsent_lowat: KernelBytes | Auto = Field(
        "auto",
        description="Unsent bytes kept in the kernel for a connection (TCP_NOTSENT_LOWAT); auto = towards clients by"
        " the quality of their path, else the kernel's.",
    )
    congestion: Annotated[
        str, Meaning("a kernel's name like bbr, or auto"), StringConstraints(pattern=r"^[a-z0-9_-]{1,15}$")
    ] = Field(
        "auto",
        description="Congestion control: auto = the system's, but bbr towards clients that are far or lose packets;"
        " system = always the system's; or a kernel's name; unknown: kept as it was.",
    )


class Server(Row):
    host: Annotated[
        str,
        Meaning("a host name or an IP address"),
        StringConstraints(pattern=rf"^({HOST}|[0-9A-Fa-f:.]+)$"),
    ] = Field("0.0.0.0", description="Address to listen on.", json_schema_extra=ROLLING)  # noqa: S104 - a server's job
    port: Whole = Field(10080, ge=0, le=65535, description="Port to listen on; 0 = any.", json_schema_extra=ROLLING)
    backlog: Whole = Field(
        2048, ge=1, le=65535, description="Connections the kernel keeps until accepted.", json_schema_extra=ROLLING
    )
    workers: Annotated[Whole, Ge(1), Le(256)] | Auto = Field(
        "auto", description="Worker processes; auto = one a core.", json_schema_extra=ROLLING
    )
    uvloop: Auto | Off = Field(
        "auto", description="auto = uvloop where it is installed; off = asyncio's own loop.", json_schema_extra=ROLLING
    )
    trusted_proxies: list[Network] = Field(
        ["127.0.0.0/8", "::1/128"], description="Peers whose X-Forwarded-*, Forwarded and X-Request-Id we believe."
    )
    operators: list[Network] = Field(
        ["127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"],
        description="Clients who may read /health in full and /stats.",
    )
    short_names: Switch = Field(True, description="Answer /health, /stats … beside /-/health, /-/stats …")
    fast: Switch = Field(
        True, description="Answer a request head that was seen before from a table when its file is in memory."
    )
    name: Annotated[
        str, Meaning("1 to 64 letters, digits, ., _ or -"), StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    ] = Field("fileproxy", description="Our name in Via, Cache-Status and Proxy-Status.")
    admin_token_file: Text = Field(
        "var/admin_token",
        description="File with the token that admin calls need; made at the first start, for its owner only.",
        json_schema_extra=ROLLING,
    )
    run_dir: Text = Field(
        "var/run", description="Folder for the pid file, counters and private sockets.", json_schema_extra=RESTART
    )
    drain_timeout: Duration | None = Field(
        None, description="Longest time a leaving worker waits for its downloads; null = until the last has ended."
    )
    half_close_grace: Duration = Field(
        5.0, description="How long a client that closed its sending side may wait for bytes."
    )
    sockets: Sockets = Field(Sockets(), description="TCP options towards clients.", json_schema_extra=ROLLING)


class Limits(Row):
    request_line: Size = Field(8192, ge=64, le=65536, description="Longest request line; over it: 414.")
    headers: Whole = Field(100, ge=1, le=1000, description="Most header lines of a request; over it: 431.")
    header_line: Size = Field(8192, ge=64, le=65536, description="Longest header line; over it: 431.")
    head: Size = Field(32768, ge=128, le=262144, description="Longest request head altogether; over it: 431.")
    head_timeout: Positive = Field(10.0, description="Time to send a request's head; over it: 408.")
    keepalive_idle: Positive = Field(75.0, description="An idle client connection is closed after this.")
    client_idle: Positive = Field(
        60.0, description="A client that takes or sends less than 1 KiB in this time is given up."
    )
    request_body: Size = Field(1024**3, description="Longest request body; over it: 413.")
    connections: Count | Auto = Field(
        "auto", description="Client connections a worker; over it: 503. auto = by the descriptors allowed."
    )
    connections_per_client: Count | Off = Field(
        "off", description="Connections a worker accepts from one address; over it: 503."
    )
    loop_lag: Positive | Off = Field(
        1.0, description="When the event loop runs this late, new requests get 503 until it has caught up."
    )
    response_head: Size = Field(
        65536, ge=1024, le=1024**2, description="Longest head of an upstream's answer; over it: 502."
    )


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


class Cors(Row):
    origins: list[
        Annotated[
            str,
            Meaning("a web origin like https://example.org, or *"),
            StringConstraints(pattern=rf"^(\*|[a-z][a-z0-9+.-]*://{HOST}(:[0-9]{{1,5}})?)$"),
        ]
    ] = Field(min_length=1, description="Web origins that may read these files, or `*`.")
    methods: list[Token] = Field(["GET", "HEAD"], description="Methods allowed to them.")
    headers: list[Token] = Field(["Range", "If-Range"], description="Request headers allowed to them, or `*`.")
    expose: list[Token] = Field(
        ["Content-Range", "Accept-Ranges", "ETag", "Content-Disposition", "Content-Length"],
        description="Response headers their scripts may read.",
    )
    credentials: Switch = Field(False, description="Allow cookies and Authorization.")
    max_age: Duration = Field(600.0, description="How long a browser may remember a preflight.")

    @model_validator(mode="after")
    def _no_credentials_for_everybody(self) -> Cors:
        if self.credentials and "*" in self.origins:
            raise ValueError("credentials cannot be allowed to every origin; name the origins")
        return self


class Compress(Row):
    """Answers in a content coding that the client takes (docs/compression.md)."""

    codings: list[Coding] = Field(
        ["zstd", "br", "gzip"], min_length=1, description="Codings offered; the first wins where a client has no wish."
    )
    types: list[MediaType] = Field(
        [
            "text/*", "*+json", "*+xml", "application/json", "application/x-ndjson", "application/xml",
            "application/javascript", "application/wasm", "application/yaml", "application/toml", "application/x-sh",
            "font/ttf", "font/otf", "image/bmp", "image/x-icon",
        ],
        description="Media types that are worth it: text/html, text/*, *+json.",
    )  # fmt: skip
    min_size: Size = Field(1024, description="Shorter files are sent as they are.")
    siblings: list[Coding] = Field(
        [], description="Codings in which the origin keeps files beside them: FILE.zst, FILE.br, FILE.gz are used then."
    )

    @field_validator("codings", "siblings")
    @classmethod
    def _once(cls, codings: list[Coding]) -> list[Coding]:
        if len(set(codings)) < len(codings):
            raise ValueError("each coding is named once")
        return codings


class Key(Row):
    """What tells two files of a route apart."""

    ignore_query: list[Text] = Field(
        [], description="Query parameters that do not matter (`utm_*` too; `*` = the whole query)."
    )
    per_user: Token | None = Field(
        None,
        description="Request header whose value keeps users apart (Authorization): makes private answers storable.",
    )


class Route(Row):
    path: str = Field("/", description="Prefix of the paths it serves; begins and ends at a `/`.")
    hosts: list[
        Annotated[
            str,
            Meaning("a host name without port, or *.example.org"),
            StringConstraints(pattern=rf"^(\*\.)?{HOST}$", to_lower=True),
        ]
    ] = Field([], description="Host names it serves (`*.example.org` too); empty = all.")
    upstream: Text = Field("files", description="Name of the upstream that holds the files.")
    methods: list[Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]] = Field(
        ["GET", "HEAD"], min_length=1, description="Methods passed on; others get 405."
    )
    strip_prefix: Switch = Field(False, description="Take `path` away before asking the upstream.")
    cors: Annotated[Annotated[Cors, Tag("group")] | Annotated[Off, Tag("off")], OrOff] = Field(
        "off", description="Which web pages on other origins may read the files."
    )
    compress: Annotated[Annotated[Compress, Tag("group")] | Annotated[Off, Tag("off")], OrOff] = Field(
        Compress(), description="Answers in a content coding that the client takes, or `off` (as in the baseline)."
    )
    cache: Auto | Off | Duration = Field(
        "auto",
        description="auto = as the answers say (RFC 9111); off; or a time that answers stay fresh, whatever they say.",
    )
    key: Key = Field(Key(), description="Cache key: what of a request tells files apart.")
    ignore_request: Switch = Field(
        False,
        description="Ignore Cache-Control and Pragma of requests: a browser's reload costs the origin nothing.",
    )
    negative: Duration = Field(
        0.0,
        description="How long 404, 405, 410, 414 and 501 without a lifetime of their own stay fresh; 0 = not kept.",
    )
    max_object: Size | Off = Field("off", description="Larger files are passed through and not kept.")

    @field_validator("path")
    @classmethod
    def _prefix(cls, path: str) -> str:
        if not (path.startswith("/") and path.endswith("/")):
            raise ValueError(f"{path!r} must begin and end with a /")
        if path.startswith("/-/"):
            raise ValueError("/-/ is reserved for FileProxy itself")
        if any(ord(c) <= 0x20 or ord(c) >= 0x7F or c in '\\?#%"<>' for c in path) or "//" in path:
            raise ValueError(f"{path!r} must be plain ASCII without %, ?, #, \\, quotes or empty segments")
        if any(segment in (".", "..") for segment in path.split("/")):
            raise ValueError(f"{path!r} must not hold dot segments")
        return path


class RedisTier(Row):
    max_object: Size = Field(1024**2, le=16 * 1024**2, description="Largest object kept in the shared store.")
    max_entries: Whole = Field(10000, ge=0, description="Most objects kept there, over all machines; the oldest go.")


class DiskTier(Row):
    path: Text = Field("var/cache", description="Folder of the disk tier.", json_schema_extra=ROLLING)
    size: Size = Field(10 * 1024**3, description="Bytes it may take.", json_schema_extra=LIVE)
    min_free: Size = Field(
        256 * 1024**2,
        description="Bytes of its file system that stay free; below, it stores nothing.",
        json_schema_extra=LIVE,
    )
    scrub: Size = Field(
        4 * 1024**2,
        description="Bytes a second re-read in the background to find damage; 0 = never.",
        json_schema_extra=LIVE,
    )


class Cache(Row):
    """What is kept of answers, and where."""

    block: Annotated[Size, Ge(64 * 1024), Le(16 * 1024**2)] = Field(
        1024**2, description="Unit of caching, integrity and repair.", json_schema_extra=ROLLING
    )
    memory: Size = Field(
        256 * 1024**2, description="Memory tier of the whole machine, divided by the workers; 0 = none."
    )
    memory_check: Positive = Field(10.0, description="How often memory pressure is looked at.")
    window: Annotated[Size, Ge(256 * 1024)] = Field(
        8 * 1024**2, description="How far ahead of its fastest reader a fill may run, and what it holds at most."
    )
    fill_after_abort: Size = Field(
        4 * 1024**2, description="A fill that nobody waits for any more goes on when at most this much is missing."
    )
    redis: Annotated[Annotated[RedisTier, Tag("group")] | Annotated[Off, Tag("off")], OrOff] = Field(
        RedisTier(), description="Small objects in the shared store, or `off`."
    )
    disk: Annotated[Annotated[DiskTier, Tag("group")] | Annotated[Off, Tag("off")], OrOff] = Field(
        DiskTier(), description="Blocks on disk, or `off`.", json_schema_extra=ROLLING
    )


class Redis(Row):
    url: str = Field(
        "embedded",
        description="embedded, off, redis://, rediss:// or unix:// of the store that machines share.",
        json_schema_extra=ROLLING | SECRET,
    )
    secret: Text | None = Field(
        None,
        description="Key that proves records of the shared store genuine, one for all machines; null = one is made.",
        json_schema_extra=ROLLING | SECRET,
    )
    pool: Whole = Field(150, ge=1, description="Most connections a worker opens to it.")
    timeout: Positive = Field(0.05, description="Longest wait for it; it is never required.")

    @field_validator("url", mode="before")
    @classmethod
    def _known(cls, url: object) -> object:
        if url is False:
            return "off"
        if isinstance(url, str) and url not in ("embedded", "off"):  # no error may show it: it can hold a password
            try:
                parts = urlsplit(url)
                whole = bool(parts.path if parts.scheme == "unix" else parts.hostname) and parts.port != 0
            except ValueError:
                raise ValueError("the host or port of the URL is not valid") from None
            if parts.scheme not in ("redis", "rediss", "unix"):
                raise ValueError("must be embedded, off, or start with redis://, rediss:// or unix://")
            if not whole:
                raise ValueError("the URL must name a host, or with unix:// the path of a socket")
        return url


class Logs(Row):
    access: Text = Field("logs/access.log", description="A file, `stdout` or `off`: one JSON line a request.")
    error: Text = Field("logs/error.log", description="A file, `stdout` or `stderr`: JSON lines of what went wrong.")
    audit: Text = Field("logs/audit.log", description="A file, `stdout` or `off`: one JSON line for each admin call.")
    level: Literal["debug", "info", "warning", "error", "critical"] = Field(
        "info", description="Least severe line that is written."
    )


# The upstream that serves everything when no route says otherwise; with no upstream configured, the embedded origin.
EMBEDDED = "files"


class Settings(Row):
    """The whole configuration: one immutable generation of it."""

    profile: Literal["optimized", "baseline"] = Field(
        "optimized", description="baseline = the old, smaller constants and plain sockets, to compare with."
    )
    server: Server = Field(Server(), description="Where and how clients are served.")
    limits: Limits = Field(Limits(), description="What one client or worker may use up.")
    upstreams: dict[
        Annotated[
            str,
            Meaning("a name of 1 to 64 letters, digits, _ or -"),
            StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$"),
        ],
        Upstream,
    ] = Field({}, description="Pools of servers that hold the same files, by name. Empty = the embedded origin.")
    routes: list[Route] = Field(
        [], description="Which upstream serves what. Empty = everything from the only (or the one named files)."
    )
    cache: Cache = Field(Cache(), description="What is kept of answers, and where.")
    redis: Redis = Field(
        Redis(), description="The store that machines share; never required.", json_schema_extra=ROLLING
    )
    logs: Logs = Field(Logs(), description="Where log lines go.")

    @model_validator(mode="after")
    def _routes_lead_somewhere(self) -> Settings:
        problems: list[tuple[str, str]] = []
        known = list(self.upstreams) or [EMBEDDED]
        seen: dict[tuple[str, str], int] = {}
        for number, route in enumerate(self.routes):
            if route.upstream not in known:
                problems.append(
                    (f"routes.{number}.upstream", f"there is no upstream {route.upstream!r}; known: {', '.join(known)}")
                )
            for host in route.hosts or [""]:
                first = seen.setdefault((host, route.path), number)
                if first != number:
                    which = f"path {route.path}" + (f" and host {host}" if host else "")
                    problems.append((f"routes.{number}", f"routes.{first} already serves {which}"))
        if not self.routes and len(known) > 1 and EMBEDDED not in known:
            problems.append(("routes", f"several upstreams, none named {EMBEDDED}: routes must say which serves what"))
        if problems:
            raise Contradiction(*problems)
        return self


# What `auto` means in each profile (sources.md's table: optimized, and the older values as the baseline).
PROFILES: dict[str, dict[str, float]] = {
    "optimized": {
        "limit": 200, "per_host": 50, "keepalive": 60.0, "dns_cache": 600.0, "buffer": 131072, "connect": 15.0,
    },
    "baseline": {
        "limit": 100, "per_host": 30, "keepalive": 30.0, "dns_cache": 500.0, "buffer": 65536, "connect": 8.0,
    },
}  # fmt: skip
