from __future__ import annotations

import re
from array import array
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.observe.histogram import CELLS
from fileproxy.observe.layout import (
    H_HASH,
    H_MAGIC,
    HEADER_CELLS,
    HIGHEST,
    LABEL_BYTES,
    LAYOUT,
    MAGIC,
    RING_CELLS,
    RING_SECONDS,
    ROWS,
    credible_family,
    credible_fixed,
    fit_label,
    layout_of,
)
from fileproxy.observe.table import TABLE, Row


def test_no_two_counters_share_a_cell() -> None:
    spans = [(0, HEADER_CELLS), (LAYOUT.ring, RING_SECONDS * RING_CELLS)]
    spans += [(cell, 1) for cell in LAYOUT.scalars.values()]
    spans += [(cell, CELLS) for cell in LAYOUT.histograms.values()]
    spans += [(family.used, 1) for family in LAYOUT.families.values()]
    spans += [(family.base, family.row_cells * ROWS) for family in LAYOUT.families.values()]
    ordered = sorted(spans)
    assert all(first + length <= second for (first, length), (second, _) in pairwise(ordered))
    assert sum(ordered[-1]) == LAYOUT.cells


def test_every_declared_counter_has_a_place_and_a_sentence() -> None:
    placed = set(LAYOUT.scalars) | set(LAYOUT.histograms)
    for family in LAYOUT.families.values():
        placed |= set(family.counters) | set(family.histograms)
    assert placed == {row.name for row in TABLE}
    assert len({row.name for row in TABLE}) == len(TABLE)
    assert all(re.match(r"[A-Z].*\.$", row.sentence) for row in TABLE)


def test_another_table_has_another_hash() -> None:
    more = (*TABLE, Row("extra", "counter", "One more."))
    other_kind = (*TABLE[:-1], TABLE[-1]._replace(kind="gauge"))
    assert len({LAYOUT.hash, layout_of(more).hash, layout_of(other_kind).hash}) == 3


def test_readers_believe_every_hash() -> None:
    """A cell that is no gauge may hold less than HIGHEST; a hash above it made a table unreadable, by its luck."""
    assert all(layout_of([Row(f"a{number}", "counter", "A.")]).hash < HIGHEST for number in range(64))
    assert layout_of(TABLE) == LAYOUT


@given(st.text(max_size=300))
def test_labels_fit_and_are_kept_as_they_are_when_they_do(label: str) -> None:
    fitted = fit_label(label)
    data = fitted.encode()
    assert len(data) <= LABEL_BYTES
    try:
        if len(label.encode()) <= LABEL_BYTES:
            assert fitted == label
    except UnicodeEncodeError:
        pass  # lone surrogates are spelled out


def test_two_long_labels_with_the_same_beginning_stay_apart() -> None:
    assert fit_label("x" * 200 + "a") != fit_label("x" * 200 + "b")


@pytest.mark.parametrize("value", [-1, HIGHEST, 0, HIGHEST - 1])
def test_only_gauges_may_hold_what_no_counter_could(value: int) -> None:
    gauge = next(name for name in sorted(LAYOUT.gauges) if name in LAYOUT.scalars)
    for name, is_gauge in ((gauge, True), ("requests", False)):
        cells = array("q", bytes(8 * LAYOUT.fixed))
        cells[H_MAGIC], cells[H_HASH] = MAGIC, LAYOUT.hash
        cells[LAYOUT.scalars[name]] = value
        assert credible_fixed(cells, LAYOUT) is (is_gauge or 0 <= value < HIGHEST)


def test_the_same_of_a_family() -> None:
    family = next(one for one in LAYOUT.families.values() if one.gauges)
    (gauge, *_), counter = family.gauges, next(name for name in family.counters if name not in family.gauges)
    for name, holds in ((gauge, True), (counter, False)):
        cells = array("q", bytes(8 * 2 * family.row_cells))
        assert credible_family(cells, 2, family)
        cells[family.row_cells + family.counters[name]] = -1
        assert credible_family(cells, 2, family) is holds
