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


def early_ranges(spec: RangeSpec, block: int, claims: Sequence[tuple[int, int]], near: int) -> list[tuple[int, int]]:
    """The parts (first, end exclusive) that an ask should have sent for at once while a first contact is on its way.

    It waits for a claim that brings its first byte soon. What others have claimed further on is left to them, and
    nobody looks further than ``near`` bytes. What lies between claims is asked for when the end of the range is known:
    whoever reads on from one claim to the next would else wait for one more answer at each hole.

    Args:
        spec: what is asked for; of a suffix nobody knows yet where it begins: nothing.
        claims: (first, end) of what has been asked for already.
        near: bytes from the beginning of a claim that are waited for rather than asked for.
    """
    if spec.first is None:
        return []
    asked = widened((spec,), block, near)
    assert asked.first is not None
    start = at = asked.first
    end = start + near if asked.last is None else asked.last + 1
    parts: list[tuple[int, int]] = []
    while at < end:
        until = max((one for first, one in claims if first <= at < one and start - first <= near), default=at)
        if until == at:
            until = min((first for first, _ in claims if at < first < end), default=end)
            parts.append((at, until))
        if asked.last is None:
            break  # where it will leave is unknown
        at = until
    return parts


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
