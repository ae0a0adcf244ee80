"""What is believed of a path: samples go in with the time, a class comes out (pure).

The classes are those of the old table, by delay: good < 50 ms, medium < 150 ms, poor < 300 ms, very poor above, or
where packets are lost. Delay is the round trip of TCP_INFO; where there is none, the time to the first byte. Four more
signs count, each against its own bound, and the worst of them all is the class:

* loss: 1 % and more is very poor at any delay, 0.2 % costs one class;
* first byte: a server that needs four times a class's delay for it is waited for as on that class's paths;
* goodput: a connection under 32 KiB/s that was waited for is poor;
* errors: a tenth of the answers failing costs one class.

A class is left for a worse one at its bound, for a better one only a fifth below it (half, for shares), so that a value
near a bound does not make it flutter. All averages are exponential; loss and errors are sums that fade, so that a loss
in a short exchange is no verdict (``DOUBT`` segments that went well are supposed), and is forgotten in time.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from fileproxy.tcpinfo import TcpInfo

BOUNDS_S = (0.050, 0.150, 0.300)  # of delay: where medium, poor and very poor begin
LOSSY, NOTICED = 0.01, 0.002  # shares of lost segments: very poor; one class worse
FAILING = 0.1  # share of failed answers that costs one class
SLOW = 32 * 1024  # bytes a second
PATIENT = 4.0  # a first byte may take so many times the delay of a class
NEW = 0.25  # weight of a new value in an average
KEEP_S = 60.0  # a loss or an error counts 1/e after this time
WINDOW = 4000  # and so it does after this many segments, or ANSWERS answers
ANSWERS = 50
DOUBT = 200
DOUBTED_ANSWERS = 10
BACK, BACK_SHARE = 0.8, 0.5  # of a bound: where a better class begins again


class Quality(IntEnum):
    """Of a path, from best to worst."""

    GOOD = 0
    MEDIUM = 1
    POOR = 2
    VERY_POOR = 3

    @property
    def word(self) -> str:
        """As it is shown: ``very poor``."""
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True, slots=True)
class Sample:
    """What one look at a path, or one answer, told. None: nothing about that. Seconds, bytes a second."""

    rtt_s: float | None = None
    first_byte_s: float | None = None
    goodput: float | None = None
    segments: int = 0
    lost: float = 0.0  # of the segments
    failed: bool | None = None


def between(before: TcpInfo | None, now: TcpInfo, goodput: float | None = None) -> Sample:
    """What happened on a connection since an earlier reading (None: since it was made).

    What we sent again is lost, but for one segment (the kernel probes for a lost end by sending it again), and for what
    the peer says it had already: a busy machine answers late, and is no bad path. As receivers
    we see only segments that come behind a gap. A gap lasts about one round trip, so about as many segments come behind
    it as one round trip carries: so many of them are one loss. ``goodput`` in bytes a second tells how many that are.
    """
    sent = now.data_segs_out - (before.data_segs_out if before else 0)
    again = now.retransmitted - (before.retransmitted if before else 0)
    again -= now.duplicates - (before.duplicates if before else 0)
    came = now.data_segs_in - (before.data_segs_in if before else 0)
    behind = now.out_of_order - (before.out_of_order if before else 0)
    mss = max(now.mss, 536)
    rtt_s = now.rtt_s if now.rtt_s > 0 else now.rcv_rtt_s
    behind_a_gap = max(1.0, (goodput or 0.0) * max(rtt_s, now.rcv_rtt_s) / mss)
    gaps = max(0, behind) / behind_a_gap
    return Sample(
        rtt_s=rtt_s if rtt_s > 0 else None,
        goodput=goodput,
        segments=max(0, sent) + max(0, came),
        lost=max(0, again - 1) + gaps,
    )


class PathQuality:
    """The memory of one path: a mirror's, or a client connection's."""

    __slots__ = (
        "_answers", "_at", "_failed", "_lost", "_segments", "first_byte_s", "goodput", "quality", "rtt_s"
    )  # fmt: skip

    def __init__(self) -> None:
        self.quality: Quality | None = None  # None until something was seen
        self.rtt_s: float | None = None
        self.first_byte_s: float | None = None
        self.goodput: float | None = None
        self._segments = self._lost = self._answers = self._failed = 0.0
        self._at: float | None = None

    @property
    def loss(self) -> float:
        """Share of segments lost, 0 to 1."""
        return min(1.0, self._lost / (self._segments + DOUBT))

    @property
    def errors(self) -> float:
        """Share of answers that failed, 0 to 1."""
        return self._failed / (self._answers + DOUBTED_ANSWERS)

    def take(self, sample: Sample, now: float) -> Quality | None:
        """Learn from a sample, and say what the path is now."""
        self._fade(sample, now)
        self.rtt_s = _average(self.rtt_s, sample.rtt_s)
        self.first_byte_s = _average(self.first_byte_s, sample.first_byte_s)
        self.goodput = _average(self.goodput, sample.goodput)
        self._segments += sample.segments
        self._lost += min(sample.lost, max(sample.segments, 1))
        if sample.failed is not None:
            self._answers += 1
            self._failed += sample.failed
        if self.rtt_s is None and self.first_byte_s is None and not self._failed:
            return self.quality
        strict, known = self._class(1.0, 1.0), self.quality
        if known is None or strict >= known:  # the bounds of the way back never find a better one
            self.quality = strict
        else:
            self.quality = min(known, self._class(BACK, BACK_SHARE))
        return self.quality

    def _fade(self, sample: Sample, now: float) -> None:
        share = 1.0 if self._at is None else math.exp(-max(0.0, now - self._at) / KEEP_S)
        of_segments = share * math.exp(-sample.segments / WINDOW)
        self._segments *= of_segments
        self._lost *= of_segments
        of_answers = share if sample.failed is None else share * math.exp(-1.0 / ANSWERS)
        self._answers *= of_answers
        self._failed *= of_answers
        self._at = now

    def _class(self, part: float, share: float) -> Quality:
        """The class when every bound of delay is ``part`` of itself, and every bound of a share ``share``."""
        first_byte_s = self.first_byte_s or 0.0
        delay_s = first_byte_s if self.rtt_s is None else max(self.rtt_s, first_byte_s / PATIENT)
        found = bisect_right(BOUNDS_S, delay_s / part)
        loss = self.loss
        if loss >= LOSSY * share:
            return Quality.VERY_POOR
        found += (loss >= NOTICED * share) + (self.errors >= FAILING * share)
        if self.goodput is not None and self.goodput < SLOW / part:
            found = max(found, Quality.POOR)
        return Quality(min(found, Quality.VERY_POOR))

    def report(self) -> dict[str, Any]:
        """For ``/stats``: class, milliseconds, shares, bytes a second."""
        quality, rtt_s = self.quality, self.rtt_s
        return {
            "quality": None if quality is None else quality.word,
            "rtt_ms": None if rtt_s is None else round(rtt_s * 1000, 2),
            "loss": round(self.loss, 5),
            "goodput_bytes_per_second": None if self.goodput is None else round(self.goodput),
        }


def _average(known: float | None, value: float | None) -> float | None:
    if value is None:
        return known
    return value if known is None else known + NEW * (value - known)
