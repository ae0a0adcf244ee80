"""The three networks of the comparison, and which side of the proxy is the bad one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from benchmarks.link.pipe import Shape

Direction = Literal["origin", "client"]
Congestion = Literal["cubic", "bbr"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
CONGESTIONS: tuple[Congestion, ...] = get_args(Congestion)


@dataclass(frozen=True)
class Scenario:
    """One network.

    Attributes:
        together: the link, not this machine, is what limits a download, so contestants may run at the same moment,
            each behind a link of its own; a paired comparison, and it takes a fifth of the time.
    """

    name: str
    sentence: str
    shape: Shape
    together: bool


# 1 Gbit/s of packets of 1,500 bytes is more than user space carries: there they travel in pieces of up to 64 KiB.
NORMAL = Scenario(
    "normal",
    "RTT 10 ms, 1 Gbit/s, no loss",
    Shape(delay_ms=5, mbit=1000, queue_kib=2048, offload=True),
    together=False,
)
# Queues hold about what is on the way at full rate.
POOR = Scenario(
    "poor",
    "RTT 100 to 200 ms with jitter, 10 Mbit/s, 1.5 % loss each way",
    Shape(delay_ms=50, jitter_ms=50, loss=0.015, mbit=10, queue_kib=256),
    together=True,
)
VERY_POOR = Scenario(
    "very-poor",
    "RTT 300 to 500 ms with jitter, 1 Mbit/s, 5 % loss each way",
    Shape(delay_ms=150, jitter_ms=100, loss=0.05, mbit=1, queue_kib=64),
    together=True,
)
SCENARIOS = {scenario.name: scenario for scenario in (NORMAL, POOR, VERY_POOR)}
