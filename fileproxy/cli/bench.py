"""``fileproxy bench``: the benchmarks a user can run. They lie beside the package, in a checkout."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from fileproxy.cli import Failed

CHECKOUT = Path(__file__).resolve().parents[2]
BENCHMARKS = ("network",)


def bench(
    name: Annotated[str, typer.Argument(metavar="network", help="The benchmark.")],
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
    """Measure FileProxy beside curl alone and nginx, in one run.

    `network`: downloads over emulated links with delay, loss and a low rate. Needs root, nginx and curl; nothing leaves
    this machine. Writes JSON, Markdown and an HTML report with plots to benchmarks/results/.
    """
    if name not in BENCHMARKS:
        raise typer.BadParameter(f"{name} is none of: {', '.join(BENCHMARKS)}", param_hint="network")
    if not (CHECKOUT / "benchmarks" / f"{name}.py").is_file():
        raise Failed("the benchmarks are not part of the installed package: run this in a checkout of FileProxy")
    words = [mode, "--scenario", scenario, "--direction", direction, "--congestion", congestion]
    for option, value in (("rounds", rounds), ("seconds", seconds), ("clients", clients), ("output", output)):
        if value is not None:
            words += [f"--{option}", str(value)]
    if quick:
        words.append("--quick")
    path = os.pathsep.join(filter(None, (str(CHECKOUT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", f"benchmarks.{name}", *words]
    # In our place, so that a ^C reaches it alone and it can remove what it made.
    os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": path})  # noqa: S606 (no shell is wanted)
