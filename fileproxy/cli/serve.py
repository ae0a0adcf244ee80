"""``fileproxy serve``: puts the master together and runs it until it is told to end."""

from __future__ import annotations

import gc
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fileproxy.cli import Failed

if TYPE_CHECKING:
    from fileproxy.embedded import Embedded
    from fileproxy.server.arbiter import Masters
    from fileproxy.settings import Settings

FILES = Path("files")  # what the embedded origin serves


def serve(
    urls: Annotated[
        list[str] | None, typer.Argument(metavar="[URL]...", help="Servers that hold the files (as --upstream).")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Configuration file.")] = None,
    host: Annotated[str | None, typer.Option("--host", metavar="H", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", metavar="P", help="Port to listen on; 0 = any.")] = None,
    workers: Annotated[str | None, typer.Option("--workers", metavar="N", help="Worker processes, or auto.")] = None,
    upstream: Annotated[
        list[str] | None,
        typer.Option("--upstream", metavar="URL", help="A mirror of the upstream `files`; may be repeated."),
    ] = None,
    cache_dir: Annotated[
        str | None, typer.Option("--cache-dir", metavar="DIR", help="Folder of the disk cache.")
    ] = None,
    redis: Annotated[
        str | None, typer.Option("--redis", metavar="URL|embedded|off", help="The store that machines share.")
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, e.g. upstreams.files.timeouts.idle=4s."),
    ] = None,
) -> None:
    """Serve files. Without an upstream, a small embedded origin serves the folder ./files."""
    # What is imported now stays: looking for garbage in it costs a part of the start, and in the workers it is in vain.
    gc.disable()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it would read every installed package's metadata
    from fileproxy.server.arbiter import Application, Arbiter
    from fileproxy.server.control import AlreadyRunning

    flags: dict[str, object] = {
        "server.host": host,
        "server.port": port,
        "server.workers": int(workers) if workers and workers.isdecimal() else workers,
        "upstreams.files.servers": [*(upstream or []), *(urls or [])] or None,
        "cache.disk.path": cache_dir,
        "redis.url": redis,
    }
    try:
        masters = prepare(config, dict(os.environ), sets or [], flags)
    except AlreadyRunning as error:
        raise Failed(str(error)) from None
    gc.freeze()
    gc.enable()
    Arbiter(Application(masters)).run()


def prepare(
    config: Path | None, env: Mapping[str, str], sets: list[str], flags: Mapping[str, object], *, listening: bool = True
) -> Masters:
    """Everything the master needs, opened: run folder, logs, listeners (or none), embedded parts.

    Raises ConfigurationError, AlreadyRunning, OSError.
    """
    from fileproxy.process import without_ca_bundle

    with without_ca_bundle():
        from fileproxy.boot import build
    from fileproxy.clock import SystemClock
    from fileproxy.embedded import Embedded
    from fileproxy.errors import ConfigurationError
    from fileproxy.observe.logs import Logs
    from fileproxy.observe.page import MASTER, Page, reset
    from fileproxy.process import raise_descriptor_limit
    from fileproxy.reports import COUNTERS
    from fileproxy.server.arbiter import Masters
    from fileproxy.server.control import RunDir
    from fileproxy.server.listeners import listen
    from fileproxy.server.worker import Plan
    from fileproxy.settings.load import load, verify

    def configuration() -> Settings:
        loaded = load(config, env, sets, flags)
        if problems := verify(loaded.settings, loaded.sources):
            raise ConfigurationError(problems)
        return loaded.settings

    configured = configuration()
    raise_descriptor_limit()
    run_dir = RunDir(Path(configured.server.run_dir))
    run_dir.lock()
    try:
        reset(run_dir.path / COUNTERS)
        counters = Page.create(run_dir.path / COUNTERS, MASTER, SystemClock())
        logs = Logs(configured.logs, counters=counters, facts={"pid": os.getpid(), "worker": MASTER})
        server = configured.server
        listeners = listen(server.host, server.port, server.backlog) if listening else []
        embedded = Embedded(run_dir.path, FILES, logs.event)
        settings = embedded.fit(configured)
        run_dir.write_settings(1, settings)
    except BaseException:
        run_dir.unlock()  # embedded children, if any was started, end with us
        raise
    plan = Plan(settings, 1, secrets.token_hex(8), run_dir.path, time.time())
    return Masters(
        load=configuration,
        configured=configured,
        plan=plan,
        build=build,
        run_dir=run_dir,
        embedded=embedded,
        counters=counters,
        listeners=listeners,
        say=logs.event,
        apply_logs=lambda settings: _report(logs.apply(settings.logs)),
        reopen_logs=lambda: _report(logs.reopen()),
        ready=lambda url: typer.echo(welcome(url, settings, embedded)),
        close_logs=logs.close,
    )


def _report(problems: list[str]) -> None:
    for problem in problems:  # the log may be what does not work
        typer.echo(f"fileproxy: {problem}", err=True)


def welcome(url: str, settings: Settings, embedded: Embedded) -> str:
    """What is printed once all workers accept: what is served, where, and two commands that work."""
    from fileproxy import __version__
    from fileproxy.embedded import SAMPLES
    from fileproxy.server.reload import worker_count

    count = worker_count(settings)
    lines = [f"FileProxy {__version__} serves at {url} ({count} worker{'s' * (count != 1)}, pid {os.getpid()})"]
    health = f"curl {url}/health" if settings.server.short_names else f"curl {url}/-/health"
    tries = [health, f"curl -i {url}/"]
    if embedded.origin is None:
        for name, upstream in settings.upstreams.items():
            lines.append(f"  upstream {name}: {', '.join(server.url for server in upstream.servers)}")
    else:
        origin, folder = embedded.origin
        lines.append(f"  upstream files: the embedded origin at {origin}, folder {folder}")
        samples = [name for name in SAMPLES if (folder / name).is_file()]
        if samples:
            tries = [f"curl {url}/{samples[0]}", f"curl -o {samples[-1]} {url}/{samples[-1]}"]
    if embedded.valkey:
        lines.append(f"  shared store: the embedded Valkey at {embedded.valkey}")
    lines.append(f"  logs: {settings.logs.access} (access), {settings.logs.error} (errors)")
    return "\n".join([*lines, "Try:", *(f"  {one}" for one in tries)])
