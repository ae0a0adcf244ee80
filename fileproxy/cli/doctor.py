"""``fileproxy doctor``: looks at what commonly goes wrong, and says what to do. ``diagnoses.py`` judges."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fileproxy.cli import diagnoses
from fileproxy.cli.check import Config, Sets

if TYPE_CHECKING:
    from fileproxy.cli.diagnoses import Asked, Finding
    from fileproxy.settings import Settings
    from fileproxy.settings.schema import Mirror, Upstream

PATIENCE_S = 5.0
MARKS = {"ok": "ok      ", "warning": "warning ", "problem": "PROBLEM "}


def doctor(
    config: Config = None,
    sets: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Look at what commonly goes wrong, and say what to do about it.

    Exit code 1 when something keeps FileProxy from working; a warning is about something that could be better.
    """
    findings = []
    for finding in examine(config, sets or []):
        findings.append(finding)
        if not as_json:
            typer.echo(f"{MARKS[finding.status]} {finding.name}: {finding.found}")
            if finding.advice:
                typer.echo(f"{'':9}→ {finding.advice}")
    healthy = all(one.status != "problem" for one in findings)
    if as_json:
        typer.echo(json.dumps({"healthy": healthy, "findings": [asdict(one) for one in findings]}, indent=2))
    if not healthy:
        raise typer.Exit(1)


def examine(config: Path | None, sets: list[str]) -> Iterator[Finding]:
    """Every finding, as soon as it is known. With a wrong configuration: what does not depend on it."""
    import os
    import resource
    import time

    from fileproxy.errors import ConfigurationError
    from fileproxy.settings.load import load, verify

    settings: Settings | None = None
    try:
        loaded = load(config, os.environ, sets)
    except ConfigurationError as error:
        yield diagnoses.configuration(error.problems, [])
    else:
        settings = loaded.settings
        yield diagnoses.configuration(verify(settings, loaded.sources), [str(file) for file in loaded.files])
    yield diagnoses.event_loop("auto" if settings is None else settings.server.uvloop, _uvloop())
    yield diagnoses.parser(_native_parser())
    yield diagnoses.compression(_missing_codings())
    yield diagnoses.descriptors(*resource.getrlimit(resource.RLIMIT_NOFILE))
    ahead: dict[str, float] = {}
    if settings is not None:
        yield _address(settings)
        yield _store(settings)
        for name, upstream in settings.upstreams.items():
            asked = _ask_all(upstream)
            ahead |= {one.url: one.ahead_s for one in asked if one.ahead_s is not None}
            yield diagnoses.upstream(name, asked)
        for name, path in _folders(settings):
            yield _folder(name, path)
    yield diagnoses.clock(time.time(), ahead)


def _uvloop() -> str | None:
    """The installed version, if it can truly be imported."""
    from importlib.metadata import version

    try:
        import uvloop  # noqa: F401
    except ImportError:
        return None
    return version("uvloop")


def _native_parser() -> bool:
    from aiohttp import http_parser

    return http_parser.HttpRequestParser is not http_parser.HttpRequestParserPy


def _missing_codings() -> Mapping[str, str]:
    from fileproxy.server import coders

    return {str(coding): why for coding, why in coders.missing().items()}


def _address(settings: Settings) -> Finding:
    from fileproxy.server.control import RunDir
    from fileproxy.server.listeners import listen

    server = settings.server
    where, error = f"{server.host} port {server.port}", ""
    try:
        pid = RunDir(Path(server.run_dir)).running()
    except OSError:
        pid = None  # the finding about the folder says why
    if pid is None:
        try:
            for sock in listen(server.host, server.port, 1):
                sock.close()
        except OSError as failure:
            error = (failure.strerror or str(failure)).partition(": ")[2] or str(failure)
    return diagnoses.address(where, pid, error)


def _store(settings: Settings) -> Finding:
    from fileproxy.embedded import find_valkey
    from fileproxy.settings.show import masked

    redis = settings.redis
    if redis.url == "embedded":
        return diagnoses.embedded_store(find_valkey())
    return diagnoses.shared_store(
        str(masked(redis.url, ("redis", "url"))), "" if redis.url == "off" else _ping(redis.url)
    )


def _ping(url: str) -> str:
    """Why the store does not answer; empty when it does. The text never holds the URL, which may hold a password."""
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError
    from redis.retry import Retry

    try:
        with Redis.from_url(
            url, socket_connect_timeout=PATIENCE_S, socket_timeout=PATIENCE_S, retry=Retry(NoBackoff(), 0)
        ) as client:
            client.ping()
    except (RedisError, OSError, ValueError) as error:
        return str(error).replace(url, "it") or type(error).__name__
    return ""


def _ask_all(upstream: Upstream) -> list[Asked]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(lambda mirror: _ask(upstream, mirror.url), _mirrors(upstream)))


def _mirrors(upstream: Upstream) -> list[Mirror]:
    """Its mirrors, services looked up; one whose records cannot be had is asked by the name behind it."""
    import asyncio
    import contextlib

    from fileproxy.upstream import services, srv

    known: dict[str, tuple[srv.Record, ...]] = {}
    for name in filter(None, (services.service_of(one.url) for one in upstream.servers)):
        with contextlib.suppress(srv.NoAnswer):
            known[name] = asyncio.run(srv.look_up(name, srv.name_servers(), timeout_s=services.TIMEOUT_S)).records
    return services.expanded(upstream, known).servers


def _ask(upstream: Upstream, url: str) -> Asked:
    """HEAD of the mirror's own URL: any answer shows that it is there."""
    import socket
    import time
    from email.utils import parsedate_to_datetime
    from http.client import HTTPConnection, HTTPException
    from urllib.parse import unquote, urlsplit

    from fileproxy.errors import FileProxyError

    parts = urlsplit(url)
    if parts.scheme == "file":
        there = Path(unquote(parts.path)).is_dir()
        return diagnoses.Asked(url, status=200 if there else 0, error="" if there else "there is no such folder")
    began = time.monotonic()
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        sock = socket.create_connection((host, port), PATIENCE_S)
        connection = HTTPConnection(host, port)
        connection.sock = sock
        try:
            if parts.scheme == "https":
                from fileproxy.upstream.connections import tls_context

                name = upstream.tls.server_name or host
                connection.sock = tls_context(upstream.tls, "upstream").wrap_socket(sock, server_hostname=name)
            asked_host = parts.netloc if upstream.host in ("upstream", "preserve") else upstream.host
            connection.request("HEAD", parts.path or "/", headers={**upstream.headers, "Host": asked_host})
            answer = connection.getresponse()
        finally:
            connection.close()
    except FileProxyError as error:  # its certificate authorities cannot be read
        return diagnoses.Asked(url, error=error.detail)
    except (OSError, HTTPException, ValueError) as error:  # ValueError: a name no resolver takes
        return diagnoses.Asked(url, error=getattr(error, "strerror", None) or str(error) or type(error).__name__)
    took = time.monotonic() - began
    try:
        ahead = parsedate_to_datetime(answer.getheader("Date", "")).timestamp() - time.time()
    except ValueError:
        ahead = None
    return diagnoses.Asked(url, answer.status, took, ahead)


def _folders(settings: Settings) -> Iterator[tuple[str, Path]]:
    yield "run folder", Path(settings.server.run_dir)
    if settings.cache.disk != "off":
        yield "disk cache", Path(settings.cache.disk.path)
    targets = (settings.logs.access, settings.logs.error, settings.logs.audit)
    logs = {Path(one).parent for one in targets if one not in _NO_FILES}
    for path in sorted(logs):
        yield "logs", path


_NO_FILES = ("stdout", "stderr", "off")


def _folder(name: str, path: Path) -> Finding:
    """What is not there yet is made by `serve`; then the nearest folder that is there counts."""
    import os

    path = path.absolute()
    there = path
    while not os.path.exists(there) and there != there.parent:  # pathlib raises where it may not look
        there = there.parent
    writable = os.path.isdir(there) and os.access(there, os.W_OK | os.X_OK)
    try:
        found = os.statvfs(there)
    except OSError:
        return diagnoses.folder(name, str(path), writable, None, None)
    inodes = found.f_favail if found.f_files else None
    return diagnoses.folder(name, str(path), writable, found.f_bavail * found.f_frsize, inodes)
