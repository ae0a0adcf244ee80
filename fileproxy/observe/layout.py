"""Where each counter lies in a page (pure). A page is an array of signed 64-bit cells in the machine's byte order::

    header     magic, layout hash, slot, pid, start, lives, size …             16 cells
    rows used  one cell a family
    scalars    one cell for each counter and gauge without a family; ``requests`` and ``errors`` come first
    ring       64 seconds of (second, bytes, requests, errors)
    histograms CELLS cells each
    families   257 rows each: label (length, 120 bytes), a cell for each counter, CELLS for each histogram

Writers and readers of one version compute the same layout from ``table.py``; ``hash`` tells two versions apart.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from fileproxy.observe import histogram
from fileproxy.observe.table import TABLE, Row

MAGIC = int.from_bytes(b"FPXPAGE1", "little") & (2**63 - 1)
HEADER_CELLS = 16
H_MAGIC, H_HASH, H_SLOT, H_PID, H_STARTED_US, H_BEGAN_US, H_LIVES, H_SIZE = range(8)

RING_SECONDS = 64
RING_CELLS = 4  # second, bytes, requests, errors

LABEL_BYTES = 120
LABEL_CELLS = 1 + LABEL_BYTES // 8
LABELS = 256
ROWS = LABELS + 1  # row 0 counts what found no room
OTHER = "…other"
HIGHEST = 2**62  # no honest counter gets here; half of what a cell can hold


@dataclass(frozen=True, slots=True)
class Family:
    """The labelled rows of one family: where they start and what each row holds (offsets in cells from its start)."""

    name: str
    used: int  # cell that holds the number of rows in use
    base: int
    row_cells: int
    counters: dict[str, int]
    gauges: frozenset[str]
    histograms: dict[str, int]


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions in cells. ``fixed`` is the number of cells before the families."""

    hash: int
    scalars: dict[str, int]
    gauges: frozenset[str]
    ring: int
    histograms: dict[str, int]
    families: dict[str, Family]
    fixed: int
    cells: int

    @property
    def size_bytes(self) -> int:
        return self.cells * 8


def layout_of(table: Iterable[Row]) -> Layout:
    """Lay out a table of counters."""
    table = tuple(table)
    names = sorted({row.family for row in table if row.family})
    cell = HEADER_CELLS
    used = {name: cell + number for number, name in enumerate(names)}
    cell += len(names)

    plain = [row.name for row in table if row.family is None and row.kind != "histogram"]
    first = [name for name in ("requests", "errors") if name in plain]
    plain = first + [name for name in plain if name not in first]
    scalars = {name: cell + number for number, name in enumerate(plain)}
    cell += len(plain)

    ring = cell
    cell += RING_SECONDS * RING_CELLS

    histograms: dict[str, int] = {}
    for row in table:
        if row.family is None and row.kind == "histogram":
            histograms[row.name] = cell
            cell += histogram.CELLS
    fixed = cell

    families: dict[str, Family] = {}
    for name in names:
        families[name] = _family(name, used[name], cell, [row for row in table if row.family == name])
        cell += families[name].row_cells * ROWS

    text = "\n".join(f"{row.name} {row.kind} {row.family}" for row in table)
    shape = (HEADER_CELLS, RING_SECONDS, LABEL_BYTES, ROWS, histogram.BOUNDS)
    digest = hashlib.blake2b(f"{text}\n{shape!r}".encode(), digest_size=8).digest()
    return Layout(
        hash=int.from_bytes(digest, "little") & (HIGHEST - 1),  # a number that every reader believes
        scalars=scalars,
        gauges=frozenset(row.name for row in table if row.kind == "gauge"),
        ring=ring,
        histograms=histograms,
        families=families,
        fixed=fixed,
        cells=cell,
    )


def _family(name: str, used: int, base: int, rows: list[Row]) -> Family:
    offset = LABEL_CELLS
    counters: dict[str, int] = {}
    histograms: dict[str, int] = {}
    for row in rows:
        if row.kind == "histogram":
            histograms[row.name] = offset
            offset += histogram.CELLS
        else:
            counters[row.name] = offset
            offset += 1
    gauges = frozenset(row.name for row in rows if row.kind == "gauge")
    return Family(name, used, base, offset, counters, gauges, histograms)


def fit_label(label: str) -> str:
    """The label as it is kept: at most 120 bytes of UTF-8; a longer one is cut and gets a hash of the whole."""
    data = label.encode("utf-8", "backslashreplace")
    if len(data) <= LABEL_BYTES:
        return data.decode()
    tag = hashlib.blake2b(data, digest_size=4).hexdigest()
    kept = data[: LABEL_BYTES - len(tag) - 3].decode("utf-8", "ignore")
    return f"{kept}…{tag}"


def read_label(data: bytes) -> str:
    """The label in the first ``LABEL_CELLS`` cells of a row. ValueError when there is none."""
    length = int.from_bytes(data[:8], sys.byteorder)
    if not 0 <= length <= LABEL_BYTES or len(data) < 8 + LABEL_BYTES:
        raise ValueError("the label's length is impossible")
    return data[8 : 8 + length].decode()


def credible_fixed(cells: array[int], layout: Layout) -> bool:
    """Could an honest writer of this version have left these cells before the families? (Law 10: asked before use.)"""
    if len(cells) != layout.fixed or cells[H_MAGIC] != MAGIC or cells[H_HASH] != layout.hash:
        return False
    free = {layout.scalars[name] for name in layout.gauges if name in layout.scalars} | {H_SLOT}
    return _are_counts(cells[:], free)


def credible_family(cells: array[int], rows: int, family: Family) -> bool:
    """The same for the ``rows`` rows of a family."""
    if not 1 <= rows <= ROWS or len(cells) != rows * family.row_cells:
        return False
    free = {family.counters[name] - LABEL_CELLS for name in family.gauges}
    for start in range(0, len(cells), family.row_cells):
        try:
            read_label(cells[start : start + LABEL_CELLS].tobytes())
        except ValueError:
            return False
        if not _are_counts(cells[start + LABEL_CELLS : start + family.row_cells], free):
            return False
    return True


def _are_counts(cells: array[int], gauges: AbstractSet[int]) -> bool:
    """Whether all could be counts, but those at ``gauges``, which may be anything. ``cells``: a copy, to be spoilt."""
    for number in gauges:
        cells[number] = 0
    return min(cells) >= 0 and max(cells) < HIGHEST


LAYOUT = layout_of(TABLE)
