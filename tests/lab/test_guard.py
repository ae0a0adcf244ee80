"""The regression guard: what pure paths cost against the committed counts, and how that is judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import guard
from benchmarks.guard import BLOCKS_AT_LEAST, COUNTS, PATHS, TOLERANCE, Cost, judge, read, write
from tests.clients import program
from tests.service import ROOT

COSTS = st.builds(Cost, st.integers(1, 10**7), st.floats(0, 100), st.floats(0, 1))


@pytest.mark.lab
@pytest.mark.timeout(300)
def test_no_path_costs_more_than_is_committed() -> None:
    """On a Python for which nothing is committed it only reports. ``python -m benchmarks.guard --write`` after a wanted
    change.
    """
    program("valgrind")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.guard"], cwd=ROOT, capture_output=True, text=True, timeout=290, check=False
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"\n{path} " in done.stdout for path in PATHS)


def test_what_seems_worse_is_walked_again_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    folders, usual, unlucky = list[Path](), Cost(100, 0.0, 0.0), Cost(130, 0.0, 0.0)

    def count(times: int, root: Path) -> dict[str, Cost]:
        folders.append(root)
        return {"hit": usual if len(folders) == 2 else unlucky}

    monkeypatch.setattr(guard, "count", count)
    assert guard.least({"hit": usual}, {"hit": usual}, 1) == {"hit": usual}
    assert not folders
    assert guard.least({"hit": unlucky}, {"hit": usual}, 1) == {"hit": usual}
    assert len(set(folders)) == 2
    folders.clear()
    monkeypatch.setattr(guard, "count", lambda times, root: {"hit": unlucky})
    assert guard.least({"hit": unlucky}, {"hit": usual}, 1) == {"hit": unlucky}  # it is worse wherever it stands


@settings(deadline=None)
@given(COSTS)
def test_the_same_is_the_same(cost: Cost) -> None:
    assert judge("head", cost, cost).verdict == "same"
    assert judge("head", cost, None).verdict == "new"


@settings(deadline=None)
@given(st.integers(1_000, 10**7), st.floats(0.5, 2.0))
def test_instructions_within_the_tolerance_are_the_same(before: int, ratio: float) -> None:
    verdict = judge("head", Cost(round(before * ratio), 1, 0), Cost(before, 1, 0)).verdict
    exact = round(before * ratio) / before
    assert verdict == ("worse" if exact > 1 + TOLERANCE else "better" if exact < 1 - TOLERANCE else "same")


def test_blocks_count_however_quick_it_is() -> None:
    assert judge("head", Cost(50, 5, 0), Cost(100, 4, 0)).verdict == "worse"
    assert judge("head", Cost(100, 4 + BLOCKS_AT_LEAST / 2, 0), Cost(100, 4, 0)).verdict == "same"
    assert judge("head", Cost(100, 4, 1), Cost(100, 4, 0)).verdict == "worse"


def test_counts_of_other_builds_stay(tmp_path: Path) -> None:
    file = tmp_path / "counts.json"
    one, two = {"head": Cost(100, 1.5, 0.0)}, {"head": Cost(200, 2.5, 0.25)}
    write(file, "3.11", one)
    write(file, "3.12", two)
    assert (read(file, "3.11"), read(file, "3.12"), read(file, "3.13")) == (one, two, {})
    assert read(tmp_path / "missing.json", "3.11") == {}


def test_the_committed_counts_are_of_the_paths() -> None:
    for paths in json.loads(COUNTS.read_text()).values():
        assert set(paths) == set(PATHS)
