"""A small ask stays small, a seek asks only for what is missing, a slow client holds nobody back."""

from __future__ import annotations

from benchmarks import cache_parts
from benchmarks.cache_lab import Figures
from benchmarks.cache_origin import MIB


def met(figures: Figures) -> None:
    """Every goal is."""
    missed = {name: one["figure"] for name, one in figures["goals"].items() if not one["met"]}
    assert not missed, figures


def test_a_kib_of_ten_gib_costs_two_blocks_at_most() -> None:
    met(cache_parts.small())


def test_a_seek_in_a_half_cached_file() -> None:
    met(cache_parts.seek(size=32 * MIB))


def test_a_slow_client_holds_nobody_back() -> None:
    figures = cache_parts.slow(size=32 * MIB, rounds=1, pace=128 * 1024)
    held_back = figures["goals"].pop("slow and fast client of one cold file: the fast one is not held back")
    met(figures)
    assert float(held_back["figure"].split()[0]) < 4, "at the slow one's pace it would take 150 times as long"
