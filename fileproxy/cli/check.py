"""``fileproxy check``: is the configuration right, and what does it come to?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Configuration file [default: config/fileproxy.yaml].")
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any option; may be given more than once.")
]


def check(
    config: Config = None,
    sets: Sets = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of the file instead.")] = False,
    sources: Annotated[bool, typer.Option("--sources", help="Say beside each value where it comes from.")] = False,
) -> None:
    """Check the configuration and print what it comes to, as YAML with secrets masked.

    Every problem is a line on stderr with its file, line, key and the nearest known key; the exit code is then 2.
    """
    import json
    import os

    from fileproxy.errors import ConfigurationError
    from fileproxy.settings import load as settings

    if schema:
        typer.echo(json.dumps(settings.schema(), indent=2))
        return
    loaded = settings.load(config, os.environ, sets or ())
    typer.echo(as_yaml(settings.effective(loaded.settings), loaded.sources, tell=sources))
    if problems := settings.verify(loaded.settings, loaded.sources):
        raise ConfigurationError(problems)


def as_yaml(tree: Mapping[str, Any], sources: Mapping[str, str], *, tell: bool) -> str:
    """``tree`` as YAML, a line for each key of ``sources`` (dotted key → where it is written; ``tell`` appends it)."""
    return "\n".join(_lines(tree, "", sources, tell))


def _lines(node: Any, key: str, sources: Mapping[str, str], tell: bool) -> Iterator[str]:
    """The lines of ``node``, which stands at the dotted ``key``, without indentation."""
    steps = node.items() if isinstance(node, Mapping) else enumerate(node)
    for name, value in steps:
        below = f"{key}.{name}" if key else str(name)
        lead = "- " if isinstance(node, list) else f"{_scalar(name)}: "
        if below in sources or not isinstance(value, Mapping | list) or not value:
            comment = f"  # {sources.get(below, 'default')}" if tell else ""
            yield f"{lead}{_scalar(value)}{comment}"
        elif isinstance(node, list):
            first, *rest = _lines(value, below, sources, tell)
            yield f"{lead}{first}"
            yield from (f"  {line}" for line in rest)
        else:
            yield lead.rstrip()
            yield from (f"  {line}" for line in _lines(value, below, sources, tell))


def _scalar(value: Any) -> str:
    """A value on one line. PyYAML ends a bare scalar by ``...``, which says nothing here."""
    import yaml

    text: str = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True)
    return text.removesuffix("...\n").rstrip("\n")
