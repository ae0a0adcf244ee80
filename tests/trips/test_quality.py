"""What is known of the paths, where people look for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import OpenHouse
from tests.house import Running
from tests.origin import MIB, Content, Origin, Reply

pytestmark = pytest.mark.loops("asyncio", "uvloop")


async def page(running: Running, path: str = "/stats") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((await running.fetch(path)).body)
    return found


async def test_stats_show_the_quality_of_each_mirror(origin: Origin, house: OpenHouse) -> None:
    origin.script("/f", Reply(Content(1, 5 * MIB)))
    running = await house(origin)
    await running.fetch("/f")
    await running.quiet()
    mirror = (await page(running))["mirrors"][f"files/{origin.authority}"]
    assert mirror["quality"] in ("good", "medium", "poor", "very poor")
    assert 0 < mirror["rtt_ms"] < 5000
    assert mirror["loss"] == 0
    assert mirror["goodput_bytes_per_second"] is None or mirror["goodput_bytes_per_second"] > 0
    assert mirror["idle_s"] in (45.0, 60.0, 90.0, 120.0)
    assert mirror["tries"] >= 1


async def test_the_baseline_learns_nothing(origin: Origin, house: OpenHouse) -> None:
    running = await house({"profile": "baseline", "upstreams": {"files": origin.url}})
    await running.fetch("/f")
    await running.quiet()
    assert "quality" not in (await page(running))["mirrors"][f"files/{origin.authority}"]
