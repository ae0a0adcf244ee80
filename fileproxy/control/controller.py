"""Quality → what to do about it (pure): the old table, and where measurement says better.

The table: chunks of 8, 16, 32, 64 KiB and an idle timeout of 45, 60, 90, 120 s for good, medium, poor and very poor
paths. The idle timeouts are taken as they are. The chunks are not, on good and medium paths: relaying 1 GiB in pieces
of 16 KiB cost 2.9 CPU seconds, in pieces as they come 0.8, and a fast client gains nothing from small ones. There
pieces go out as they come. Where a client is far or loses packets its own network is the limit, CPU is not, and small
writes keep little in memory for it: the table's 32 and 64 KiB.

Towards clients, beyond the table: far or lossy ones get BBR, which does not take each loss for a full queue (CUBIC at
RTT 150 ms and 1.5 % loss carries about a tenth of a 10 Mbit/s link). Near clean ones keep the system's, which shares a
full local link more fairly. What the kernel holds unsent (TCP_NOTSENT_LOWAT) is at least ``UNSENT_S`` of what the path
delivers, so that no path runs dry between two looks of ours, and unlimited on good ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from fileproxy.control.quality import BOUNDS_S, NOTICED, PathQuality, Quality
from fileproxy.tcpinfo import TcpInfo

KIB = 1024
UNSENT_S = 0.25
UNLIMITED = 0  # what TCP_NOTSENT_LOWAT takes for: no limit
UNSENT_MOST = 4 * 1024 * KIB  # a path that fast needs no limit
FAR_S = BOUNDS_S[0]  # from here on a path is not good any more


@dataclass(frozen=True, slots=True)
class Pace:
    """What a path of some quality gets. ``write``: bytes of one write to a client, None = as they come; ``unsent``:
    least TCP_NOTSENT_LOWAT, None = no limit.
    """

    write: int | None
    idle_s: float
    unsent: int | None


TABLE: dict[Quality, Pace] = {
    Quality.GOOD: Pace(None, 45.0, None),
    Quality.MEDIUM: Pace(None, 60.0, 512 * KIB),
    Quality.POOR: Pace(32 * KIB, 90.0, 256 * KIB),
    Quality.VERY_POOR: Pace(64 * KIB, 120.0, 128 * KIB),
}


def idle_s(quality: Quality | None, unknown_s: float) -> float:
    """``timeouts.idle: auto``: seconds a mirror may make no progress. ``unknown_s`` before anything is known."""
    return unknown_s if quality is None else TABLE[quality].idle_s


def write_bytes(quality: Quality | None) -> int | None:
    """Bytes of one write to a client; None = pieces as they come."""
    return None if quality is None else TABLE[quality].write


def unsent_bytes(quality: Quality | None, delivery_rate: float) -> int:
    """TCP_NOTSENT_LOWAT for a client's connection; ``UNLIMITED`` when there need be none.

    ``delivery_rate``: bytes a second that TCP_INFO saw arrive. Powers of two, so that it seldom changes.
    """
    least = None if quality is None else TABLE[quality].unsent
    if least is None:
        return UNLIMITED
    wanted = least
    while wanted < delivery_rate * UNSENT_S:
        wanted *= 2
    return UNLIMITED if wanted > UNSENT_MOST else wanted


def wants_bbr(info: TcpInfo, path: PathQuality) -> bool:
    """Whether a client's path is far (already its handshake says so) or loses packets."""
    near_s = info.min_rtt_s or info.rtt_s
    return near_s >= FAR_S or path.loss >= NOTICED
