"""Fixtures of the lab: the files everybody downloads, and a site that serves them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.sites import SIZES, Site, site_over
from tests.origin import MIB, Content


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for seed, (name, size) in enumerate(SIZES.items()):
        with (folder / name).open("wb") as file:
            for piece in Content(seed, size).pieces(piece=MIB):
                file.write(piece)
    return folder


@pytest.fixture(scope="module", params=["nginx", "embedded"])
def site(request: pytest.FixtureRequest, files: Path) -> Iterator[Site]:
    """The site over each kind of origin in turn."""
    with site_over(request.param, files) as site:
        yield site
