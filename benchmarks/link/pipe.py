"""One direction of a link: when does a packet come out at the other end, if it does? Pure: time is an argument.

Rule 1: packets never overtake each other. Real paths rarely reorder, and TCP would take it for loss.
Rule 2: a packet first meets chance (loss), then the queue before the bottleneck, then the wire.
Rule 3: jitter wanders. A new amount for each packet, in order, would in truth be the largest amount for all of them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

JITTER_STEP_S = 0.25  # from one random extra delay to the next, in a straight line


@dataclass(frozen=True)
class Shape:
    """What a link does to packets, the same in both directions.

    Attributes:
        delay_ms: one way, so half of what it adds to the RTT.
        jitter_ms: extra one-way delay, wandering between 0 and this.
        loss: share of packets lost by chance in each direction, 0 to 1.
        mbit: rate in Mbit/s of whole IP packets; 0 = as fast as the ferry carries.
        queue_kib: what waits before the bottleneck; more is dropped. Without a rate nothing waits.
        mtu: bytes of an IP packet.
        offload: packets of up to 64 KiB travel in one piece, as between virtual machines. For fast links without loss.
    """

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    mbit: float = 0.0
    queue_kib: int = 256
    mtu: int = 1500
    offload: bool = False


@dataclass
class Tally:
    """What happened to the packets of one direction so far."""

    packets: int = 0
    bytes: int = 0
    lost: int = 0  # by chance
    dropped: int = 0  # at a full queue
    refused: int = 0  # by the device they were written to
    late_sum_s: float = 0.0  # how much later than due they were carried: what the emulator itself adds
    late_max_s: float = 0.0


class Pipe:
    """The state of one direction. The same seed gives the same losses and the same jitter."""

    def __init__(self, shape: Shape, seed: int) -> None:
        self.shape = shape
        self.tally = Tally()
        self._random = random.Random(seed)
        self._wire_free = 0.0
        self._last_out = 0.0
        self._step_began = float("-inf")
        self._extra_from = self._extra_to = 0.0

    def take(self, size: int, now: float) -> float | None:
        """A packet of ``size`` bytes comes in at ``now`` (s). When it comes out, or None: lost or dropped."""
        shape, tally = self.shape, self.tally
        tally.packets += 1
        tally.bytes += size
        if shape.loss and self._random.random() < shape.loss:
            tally.lost += 1
            return None
        out = now
        if shape.mbit:
            rate = shape.mbit * 125_000
            begins = max(self._wire_free, now)
            if (begins - now) * rate > shape.queue_kib * 1024:
                tally.dropped += 1
                return None
            self._wire_free = out = begins + size / rate
        out += shape.delay_ms / 1000
        if shape.jitter_ms:
            out += self._wandering(now) * shape.jitter_ms / 1000
        self._last_out = out = max(out, self._last_out)
        return out

    def _wandering(self, now: float) -> float:
        """0 to 1, continuous in ``now``."""
        since = now - self._step_began
        if since >= JITTER_STEP_S:
            short = since < 2 * JITTER_STEP_S  # else the link was idle: begin anew
            self._extra_from = self._extra_to if short else self._random.random()
            self._extra_to = self._random.random()
            self._step_began = self._step_began + JITTER_STEP_S if short else now
            since = now - self._step_began
        return self._extra_from + (self._extra_to - self._extra_from) * since / JITTER_STEP_S
