"""``fileproxy health`` and ``fileproxy stats``: ask a running service."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fileproxy.cli import Failed
from fileproxy.cli.check import Config

if TYPE_CHECKING:
    from rich.table import Table

TIMEOUT_S = 5.0

Url = Annotated[
    str | None, typer.Option("--url", metavar="URL", help="The service [default: the one of the configuration].")
]
Json = Annotated[bool, typer.Option("--json", help="Print the service's JSON as it is.")]


def health(url: Url = None, as_json: Json = False, config: Config = None) -> None:
    """Ask a running service how it is. Exit code 1 when it is failing or does not answer."""
    status, report = get(service_url(url, config), "/-/health")
    state = report.get("status", "unknown")
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        parts = report.get("parts", {}).items()
        ailing = [f"{name} {part['status']}" for name, part in parts if part.get("status") not in ("ok", None)]
        typer.echo(f"{state}: {', '.join(ailing)}" if ailing else state)
    if status != 200 or state not in ("ok", "degraded"):
        raise typer.Exit(1)


def stats(url: Url = None, as_json: Json = False, config: Config = None) -> None:
    """Print what a running service has done since its start, over all its workers."""
    base = service_url(url, config)
    status, report = get(base, "/-/stats")
    if status != 200:
        raise Failed(f"{base}/-/stats answered {status}: {report.get('detail') or report.get('title') or 'no reason'}")
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    from rich.console import Console

    console = Console(highlight=False)
    console.print(_summary(report))
    for family, noun in (("routes", "route"), ("upstreams", "upstream"), ("mirrors", "mirror")):
        if rows := report.get(family):
            console.print(_family(noun, rows))


def service_url(url: str | None, config: Any = None) -> str:
    """``--url``, or where the service of this configuration says it listens, or would listen."""
    if url is not None:
        if not url.startswith(("http://", "https://")):
            raise typer.BadParameter(f"{url!r} must start with http:// or https://", param_hint="--url")
        return url.rstrip("/")
    import os
    from pathlib import Path

    from fileproxy.server.control import RunDir
    from fileproxy.settings.load import load

    server = load(config, os.environ).settings.server
    try:
        status = RunDir(Path(server.run_dir)).read_status()
    except PermissionError:
        status = None  # another user's service: where it should be is all we know
    if status is not None:
        return status.url.rstrip("/")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(server.host, server.host)  # noqa: S104 # compared, not bound
    return f"http://[{host}]:{server.port}" if ":" in host else f"http://{host}:{server.port}"


def get(base: str, path: str) -> tuple[int, dict[str, Any]]:
    """Status and JSON of one of the service's own pages. Raises Failed when there is no such answer."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import ProxyHandler, build_opener

    # The service is asked directly, whatever proxy the environment names.
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(base + path, timeout=TIMEOUT_S) as answer:
            status, body = answer.status, answer.read()
    except HTTPError as error:
        with error:
            status, body = error.code, error.read()
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)  # urllib wraps what the system said
        said = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        raise Failed(f"{base} does not answer: {said}") from error
    try:
        report = json.loads(body)
    except ValueError:
        report = None
    if not isinstance(report, dict):
        raise Failed(f"{base}{path} answered {status} without JSON; is that FileProxy?")
    return status, report


def _summary(report: Mapping[str, Any]) -> Table:
    from rich.table import Table

    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(justify="right")
    times, window = report["response_time_ms"], report["last_60_seconds"]
    for name, value in (
        ("requests", f"{report['requests']:,}"),
        ("errors", f"{report['errors']:,} ({report['error_rate'] * 100:.2f} %)"),
        ("downloads now", f"{report['downloads_active']:,}"),
        ("connections now", f"{report['connections']['open']:,}"),
        ("to clients", size(report["bytes"]["to_clients"])),
        ("from upstreams", size(report["bytes"]["from_upstreams"])),
        ("throughput", f"{report['throughput_bits_per_second'] / 1e6:,.2f} Mbit/s"),
        ("last 60 s", f"{window['requests']:,} requests, {window['errors']:,} errors"),
        ("response time", f"p50 {times['p50']:.1f}  p95 {times['p95']:.1f}  p99 {times['p99']:.1f} ms"),
        ("workers", f"{report['workers']['live']} ({report['workers']['crashed']} crashed so far)"),
        ("level", report["performance_optimizer"]["optimization_level"]),
    ):
        table.add_row(name, value)
    return table


def _family(noun: str, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """One table of a labelled family; the columns are the plain numbers its rows have."""
    from rich.table import Table

    columns = list(
        dict.fromkeys(name for row in rows.values() for name, value in row.items() if isinstance(value, int))
    )
    table = Table(title_justify="left")
    table.add_column(noun)
    for name in columns:
        table.add_column(name.replace("_", " "), justify="right")
    for label, row in rows.items():
        cells = (size(row.get(name, 0)) if name == "bytes" else f"{row.get(name, 0):,}" for name in columns)
        table.add_row(label, *cells)
    return table


def size(count: float) -> str:
    """Bytes for people: ``1.5 GiB``."""
    units = ["TiB", "GiB", "MiB", "KiB", "B"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        units.pop()
    return f"{count:.0f} B" if units[-1] == "B" else f"{count:.1f} {units[-1]}"
