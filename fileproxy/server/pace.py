"""How a client connection is served by what the kernel sees of its path: congestion control, unsent bytes, write sizes.

A look costs one ``getsockopt``. It is taken at the connection's first request (the handshake's round trip is known by
then, so that a far client has BBR from its first byte on), at the end of a response worth one, and once a second while
one runs. The decisions are ``control/controller.py``'s. In the baseline, and at ``server.sockets.congestion: system``,
what was set is put back.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fileproxy import sockets, tcpinfo
from fileproxy.control import controller
from fileproxy.control.quality import PathQuality, between
from fileproxy.model import Counters
from fileproxy.settings.schema import Settings
from fileproxy.tcpinfo import TcpInfo

BBR = "bbr"
LOOK_BYTES = 64 * 1024  # a response of so many bytes is worth a look at its end


@dataclass(frozen=True, slots=True)
class PacePolicy:
    """What may be adapted: ``congestion`` and ``unsent`` are ours to choose only where the settings leave them."""

    adapts: bool = False
    congestion: bool = False
    unsent: bool = False

    @classmethod
    def from_settings(cls, settings: Settings) -> PacePolicy:
        options = settings.server.sockets
        adapts = settings.profile == "optimized"
        return cls(adapts, adapts and options.congestion == "auto", adapts and options.notsent_lowat == "auto")


class Granted:
    """What the kernel granted to the connection that was adapted last, and why it refused, for ``/health``."""

    def __init__(self, counters: Counters) -> None:
        self.counters = counters
        self.newest: dict[str, Any] | None = None
        self.refused: dict[str, str] = {}


class ClientPace:
    """Of one connection. ``write``: the most bytes of one write to it; None = pieces as they come."""

    __slots__ = ("_granted", "_last", "_look", "_system", "_unsent", "path", "shut", "transport", "write")

    def __init__(self, transport: asyncio.Transport, granted: Granted, look: Callable[[ClientPace], None]) -> None:
        self._look = look
        self.transport = transport
        self._granted = granted
        self._last: TcpInfo | None = None
        self._system: str | None = None  # the congestion control it had before it got BBR
        self._unsent = controller.UNLIMITED
        self.path = PathQuality()
        self.write: int | None = None
        self.shut = False  # between the last two looks it was the client's window that held us up

    def ended(self) -> None:
        """A response worth it has ended, or the first request came: look now."""
        self._look(self)

    def look(self, policy: PacePolicy, now: float) -> None:
        """Read the connection and adapt it."""
        if not policy.adapts:
            self._put_back()
            return
        info = tcpinfo.of_transport(self.transport)
        if info is None:
            return
        quality = self.path.take(between(self._last, info), now)
        self._note_window(info)
        self._last = info
        self.write = controller.write_bytes(quality)
        if not policy.congestion:
            self._put_congestion_back()
        elif self._system is None and controller.wants_bbr(info, self.path):
            self._take_bbr()
        self._limit_unsent(controller.unsent_bytes(quality, info.delivery_rate) if policy.unsent else 0)

    def _note_window(self, info: TcpInfo) -> None:
        last = self._last
        busy_s = info.busy_s - (last.busy_s if last else 0.0)
        shut_s = info.rwnd_limited_s - (last.rwnd_limited_s if last else 0.0)
        self.shut = busy_s > 0 and shut_s >= busy_s / 2

    def _take_bbr(self) -> None:
        if "congestion" in self._granted.refused:
            return
        sock = self.transport.get_extra_info("socket")
        before = sockets.congestion(sock)
        self._system = before or ""
        if before == BBR:
            return
        if (refused := sockets.set_congestion(sock, BBR)) is not None:
            self._granted.refused["congestion"] = refused
            self._system = None
            return
        self._granted.counters.add("connections.bbr")
        self._granted.newest = sockets.granted(sock)

    def _limit_unsent(self, unsent: int) -> None:
        if unsent == self._unsent:
            return
        sock = self.transport.get_extra_info("socket")
        if sockets.set_notsent_lowat(sock, unsent) is None:
            self._unsent = unsent
            if self._system is not None:
                self._granted.newest = sockets.granted(sock)

    def _put_congestion_back(self) -> None:
        if self._system is not None and not self.transport.is_closing():
            before, self._system = self._system, None
            if before and before != BBR:
                sockets.set_congestion(self.transport.get_extra_info("socket"), before)

    def _put_back(self) -> None:
        self.write, self.shut = None, False
        self._put_congestion_back()
        if self._unsent != controller.UNLIMITED and not self.transport.is_closing():
            self._limit_unsent(controller.UNLIMITED)

    def report(self) -> dict[str, Any]:
        """For ``/stats``: what is known of the path."""
        return self.path.report()


def paced(transport: asyncio.Transport, granted: Granted, look: Callable[[ClientPace], None]) -> ClientPace | None:
    """The pace of a new connection; None where there is no TCP (a Unix socket). ``look``: under today's policy."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    return ClientPace(transport, granted, look)
