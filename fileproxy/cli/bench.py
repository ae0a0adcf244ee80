"""``fileproxy bench``: measuring. ``load`` and ``stress`` ask a running service (``loading.py`` does it); the others
are benchmarks that lie beside the package, in a checkout, and start what they measure.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fileproxy.cli import Failed

CHECKOUT = Path(__file__).resolve().parents[2]
# Handed over with all their options; each has --help of its own.
BENCHMARKS = {
    "hits": "What a cached small file costs beside nginx.",
    "race": "What a cached file costs beside nginx, HAProxy, Varnish, Squid and Traffic Server.",
    "instructions": "Processor instructions of a hit, by callgrind.",
    "big": "What a cached big file costs beside nginx, 1 MiB and 1 GiB from disk.",
    "relay": "What passing on costs beside nginx; with --fill, keeping it meanwhile.",
    "memory": "What a slow reader and an idle connection hold.",
    "growth": "Cost as files, sizes, clients, mirrors, routes grow.",
    "growth_workers": "What a second worker costs each hit.",
    "collector": "Garbage collection, allocator, processor affinity: what each setting costs a hit.",
    "cache": "The block cache under crowds, kills, flipped bits, sick disks.",
    "admission": "What should stay in memory: byte hit ratios of several policies.",
    "torture": "Origins that lie, break, leave: what clients get.",
    "get": "`fileproxy get` beside curl and aria2c over emulated links.",
    "compare": "This machine's baseline, or another revision, against these sources: better, same, worse.",
    "guard": "Instructions and memory of pure paths against the committed counts (valgrind).",
}

app = typer.Typer(
    name="bench",
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Measure: a running service (load, stress), or FileProxy beside its peers (in a checkout).",
)

Urls = Annotated[list[str] | None, typer.Argument(metavar="URL…", help="Files of the service.", show_default=False)]
UrlList = Annotated[
    str | None, typer.Option("--urls", metavar="LIST", help="File with one URL a line, most popular first; -.")
]
Zipf = Annotated[
    float | None,
    typer.Option("--zipf", metavar="S", help="Popularity of the URLs: the n-th as 1/n^S; else one after the other."),
]
Ranges = Annotated[
    float, typer.Option("--ranges", metavar="PERCENT", min=0, max=100, help="Requests that ask for a part.")
]
RangeSize = Annotated[str, typer.Option("--range-size", metavar="SIZE", help="Bytes of such a part.")]
KeepAlive = Annotated[bool, typer.Option("--keep-alive/--no-keep-alive", help="Off: a connection for each request.")]
Slow = Annotated[float, typer.Option("--slow", metavar="PERCENT", min=0, max=100, help="Clients that read slowly.")]
SlowRate = Annotated[str, typer.Option("--slow-rate", metavar="SIZE", help="Bytes a second each of them reads.")]
Timeout = Annotated[
    str, typer.Option("--timeout", metavar="TIME", help="Give a request up without a byte for so long.")
]
Header = Annotated[list[str] | None, typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="Sent; repeatable.")]
Ca = Annotated[str | None, typer.Option("--ca", metavar="PEM", help="Certificate authorities to trust.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Do not verify certificates.")]
Verify = Annotated[bool, typer.Option("--verify/--no-verify", help="Compare SHA-256 of what a URL gives each time.")]
MaxErrors = Annotated[
    float, typer.Option("--max-errors", metavar="PERCENT", min=0, max=100, help="More is a failure (exit code 1).")
]
Seed = Annotated[int, typer.Option("--seed", help="Of the dice.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="The report, by its ending: .json, .md, .html.", show_default=False
    ),
]
Mine = Annotated[bool, typer.Option("--yes-this-is-mine", help="The service is on another machine, and yours to load.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the report.")]


@app.command("load")
def load(
    urls: Urls = None,
    url_list: UrlList = None,
    clients: Annotated[int, typer.Option("--clients", "-c", metavar="N", min=1, help="At once.")] = 16,
    seconds: Annotated[str, typer.Option("--time", "-t", metavar="TIME", help="How long.")] = "10s",
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate", metavar="N", help="Requests a second, whether or not answers come; else one after another."
        ),
    ] = None,
    zipf: Zipf = None,
    ranges: Ranges = 0.0,
    range_size: RangeSize = "64KiB",
    keep_alive: KeepAlive = True,
    slow: Slow = 0.0,
    slow_rate: SlowRate = "100KiB",
    timeout: Timeout = "10s",
    header: Header = None,
    ca: Ca = None,
    insecure: Insecure = False,
    verify: Verify = True,
    max_errors: MaxErrors = 1.0,
    seed: Seed = 1,
    output: Output = None,
    mine: Mine = False,
    quiet: Quiet = False,
) -> None:
    """Load a running service with clients, for a while, and report.

    Only the hosts of the URLs are asked; another machine than this one only with --yes-this-is-mine. With --rate a
    request's time begins when it was due. Other bytes for the same URL are errors. ^C ends it with a report.
    Exit code 1: interrupted, other bytes than before, or more than --max-errors failed.
    """
    from fileproxy.cli import loading

    loading.load(
        loading.Wish(
            **_common(urls, url_list, zipf, ranges, range_size, keep_alive, slow, slow_rate, timeout, header, ca),
            insecure=insecure, verify=verify, max_errors=max_errors / 100, seed=seed, output=output, mine=mine,
            quiet=quiet, clients=clients, seconds=seconds, rate=rate,
        )
    )  # fmt: skip


@app.command("stress")
def stress(
    urls: Urls = None,
    url_list: UrlList = None,
    first: Annotated[int, typer.Option("--first", metavar="N", min=1, help="Clients of the first step.")] = 1,
    most: Annotated[int, typer.Option("--most", metavar="N", min=1, help="Clients of the last one.")] = 512,
    step: Annotated[str, typer.Option("--step", metavar="TIME", help="How long each step lasts.")] = "5s",
    max_p99: Annotated[
        str, typer.Option("--max-p99", metavar="TIME", help="Stop when the slowest percent takes longer.")
    ] = "1s",
    max_errors: Annotated[
        float, typer.Option("--max-errors", metavar="PERCENT", min=0, max=100, help="Stop when more fail.")
    ] = 1.0,
    growth: Annotated[
        float, typer.Option("--growth", metavar="PERCENT", min=0, help="Stop when twice in a row it grew by less.")
    ] = 5.0,
    recover: Annotated[
        str, typer.Option("--recover", metavar="TIME", help="The first load must go well again within so long.")
    ] = "30s",
    zipf: Zipf = None,
    ranges: Ranges = 0.0,
    range_size: RangeSize = "64KiB",
    keep_alive: KeepAlive = True,
    slow: Slow = 0.0,
    slow_rate: SlowRate = "100KiB",
    timeout: Timeout = "10s",
    header: Header = None,
    ca: Ca = None,
    insecure: Insecure = False,
    verify: Verify = True,
    seed: Seed = 1,
    output: Output = None,
    mine: Mine = False,
    quiet: Quiet = False,
) -> None:
    """Double the clients until a running service meets a limit; say where its knee is and whether it recovers.

    The knee is the smallest number of clients with nearly the most throughput within the limits.
    Exit code 1: interrupted, other bytes than before, no step went well, or it did not recover.
    """
    from fileproxy.cli import loading

    loading.stress(
        loading.Wish(
            **_common(urls, url_list, zipf, ranges, range_size, keep_alive, slow, slow_rate, timeout, header, ca),
            insecure=insecure, verify=verify, max_errors=max_errors / 100, seed=seed, output=output, mine=mine,
            quiet=quiet, seconds=step,
        ),
        first=first, most=most, max_p99=max_p99, growth=growth / 100, recover=recover,
    )  # fmt: skip


def _common(*values: Any) -> dict[str, Any]:
    names = "urls url_list zipf ranges range_size keep_alive slow slow_rate timeout headers ca"
    return dict(zip(names.split(), values, strict=True))


@app.command("network")
def network(
    mode: Annotated[str, typer.Argument(metavar="single|crowd|parallel", help="What the clients do.")] = "single",
    scenario: Annotated[str, typer.Option("--scenario", metavar="normal|poor|very-poor", help="The network.")] = "poor",
    direction: Annotated[
        str, typer.Option("--direction", metavar="origin|client", help="Which side of the proxy is the bad one.")
    ] = "origin",
    congestion: Annotated[
        str, typer.Option("--congestion", metavar="cubic|bbr", help="Congestion control of the senders over the link.")
    ] = "cubic",
    rounds: Annotated[int | None, typer.Option("--rounds", min=1, help="Interleaved rounds.")] = None,
    seconds: Annotated[float | None, typer.Option("--seconds", min=1, help="Length of a crowd's turn.")] = None,
    clients: Annotated[int | None, typer.Option("--clients", min=1, help="Clients of a crowd.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="One round, small files, short turns.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="Folder of the results.", show_default=False)
    ] = None,
) -> None:
    """Downloads over emulated bad links, beside curl alone and nginx.

    Links with delay, loss and a low rate. Needs root, nginx and curl; nothing leaves this machine. Writes JSON,
    Markdown and an HTML report with plots to benchmarks/results/.
    """
    words = [mode, "--scenario", scenario, "--direction", direction, "--congestion", congestion]
    for option, value in (("rounds", rounds), ("seconds", seconds), ("clients", clients), ("output", output)):
        if value is not None:
            words += [f"--{option}", str(value)]
    if quick:
        words.append("--quick")
    hand_over("network", words)


def hand_over(name: str, words: list[str]) -> None:
    """Become the benchmark. Raises Failed where there is none."""
    home = CHECKOUT / "benchmarks"
    if not ((home / f"{name}.py").is_file() or (home / name / "__main__.py").is_file()):
        raise Failed("the benchmarks are not part of the installed package: run this in a checkout of FileProxy")
    path = os.pathsep.join(filter(None, (str(CHECKOUT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", f"benchmarks.{name}", *words]
    # In our place, so that a ^C reaches it alone and it can remove what it made.
    os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": path})  # noqa: S606 (no shell is wanted)


def _handed_over(name: str, sentence: str) -> None:
    @app.command(
        name,
        help=sentence,
        add_help_option=False,  # its own is more to the point
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )
    def command(context: typer.Context) -> None:
        hand_over(name, context.args)


for _name, _sentence in BENCHMARKS.items():
    _handed_over(_name, _sentence)
