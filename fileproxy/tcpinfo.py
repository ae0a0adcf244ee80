"""TCP_INFO: what the kernel knows of a connection's path, read from the socket in one call (Linux; elsewhere None).

The layout is that of ``struct tcp_info`` (uapi/linux/tcp.h), which only ever grows at its end; what an older kernel
does not fill in reads as 0. A reading costs a few microseconds: it belongs to a response's ends and to every few MiB,
not to each piece.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Any, NamedTuple, Protocol

_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)
_WINDOW_CLAMP: int | None = getattr(socket, "TCP_WINDOW_CLAMP", None)
_LAYOUT = struct.Struct("=16xI4xI24xI12xII4xI8xI4xI16xQQIIIIIIQQQQ8xQQI4xI")
_UNKNOWN = 0xFFFFFFFF  # tcpi_min_rtt before the first measurement
_MICRO = 1e-6
NEW = 4  # segments with data that were sent on a new connection: a request, and what TLS says before


class TcpInfo(NamedTuple):
    """One reading. Times in seconds, rates in bytes a second; counts are since the connection was made."""

    mss: int
    unacked: int  # segments on their way to the peer
    silent_s: float  # since the peer last sent data
    rtt_s: float  # smoothed round trip
    rttvar_s: float
    cwnd: int  # segments
    rcv_rtt_s: float  # as the receiver estimates it; 0 = not known
    retransmitted: int  # segments sent again
    bytes_acked: int
    bytes_received: int
    segs_out: int
    segs_in: int
    notsent: int  # bytes in the kernel that were not sent yet
    min_rtt_s: float  # 0 = not known
    data_segs_in: int
    data_segs_out: int
    delivery_rate: int
    busy_s: float  # time with something to send
    rwnd_limited_s: float  # of that, the time the peer's window was shut
    sndbuf_limited_s: float  # of that, the time our own buffer was too small
    bytes_sent: int
    bytes_retransmitted: int
    duplicates: int  # segments sent again that the peer had already, as it says (DSACK, RFC 2883)
    out_of_order: int  # segments that came behind a gap: what a receiver sees of loss


class Socket(Protocol):
    """What a reading needs: ``socket.socket``, or the stand-in of an event loop's transport."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


def read(sock: Socket | None) -> TcpInfo | None:
    """A reading of this socket; None where there is none (no TCP, closed, another system)."""
    if sock is None or _TCP_INFO is None:
        return None
    try:
        raw = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _LAYOUT.size)
    except (OSError, ValueError):
        return None
    return parse(raw)


def parse(raw: bytes) -> TcpInfo | None:
    """The kernel's bytes as a reading (pure). None when they are too few to hold a round trip."""
    if len(raw) < 104:  # the end of tcpi_total_retrans, the last field of the first version
        return None
    (
        mss, unacked, silent, rtt, rttvar, cwnd, rcv_rtt, retransmitted, acked, received, segs_out, segs_in, notsent,
        min_rtt, data_in, data_out, rate, busy, rwnd, sndbuf, sent, resent, duplicates, out_of_order,
    ) = _LAYOUT.unpack(raw[: _LAYOUT.size].ljust(_LAYOUT.size, b"\0"))  # fmt: skip
    return TcpInfo(
        mss, unacked, silent / 1e3, rtt * _MICRO, rttvar * _MICRO, cwnd, rcv_rtt * _MICRO, retransmitted, acked,
        received, segs_out, segs_in, notsent, 0.0 if min_rtt == _UNKNOWN else min_rtt * _MICRO, data_in, data_out, rate,
        busy * _MICRO, rwnd * _MICRO, sndbuf * _MICRO, sent, resent, duplicates,
        out_of_order,
    )  # fmt: skip


def of_transport(transport: asyncio.BaseTransport | None) -> TcpInfo | None:
    """A reading of the socket under a transport. A closing one has none: its descriptor may already be another's."""
    if transport is None or transport.is_closing():
        return None
    sock: Any = transport.get_extra_info("socket")
    return read(sock)


def first_round_trip_s(now: TcpInfo) -> float:
    """The smoothed round trip; 0 = not known. See :class:`NetPath` for the one of a new connection."""
    wrong = now.data_segs_out <= NEW and 0 < now.min_rtt_s < now.rtt_s / 2
    return now.min_rtt_s if wrong else now.rtt_s


class NetPath:
    """The connection that an answer came over, for whoever wants to know how far away its other end is.

    ``mirror``: the label it is counted under. ``first``: the reading when the head was here. ``rtt_s``: its smoothed
    round trip, or else the time the connection took to open; None when neither is known. Where a packet of the
    handshake was lost, the kernel begins with what it took to send it again, a second: on a new connection the shortest
    is then the better one.
    """

    __slots__ = ("_transport", "first", "mirror", "rtt_s")

    def __init__(
        self, mirror: str, transport: asyncio.BaseTransport | None = None, *, connect_s: float | None = None
    ) -> None:
        self.mirror = mirror
        self._transport = transport
        self.first = now = self.tcp()
        self.rtt_s: float | None = connect_s if now is None else first_round_trip_s(now) or connect_s

    def narrow(self, most: int) -> None:
        """Let its other end have at most about ``most`` bytes on their way (tcp(7), TCP_WINDOW_CLAMP).

        The kernel takes back nothing that it has promised, and forgets this as it widens the window; where it cannot,
        nothing happens.
        """
        transport = self._transport
        sock: Any = None if transport is None or transport.is_closing() else transport.get_extra_info("socket")
        if sock is not None and _WINDOW_CLAMP is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, _WINDOW_CLAMP, most)

    def tcp(self) -> TcpInfo | None:
        """A reading of now; None once the connection is closed, and where the system has none."""
        return of_transport(self._transport)
