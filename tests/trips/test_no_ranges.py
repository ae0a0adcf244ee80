"""Origins that know no ranges: what is near is waited for, what is far is passed on from the start."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import OpenHouse
from tests.origin import MIB, Content, Origin, Reply

pytestmark = pytest.mark.loops("asyncio", "uvloop")

FILE = Content(9, 24 * MIB + 7)


def kept(origin: Origin) -> dict[str, Any]:
    return {
        "upstreams": {"files": origin.url},
        "routes": [{"upstream": "files", "cache": "1h"}],
        "cache": {"disk": "off"},
    }


async def test_a_part_near_the_start_is_cut_out(house: OpenHouse, origin: Origin) -> None:
    origin.script("/f", Reply(FILE, ranges="ignore"))
    running = await house(kept(origin))
    got = await running.fetch("/f", "Range: bytes=5000000-5999999")
    assert (got.status, got.body) == (206, FILE.read()[5_000_000:6_000_000])
    assert len(origin.requests) == 1


async def test_a_far_part_comes_as_the_whole_file(house: OpenHouse, origin: Origin) -> None:
    """Reading 20 MB forward behind the client's back would be slower than what it gets without us."""
    origin.script("/f", Reply(FILE, ranges="ignore"))
    running = await house(kept(origin))
    got = await running.fetch("/f", "Range: bytes=20000000-20000009")
    assert (got.status, got.ending, got.sha256) == (200, "length", FILE.sha256())
    assert got.get("content-range") is None
    assert len(origin.requests) == 1
    # Now that all of it is stored, any part can be had.
    again = await running.fetch("/f", "Range: bytes=20000000-20000009")
    assert (again.status, again.body) == (206, FILE.read()[20_000_000:20_000_010])
    assert len(origin.requests) == 1
