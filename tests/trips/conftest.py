"""Whole downloads on real sockets. Every test ends with the check that nothing was left behind."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _tidy(tidy: None) -> None:
    return None
