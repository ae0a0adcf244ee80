"""Which bytes are missing, which segment is next, which flight loses its connection. Pure.

Spans are ``(first, end)``, end exclusive. How long segments are and who is late: ``control/segments.py``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence

from fileproxy.control.segments import SMALLEST, WORTH_S, Rest, segment_length, takes

FAR = 4.0  # times slower than what another mirror gives: so slow that it loses its connection

Span = tuple[int, int]


class Spans:
    """A set of bytes as disjoint spans in ascending order."""

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self._firsts: list[int] = []
        self._ends: list[int] = []
        self.total = 0
        for first, end in spans:
            self.add(first, end)

    def __iter__(self) -> Iterator[Span]:
        return zip(list(self._firsts), list(self._ends), strict=True)

    def add(self, first: int, end: int) -> int:
        """Bytes of the span that were not here before."""
        if end <= first:
            return 0
        low = bisect_left(self._ends, first)  # the first one that reaches to us
        high = bisect_right(self._firsts, end)  # behind the last one that we reach to
        before = 0
        if low < high:
            before = sum(self._ends[index] - self._firsts[index] for index in range(low, high))
            first, end = min(first, self._firsts[low]), max(end, self._ends[high - 1])
        self._firsts[low:high] = [first]
        self._ends[low:high] = [end]
        new = end - first - before
        self.total += new
        return new

    def gaps(self, size: int) -> list[Span]:
        """What is missing of ``size`` bytes."""
        found, at = [], 0
        for first, end in zip(self._firsts, self._ends, strict=True):
            if first > at:
                found.append((at, min(first, size)))
            at = max(at, end)
            if at >= size:
                break
        if at < size:
            found.append((at, size))
        return found


def unasked(done: Spans, size: int, asked: Iterable[Span]) -> list[Span]:
    """What is neither here nor on its way."""
    both = Spans(done)
    for first, end in asked:
        both.add(first, end)
    return both.gaps(size)


def next_segment(free: Sequence[Span], connections: int, rate: float | None) -> Span | None:
    """The next segment to ask for, from the start of what is free.

    ``rate``: bytes a second of one connection to the mirror, None = unknown. No segment is made longer to be worth its
    request: they are cut from all that is missing here, not from what may be held ahead of a reader.
    """
    if not free:
        return None
    left = sum(end - first for first, end in free)
    length = segment_length(left, connections, rate, least_s=0.0)
    first, end = free[0]
    # A rest that is not worth a request of its own goes along.
    return (first, end) if end - first < length + SMALLEST else (first, first + length)


def outpaced(rests: Sequence[tuple[Rest, float]], *, round_trip_s: float, end_s: float) -> int | None:
    """Which flight should lose its connection to another mirror, where none is free; None = nobody holds up the end.

    Args:
        rests: each with the rate that the other mirror gives a connection, in bytes a second.
        end_s: seconds until everything could be here at that rate. Who ends before is welcome, however slow.
    """
    best: tuple[float, int] | None = None
    for index, (rest, rate) in enumerate(rests):
        left = rest.end - rest.at
        if rest.shared or left <= 0:
            continue
        takes_s = takes(rest, round_trip_s, rate)
        # The other mirror may have to be connected to first.
        anew_s = 2 * round_trip_s + left / max(rate, 1.0)
        if takes_s > FAR * max(anew_s, end_s) + WORTH_S and (best is None or takes_s > best[0]):
            best = takes_s, index
    return None if best is None else best[1]
