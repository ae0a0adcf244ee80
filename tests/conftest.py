"""Fixtures every test may use. Nothing here sleeps: whoever waits, waits for a condition with a deadline."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import trustme

from tests.origin import Origin

if TYPE_CHECKING:
    from fileproxy.clock import Clock
    from tests.house import Running
    from tests.service import Service

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def _loop_factories() -> dict[str, LoopFactory]:
    factories: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    try:
        import uvloop
    except ImportError:
        return factories
    return {**factories, "uvloop": uvloop.new_event_loop}


LOOPS = _loop_factories()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "loops(*names): event loops to run on: asyncio, uvloop (default: asyncio)")


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, LoopFactory]:
    """asyncio's own loop, unless a test or module asks for others by ``@pytest.mark.loops(...)``."""
    marker = item.get_closest_marker("loops")
    names = marker.args if marker is not None else ("asyncio",)
    return {name: LOOPS[name] for name in names if name in LOOPS} or {"asyncio": LOOPS["asyncio"]}


# --- origins ---------------------------------------------------------------------------------------------------------


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    """A scripted origin over plain HTTP."""
    async with Origin() as origin:
        yield origin


@pytest.fixture
async def mirror() -> AsyncIterator[Origin]:
    """A second one, for tests about mirrors."""
    async with Origin() as origin:
        yield origin


class Authority:
    """A private certificate authority: its PEM file, and server contexts it vouches for."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.pem = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.pem))

    def context(self, *names: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*names).configure_cert(context)
        return context


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
async def secure_origin(authority: Authority) -> AsyncIterator[Origin]:
    """A scripted origin over TLS, for 127.0.0.1 and localhost."""
    async with Origin(authority.context("127.0.0.1", "localhost")) as origin:
        yield origin


@pytest.fixture
def free_port() -> int:
    from tests.house import free_port

    return free_port()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path is short enough for Unix sockets (about 100 bytes)."""
    folder = Path(tempfile.mkdtemp(prefix="fp", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


# --- the product -----------------------------------------------------------------------------------------------------


class OpenHouse(Protocol):
    """``await house({...settings...})`` or ``await house(origin)`` for one upstream that is that origin."""

    async def __call__(self, settings: Origin | Mapping[str, Any], clock: Clock | None = None) -> Running: ...


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[OpenHouse]:
    """Houses in this event loop. Afterwards no task of theirs is left (and, by ``tidy``, no descriptor)."""
    from tests.house import Running, other_tasks, settled

    opened: list[Running] = []
    known = asyncio.all_tasks()

    async def open_house(settings: Origin | Mapping[str, Any], clock: Clock | None = None) -> Running:
        values = {"upstreams": {"files": settings.url}} if isinstance(settings, Origin) else settings
        running = Running(values, tmp_path / f"house{len(opened)}", clock)
        await running.open()
        opened.append(running)
        return running

    yield open_house
    for running in opened:
        for event in running.lines.events:
            print(event, event.get("traceback", ""))  # shown when the test fails
        async with asyncio.timeout(10):
            await running.close()

    def left() -> list[str]:
        # Origins of the test may close after this fixture; what is ours must be gone.
        return [name for name in other_tasks(known) if not name.startswith("origin-")]

    await settled(left)
    assert not left()
    for running in opened:
        assert running.counts["downloads.active"] == 0
        assert running.counts["connections.open"] == 0


@pytest.fixture
async def tidy() -> AsyncIterator[None]:
    """Whatever the test opens (clients, origins, houses): afterwards this process has no new descriptor."""
    from tests.house import descriptors, settled

    before = descriptors()
    yield

    def left() -> dict[int, str]:
        return {number: what for number, what in descriptors().items() if before.get(number) is None}

    await settled(left)
    assert not left()


@pytest.fixture
def service(short_path: Path, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """``service(settings, *flags)``: a real ``fileproxy serve`` with gunicorn workers, ready to serve.

    Its logs are printed when the test fails (pytest shows captured output); it is ended by its pid.
    """
    from tests.service import Service

    started: list[Service] = []

    def start(settings: Mapping[str, Any], *flags: str, **options: Any) -> Service:
        one = Service(settings, short_path / f"s{len(started)}", flags, **options)
        started.append(one)
        one.start()
        return one

    yield start
    for one in started:
        one.stop()
        print(one.logs())
