"""Finds the command that was typed, imports only its file, and ends with the right exit code."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from fileproxy.cli import Failed
from fileproxy.errors import ConfigurationError, FileProxyError

if TYPE_CHECKING:
    from typer import _click as click

PROGRAM = "fileproxy"
COMPLETE = "_FILEPROXY_COMPLETE"  # environment variable; typer derives the same name from the program's

# The command's name → the module of this package and the function in it.
COMMANDS: dict[str, str] = {
    "serve": "serve:serve",
    "check": "check:check",
    "reload": "lifecycle:reload",
    "stop": "lifecycle:stop",
    "status": "lifecycle:status",
    "health": "client:health",
    "stats": "client:stats",
    "purge": "admin:purge",
    "warm": "admin:warm",
    "get": "get:get",
    "doctor": "doctor:doctor",
    "origin": "origin:origin",
    "bench": "bench:app",
    "version": "version:version",
    "completion": "completion:completion",
}


def load_command(name: str) -> click.Command:
    """Import the file of the command ``name`` and build the command from its function (or its group of them)."""
    module, _, function = COMMANDS[name].partition(":")
    found = getattr(import_module(f"fileproxy.cli.{module}"), function)
    if isinstance(found, typer.Typer):  # a command with commands of its own
        return typer.main.get_command(found)
    one = typer.Typer(add_completion=False, rich_markup_mode=None)
    one.command(name=name)(found)
    return typer.main.get_command(one)


class Commands(TyperGroup):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return load_command(cmd_name) if cmd_name in COMMANDS else None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. What it could not do is said in a sentence, not in a traceback."""
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            for problem in error.problems:
                typer.echo(problem, err=True)
            raise typer.Exit(2) from None
        except Failed as error:
            sentence = str(error)
        except FileProxyError as error:
            sentence = error.detail
        except BrokenPipeError:
            raise  # whoever read our output has gone; typer ends quietly
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            sentence = f"{where}{error.strerror or error}"
        typer.echo(f"{PROGRAM}: {sentence}", err=True)
        raise typer.Exit(1)


app = typer.Typer(
    name=PROGRAM,
    cls=Commands,
    rich_markup_mode=None,  # rich takes longer to import than to read the help
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,  # `fileproxy completion` prints the script; nothing writes into shell profiles
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def fileproxy() -> None:
    """Stand between people who download files and the servers that hold them."""


def main() -> None:
    """Entry point of the ``fileproxy`` command."""
    if COMPLETE in os.environ:  # a shell asks through the script of `fileproxy completion`
        from typer.completion import completion_init  # type: ignore[attr-defined]  # theirs, but not in __all__

        completion_init()
    app(prog_name=PROGRAM)
