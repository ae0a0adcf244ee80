"""``fileproxy completion``: the script that lets a shell complete our commands and options."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Shell(StrEnum):
    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="The shell that will read it.")]) -> None:
    """Print the completion script for a shell, for example: source <(fileproxy completion bash)"""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # theirs, but not in __all__

    from fileproxy.cli.main import COMPLETE, PROGRAM

    typer.echo(get_completion_script(prog_name=PROGRAM, complete_var=COMPLETE, shell=shell.value))
