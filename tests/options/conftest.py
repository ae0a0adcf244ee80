"""Options that act on requests: each test fails when its option is ignored. Nothing is left behind."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _tidy(request: pytest.FixtureRequest) -> None:
    if "house" in request.fixturenames:
        request.getfixturevalue("tidy")
