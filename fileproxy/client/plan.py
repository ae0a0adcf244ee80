"""Which bytes are missing, how long the next segment is, which flight is late. Pure.

Spans are ``(first, end)``, end exclusive.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

KIB = 1024
SMALLEST = 64 * KIB  # small last segments matter more than the number of connections (measured, see docs/client.md)
LARGEST = 16 * 1024 * KIB
AIM_S = 8.0  # a segment should not take a connection longer than this
FEWEST_TO_SPLIT = 2 * SMALLEST
LATE = 1.25  # times what asking again would take
FAR = 4.0  # times slower than what another mirror gives: so slow that it loses its connection
WORTH_S = 0.1  # what sharing out must save: a connection that ends early has to be opened anew
HEDGE_SHARE, HEDGE_FLOOR = 0.05, 1024 * KIB  # bytes that may be asked twice

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

    Guided self-scheduling (Polychronopoulos and Kuck, 1987): a share of what is left, so that segments shrink towards
    the end and all connections end together. ``rate``: bytes a second of one connection to the mirror, None = unknown.
    """
    if not free:
        return None
    left = sum(end - first for first, end in free)
    length = max(SMALLEST, min(LARGEST, left // (2 * max(1, connections))))
    if rate is not None:
        length = max(SMALLEST, min(length, int(rate * AIM_S)))
    length = -(-length // SMALLEST) * SMALLEST
    first, end = free[0]
    # A rest that is not worth a request of its own goes along.
    return (first, end) if end - first < length + SMALLEST else (first, first + length)


@dataclass(frozen=True, slots=True)
class Rest:
    """What a flight has still to bring. ``rate`` None: nothing came yet. ``silent_s``: since its last byte."""

    at: int
    end: int
    rate: float | None
    silent_s: float
    shared: bool = False  # it was asked a second time already


@dataclass(frozen=True, slots=True)
class Late:
    """Flight ``index`` is late: ask for ``first`` to ``end`` elsewhere. ``hedge``: these bytes are then asked twice."""

    index: int
    first: int
    end: int
    hedge: bool


def late(rests: Sequence[Rest], *, round_trip_s: float, rate: float, hedge_budget: int) -> Late | None:
    """What a free connection should do about the flight that holds up the end the most; None = nothing helps.

    It takes over the second half of what is left, or asks for all of it a second time when it is little, or silent.

    Args:
        round_trip_s: from asking to the first byte, as it usually is.
        rate: bytes a second of a usual connection.
        hedge_budget: bytes that may still be asked twice.
    """
    best: tuple[float, Late] | None = None
    for index, rest in enumerate(rests):
        left = rest.end - rest.at
        if rest.shared or left <= 0:
            continue
        takes_s = _takes(rest, round_trip_s, rate)
        anew_s = round_trip_s + left / max(rate, 1.0)
        silent = rest.silent_s > 2 * round_trip_s + WORTH_S
        choice: Late | None = None
        if left >= FEWEST_TO_SPLIT and (not silent or left > hedge_budget):
            middle = rest.at + left // 2 // SMALLEST * SMALLEST
            halved_s = max(takes_s / 2, round_trip_s + left / 2 / max(rate, 1.0))
            if takes_s - halved_s > max(WORTH_S, takes_s / 4):
                choice = Late(index, middle, rest.end, hedge=False)
        elif left <= hedge_budget and takes_s > LATE * anew_s + WORTH_S / 2:
            choice = Late(index, rest.at, rest.end, hedge=True)
        if choice is not None and (best is None or takes_s > best[0]):
            best = takes_s, choice
    return None if best is None else best[1]


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
        takes_s = _takes(rest, round_trip_s, rate)
        # The other mirror may have to be connected to first.
        anew_s = 2 * round_trip_s + left / max(rate, 1.0)
        if takes_s > FAR * max(anew_s, end_s) + WORTH_S and (best is None or takes_s > best[0]):
            best = takes_s, index
    return None if best is None else best[1]


def _takes(rest: Rest, round_trip_s: float, rate: float) -> float:
    """Seconds a flight will still take, as far as one can tell. One that is silent is expected to stay so as long."""
    left = rest.end - rest.at
    if rest.rate is None:
        return round_trip_s + left / max(rate, 1.0) + max(0.0, rest.silent_s - round_trip_s)
    return max(left / max(rest.rate, 1.0), rest.silent_s)


def hedge_budget(size: int) -> int:
    """Bytes of a file that may be asked twice."""
    return max(HEDGE_FLOOR, int(size * HEDGE_SHARE))
