"""A file that is one response only (weak validators), larger than the window, in chunks that do not divide it."""

from __future__ import annotations

import pytest

from tests.conftest import OpenHouse
from tests.origin import MIB, Content, Origin, Reply


@pytest.mark.parametrize("chunk", [16 * 1024, 10_007])
async def test_a_flight_goes_on_when_its_reader_has_caught_up(house: OpenHouse, origin: Origin, chunk: int) -> None:
    """What is kept begins at a chunk, so it is longer than the window even with a reader that has taken everything."""
    file = Content(seed=3, size=8 * MIB)
    origin.script("/f", Reply(file, etag='W/"a"', last_modified=None, chunk=chunk))
    running = await house({"upstreams": {"files": origin.url}, "cache": {"window": "1MiB"}})
    async with await running.connect(receive_buffer=64 * 1024) as client:
        await client.request("GET", "/f")
        got = await client.head()
        # The client takes nothing, so the flight stops a window ahead of it.
        await running.counts.wait_for(lambda: running.counts["bytes.from_upstreams"] >= MIB)
        await client.body(got)
    assert got.complete
    assert got.body == file.read()
