"""``fileproxy reload``, ``stop`` and ``status``: they find the master by the locked pid file in ``server.run_dir``."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fileproxy.cli import Failed

if TYPE_CHECKING:
    from fileproxy.server.control import RunDir

LOOK_S = 0.05
RELOAD_WAIT_S = 90.0  # longer than the master waits for new workers

Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Configuration the service runs with.")]
RunDirOption = Annotated[
    Path | None,
    typer.Option("--run-dir", metavar="DIR", help="Its server.run_dir, when the configuration is elsewhere."),
]


def reload(config: Config = None, run_dir: RunDirOption = None) -> None:
    """Have the service read its configuration again. Exit 0: taken over; 2: refused, nothing changed."""
    folder, pid = _running(config, run_dir)
    before = folder.read_outcome()
    number = before.number if before else 0
    _signal(pid, signal.SIGHUP)
    deadline = time.monotonic() + RELOAD_WAIT_S
    while (outcome := folder.read_outcome()) is None or outcome.number <= number:
        if folder.running() != pid:
            raise Failed(f"the service (pid {pid}) ended while it was reloading; its error log says why")
        if time.monotonic() >= deadline:
            raise Failed(f"the service (pid {pid}) has not answered within {RELOAD_WAIT_S:g} s")
        time.sleep(LOOK_S)
    sentences = {
        "unchanged": "Nothing has changed.",
        "applied": f"Applied without a restart (generation {outcome.generation}):",
        "rolled": f"Taken over by new workers; the old ones finish their downloads (generation {outcome.generation}):",
        "refused": "Refused; nothing has changed:",
    }
    typer.echo(sentences[outcome.outcome], err=outcome.outcome == "refused")
    for change in outcome.changes:
        typer.echo(f"  {change}")
    for problem in outcome.problems:
        typer.echo(f"  {problem}", err=True)
    if outcome.outcome == "refused":
        raise typer.Exit(2)


def stop(
    config: Config = None,
    run_dir: RunDirOption = None,
    now: Annotated[bool, typer.Option("--now", help="Cut running downloads.")] = False,
) -> None:
    """End the service: it accepts no more, and ends when its last download has ended."""
    folder, pid = _running(config, run_dir)
    _signal(pid, signal.SIGQUIT if now else signal.SIGTERM)
    told = time.monotonic() + 2.0
    while folder.running() == pid:
        if told and time.monotonic() >= told:
            typer.echo("Waiting for running downloads to end (`fileproxy stop --now` cuts them) …")
            told = 0.0
        time.sleep(LOOK_S)
    typer.echo(f"Stopped (pid {pid}).")


def status(config: Config = None, run_dir: RunDirOption = None) -> None:
    """Show whether the service runs, since when, where and with which workers. Exit 1: it does not."""
    folder, pid = _running(config, run_dir)
    found = folder.read_status()
    if found is None or found.pid != pid:
        typer.echo(f"starting  pid {pid}")
        return
    typer.echo(f"running   pid {pid}")
    typer.echo(f"url       {found.url}")
    typer.echo(f"uptime    {_duration(time.time() - found.started_at)}")
    typer.echo(f"workers   {len(found.workers)} (pid {', '.join(map(str, found.workers))})")
    if found.draining:
        typer.echo(f"draining  {len(found.draining)} (pid {', '.join(map(str, found.draining))})")
    typer.echo(f"settings  generation {found.generation}")


def _running(config: Path | None, run_dir: Path | None) -> tuple[RunDir, int]:
    """The run folder and the pid of its master. Raises Failed when none runs."""
    from fileproxy.server.control import RunDir

    folder = RunDir(run_dir or _configured(config))
    pid = folder.running()
    if pid is None:
        raise Failed(f"no FileProxy runs with the run folder {folder.path}")
    return folder, pid


def _configured(config: Path | None) -> Path:
    """``server.run_dir``. A configuration that is wrong now must not keep one from reaching the service."""
    from fileproxy.errors import ConfigurationError
    from fileproxy.settings.load import load
    from fileproxy.settings.schema import Server

    try:
        return Path(load(config, os.environ, [], {}).settings.server.run_dir)
    except ConfigurationError:
        return Path(os.environ.get("FILEPROXY_SERVER__RUN_DIR") or Server().run_dir)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        raise Failed(f"the service (pid {pid}) has just ended") from None
    except PermissionError:
        raise Failed(f"the service (pid {pid}) belongs to another user") from None


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{value}{unit}" for value, unit in ((days, "d"), (hours, "h"), (minutes, "m")) if value]
    return " ".join([*parts, f"{rest}s"][:3])
