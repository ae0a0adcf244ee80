"""``fileproxy get``: download files without a service. Its options; ``getting.py`` does it."""

from __future__ import annotations

from typing import Annotated

import typer


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
    from fileproxy.cli.getting import Options, WrongUsage, download

    given = {
        "urls": urls,
        "output": output,
        "resume": resume,
        "connections": connections,
        "input_list": input_list,
        "jobs": jobs,
        "checksum": checksum,
        "limit_rate": limit_rate,
        "timeout": timeout,
        "header": header,
        "ca": ca,
        "insecure": insecure,
        "mirrors_match": mirrors_match,
        "restart": restart,
        "force": force,
        "accept_unframed": accept_unframed,
        "quiet": quiet,
    }
    try:
        code = download(Options(**given))  # type: ignore[arg-type]  # the options above, each by its own name
    except WrongUsage as error:
        raise typer.BadParameter(str(error), param_hint=error.option) from None
    if code:
        raise typer.Exit(code)
