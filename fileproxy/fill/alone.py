"""A download's first connection, watched by what the kernel tells of it: is it left alone although it seems slow?"""

from __future__ import annotations

from fileproxy.control.growth import LONG_S
from fileproxy.control.sender import Sender, Verdict
from fileproxy.tcpinfo import NetPath

LEAST_LOOK_S = 0.005


class Alone:
    """Only on long paths: on a short one a second connection is compared with the first within a few round trips.

    Args:
        path: the answer came over; None: nothing is to be seen, and nothing left alone.
        known: the mirror's senders are known not to mind loss.

    Attributes:
        refuted: what was known is no longer true.
    """

    __slots__ = ("_known", "_path", "_sender", "refuted")

    def __init__(self, path: NetPath | None, now: float, *, known: bool) -> None:
        self._path = path
        self._known = known
        self._sender: Sender | None = None
        self.refuted = False
        rtt_s = 0.0 if path is None or path.rtt_s is None else path.rtt_s
        if path is not None and rtt_s >= LONG_S and (info := path.tcp()) is not None:
            self._sender = Sender(now, rtt_s, info.data_segs_in, info.out_of_order, alone=known)

    @property
    def next_look_s(self) -> float:
        """Seconds until the next look; infinite: there is nothing to see."""
        return float("inf") if self._sender is None else max(LEAST_LOOK_S, self._sender.next_look_s)

    @property
    def is_best(self) -> bool:
        """It was seen, or is known, that others would not help."""
        return self._sender is not None and self._sender.verdict is Verdict.ALONE

    def look(self, now: float, stall_s: float) -> bool:
        """Whether it is left alone, or only watched for now. ``stall_s``: a silence of so many seconds is long."""
        sender, info = self._sender, None if self._path is None else self._path.tcp()
        if sender is None or info is None:
            return False
        if sender.look(now, info.data_segs_in, info.out_of_order, info.rcv_rtt_s) is Verdict.HELP:
            self._sender, self.refuted = None, self._known
            return False
        return sender.silent_s(now) < stall_s
