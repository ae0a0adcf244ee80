"""Kills, flipped bits and a shared store that leaves, in small; in full: ``benchmarks/cache.py``."""

from __future__ import annotations

from pathlib import Path

from benchmarks import cache_flips, cache_kill, cache_redis
from benchmarks.cache_lab import Figures
from benchmarks.cache_store import StoreProcess


def met(figures: Figures) -> None:
    """Every goal is."""
    missed = {name: one["figure"] for name, one in figures["goals"].items() if not one["met"]}
    assert not missed, figures


def test_killed_while_filling_and_evicting() -> None:
    """A worker, the master, all at once: no wrong byte, and what was committed is not fetched again."""
    figures = cache_kill.run(moments=3)
    met(figures)
    assert figures["right downloads under way"]


def test_bits_flipped_on_disk_while_stopped() -> None:
    met(cache_flips.stopped(files=10, flips=30))


def test_bits_flipped_in_the_shared_store(short_path: Path) -> None:
    with StoreProcess(short_path) as store:
        met(cache_flips.shared(store, files=12))


def test_a_shared_store_that_leaves_during_load_causes_no_error() -> None:
    figures = cache_redis.run(rounds=1, seconds=0.5, troubles=("there", "hung (SIGSTOP)", "killed"))
    assert figures["goals"]["no client error in 1 rounds"]["met"], figures
