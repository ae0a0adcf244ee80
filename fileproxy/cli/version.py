"""``fileproxy version``: what a bug report needs to name."""

from __future__ import annotations

import platform

import typer

from fileproxy import __version__

PARTS = ("aiohttp", "uvloop", "gunicorn")


def _installed(name: str) -> str:
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed(name)
    except PackageNotFoundError:
        return "not installed"


def version() -> None:
    """Print the versions of FileProxy and of what it stands on."""
    rows = {"fileproxy": __version__, "python": platform.python_version()}
    rows |= {name: _installed(name) for name in PARTS}
    rows["kernel"] = f"{platform.system()} {platform.release()} {platform.machine()}"
    for name, value in rows.items():
        typer.echo(f"{name:<10} {value}")
