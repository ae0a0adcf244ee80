"""How long the next segment is, which connection is late, what may be asked twice. Pure.

Spans are ``(first, end)``, end exclusive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

KIB = 1024
# Small last segments matter more than the number of connections (measured: docs/client.md; 8 MiB over a poor link took
# 8.4 s with 16 KiB, 8.8 with 64).
SMALLEST = 16 * KIB
LARGEST = 16 * 1024 * KIB
AIM_S = 8.0  # a segment should not take a connection longer than this
LEAST_S = 0.25  # nor less than this: what is asked for is worth its request
FEWEST_TO_SPLIT = 2 * SMALLEST
LATE = 1.25  # times what asking again would take
FAR_LATER = 8.0  # the same for one that still brings bytes: on a full path a second request only takes from the first
OVERDUE, OVERDUE_S = 1.5, 0.3  # times what everything else takes, and so much more
WORTH_S = 0.1  # what sharing out must save: a connection that ends early has to be opened anew
HEDGE_SHARE, HEDGE_FLOOR = 0.05, 1024 * KIB  # bytes that may be asked twice


def segment_length(left: int, connections: int, rate: float | None, least_s: float = LEAST_S) -> int:
    """Bytes of the next segment when ``left`` are to be shared out, a multiple of :data:`SMALLEST`.

    Guided self-scheduling (Polychronopoulos and Kuck, 1987): a share of what is left, so that segments shrink towards
    the end and all connections end together. ``rate``: bytes a second of one connection, None = unknown; ``least_s``:
    a segment should take it so long, as far as there is so much left.
    """
    length = max(SMALLEST, min(LARGEST, left // (2 * max(1, connections))))
    if rate is not None:
        length = max(SMALLEST, min(length, int(rate * AIM_S)), min(int(rate * least_s), LARGEST, left))
    return -(-length // SMALLEST) * SMALLEST


@dataclass(frozen=True, slots=True)
class Rest:
    """What a connection has still to bring. ``rate`` None: nothing came yet. ``silent_s``: since its last byte."""

    at: int
    end: int
    rate: float | None
    silent_s: float
    shared: bool = False  # it was asked a second time already


@dataclass(frozen=True, slots=True)
class Late:
    """Number ``index`` is late: ask for ``first`` to ``end`` elsewhere. ``hedge``: these bytes are then asked twice."""

    index: int
    first: int
    end: int
    hedge: bool


def late(rests: Sequence[Rest], *, round_trip_s: float, rate: float, hedge_budget: int) -> Late | None:
    """What a free connection should do about the one that holds up the end the most; None = nothing helps.

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
        takes_s = takes(rest, round_trip_s, rate)
        anew_s = round_trip_s + left / max(rate, 1.0)
        silent = rest.silent_s > 2 * round_trip_s + WORTH_S
        choice: Late | None = None
        if left >= FEWEST_TO_SPLIT and (not silent or left > hedge_budget):
            middle = rest.at + left // 2 // SMALLEST * SMALLEST
            halved_s = max(takes_s / 2, round_trip_s + left / 2 / max(rate, 1.0))
            if takes_s - halved_s > max(WORTH_S, takes_s / 4):
                choice = Late(index, middle, rest.end, hedge=False)
        elif left <= hedge_budget and takes_s > (LATE if silent else FAR_LATER) * anew_s + WORTH_S / 2:
            choice = Late(index, rest.at, rest.end, hedge=True)
        if choice is not None and (best is None or takes_s > best[0]):
            best = takes_s, choice
    return None if best is None else best[1]


def overdue(rests: Sequence[Rest], all_s: float) -> Late | None:
    """Which of these would still be on its way when everything else is here: its end is for somebody else.

    A connection that got little of a path it shares holds up the end, or the reader's window, however fast all others
    are together. It keeps what it can bring in ``all_s``, the seconds that all take together for what is missing.
    ``rate`` None: too young to be judged.
    """
    for index, rest in enumerate(rests):
        left = rest.end - rest.at
        if rest.shared or rest.rate is None or left < FEWEST_TO_SPLIT:
            continue
        if left / max(rest.rate, 1.0) > OVERDUE * all_s + OVERDUE_S:
            keeps = min(max(int(rest.rate * all_s), SMALLEST), left - SMALLEST) // SMALLEST * SMALLEST
            return Late(index, rest.at + max(keeps, SMALLEST), rest.end, hedge=False)
    return None


def takes(rest: Rest, round_trip_s: float, rate: float) -> float:
    """Seconds a connection will still take, as far as one can tell. A silent one is expected to stay so as long."""
    left = rest.end - rest.at
    if rest.rate is None:
        return round_trip_s + left / max(rate, 1.0) + max(0.0, rest.silent_s - round_trip_s)
    return max(left / max(rest.rate, 1.0), rest.silent_s)


def hedge_budget(size: int) -> int:
    """Bytes of ``size`` that may be asked twice."""
    return max(HEDGE_FLOOR, int(size * HEDGE_SHARE))
