"""Many at once, and one slow one: no error, nothing left behind, memory bounded."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.clients import Connection, fetch, program
from tests.conftest import OpenHouse
from tests.lab.sites import CACHED, RELAYED, routes, site_over
from tests.origin import MIB, Content, Origin
from tests.service import Service

pytestmark = pytest.mark.lab

IDLE, PARALLEL = 1000, 200


# --- load generators on /health --------------------------------------------------------------------------------------


def run(*command: str) -> str:
    done = subprocess.run([program(command[0]), *command[1:]], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def quiet(service: Callable[..., Service]) -> Service:
    return service({"server": {"workers": 2}, "logs": {"access": "off"}})


def test_wrk_on_health(quiet: Service) -> None:
    said = run("wrk", "-t2", "-c100", "-d5s", "--timeout", "10s", f"{quiet.url}/health")
    assert "Socket errors" not in said, said
    assert "Non-2xx" not in said, said
    assert int(re.findall(r"(\d+) requests in", said)[0]) > 100, said
    assert quiet.json("/stats")["performance_optimizer"]["metrics"]["error_rate"] == "0.00%"


def test_ab_on_health(quiet: Service) -> None:
    """HTTP/1.0. ``-l``: the report's length changes with its numbers, which ab would call a failure."""
    said = run("ab", "-l", "-s", "30", "-n", "10000", "-c", "100", f"{quiet.url}/health")
    assert re.search(r"Complete requests:\s+10000\b", said), said
    assert re.search(r"Failed requests:\s+0\b", said), said
    assert "Non-2xx" not in said, said


# --- many connections ------------------------------------------------------------------------------------------------


async def crowd(port: int, file: Content) -> None:
    """A thousand connections that say nothing (half of them after one request), and meanwhile 200 downloads at once."""
    idle = [await Connection.open(port) for _ in range(IDLE)]
    for connection in idle[::2]:
        assert (await connection.ask("HEAD", "/f")).status == 200
    got = await asyncio.gather(*(fetch(port, "GET", f"{(CACHED, RELAYED)[n % 2]}f") for n in range(PARALLEL)))
    assert {(one.status, one.complete, one.sha256) for one in got} == {(200, True, file.sha256())}
    for connection in idle:  # nobody was thrown out meanwhile
        assert (await connection.ask("HEAD", "/f")).status == 200
    await asyncio.gather(*(connection.close() for connection in idle))


@pytest.mark.loops("asyncio", "uvloop")
@pytest.mark.usefixtures("tidy")
async def test_a_crowd_leaves_no_task_and_no_descriptor(house: OpenHouse, origin: Origin) -> None:
    """In this process, where the fixtures look at every task and descriptor."""
    file = Content(1, 2 * MIB)
    origin.serve("/f", file)
    running = await house(
        {"upstreams": {"files": origin.url}, "routes": routes(), "cache": {"disk": "off", "memory": "16MiB"}}
    )
    await crowd(running.port, file)
    await running.quiet()
    assert set(running.counts.endings) == {"completed"}


def workers_of(service: Service) -> list[psutil.Process]:
    return [psutil.Process(slot["pid"]) for slot in service.json("/stats")["workers"]["slots"]]


def tcp(worker: psutil.Process) -> list[str]:
    """TCP connections of a worker, its listeners aside."""
    return [str(one) for one in worker.net_connections("tcp") if one.status != psutil.CONN_LISTEN]


async def test_a_crowd_leaves_nothing_in_the_workers(service: Callable[..., Service]) -> None:
    """The real workers, from outside: no connection stays, and no more descriptors than a first crowd had left."""
    file = Content(1, 2 * MIB)
    async with Origin() as origin:
        origin.serve("/f", file)
        running = service({"server": {"workers": 2}, "upstreams": {"files": origin.url}, "routes": routes()})
        workers = await asyncio.to_thread(workers_of, running)
        assert len(workers) == 2

        async def settled() -> list[int]:
            """Descriptors of each worker when all clients have gone and the origin has closed what was kept."""

            def gone() -> bool:
                origin.close_idle()
                return not any(tcp(worker) for worker in workers)

            for _ in range(400):
                if gone():
                    return [worker.num_fds() for worker in workers]
                await asyncio.sleep(0.02)
            raise AssertionError([tcp(worker) for worker in workers])

        await crowd(running.port, file)
        first = await settled()
        await crowd(running.port, file)
        second = await settled()
        assert all(after <= before + 2 for before, after in zip(first, second, strict=True)), (first, second)
        stats = await asyncio.to_thread(running.json, "/stats")
        assert stats["performance_optimizer"]["metrics"]["error_rate"] == "0.00%", stats["endings"]
        assert stats["downloads_active"] == 1  # this one


# --- a slow client of a big file -------------------------------------------------------------------------------------

GIB = 1024 * MIB
SLOW_S = 4.0
GROWTH = 40 * MIB


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 1 GiB that takes no space."""
    folder = tmp_path_factory.mktemp("sparse")
    with (folder / "big").open("wb") as file:
        file.truncate(GIB)
    return folder


@contextmanager
def slow_reader(port: int, target: str) -> Iterator[Callable[[], int]]:
    """A client that reads 1 MiB/s of ``target``; calling it reads for a twentieth of a second."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: files.test\r\n\r\n".encode())
        began, taken = time.monotonic(), 0

        def read() -> int:
            nonlocal taken
            taken += len(client.recv(65536))
            behind = began + taken / MIB - time.monotonic()
            if behind > 0:
                time.sleep(behind)
            return taken

        yield read


@pytest.mark.parametrize("prefix", [CACHED, RELAYED])
def test_a_slow_client_of_a_big_file_costs_little_memory(sparse: Path, prefix: str) -> None:
    """Four seconds of a 1 GiB download at 1 MiB/s: without backpressure a worker would take up all of it meanwhile.

    Blocks go to disk; the memory tier, which may use its budget, is off.
    """
    cache = {"memory": 0}
    with site_over("nginx", sparse, server={"workers": 1}, cache=cache) as site:
        assert site.service.get("/")[0]  # whatever a worker makes at its first request is there
        worker = site.service.worker()
        before = worker.memory_info().rss
        most = before
        with slow_reader(site.service.port, f"{prefix}big") as read:
            until = time.monotonic() + SLOW_S
            while time.monotonic() < until:
                assert read() > 0
                most = max(most, worker.memory_info().rss)
        print(f"{prefix}: {(most - before) / MIB:.1f} MiB more")
        assert most - before < GROWTH
