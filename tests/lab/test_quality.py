"""Loss on a real path: the class changes while the round trip stays what it was, for the sender and the receiver."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from benchmarks.link import tun
from benchmarks.link.ferry import inside
from benchmarks.link.pipe import Shape
from benchmarks.link.tun import Star
from fileproxy import tcpinfo
from fileproxy.control.quality import PathQuality, Quality, between

PORT = 8080
WITHIN_S = 30.0
STEP = 192 * 1024
CLEAN, LOSSY = Shape(delay_ms=10, mbit=20, queue_kib=1024), Shape(delay_ms=10, mbit=20, queue_kib=1024, loss=0.03)


def sent(sock: socket.socket, stop: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while not stop.is_set():
            sock.sendall(bytes(64 * 1024))


class Side:
    """One end of the connection, and what it believes of the path."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._last = tcpinfo.read(sock)
        self.path = PathQuality()

    def look(self, goodput: float | None = None) -> Quality | None:
        now = tcpinfo.read(self._sock)
        assert now is not None
        sample, self._last = between(self._last, now, goodput), now
        return self.path.take(sample, time.monotonic())


@pytest.mark.lab
def test_loss_at_constant_response_time_changes_the_class() -> None:
    if lacks := tun.missing():
        pytest.skip("; ".join(lacks))
    stop = threading.Event()
    with Star([CLEAN], congestion="cubic") as star:
        spoke = star.spokes[0]
        with inside(spoke.namespace):
            listener = socket.create_server((spoke.address, PORT))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)  # never more than the link's queue takes
        with inside(star.hub):
            here = socket.create_connection((spoke.address, PORT), WITHIN_S)
        with listener, here:
            there, _ = listener.accept()
            with there:
                sender = threading.Thread(target=sent, args=(there, stop))
                sender.start()
                receives, sends = Side(here), Side(there)

                def take() -> None:
                    began, came = time.monotonic(), 0
                    while came < STEP:
                        data = here.recv(1 << 18)
                        assert data
                        came += len(data)
                    receives.look(came / (time.monotonic() - began))
                    sends.look()

                for _ in range(6):
                    take()
                assert sends.path.loss < 0.002
                assert receives.path.loss < 0.002
                star.reshape(LOSSY, [spoke])
                deadline = time.monotonic() + WITHIN_S
                while (
                    sends.path.quality is not Quality.VERY_POOR or receives.path.quality is not Quality.VERY_POOR
                ) and time.monotonic() < deadline:
                    take()
                stop.set()
                here.shutdown(socket.SHUT_RDWR)
                sender.join(WITHIN_S)
    for side in (sends, receives):
        assert side.path.quality is Quality.VERY_POOR
        assert side.path.loss >= 0.01
        assert side.path.rtt_s is not None
        assert side.path.rtt_s < 0.3  # by its round trip alone it would be of another class
