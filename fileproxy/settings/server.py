"""Options of the side that clients see: where and how they are served, and what one of them may use up."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le
from pydantic import Field, StringConstraints

from fileproxy.settings.sockets import Sockets
from fileproxy.settings.types import (
    HOST,
    RESTART,
    ROLLING,
    Auto,
    Count,
    Duration,
    Meaning,
    Network,
    Off,
    Positive,
    Row,
    Size,
    Switch,
    Text,
    Whole,
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
