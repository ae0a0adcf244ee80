"""The sum over all counter pages of the service, those of dead workers included.

Pages are copied with ``pread`` while their writers go on. What cannot be read or believed is left out and named in
``unreadable``; it never raises (law 10). Gauges ("open now") count only where a worker holds the slot.
"""

from __future__ import annotations

import os
import time
from array import array
from dataclasses import dataclass, field
from pathlib import Path

from fileproxy.observe.histogram import CELLS, Histogram
from fileproxy.observe.layout import (
    H_BEGAN_US,
    H_LIVES,
    H_MAGIC,
    H_PID,
    H_SLOT,
    H_STARTED_US,
    LABEL_CELLS,
    LAYOUT,
    RING_CELLS,
    RING_SECONDS,
    ROWS,
    Family,
    Layout,
    credible_family,
    credible_fixed,
    read_label,
)
from fileproxy.observe.slots import Slots

WINDOW_S = 60


@dataclass(frozen=True, slots=True)
class LiveWorker:
    """Who holds a slot now. ``lives`` counts the workers that had its page, this one included."""

    slot: int
    pid: int
    started_at: float  # seconds since the epoch
    lives: int


@dataclass(frozen=True, slots=True)
class Window:
    """What happened in the last ``seconds`` (60, the running second counted in part; less right after the start)."""

    seconds: float = 0.0
    bytes: int = 0
    requests: int = 0
    errors: int = 0

    @property
    def bits_per_second(self) -> float:
        return self.bytes * 8 / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class Totals:
    """Sums by declared name; the labelled ones by name, then label."""

    counters: dict[str, int] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    labelled: dict[str, dict[str, int]] = field(default_factory=dict)
    labelled_histograms: dict[str, dict[str, Histogram]] = field(default_factory=dict)
    window: Window = Window()
    live: list[LiveWorker] = field(default_factory=list)
    pages: int = 0
    unreadable: list[str] = field(default_factory=list)
    began_at: float | None = None  # seconds since the epoch; when the oldest page was begun


def read_totals(
    folder: Path,
    *,
    held: frozenset[int] | None = None,
    now: float | None = None,
    time_now: float | None = None,
    layout: Layout = LAYOUT,
) -> Totals:
    """Sum the pages in ``folder`` (``RUN_DIR/counters``).

    ``held`` are the slots of live workers (default: asked of the locks beside the folder), ``now`` the monotonic and
    ``time_now`` the epoch seconds of the clock the writers use.
    """
    held = Slots(folder.parent).held() if held is None else held
    now = time.monotonic() if now is None else now
    time_now = time.time() if time_now is None else time_now
    totals = Totals(
        counters=dict.fromkeys(layout.scalars, 0),
        histograms={name: Histogram() for name in layout.histograms},
        labelled={name: {} for family in layout.families.values() for name in family.counters},
        labelled_histograms={name: {} for family in layout.families.values() for name in family.histograms},
    )
    ring = [0, 0, 0]
    for path in sorted(folder.glob("*.page")):
        try:
            page = _Copy(path, layout)
        except _Unborn:
            continue
        except (OSError, ValueError) as error:
            totals.unreadable.append(f"{path.name}: {error}")
            continue
        page.add_to(totals, held)
        for column, amount in enumerate(page.recent(now)):
            ring[column] += amount
    totals.live.sort(key=lambda worker: worker.slot)
    age = WINDOW_S if totals.began_at is None else max(1.0, time_now - totals.began_at)
    totals.window = Window(min(WINDOW_S - 1 + now % 1, age), *ring)
    return totals


class _Unborn(Exception):
    """A page that is being made: its magic number is written last, and nothing was counted in it yet."""


class _Copy:
    """What one page held when it was read. ValueError when it cannot be believed."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self._layout = layout
        self._families: dict[str, array[int]] = {}
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if os.fstat(descriptor).st_size != layout.size_bytes:
                raise ValueError("has the wrong size")
            self.fixed = _cells(descriptor, 0, layout.fixed)
            if self.fixed[H_MAGIC] == 0:
                raise _Unborn
            if not credible_fixed(self.fixed, layout):
                raise ValueError("is of another version or damaged")
            for family in layout.families.values():
                rows = self.fixed[family.used]
                if not 1 <= rows <= ROWS:
                    raise ValueError(f"cannot have {rows} rows of {family.name}")
                cells = _cells(descriptor, family.base, rows * family.row_cells)
                if not credible_family(cells, rows, family):
                    raise ValueError(f"has damaged rows of {family.name}")
                self._families[family.name] = cells
        finally:
            os.close(descriptor)

    def add_to(self, totals: Totals, held: frozenset[int]) -> None:
        layout, fixed = self._layout, self.fixed
        alive = fixed[H_SLOT] in held
        totals.pages += 1
        began_at = fixed[H_BEGAN_US] / 1e6
        totals.began_at = began_at if totals.began_at is None else min(began_at, totals.began_at)
        if alive:
            totals.live.append(
                LiveWorker(fixed[H_SLOT], fixed[H_PID], fixed[H_STARTED_US] / 1e6, fixed[H_LIVES]),
            )
        for name, cell in layout.scalars.items():
            if alive or name not in layout.gauges:
                totals.counters[name] += fixed[cell]
        for name, cell in layout.histograms.items():
            totals.histograms[name] += Histogram.of_cells(fixed[cell : cell + CELLS])
        for family in layout.families.values():
            self._add_family(family, totals, alive)

    def _add_family(self, family: Family, totals: Totals, alive: bool) -> None:
        cells = self._families[family.name]
        for start in range(0, len(cells), family.row_cells):
            row = cells[start : start + family.row_cells]
            label = read_label(row[:LABEL_CELLS].tobytes())
            if start == 0 and not any(row[LABEL_CELLS:]):
                continue  # `…other` is listed once something is counted there
            for name, offset in family.counters.items():
                sums = totals.labelled[name]
                if alive or name not in family.gauges:
                    sums[label] = sums.get(label, 0) + row[offset]
            for name, offset in family.histograms.items():
                _merge(totals.labelled_histograms[name], label, Histogram.of_cells(row[offset : offset + CELLS]))

    def recent(self, now: float) -> tuple[int, int, int]:
        """Bytes, requests and errors of the last 60 seconds, the running one included."""
        last = int(now)
        sums = [0, 0, 0]
        for number in range(RING_SECONDS):
            second, *row = self.fixed[(base := self._layout.ring + number * RING_CELLS) : base + RING_CELLS]
            if last - WINDOW_S < second <= last:
                sums = [a + b for a, b in zip(sums, row, strict=True)]
        return sums[0], sums[1], sums[2]


def _merge(into: dict[str, Histogram], label: str, histogram: Histogram) -> None:
    known = into.get(label)
    into[label] = histogram if known is None else known + histogram


def _cells(descriptor: int, first: int, count: int) -> array[int]:
    cells = array("q")
    data = os.pread(descriptor, count * 8, first * 8)
    if len(data) != count * 8:
        raise ValueError("is cut short")
    cells.frombytes(data)
    return cells
