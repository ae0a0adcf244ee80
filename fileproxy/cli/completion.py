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

    typer.echo(get_completion_script(prog_name="fileproxy", complete_var="_FILEPROXY_COMPLETE", shell=shell.value))
