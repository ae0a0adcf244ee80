"""``fileproxy purge`` and ``fileproxy warm``: clients of a running service's admin API."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from fileproxy.cli import Failed
from fileproxy.cli.check import Config
from fileproxy.cli.client import Json, Url, service_url, size

TIMEOUT_S = 30.0
LOOK_S = 0.5
_API = "/-/api/v1/"

TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", metavar="FILE", help="Where the admin token is [default: server.admin_token_file]."),
]
Urls = Annotated[list[str] | None, typer.Argument(metavar="URL…", help="Addresses, or paths on this service.")]


def purge(
    urls: Urls = None,
    prefix: Annotated[
        list[str] | None, typer.Option("--prefix", metavar="URL", help="Everything whose address begins so.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="TAG", help="Everything with this Cache-Tag or Surrogate-Key.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything.")] = False,
    soft: Annotated[
        bool, typer.Option("--soft", help="Keep the bytes, but ask the upstream before using them.")
    ] = False,
    url: Url = None,
    as_json: Json = False,
    token_file: TokenFile = None,
    config: Config = None,
) -> None:
    """Drop files from the cache: every tier, every worker, every machine."""
    wanted: dict[str, Any] = {"key": urls, "prefix": prefix, "tag": tag, "all": everything}
    given = {name: value for name, value in wanted.items() if value}
    if len(given) != 1:
        raise typer.BadParameter("give exactly one of: addresses, --prefix, --tag, --all")
    base = service_url(url, config)
    answer = call(base, "POST", "purge", admin_token(token_file, config), {**given, "soft": soft})
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
        return
    what = "everything" if answer["kind"] == "all" else f"{answer['kind']} {', '.join(answer['values'])}"
    typer.echo(f"{'Expired' if soft else 'Purged'}: {what}")


def warm(
    urls: Urls = None,
    sitemap: Annotated[
        str | None, typer.Option("--sitemap", metavar="URL", help="All that this sitemap lists.")
    ] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=16, help="Files at once.")] = 4,
    wait: Annotated[bool, typer.Option("--wait", help="Show the progress, and end with the job.")] = False,
    url: Url = None,
    as_json: Json = False,
    token_file: TokenFile = None,
    config: Config = None,
) -> None:
    """Fetch files into the cache ahead of the first client. Exit code 1 when --wait saw one fail."""
    if bool(urls) == (sitemap is not None):
        raise typer.BadParameter("give either addresses or --sitemap")
    base, token = service_url(url, config), admin_token(token_file, config)
    order = {"sitemap": sitemap} if sitemap else {"urls": urls}
    state = call(base, "POST", "warm", token, {**order, "concurrency": concurrency})
    if wait:
        state = _follow(base, token, state, quiet=as_json)
    if as_json:
        typer.echo(json.dumps(state, indent=2))
    elif not wait:
        typer.echo(f"Started job {state['id']}.")
    else:
        failed = f", {state['failed']} failed" if state["failed"] else ""
        detail = f": {state['detail']}" if state["detail"] else ""
        typer.echo(f"{state['state']}: {state['fetched']} files, {size(state['bytes'])}{failed}{detail}")
        for failure in state["failures"]:
            typer.echo(f"  {failure['url']}: {failure['detail']}", err=True)
    if wait and (state["state"] != "done" or state["failed"]):
        raise typer.Exit(1)


def admin_token(token_file: Path | None, config: Path | None) -> str:
    """``--token-file``, else ``$FILEPROXY_ADMIN_TOKEN``, else the file of the configuration. Raises Failed."""
    import os

    from fileproxy.settings.load import load

    if token_file is None:
        if told := os.environ.get("FILEPROXY_ADMIN_TOKEN", "").strip():
            return told
        token_file = Path(load(config, os.environ).settings.server.admin_token_file)
    try:
        token = token_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "it is not text"
        raise Failed(f"the admin token cannot be read from {token_file}: {said}") from error
    if not token or not token.isascii() or not token.isprintable():
        raise Failed(f"{token_file} holds no admin token")
    return token


def call(base: str, method: str, path: str, token: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The JSON of one call. Raises Failed: no answer, not an answer of ours, or a problem (its sentence is shown)."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import ProxyHandler, Request, build_opener

    request = Request(f"{base}{_API}{path}", method=method)  # noqa: S310 (service_url lets only http and https pass)
    request.add_header("Authorization", f"Bearer {token}")
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    # Asked directly, whatever proxy the environment names: the token is for the service alone.
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            status, data = answer.status, answer.read()
    except HTTPError as error:
        with error:
            status, data = error.code, error.read()
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)  # urllib wraps what the system said
        said = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        raise Failed(f"{base} does not answer: {said}") from error
    try:
        report = json.loads(data)
    except ValueError:
        report = None
    if not isinstance(report, dict):
        raise Failed(f"{base}{_API}{path} answered {status} without JSON; is that FileProxy?")
    if status >= 400:
        raise Failed(f"{base} answered {status}: {report.get('detail') or report.get('title') or 'no reason'}")
    return report


def _follow(base: str, token: str, state: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """Look at a job until it has ended, and show how far it is."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet, transient=True) as progress:
        shown = progress.add_task("reading the list" if state["total"] is None else "warming", total=state["total"])
        while state["state"] == "running":
            time.sleep(LOOK_S)
            state = call(base, "GET", f"warm/{state['id']}", token)
            progress.update(
                shown,
                total=state["total"],
                completed=state["fetched"] + state["failed"],
                description=f"warming {size(state['bytes'])}" if state["total"] is not None else "reading the list",
            )
    return state
