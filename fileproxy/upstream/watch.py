"""Looks at the connection an answer comes over (at its head, now and then, at its end) and tells the mirror's quality.

Between two looks a body only adds to numbers. Goodput is taken where the mirror was what was waited for: of a body
that its reader held up, the time says nothing about the network.
"""

from __future__ import annotations

from fileproxy.clock import Clock
from fileproxy.control.quality import PathQuality, Quality, Sample, between
from fileproxy.tcpinfo import NetPath

LOOK_BYTES = 4 * 1024 * 1024  # between two looks at least
LOOK_MOST = 32 * 1024 * 1024  # and at most: a fast path may become a slow one
LOOK_S = 0.1  # in between, on a fast path about so long: each look costs as much as passing on a quarter of a MiB
WAITED_SHARE = 0.5  # of the time, from which on the mirror was what was waited for
TELLING_BYTES = 64 * 1024  # a body or a part of one that short tells no goodput


class Watch:
    """Of one answer. ``fresh``: its connection was made for it, so that all its readings are this mirror's news."""

    __slots__ = ("_clock", "_last", "_path", "_received", "_since", "_waited_s", "next_at", "quality")

    def __init__(self, quality: PathQuality, path: NetPath, clock: Clock, *, first_byte_s: float, fresh: bool) -> None:
        self.quality = quality
        self.next_at = LOOK_BYTES  # the body looks again when it has received so many bytes
        self._path = path
        self._clock = clock
        self._since = clock.now()
        self._received = 0
        self._waited_s = 0.0
        self._last = path.first
        news = Sample() if self._last is None or not fresh else between(None, self._last)
        quality.take(
            Sample(path.rtt_s, first_byte_s, None, news.segments, news.lost, failed=False),
            self._since,
        )

    def look(self, received: int, waited_s: float, *, failed: bool = False) -> Quality | None:
        """``received`` bytes of the body so far, ``waited_s`` seconds of waiting for them. Returns the class now."""
        now = self._clock.now()
        came, took = received - self._received, now - self._since
        goodput = None
        if came >= TELLING_BYTES and took > 0 and waited_s - self._waited_s >= took * WAITED_SHARE:
            goodput = came / took
        info = self._path.tcp()
        sample = Sample(goodput=goodput) if info is None else between(self._last, info, goodput)
        if failed:
            sample = Sample(sample.rtt_s, None, goodput, sample.segments, sample.lost, failed=True)
        self._last = info or self._last
        self._since, self._received, self._waited_s = now, received, waited_s
        self.next_at = received + next_look(came, took)
        return self.quality.take(sample, now)


def next_look(came: int, took_s: float) -> int:
    """Bytes until the next look, when since the last one ``came`` so many in ``took_s``: at most twice as many."""
    if took_s <= 0:
        return LOOK_BYTES
    return max(LOOK_BYTES, min(2 * came, int(came * LOOK_S / took_s), LOOK_MOST))
