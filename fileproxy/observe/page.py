"""One memory-mapped counter page a worker slot. It outlives its worker: the next holder of the slot goes on adding.

Laws kept here:

* One writer a page (the holder of the slot's lock), so an addition needs no lock. Readers copy with ``pread`` and never
  map, so a page cut short under them is a short read, not a signal.
* The blocks are allocated before they are mapped: a disk that fills up later cannot kill the worker with SIGBUS. Where
  that cannot be had, the worker counts in private memory, says so in ``problem``, and serves on (law 9).
* What lies on disk is checked before it is adopted (law 10): another layout or impossible numbers are put aside.
"""

from __future__ import annotations

import mmap
import os
from array import array
from bisect import bisect_left
from pathlib import Path

from fileproxy.clock import Clock
from fileproxy.observe.histogram import BOUNDS, LONGEST, SUM
from fileproxy.observe.layout import (
    H_BEGAN_US,
    H_HASH,
    H_LIVES,
    H_MAGIC,
    H_PID,
    H_SIZE,
    H_SLOT,
    H_STARTED_US,
    LABEL_CELLS,
    LAYOUT,
    MAGIC,
    OTHER,
    RING_CELLS,
    RING_SECONDS,
    ROWS,
    Family,
    Layout,
    credible_family,
    credible_fixed,
    fit_label,
    read_label,
)

MASTER = "master"  # the page of the process that starts the workers
LONGEST_S = 1e6  # a longer duration counts as this, so that no sum can overflow


class Page:
    """Counts into one page. Implements ``model.Counters``; see there for the three methods."""

    def __init__(
        self,
        cells: memoryview,
        layout: Layout,
        clock: Clock,
        problem: str | None = None,
        memory: mmap.mmap | None = None,
    ) -> None:
        self._memory = memory
        self.problem = problem  # why others cannot see these counts, or None
        self._cells = cells
        self._now = clock.now
        self._scalars = layout.scalars
        self._gauges = layout.gauges
        self._histograms = layout.histograms
        self._ring = layout.ring
        self._ring_row = 0
        self._second_ends = -1.0
        self._after_ringed = layout.scalars["errors"] + 1
        self._requests_cell = layout.scalars["requests"]
        self._bytes_cell = layout.scalars["bytes.to_clients"]
        self._family_counters: dict[str, tuple[_Rows, int]] = {}
        self._family_histograms: dict[str, tuple[_Rows, int]] = {}
        for family in layout.families.values():
            rows = _Rows(cells, family)
            self._family_counters.update({name: (rows, offset) for name, offset in family.counters.items()})
            self._family_histograms.update({name: (rows, offset) for name, offset in family.histograms.items()})

    @classmethod
    def create(cls, folder: Path, slot: int | str, clock: Clock, *, layout: Layout = LAYOUT) -> Page:
        """The page of ``slot`` in ``folder``, adopted when it is there, else a new one.

        Never raises OSError: when the file cannot be had, the page lives in memory only and ``problem`` says why.
        """
        path = folder / f"{slot}.page"
        problem = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            memory = _adopt(path, layout) or _begin(path, layout)
        except OSError as error:
            memory, problem = mmap.mmap(-1, layout.size_bytes), f"{path}: {error.strerror or error}"
        cells = memoryview(memory).cast("q")
        _zero_gauges(cells, layout)
        if cells[H_LIVES] == 0:
            cells[H_BEGAN_US] = int(clock.time() * 1e6)
        cells[H_SLOT] = slot if isinstance(slot, int) else -1
        cells[H_PID] = os.getpid()
        cells[H_STARTED_US] = int(clock.time() * 1e6)
        cells[H_LIVES] += 1
        cells[H_SIZE] = layout.cells
        cells[H_HASH] = layout.hash
        page = cls(cells, layout, clock, problem, memory)  # begins the rows of labels
        cells[H_MAGIC] = MAGIC  # last: from now on readers believe it
        return page

    def add(self, name: str, amount: int = 1, label: str | None = None) -> None:
        if amount < 0 and name not in self._gauges:
            raise ValueError(f"{name} only grows, {amount} was added")
        if label is None:
            cell = self._scalars[name]
            self._cells[cell] += amount
            if cell < self._after_ringed:
                self._ring_add(2 + cell - self._requests_cell, amount)
        else:
            rows, offset = self._family_counters[name]
            self._cells[rows.find(label) + offset] += amount

    def observe(self, name: str, seconds: float, label: str | None = None, times: int = 1) -> None:
        if label is None:
            base = self._histograms[name]
        else:
            rows, offset = self._family_histograms[name]
            base = rows.find(label) + offset
        if not 0 <= seconds < LONGEST_S:
            seconds = 0.0 if seconds < 0 else LONGEST_S
        nanoseconds = int(seconds * 1e9)
        cells = self._cells
        cells[base + bisect_left(BOUNDS, seconds)] += times
        cells[base + SUM] += nanoseconds * times
        cells[base + LONGEST] = max(cells[base + LONGEST], nanoseconds)

    def traffic(self, amount: int) -> None:
        self._cells[self._bytes_cell] += amount
        self._ring_add(1, amount)

    def _ring_add(self, column: int, amount: int) -> None:
        if self._now() >= self._second_ends:
            self._next_second()
        self._cells[self._ring_row + column] += amount

    def _next_second(self) -> None:
        second = int(self._now())
        self._second_ends = second + 1
        self._ring_row = base = self._ring + second % RING_SECONDS * RING_CELLS
        cells = self._cells
        if cells[base] != second:
            # Zeroed before it is dated: a reader in between sees nothing of a second that is out of its window anyway.
            cells[base + 1] = cells[base + 2] = cells[base + 3] = 0
            cells[base] = second

    def close(self) -> None:
        """Unmap the page. Nothing may be counted afterwards; what was counted stays in the file."""
        self._cells.release()
        if self._memory is not None:
            self._memory.close()


class _Rows:
    """The labels of one family in this page."""

    def __init__(self, cells: memoryview, family: Family) -> None:
        self._cells = cells
        self._family = family
        self._known: dict[str, int] = {OTHER: family.base}
        for number in range(1, cells[family.used]):
            start = family.base + number * family.row_cells
            self._known[read_label(cells[start : start + LABEL_CELLS].tobytes())] = start
        if cells[family.used] == 0:
            self._write_label(family.base, OTHER)
            cells[family.used] = 1

    def find(self, label: str) -> int:
        """First cell of the label's row; a new row while there is room, else that of ``…other``."""
        start = self._known.get(label)
        return self._find_or_add(fit_label(label)) if start is None else start

    def _find_or_add(self, label: str) -> int:
        start = self._known.get(label)
        if start is not None:
            return start
        number = self._cells[self._family.used]
        if number >= ROWS:
            return self._family.base
        start = self._family.base + number * self._family.row_cells
        self._write_label(start, label)
        self._cells[self._family.used] = number + 1  # last: a reader never sees a row without its label
        self._known[label] = start
        return start

    def _write_label(self, start: int, label: str) -> None:
        data = label.encode()
        self._cells[start] = len(data)
        self._cells[start + 1 : start + LABEL_CELLS] = memoryview(data.ljust((LABEL_CELLS - 1) * 8, b"\0")).cast("q")


def _adopt(path: Path, layout: Layout) -> mmap.mmap | None:
    """Map the page a predecessor left, or put it aside and return None when it is not usable."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        cells = array("q")
        if os.fstat(descriptor).st_size == layout.size_bytes:
            cells.frombytes(os.pread(descriptor, layout.size_bytes, 0))
        if len(cells) == layout.cells and _credible(cells, layout):
            os.posix_fallocate(descriptor, 0, layout.size_bytes)
            return mmap.mmap(descriptor, layout.size_bytes)
    finally:
        os.close(descriptor)
    os.replace(path, path.with_suffix(".aside"))
    return None


def _credible(cells: array[int], layout: Layout) -> bool:
    if not credible_fixed(cells[: layout.fixed], layout):
        return False
    for family in layout.families.values():
        rows = cells[family.used]
        if not credible_family(cells[family.base : family.base + rows * family.row_cells], rows, family):
            return False
    return True


def _begin(path: Path, layout: Layout) -> mmap.mmap:
    """A new page of zeros. It gets its name when it has its size, so no reader meets half a page."""
    unborn = path.with_suffix(".new")
    descriptor = os.open(unborn, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, layout.size_bytes)
        memory = mmap.mmap(descriptor, layout.size_bytes)
    finally:
        os.close(descriptor)
    os.replace(unborn, path)
    return memory


def _zero_gauges(cells: memoryview, layout: Layout) -> None:
    for name in layout.gauges:
        if name in layout.scalars:
            cells[layout.scalars[name]] = 0
    for family in layout.families.values():
        for name in family.gauges:
            for number in range(cells[family.used]):
                cells[family.base + number * family.row_cells + family.counters[name]] = 0


def reset(folder: Path) -> None:
    """Remove every page: a fresh start of the service counts from zero. Only the master may, before any worker runs."""
    for pattern in ("*.page", "*.new", "*.aside"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
