"""A client against scripted origins; every file that is said to be complete is compared by its SHA-256."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Protocol

import pytest

from fileproxy.client import Client, Result
from fileproxy.client.api import run
from fileproxy.client.partfile import journal_of, part_of
from tests.origin import Content, Origin


class Get(Protocol):
    async def __call__(
        self, *mirrors: Origin | str, content: Content | None = None, client: Client | None = None, **options: Any
    ) -> Result: ...


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def left_overs(out: Path) -> list[str]:
    """What lies beside the file."""
    return sorted(path.name for path in out.parent.iterdir() if path != out)


@pytest.fixture(scope="session", autouse=True)
def _libuv() -> None:
    """The first uvloop of a process opens a pipe for signals that libuv never closes."""

    async def nothing() -> None:
        return None

    run(nothing())


@pytest.fixture(autouse=True)
def _tidy(_libuv: None, tidy: None) -> None:
    return None


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "got").mkdir()
    return tmp_path / "got" / "f"


@pytest.fixture
def get(out: Path) -> Get:
    """``await get(origin, mirror, content=CONTENT, connections=4)``: ``/f`` of these mirrors, checked."""

    async def run(
        *mirrors: Origin | str, content: Content | None = None, client: Client | None = None, **options: Any
    ) -> Result:
        urls = [one if isinstance(one, str) else f"{one.url}/f" for one in mirrors]
        own = {name: options.pop(name) for name in list(options) if name in OF_CLIENT}
        result = await (client or Client(**own)).download_async(urls, options.pop("path", out), **options)
        if content is not None:
            assert (result.size, sha256(result.path)) == (content.size, content.sha256())
        assert not part_of(result.path).exists()
        assert not journal_of(result.path).exists()
        return result

    return run


OF_CLIENT = {"connections", "limit_rate", "timeout", "stall", "headers", "ca", "verify", "mirrors_match", "clock"}
