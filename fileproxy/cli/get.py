"""``fileproxy get``: download files without a service."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fileproxy.cli import Failed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fileproxy.client import Client, Result
    from fileproxy.client.progress import Display


def get(
    urls: Annotated[
        list[str] | None, typer.Argument(metavar="URL…", help="The file; further URLs are mirrors of the same file.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where it goes; a folder leaves the name to the server."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--continue", "-c", help="Continue interrupted downloads; skip files that are there.")
    ] = False,
    connections: Annotated[
        int | None,
        typer.Option("--connections", "-x", metavar="N", help="Connections a file; else 4 to 16, by measuring."),
    ] = None,
    input_list: Annotated[
        str | None,
        typer.Option("--input", "-i", metavar="LIST", help="File with one URL (or tab-separated mirrors) a line; -."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", metavar="N", min=1, max=64, help="Files at once with -i.")] = 2,
    checksum: Annotated[
        str | None, typer.Option("--checksum", metavar="sha256=…", help="What the file must hash to.")
    ] = None,
    limit_rate: Annotated[
        str | None, typer.Option("--limit-rate", metavar="SIZE", help="Bytes a second altogether, for example 2MiB.")
    ] = None,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="TIME", help="Give up after this long without a new byte.")
    ] = "60s",
    header: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="Sent to the hosts of the URLs; repeatable."),
    ] = None,
    ca: Annotated[str | None, typer.Option("--ca", metavar="PEM", help="Certificate authorities to trust.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Do not verify certificates.")] = False,
    mirrors_match: Annotated[
        str, typer.Option("--mirrors-match", metavar="etag|size+mtime", help="When mirrors hold the same bytes.")
    ] = "etag",
    restart: Annotated[
        bool, typer.Option("--restart", help="Start over where a part file is left that is not continued.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace existing files.")] = False,
    accept_unframed: Annotated[
        bool, typer.Option("--accept-unframed", help="Take the connection's close for the end of a file.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Download a file: parallel, from several mirrors, resuming; complete and verified, or visibly not there."""
    from fileproxy.client.api import run
    from fileproxy.client.progress import display

    if bool(urls) == (input_list is not None):
        raise typer.BadParameter("give URLs, or a list with -i", param_hint="URL")
    if input_list is not None and checksum is not None:
        raise typer.BadParameter("in a list each file has its own: write checksum=… below its URL", param_hint="-i")
    if output == "-":
        raise typer.BadParameter("a file is needed: its parts arrive in no order", param_hint="-o")
    common = {"resume": resume, "restart": restart, "force": force, "accept_unframed": accept_unframed}
    if urls:
        tasks = [{"url": urls, "path": output, "checksum": checksum, **common}]
    else:
        assert input_list is not None
        tasks = [{**one, **common} for one in _read(input_list, output)]
    client = _client(
        connections=connections,
        limit_rate=limit_rate,
        timeout=timeout,
        headers=_headers(header or []),
        ca=ca,
        verify=not insecure,
        mirrors_match=mirrors_match,
    )
    _validate(tasks)
    # TERM ends it as Ctrl-C does: the part file stays. INT is heard even where a shell started us with it ignored (in
    # the background of a script), because TERM travels as INT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    shown = display(quiet=quiet)
    try:
        with shown:
            failed = run(_all(client, tasks, jobs, shown, quiet))
    except KeyboardInterrupt:
        raise Failed("interrupted; what came is kept where it can be continued: the same command with -c") from None
    if failed:
        raise typer.Exit(1)


async def _all(client: Client, tasks: Sequence[dict[str, Any]], jobs: int, shown: Display, quiet: bool) -> int:
    """Every file, some at a time. How many failed; each says why on stderr."""
    from fileproxy.tasks import Tasks

    waiting, failed = list(reversed(tasks)), 0
    broken: list[BaseException] = []
    owned = Tasks(lambda _name, error: broken.append(error))

    async def work() -> None:
        nonlocal failed
        while waiting:
            failed += not await _one(client, waiting.pop(), shown, quiet)

    try:
        workers = [owned.start(work(), f"get-file-{number}") for number in range(min(jobs, len(tasks)))]
        await asyncio.wait(workers)
    finally:
        await owned.close()
    if broken:
        raise broken[0]
    return failed


async def _one(client: Client, task: dict[str, Any], shown: Display, quiet: bool) -> bool:
    from fileproxy.errors import FileProxyError

    try:
        result = await client.download_async(**task, progress=shown.show)
    except FileProxyError as error:
        sentence = error.detail
    except OSError as error:
        sentence = f"{error.filename or task['path'] or ''}: {error.strerror or error}".removeprefix(": ")
    else:
        if not quiet:
            typer.echo(_summary(result))
        return True
    typer.echo(f"fileproxy: {sentence}", err=True)
    return False


def _summary(result: Result) -> str:
    """One line on stdout for each file that is there."""
    from fileproxy.client.progress import people

    if result.skipped:
        return f"{result.path}: was there already ({people(result.size)})"
    fresh = result.size - result.resumed
    speed = f", {people(fresh / result.elapsed_s)}/s" if fresh and result.elapsed_s > 0 else ""
    said = [f"{people(result.size)} in {result.elapsed_s:.1f} s{speed}"]
    if result.resumed:
        said.append(f"{people(result.resumed)} were here before")
    if result.checksum is not None:
        said.append(f"{result.checksum.partition('=')[0]} verified")
    return f"{result.path}: {'; '.join(said)}"


def _read(name: str, folder: str | None) -> list[dict[str, Any]]:
    """The files of a list; ``-`` is standard input."""
    from fileproxy.client.lists import parse_list

    text = sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")
    base = Path(folder) if folder is not None else Path()
    try:
        lines = parse_list(text)
    except ValueError as error:
        raise typer.BadParameter(f"{name}: {error}", param_hint="-i") from None
    return [
        {
            "url": line.urls,
            "path": f"{base}/" if line.out is None else base / line.out,
            "checksum": None if line.checksum is None else str(line.checksum),
        }
        for line in lines
    ]


def _client(**options: Any) -> Client:
    from fileproxy.client import Client

    try:
        return Client(**options)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _validate(tasks: Sequence[dict[str, Any]]) -> None:
    """Wrong usage is told before anything is fetched."""
    from fileproxy.client.checksum import Checksum
    from fileproxy.client.mirrors import source_of

    try:
        for task in tasks:
            for url in task["url"]:
                source_of(url)
            if task["checksum"] is not None:
                Checksum.parse(task["checksum"])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _headers(lines: Sequence[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, mark, value = line.partition(":")
        if not mark:
            raise typer.BadParameter(f"{line!r} is not 'NAME: VALUE'", param_hint="-H")
        headers[name.strip()] = value.strip()
    return headers
