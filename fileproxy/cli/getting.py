"""What ``fileproxy get`` does, without the command line's library, which would take longer to start than it.

``get.py`` says which options there are; ``quick.py`` reads the usual ones.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fileproxy.cli import Failed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fileproxy.client import Client, Result
    from fileproxy.client.early import Early
    from fileproxy.client.progress import Display


class WrongUsage(Exception):
    """A sentence about what was typed, and the option it is about. Nothing was fetched."""

    def __init__(self, sentence: str, option: str | None = None) -> None:
        super().__init__(sentence)
        self.option = option


@dataclass(frozen=True)
class Options:
    """As ``get.py`` explains them."""

    urls: list[str] | None = None
    output: str | None = None
    resume: bool = False
    connections: int | None = None
    input_list: str | None = None
    jobs: int = 2
    checksum: str | None = None
    limit_rate: str | None = None
    timeout: str = "60s"
    header: list[str] | None = None
    ca: str | None = None
    insecure: bool = False
    mirrors_match: str = "etag"
    restart: bool = False
    force: bool = False
    accept_unframed: bool = False
    quiet: bool = False


def download(options: Options, early: Early | None = None) -> int:
    """Fetch it all; the exit code. ``early``: a connection for the first file. Raises WrongUsage, Failed, OSError."""
    from fileproxy.client.api import run
    from fileproxy.client.progress import display

    if bool(options.urls) == (options.input_list is not None):
        raise WrongUsage("give URLs, or a list with -i", "URL")
    if options.input_list is not None and options.checksum is not None:
        raise WrongUsage("in a list each file has its own: write checksum=… below its URL", "-i")
    if options.output == "-":
        raise WrongUsage("a file is needed: its parts arrive in no order", "-o")
    common = {
        "resume": options.resume,
        "restart": options.restart,
        "force": options.force,
        "accept_unframed": options.accept_unframed,
    }
    if options.urls:
        tasks = [{"url": options.urls, "path": options.output, "checksum": options.checksum, **common}]
    else:
        assert options.input_list is not None
        tasks = [{**one, **common} for one in _read(options.input_list, options.output)]
    client = _client(
        connections=options.connections,
        limit_rate=options.limit_rate,
        timeout=options.timeout,
        headers=_headers(options.header or []),
        ca=options.ca,
        verify=not options.insecure,
        mirrors_match=options.mirrors_match,
        early=early,
    )
    _validate(tasks)
    # TERM ends it as Ctrl-C does: the part file stays. INT is heard even where a shell started us with it ignored (in
    # the background of a script), because TERM travels as INT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    shown = display(quiet=options.quiet)
    try:
        with shown:
            failed = run(_all(client, tasks, options.jobs, shown, options.quiet))
    except KeyboardInterrupt:
        raise Failed("interrupted; what came is kept where it can be continued: the same command with -c") from None
    return 1 if failed else 0


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
            print(_summary(result), flush=True)
        return True
    print(f"fileproxy: {sentence}", file=sys.stderr)
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
        raise WrongUsage(f"{name}: {error}", "-i") from None
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
        raise WrongUsage(str(error)) from None


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
        raise WrongUsage(str(error)) from None


def _headers(lines: Sequence[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, mark, value = line.partition(":")
        if not mark:
            raise WrongUsage(f"{line!r} is not 'NAME: VALUE'", "-H")
        headers[name.strip()] = value.strip()
    return headers
