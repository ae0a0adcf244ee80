"""Which bytes a fill asks for. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from fileproxy.http.ranges import RangeSpec
from fileproxy.model import UNKNOWN_SIZE


def widened(specs: Sequence[RangeSpec], block: int, near: int) -> RangeSpec:
    """The range to ask for at first contact, when size and blocks are not known yet: the first one, widened to blocks.

    ``a-`` stays open, a suffix stays as it is (design.md, First contact 2). A range with an end is a sign of others
    that ask for other parts, beside it or soon: so no more than ``near`` bytes are asked for, because what an origin
    has sent of bytes that somebody else brings is lost.
    """
    first = specs[0]
    if first.first is None:
        return first
    start = first.first // block * block
    if first.last is None:
        return RangeSpec(start, None)
    return RangeSpec(start, min((first.last // block + 1) * block, start + max(block, near // block * block)) - 1)


def claimed(specs: Sequence[RangeSpec] | None, block: int, near: int) -> tuple[int, int]:
    """The bytes (first, end exclusive) that a first contact for these ranges asks for, as far as can be said."""
    if not specs:
        return 0, UNKNOWN_SIZE
    spec = widened(specs, block, near)
    if spec.first is None:
        return 0, 0  # a suffix: somewhere at the end
    return spec.first, UNKNOWN_SIZE if spec.last is None else spec.last + 1


def early_range(spec: RangeSpec, block: int, claims: Iterable[tuple[int, int]], near: int) -> tuple[int, int] | None:
    """The bytes (first, end exclusive) that an ask should have sent for at once while a first contact is on its way.

    None when what was claimed before brings its first byte soon: then it waits for that. What others have claimed
    further on is left to them, and nobody claims more than ``near`` bytes.

    Args:
        spec: what is asked for; never a suffix: nobody knows yet where it begins.
        claims: (first, end) of what has been asked for already.
        near: bytes from the beginning of a claim that are waited for rather than asked for.
    """
    if spec.first is None:
        return None
    asked = widened((spec,), block, near)
    assert asked.first is not None
    start = asked.first
    end = start + near if asked.last is None else asked.last + 1
    for first, until in claims:
        if first <= start < until and start - first <= near:
            return None
        if first > start:
            end = min(end, first)
    return start, end


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
