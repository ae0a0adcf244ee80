"""One HTTP transport, or a whole upstream, against a scripted origin; no server in front."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp
import pytest
from aiohttp.abc import ResolveResult

from fileproxy.clock import Clock, SystemClock
from fileproxy.model import Answer, FileSlice, Headers, Incoming, Target, Want
from fileproxy.settings import resolve, schema
from fileproxy.upstream.connections import AddressCheck, Connections
from fileproxy.upstream.pool import Upstream
from fileproxy.upstream.redirects import place_of
from fileproxy.upstream.transport import HttpTransport
from tests.house import Watched
from tests.origin import Origin


def want(
    target: str = "/f", *, method: str = "GET", headers: Headers = (), body: Incoming | None = None, authority: str = ""
) -> Want:
    path, mark, query = target.partition("?")
    return Want(method, Target(path, query if mark else None), headers, authority=authority, body=body)


async def read(answer: Answer) -> bytes:
    """The whole body; it is closed whatever happens."""
    data = bytearray()
    try:
        async for piece in answer.body:
            assert not isinstance(piece, FileSlice)
            data += piece
    finally:
        await answer.body.aclose()
    return bytes(data)


@dataclass
class Upload:
    """A request body of these pieces; an exception among them is raised in its place."""

    pieces: list[bytes | Exception]
    length: int | None = None
    started: bool = False
    failure: None = field(default=None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.started = True
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece


Known = dict[str, list[str]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> tuple[Known, list[str]]:
    """``(names, asked)``: what the resolver says of a name, and which it was asked for."""
    known: Known = {}
    asked: list[str] = []

    async def resolve(_: object, host: str, port: int = 0, family: int = socket.AF_INET) -> list[ResolveResult]:
        asked.append(host)
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in known[host]
        ]

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)
    return known, asked


class MakeTransport(Protocol):
    def __call__(
        self,
        url: Origin | str,
        *,
        pool: Mapping[str, Any] | None = None,
        sockets: Mapping[str, Any] | None = None,
        timeouts: Mapping[str, Any] | None = None,
        response_head: int = 65536,
        context: ssl.SSLContext | None = None,
        forbidden: AddressCheck | None = None,
        **options: Any,
    ) -> tuple[HttpTransport, Connections]: ...


@pytest.fixture(autouse=True)
def _tidy(tidy: None) -> None:
    return None


@pytest.fixture
def counts() -> Watched:
    return Watched()


@pytest.fixture
async def transport(counts: Watched, _tidy: None) -> AsyncIterator[MakeTransport]:
    """``transport(origin)``: the transport to it and its connections. ``sockets=None`` leaves TCP options alone."""
    opened: list[Connections] = []

    def make(
        url: Origin | str,
        *,
        pool: Mapping[str, Any] | None = None,
        sockets: Mapping[str, Any] | None = None,
        timeouts: Mapping[str, Any] | None = None,
        response_head: int = 65536,
        context: ssl.SSLContext | None = None,
        forbidden: AddressCheck | None = None,
        **options: Any,
    ) -> tuple[HttpTransport, Connections]:
        place = place_of(url if isinstance(url, str) else url.url)
        waits = resolve.timeouts("optimized", schema.Timeouts.model_validate(timeouts or {}))
        connections = Connections(
            resolve.pool("optimized", schema.Pool.model_validate(pool or {})),
            connect_s=waits.connect,
            options=None if sockets is None else schema.Sockets.model_validate(sockets),
            context=context,
            response_head=response_head,
            counters=counts,
            forbidden=forbidden,
        )
        opened.append(connections)
        label = f"files/{place.address}"
        made = HttpTransport(
            place,
            label=label,
            connections=connections,
            timeouts=waits,
            counters=counts,
            clock=SystemClock(),
            **options,
        )
        return made, connections

    yield make
    for connections in opened:
        await connections.close()


class MakeUpstream(Protocol):
    def __call__(
        self, *servers: Origin | str, clock: Clock | None = None, random: float = 0.0, **options: Any
    ) -> Upstream: ...


@pytest.fixture
async def upstream(counts: Watched, _tidy: None) -> AsyncIterator[MakeUpstream]:
    """``upstream(origin, mirror, retry={…})``: these servers asked as one, in turns, named ``files``."""
    opened: list[Upstream] = []

    def make(*servers: Origin | str, clock: Clock | None = None, random: float = 0.0, **options: Any) -> Upstream:
        urls = [server if isinstance(server, str) else server.url for server in servers]
        made = Upstream(
            "files",
            schema.Upstream.model_validate({"servers": urls, "balance": "round_robin", **options}),
            profile="optimized",
            limits=schema.Limits(),
            counters=counts,
            clock=clock or SystemClock(),
            random=lambda: random,
        )
        opened.append(made)
        return made

    yield make
    for one in opened:
        await one.close()
