"""Which bytes a fill asks for. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from fileproxy.http.ranges import RangeSpec


def widened(specs: Sequence[RangeSpec], block: int) -> RangeSpec:
    """The range to ask for at first contact, when size and blocks are not known yet: the first one, widened to blocks.

    ``a-`` stays open, a suffix stays as it is (design.md, First contact 2).
    """
    first = specs[0]
    if first.first is None:
        return first
    start = first.first // block * block
    return RangeSpec(start, None if first.last is None else (first.last // block + 1) * block - 1)


def segment_end(
    start: int, stop: int, held: Container[int], flights: Iterable[tuple[int, int]], most: int | None = None
) -> int:
    """The block (exclusive) at which a new flight from block ``start`` ends.

    It takes what is missing and nothing else: up to ``stop``, the next held block, or the next block another flight has
    still to land.

    Args:
        flights: (next block to land, end block) of each running flight.
        most: blocks it may take at most.
    """
    end = stop if most is None else min(stop, start + most)
    for at, until in flights:
        if until > start and at >= start:
            end = min(end, max(at, start + 1))
    for index in range(start + 1, end):
        if index in held:
            return index
    return max(end, start + 1)
