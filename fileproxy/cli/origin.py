"""``fileproxy origin``: one process that serves a folder, for trying things out and as `serve`'s embedded origin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import socket

    from fileproxy.model import Counters
    from fileproxy.settings import Settings

DRAIN_LOOK_S = 0.05


def origin(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to serve.")],
    host: Annotated[str, typer.Option("--host", metavar="H", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="P", help="Port to listen on; 0 = any.")] = 27804,
    fd: Annotated[int | None, typer.Option("--fd", hidden=True, help="A listening socket that was inherited.")] = None,
) -> None:
    """Serve a folder as a plain HTTP origin, without a cache, workers or a configuration."""
    import asyncio
    import socket

    from fileproxy.cli import Failed
    from fileproxy.process import raise_descriptor_limit
    from fileproxy.server.listeners import listen, url_of
    from fileproxy.server.worker import new_loop
    from fileproxy.settings import Settings

    folder = folder.absolute()
    if not folder.is_dir():
        raise Failed(f"{folder} is not a folder")
    raise_descriptor_limit()
    settings = Settings.model_validate(
        {
            "server": {"host": host, "port": port, "short_names": False, "name": "fileproxy-origin"},
            "upstreams": {"files": folder.as_uri()},
            # Else it would take a proxy's cache in the same folder for its own.
            "cache": {"disk": "off"},
            "routes": [{"path": "/", "upstream": "files", "cache": "off"}],
            "redis": {"url": "off"},
            "logs": {"access": "off", "error": "stderr", "level": "warning"},
        }
    )
    if fd is None:
        sockets = listen(host, port, settings.server.backlog)
        typer.echo(f"FileProxy's origin serves {folder} at {url_of(host, sockets)}")
    else:
        sockets = [socket.socket(fileno=fd)]
    loop, uvloop_enabled = new_loop(settings)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(_serve(settings, sockets, uvloop_enabled))


async def _serve(settings: Settings, sockets: list[socket.socket], uvloop_enabled: bool) -> None:
    """Until TERM (running downloads end first) or INT (at once)."""
    import asyncio
    import secrets
    import signal
    import tempfile
    import time

    from fileproxy.process import without_ca_bundle

    with without_ca_bundle():
        from fileproxy.app import House
    from fileproxy.observe.logs import Logs

    loop = asyncio.get_running_loop()
    leave, end = asyncio.Event(), asyncio.Event()

    def asked_to_leave() -> None:
        (end if leave.is_set() else leave).set()

    def asked_to_end() -> None:
        leave.set()
        end.set()

    loop.add_signal_handler(signal.SIGTERM, asked_to_leave)
    loop.add_signal_handler(signal.SIGINT, asked_to_end)
    counters = _page_in_memory()
    logs = Logs(settings.logs, counters=counters)
    with tempfile.TemporaryDirectory(prefix="fileproxy-origin-") as run_dir:
        house = House(
            settings,
            counters=counters,
            logs=logs,
            run_dir=Path(run_dir),
            identity=secrets.token_hex(8),
            facts={"uvloop_enabled": uvloop_enabled, "started_at": time.time()},
        )
        await house.open()
        try:
            backlog = settings.server.backlog
            servers = [await house.accept_from(sock, backlog) for sock in sockets]
            await leave.wait()
            for server in servers:
                server.close()
            house.drain()
            while house.busy and not end.is_set():  # noqa: ASYNC110 (the house counts; it has no event for zero)
                await asyncio.sleep(DRAIN_LOOK_S)
        finally:
            await house.close()
            logs.close()


def _page_in_memory() -> Counters:
    """Counters nobody else reads."""
    import mmap

    from fileproxy.clock import SystemClock
    from fileproxy.observe.layout import LAYOUT
    from fileproxy.observe.page import Page

    return Page(memoryview(mmap.mmap(-1, LAYOUT.size_bytes)).cast("q"), LAYOUT, SystemClock())
