"""The kit as a fixture."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.fill.kit import Kit, MakeKit


@pytest.fixture
async def kit() -> AsyncIterator[MakeKit]:
    made: list[Kit] = []

    def make(**values: Any) -> Kit:
        made.append(Kit(**values))
        return made[-1]

    yield make
    for one in made:
        await one.close()
