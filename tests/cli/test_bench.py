"""``fileproxy bench``: it hands over to the benchmark, or says what is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fileproxy.cli import Failed, bench
from tests.clients import program
from tests.life.tools import fileproxy
from tests.service import ROOT


def test_an_installed_package_has_no_benchmarks_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench, "CHECKOUT", tmp_path)
    with pytest.raises(Failed, match="checkout"):
        bench.network()


def test_the_benchmarks_it_names_are_there() -> None:
    home = bench.CHECKOUT / "benchmarks"
    for name in bench.BENCHMARKS:
        assert (home / f"{name}.py").is_file() or (home / name / "__main__.py").is_file(), name


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("memory", "--clients"), ("big", "--files"), ("growth", "--quick"), ("growth_workers", "--connections"),
        ("relay", "--fill"), ("collector", "--slow"),
    ],
)  # fmt: skip
def test_each_has_help_of_its_own(name: str, option: str, tmp_path: Path) -> None:
    done = fileproxy("bench", name, "--help", cwd=tmp_path)
    assert (done.returncode, option in done.stdout) == (0, True), done.stderr


def test_words_are_handed_over_as_they_are(tmp_path: Path) -> None:
    done = fileproxy("bench", "hits", "--help", cwd=tmp_path)
    assert (done.returncode, "--connections" in done.stdout) == (0, True), done.stderr
    done = fileproxy("bench", "hits", "--rounds", "x", cwd=tmp_path)
    assert (done.returncode, "invalid int value: 'x'" in done.stderr) == (2, True), done.stderr


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    """Without root's powers, whoever runs this."""
    plain = [program("setpriv"), "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*plain, sys.executable, "-m", "fileproxy", "bench", "network", "single", "--output", str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "needs root" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["networks"], "network"),
        (["network", "alone"], "'single'"),
        (["network", "single", "--scenario", "awful"], "'very-poor'"),
        (["network", "single", "--direction", "up"], "'client'"),
        (["network", "crowd", "--congestion", "reno"], "'bbr'"),
        (["network", "crowd", "--rounds", "0"], "--rounds"),
    ],
)
def test_wrong_words_name_the_right_ones(arguments: list[str], named: str, tmp_path: Path) -> None:
    done = fileproxy("bench", *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert named in done.stderr
    assert "Traceback" not in done.stderr
