"""The ferry: one process that carries the packets of all links of a star. Started by ``tun.py`` as a program.

Its argument is JSON (:class:`Orders`). It opens the devices, says ``open``, and carries until its standard input ends.
A line of JSON there changes shapes or asks for the tallies; each is answered by one line.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import struct
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.link.pipe import Pipe, Shape

# linux/if_tun.h, linux/sched.h
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x1, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 1, 2, 4
CLONE_NEWNET = 0x40000000
VNET_HEADER = 10  # virtio_net_hdr before each packet where offload is on; carried as it is, but not counted

BATCH = 64  # packets read from one device before the others get a turn
LARGEST = 65535 + VNET_HEADER


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """This thread's new sockets and devices belong to the network namespace of that name."""
    import ctypes  # Python has os.setns only since 3.12

    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if libc.setns(there, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {namespace}")
        try:
            yield
        finally:
            libc.setns(home, CLONE_NEWNET)
    finally:
        os.close(there)
        os.close(home)


def open_tun(namespace: str, device: str, *, offload: bool) -> int:
    """A new tun device in the namespace; it lives as long as the returned descriptor."""
    with inside(namespace):
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        flags = IFF_TUN | IFF_NO_PI | (IFF_VNET_HDR if offload else 0)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", device.encode(), flags))
        if offload:
            fcntl.ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)
        return fd


@dataclass
class Lane:
    """One direction of one link: from one device to the other."""

    source: int
    target: int
    pipe: Pipe
    header: int
    waiting: deque[tuple[float, bytes]]

    def read(self) -> None:
        for _ in range(BATCH):
            try:
                packet = os.read(self.source, LARGEST)
            except BlockingIOError:
                return
            out = self.pipe.take(len(packet) - self.header, time.monotonic())
            if out is not None:
                self.waiting.append((out, packet))

    def deliver(self, now: float) -> float:
        """Write what is due. Returns when the next one is."""
        waiting, tally = self.waiting, self.pipe.tally
        while waiting and waiting[0][0] <= now:
            due, packet = waiting.popleft()
            try:
                os.write(self.target, packet)
            except OSError:  # the device is down or full: to the sender it is one more lost packet
                tally.refused += 1
            tally.late_sum_s += now - due
            tally.late_max_s = max(tally.late_max_s, now - due)
        return waiting[0][0] if waiting else float("inf")


def build(orders: dict[str, Any]) -> list[Lane]:
    """Both directions of each link: from the hub (even places) and to it (odd ones)."""
    lanes: list[Lane] = []
    for number, link in enumerate(orders["links"]):
        shape = Shape(**link["shape"])
        hub = open_tun(link["hub"], link["hub_device"], offload=shape.offload)
        spoke = open_tun(link["spoke"], link["spoke_device"], offload=shape.offload)
        header = VNET_HEADER if shape.offload else 0
        for way, (source, target) in enumerate(((hub, spoke), (spoke, hub))):
            pipe = Pipe(shape, orders["seed"] + 2 * number + way)
            lanes.append(Lane(source, target, pipe, header, deque()))
    return lanes


def carry(lanes: list[Lane], control: int) -> None:
    """Until ``control`` ends."""
    readers = {lane.source: lane for lane in lanes}
    descriptors = [*readers, control]
    heard = b""
    while True:
        now = time.monotonic()
        due = min(lane.deliver(now) for lane in lanes)
        wait = None if due == float("inf") else max(0.0, due - time.monotonic())
        for fd in select.select(descriptors, [], [], wait)[0]:  # poll and epoll count in whole milliseconds
            if fd != control:
                readers[fd].read()
                continue
            said = os.read(control, 65536)
            if not said:
                return
            *lines, heard = (heard + said).split(b"\n")
            for line in lines:
                print(json.dumps(obey(lanes, json.loads(line))), flush=True)


def obey(lanes: list[Lane], order: dict[str, Any]) -> Any:
    """``{"tally": true}``, or ``{"shape": {...}, "links": [numbers]}``. Devices keep their MTU and offload."""
    if "shape" in order:
        for number in order["links"]:
            for lane in lanes[2 * number : 2 * number + 2]:
                lane.pipe.shape = Shape(**order["shape"])
    return [asdict(lane.pipe.tally) for lane in lanes]


def main() -> None:
    orders = json.loads(sys.argv[1])
    if orders["core"] is not None:
        os.sched_setaffinity(0, {orders["core"]})
    with contextlib.suppress(OSError):  # a late ferry is a link with more jitter than told
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    Path("/proc/self/timerslack_ns").write_text("1000")
    lanes = build(orders)
    print('"open"', flush=True)
    carry(lanes, sys.stdin.fileno())


if __name__ == "__main__":
    main()
