from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from fileproxy.admin.warm import KEPT_JOBS, MOST_JOBS, Fetched
from tests.admin.asks import World
from tests.admin.test_sitemap import NS, urlset


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    one = World(tmp_path)
    yield one
    await one.tasks.close()
    assert not one.failures


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


async def ended(world: World, identity: str) -> dict[str, Any]:
    """The job's state when it has ended, asked for as a client would."""
    async with asyncio.timeout(10):
        while True:
            status, state = await world.call("GET", f"warm/{identity}")
            assert status == 200
            if state["state"] != "running":
                return dict(state)
            await asyncio.sleep(0.002)


async def test_a_list_is_fetched_and_failures_are_named(world: World) -> None:
    world.files = {f"/{number}": b"x" * number for number in range(1, 31)}
    status, state = await world.call("POST", "warm", {"urls": [*world.files, "/missing"]})
    assert (status, state["state"], state["total"]) == (202, "running", 31)
    state = await ended(world, state["id"])
    assert (state["state"], state["fetched"], state["failed"], state["bytes"]) == ("done", 30, 1, sum(range(31)))
    assert state["failures"] == [{"url": "/missing", "detail": "No route serves /missing."}]
    assert world.counts["warm.fetched"] == 30
    assert world.counts["warm.failed"] == 1
    assert world.lines[0]["action"] == "warm"


async def test_a_sitemap_and_an_index_of_them(world: World) -> None:
    world.files = {
        "/index.xml": f"<sitemapindex {NS}><sitemap><loc>/s1.xml</loc></sitemap>"
        f"<sitemap><loc>/s2.xml</loc></sitemap></sitemapindex>".encode(),
        "/s1.xml": urlset("/a", "/b"),
        "/s2.xml": urlset("/c"),
        "/a": b"1", "/b": b"22", "/c": b"333",
    }  # fmt: skip
    _, state = await world.call("POST", "warm", {"sitemap": "/index.xml", "concurrency": 1})
    assert state["total"] is None
    state = await ended(world, state["id"])
    assert (state["state"], state["fetched"], state["bytes"]) == ("done", 3, 6)


@pytest.mark.parametrize(
    ("files", "why"),
    [({}, "No route serves /s.xml."), ({"/s.xml": b"<html/>"}, "<html> is neither <urlset> nor <sitemapindex>")],
)
async def test_a_sitemap_that_cannot_be_had_fails_the_job(world: World, files: dict[str, bytes], why: str) -> None:
    world.files = files
    _, state = await world.call("POST", "warm", {"sitemap": "/s.xml"})
    state = await ended(world, state["id"])
    assert (state["state"], state["detail"]) == ("failed", why)


@pytest.mark.parametrize(
    "order",
    [
        {}, {"urls": []}, {"urls": ["/a"], "sitemap": "/s"}, {"urls": ["ftp://a/b"]}, {"urls": [""]},
        {"urls": ["/a"], "concurrency": 0}, {"urls": ["/a"], "concurrency": 17}, {"urls": "/a"}, {"url": ["/a"]},
    ],
)  # fmt: skip
async def test_orders_that_are_not_taken(world: World, order: dict[str, Any]) -> None:
    status, _ = await world.call("POST", "warm", order)
    assert status == 400
    assert not world.lines


class Gate:
    """A fetch that ends when told to; counts how many run at once."""

    def __init__(self, world: World) -> None:
        self.open = asyncio.Event()
        self.running = self.most = 0
        world.warm._fetch = self

    async def __call__(self, url: str) -> Fetched:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.open.wait()
        finally:
            self.running -= 1
        return Fetched(True, 1)


async def test_fetches_at_once_are_bounded(world: World) -> None:
    gate = Gate(world)
    _, state = await world.call("POST", "warm", {"urls": ["/a"] * 20, "concurrency": 3})
    await until(lambda: gate.running == 3)
    gate.open.set()
    assert (await ended(world, state["id"]))["fetched"] == 20
    assert gate.most == 3


async def test_jobs_are_bounded(world: World) -> None:
    gate = Gate(world)
    for _ in range(MOST_JOBS):
        assert (await world.call("POST", "warm", {"urls": ["/a"]}))[0] == 202
    assert (await world.call("POST", "warm", {"urls": ["/a"]}))[0] == 503
    gate.open.set()
    await until(lambda: not world.warm._running)
    assert (await world.call("POST", "warm", {"urls": ["/a"]}))[0] == 202


async def test_a_job_is_stopped(world: World) -> None:
    gate = Gate(world)
    _, state = await world.call("POST", "warm", {"urls": ["/a"] * 5})
    await until(lambda: gate.running)
    status, stopped = await world.call("DELETE", f"warm/{state['id']}")
    assert (status, stopped["state"]) == (200, "cancelled")
    await until(lambda: not gate.running)
    assert world.lines[-1]["action"] == "warm.stop"
    assert (await world.call("DELETE", "warm/0123456789abcdef"))[0] == 404
    assert (await world.call("GET", "warm/..%2f..%2fetc"))[0] == 404


async def test_another_worker_tells_the_state_and_stops_the_job(world: World) -> None:
    gate = Gate(world)
    _, state = await world.call("POST", "warm", {"urls": ["/a"] * 5})
    other = world.jobs()
    await until(lambda: gate.running)
    seen = other.state(state["id"])
    assert seen is not None
    assert seen.state == "running"
    await other.cancel(state["id"])
    assert (await ended(world, state["id"]))["state"] == "cancelled"
    await until(lambda: not gate.running)
    await until(lambda: not list((world.folder / "warm").glob("*.stop")))


async def test_a_job_whose_worker_ended_is_lost(world: World) -> None:
    world.files = {"/a": b""}
    _, state = await world.call("POST", "warm", {"urls": ["/a"]})
    await ended(world, state["id"])
    path = world.folder / "warm" / f"{state['id']}.json"
    path.write_text(json.dumps({**state, "state": "running", "updated_at": state["started_at"] - 60}))
    assert (await world.call("GET", f"warm/{state['id']}"))[1]["state"] == "lost"
    path.write_text("nonsense")
    assert (await world.call("GET", f"warm/{state['id']}"))[0] == 404


async def test_old_jobs_are_forgotten_and_a_folder_that_is_none_is_said(world: World) -> None:
    world.files = {"/a": b""}
    folder = world.folder / "warm"
    folder.mkdir()
    for number in range(KEPT_JOBS + 5):
        path = folder / f"{number:016x}.json"
        path.write_text("{}")
        os.utime(path, (number, number))
    _, state = await world.call("POST", "warm", {"urls": ["/a"]})
    await ended(world, state["id"])
    left = {path.name for path in folder.glob("*.json")}
    assert len(left) == KEPT_JOBS + 1
    assert f"{4:016x}.json" not in left
    await until(lambda: not world.warm._running)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_text("")
    assert (await world.call("POST", "warm", {"urls": ["/a"]}))[0] == 503
