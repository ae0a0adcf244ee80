"""Better, the same or worse: the verdict, what a machine's baseline is, and one real comparison (lab)."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import baselines
from benchmarks.compare import judge, ratios
from benchmarks.verdict import FEWEST, MARGIN, Interval, interval, verdict
from tests.service import ROOT

ROUNDS = st.lists(st.floats(0.1, 1000), min_size=5, max_size=15)
quick = settings(deadline=None, max_examples=30)


def noisy(level: float, rounds: int = 9, noise: float = 0.02, seed: int = 7) -> list[float]:
    dice = random.Random(seed)
    return [level * (1 + dice.uniform(-noise, noise)) for _ in range(rounds)]


# --- the verdict -----------------------------------------------------------------------------------------------------


@quick
@given(ROUNDS)
def test_against_itself_it_is_never_better_or_worse(figures: list[float]) -> None:
    paired = interval(figures, figures, paired=True, draws=200)
    assert paired == (1.0, 1.0, 1.0)
    assert verdict(paired, len(figures)) == "same"
    loose = interval(figures, figures, paired=False, draws=200)
    assert loose.low <= 1 <= loose.high
    assert verdict(loose, len(figures)) in ("same", "unclear")


@quick
@given(ROUNDS, st.floats(0.2, 5.0))
def test_a_constant_factor_is_seen_in_pairs_however_noisy_the_rounds(figures: list[float], factor: float) -> None:
    found = interval([one * factor for one in figures], figures, paired=True, draws=200)
    assert found == pytest.approx((factor, factor, factor))
    if abs(factor - 1 - MARGIN) > 1e-6 and abs(factor - 1 + MARGIN) > 1e-6:
        expected = "worse" if factor > 1 + MARGIN else "better" if factor < 1 - MARGIN else "same"
        assert verdict(found, len(figures)) == expected


@quick
@given(ROUNDS, ROUNDS, st.booleans())
def test_the_interval_is_one_and_the_dice_are_fixed(new: list[float], old: list[float], paired: bool) -> None:
    size = min(len(new), len(old))
    new, old = (new[:size], old[:size]) if paired else (new, old)
    found = interval(new, old, paired=paired, draws=200)
    assert 0 < found.low <= found.high
    assert min(new) / max(old) <= found.low
    assert found.high <= max(new) / min(old) * 1.000001
    assert found == interval(new, old, paired=paired, draws=200)


def test_noise_is_no_change_and_a_change_is_none_of_the_noise() -> None:
    old = noisy(100.0)
    assert verdict(interval(noisy(100.0, seed=8), old, paired=False), 9) == "same"
    assert verdict(interval(noisy(115.0, seed=8), old, paired=False), 9) == "worse"
    assert verdict(interval(noisy(87.0, seed=8), old, paired=False), 9) == "better"
    wild = interval(noisy(100.0, noise=0.6, seed=3), noisy(100.0, noise=0.6, seed=4), paired=False)
    assert verdict(wild, 9) == "unclear"


def test_a_few_rounds_say_nothing() -> None:
    found = interval([200.0] * 2, [100.0] * 2, paired=True)
    assert verdict(found, FEWEST - 1) == "unclear"
    assert verdict(found, FEWEST) == "worse"


def test_the_near_end_counts() -> None:
    assert verdict(Interval(1.2, 1.0, 1.4), 9) == "same"
    assert verdict(Interval(1.2, 1.04, 1.4), 9) == "worse"
    assert verdict(Interval(0.8, 0.6, 0.96), 9) == "better"


@pytest.mark.parametrize(("new", "old"), [([], []), ([1.0], []), ([0.0], [1.0]), ([1.0, 2.0], [1.0])])
def test_figures_that_are_none(new: list[float], old: list[float]) -> None:
    with pytest.raises(ValueError, match="rounds"):
        interval(new, old, paired=True)


# --- baselines -------------------------------------------------------------------------------------------------------


def test_a_baseline_is_kept_by_machine(tmp_path: Path) -> None:
    here, there = baselines.fingerprint(), {**baselines.fingerprint(), "kernel": "another"}
    assert set(here) == {"cpu", "cores", "kernel", "python"}
    rounds = {"hits": {"this": [1.0], "reference": [2.0]}}
    path = baselines.save(tmp_path / "new", here, {"when": "now", "rounds": rounds})
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    found = baselines.load(tmp_path / "new", here)
    assert found is not None
    assert found["rounds"] == rounds
    assert baselines.load(tmp_path / "new", there) is None
    path.write_text(json.dumps({"machine": there, "rounds": {}}))
    with pytest.raises(ValueError, match="no baseline"):
        baselines.load(tmp_path / "new", here)


def test_where_baselines_lie(tmp_path: Path) -> None:
    assert baselines.folder({"XDG_STATE_HOME": str(tmp_path)}) == tmp_path / "fileproxy/baselines"
    assert baselines.folder({"HOME": str(tmp_path)}) == tmp_path / ".local/state/fileproxy/baselines"


# --- judging rounds --------------------------------------------------------------------------------------------------


def test_a_slower_machine_is_slower_for_the_reference_too() -> None:
    base = {"hits": {"this": noisy(20.0), "reference": noisy(10.0, seed=2)}}
    today = {"hits": {"this": noisy(60.0, seed=3), "reference": noisy(30.0, seed=4)}}
    assert judge(today, base)["hits"][1] == "same"
    slower = {"hits": {"this": noisy(75.0, seed=3), "reference": noisy(30.0, seed=4)}}
    assert judge(slower, base)["hits"][1] == "worse"
    assert judge(slower, None) == {}
    assert ratios(base["hits"], "this", "this") == [1.0] * 9


def test_another_revision_is_judged_in_pairs() -> None:
    old = noisy(20.0, noise=0.5)
    rounds = {"hits": {"this": [one * 1.1 for one in old], "before": old, "reference": noisy(10.0)}}
    assert judge(rounds, None)["hits"][1] == "worse"


@pytest.mark.lab
@pytest.mark.timeout(300)
def test_a_real_comparison(tmp_path: Path) -> None:
    """Against a baseline in which all was a hundred times quicker."""
    words = ["--only", "hits", "--rounds", str(FEWEST), "--seconds", "0.6", "--baselines", str(tmp_path), "--fail"]
    rounds = {"hits": {"this": [0.01] * FEWEST, "reference": [1.0] * FEWEST}}
    baselines.save(tmp_path, baselines.fingerprint(), {"when": "then", "rounds": rounds})
    command = [sys.executable, "-m", "benchmarks.compare", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert (done.returncode, "  worse: " in done.stdout) == (1, True), done.stdout + done.stderr


def test_wrong_words(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.compare", "--only", "flights"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "hits-64k" in done.stderr) == (2, True)
