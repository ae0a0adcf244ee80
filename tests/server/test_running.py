"""What holds a download back, for whoever looks at /stats."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.server.running import Held, held_by
from tests.clients import Connection
from tests.conftest import OpenHouse
from tests.house import Running
from tests.origin import MIB, Content, Origin, Reply, stall
from tests.trips.test_quality import page

USUAL: dict[str, Any] = {"clients": False, "window_shut": False, "stored": False, "lined_up": False, "mirrors": {}}


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({}, ("origin", "origin")),
        ({"mirrors": {"a": "good"}}, ("origin", "origin")),
        ({"mirrors": {"a": "poor", "b": "very poor"}}, ("network", "origin")),
        ({"mirrors": {"a": "poor", "b": "good"}}, ("origin", "origin")),
        ({"clients": True}, ("network", "client")),
        ({"clients": True, "window_shut": True}, ("client", "client")),
        ({"lined_up": True}, ("limit", "upstream")),
        ({"stored": True}, ("limit", "cache")),
    ],
)
def test_who_it_is(seen: dict[str, Any], expected: tuple[str, str]) -> None:
    assert held_by(**{**USUAL, **seen}) == expected


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_the_side_that_is_waited_for_most_of_late(looks: list[bool]) -> None:
    held = Held()
    for found in looks:
        held.by_client = found
        held.look()
    if len(set(looks)) == 1:
        assert held.clients is looks[0]
    if len(looks) > 60 and len(set(looks[-60:])) == 1:
        assert held.clients is looks[-1]


async def until(running: Running, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The row of the only download of a file, once ``true`` of it."""
    async with asyncio.timeout(15):
        while True:
            rows = [one for one in (await page(running))["downloads"] if one["target"] == "/f"]
            if rows and true(rows[0]):
                return dict(rows[0])
            await asyncio.sleep(0.05)


async def test_a_client_that_does_not_read(origin: Origin, house: OpenHouse) -> None:
    origin.script("/f", Reply(Content(1, 64 * MIB)))
    running = await house(origin)
    async with await Connection.open(running.port, receive_buffer=4096) as connection:
        await connection.request("GET", "/f")
        row = await until(running, lambda row: row["held_back_by"] == "client")
    assert (row["side"], row["length"], row["cache"]) == ("client", 64 * MIB, "BYPASS")
    assert row["mirror"] == f"files/{origin.authority}"
    await running.quiet()
    assert (await page(running))["downloads"] == []


async def test_an_origin_that_stalls(origin: Origin, house: OpenHouse) -> None:
    origin.script("/f", Reply(Content(1, 2 * MIB), breaks=stall(MIB)))
    running = await house(origin)
    async with await Connection.open(running.port) as connection:
        await connection.request("GET", "/f")
        row = await until(running, lambda row: row["bytes"] == MIB)
        assert (row["held_back_by"], row["side"]) == ("origin", "origin")
