"""``fileproxy origin``: a folder, and nothing kept of it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import ROOT

DATA = random.Random(1).randbytes(3 * 1024 * 1024 + 7)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    for name in ("files", "temporary"):
        (tmp_path / name).mkdir()
    (tmp_path / "files" / "f").write_bytes(DATA)
    process = subprocess.Popen(
        [sys.executable, "-m", "fileproxy", "origin", str(tmp_path / "files"), "--port", "0"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "temporary")},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.communicate(timeout=15)
    assert list((tmp_path / "temporary").iterdir()) == []


def ask(url: str, span: str = "") -> tuple[int, str | None, bytes]:
    request = urllib.request.Request(f"{url}/f", headers={"Range": f"bytes={span}"} if span else {})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status, answer.headers.get("X-Cache"), answer.read()


def test_it_keeps_nothing(url: str, tmp_path: Path) -> None:
    """A proxy that runs in the same folder has its cache there: nothing of that may be taken for the origin's."""
    for _ in range(2):
        assert ask(url) == (200, "BYPASS", DATA)
        assert ask(url, "2000000-2999999") == (206, "BYPASS", DATA[2_000_000:3_000_000])
    assert not (tmp_path / "var" / "cache").exists()
