"""A cache folder that cannot be used when the service starts: downloads go on, and health says so (law 9)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import OpenHouse
from tests.origin import MIB, Content, Origin

pytestmark = pytest.mark.loops("asyncio", "uvloop")


async def test_it_serves_without_its_disk(house: OpenHouse, origin: Origin, tmp_path: Path) -> None:
    file = Content(3, 2 * MIB + 5)
    origin.serve("/f", file)
    (tmp_path / "cache").write_text("a file where the folder should be")
    running = await house(
        {
            "upstreams": {"files": origin.url},
            "routes": [{"upstream": "files", "cache": "1h"}],
            "cache": {"disk": {"path": str(tmp_path / "cache")}},
        }
    )
    for how in ("MISS", "HIT"):
        got = await running.fetch("/f")
        assert (got.status, got.sha256, got.get("x-cache")) == (200, file.sha256(), how)
    report = json.loads((await running.fetch("/health")).body)
    assert (report["status"], report["parts"]["cache_disk"]["status"]) == ("degraded", "degraded")
    assert report["parts"]["cache_disk"]["detail"]
