"""What import-linter and ruff cannot say about the borders: who may use which part of aiohttp, who may start tasks."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "fileproxy"
FILES = sorted(PACKAGE.rglob("*.py"))
# What aiohttp's client side is made of; the parts that both sides share (hdrs, errors of the parser …) are left out.
CLIENT = {"ClientSession", "TCPConnector", "ClientTimeout", "BaseConnector", "UnixConnector", "request", "client"}


def _imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names a file imports: ``from aiohttp import web`` and ``aiohttp.web.X`` both give ``aiohttp.web…``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"


def _users(matches: set[str]) -> set[str]:
    """The rooms (or base files) with an import that begins with one of ``matches``."""
    found = set()
    for file in FILES:
        for name in _imports(ast.parse(file.read_text())):
            if any(name == one or name.startswith(f"{one}.") for one in matches):
                found.add(file.relative_to(PACKAGE).parts[0])
    return found


def test_only_the_server_room_imports_aiohttp_web() -> None:
    parts = {"aiohttp.web", "aiohttp.web_protocol", "aiohttp.web_request", "aiohttp.web_response", "aiohttp_cors"}
    assert _users(parts) <= {"server", "app.py"}  # app.py builds the application


def test_only_the_upstream_room_imports_aiohttps_client() -> None:
    assert _users({f"aiohttp.{name}" for name in CLIENT} | {"aiohttp.connector"}) <= {"upstream"}


def test_tasks_are_started_only_in_tasks_py() -> None:
    callers = set()
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            if name in ("create_task", "ensure_future"):
                callers.add(file.name)
    assert callers == {"tasks.py"}


def test_nothing_unpickles() -> None:
    assert _users({"pickle", "marshal", "shelve", "dill"}) == set()


def test_every_top_level_file_has_its_place_in_the_layer_contracts() -> None:

    contracts = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    named = {module for contract in contracts for module in contract["source_modules"]}
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert {f"fileproxy.{name}" for name in there - {"__init__", "__main__", "cli"}} <= named
