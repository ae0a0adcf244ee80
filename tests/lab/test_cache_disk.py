"""A disk that is full, read-only or forbidden under a running service: downloads go on, and it comes back by itself."""

from __future__ import annotations

import os

import pytest

from benchmarks import cache_disk
from tests.clients import program


@pytest.mark.lab
@pytest.mark.parametrize("trouble", ["full", "read-only", "forbidden"])
def test_downloads_go_on(trouble: str) -> None:
    program("setpriv")
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    figures = cache_disk.run(only=(trouble,))
    missed = {name: one["figure"] for name, one in figures["goals"].items() if not one["met"]}
    assert not missed, figures
