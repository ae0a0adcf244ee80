"""A star of network namespaces: the hub, and spokes joined with it by emulated links. Linux, as root.

Namespaces are named ``fplab-PID-hub`` and ``fplab-PID-NUMBER`` after the process that made them; nothing else is
touched, on leaving (an exception included) they are removed with what still runs in them, and what a killed process
left behind is removed by the next star.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.link.pipe import Shape, Tally

ROOT = Path(__file__).resolve().parents[2]
NAMESPACES = Path("/run/netns")
PREFIX = "fplab"
DEVICE = Path("/dev/net/tun")
NEEDED = 1 << 12 | 1 << 21  # CAP_NET_ADMIN, CAP_SYS_ADMIN (linux/capability.h)
QUEUE_PACKETS = 5000  # the devices' own queue: so long that only the pipe drops
END_WITHIN_S = 5.0


def missing() -> list[str]:
    """What this machine lacks for a star, one sentence each."""
    lacks = []
    status = Path("/proc/self/status").read_text()
    held = int(status.partition("CapEff:")[2].split()[0], 16)
    if held & NEEDED != NEEDED:  # uid 0 in a container may lack them
        lacks.append("the link lab needs root: it makes network namespaces and tun devices")
    for tool, package in (("ip", "iproute2"), ("nsenter", "util-linux")):
        if not shutil.which(tool):
            lacks.append(f"{tool} is needed (Debian package {package})")
    try:
        os.close(os.open(DEVICE, os.O_RDWR))
    except OSError as error:
        lacks.append(f"{DEVICE} is needed: {error.strerror}")
    return lacks


@dataclass(frozen=True)
class Spoke:
    """One namespace at the end of a link."""

    number: int
    namespace: str
    address: str
    hub_address: str  # the hub, as this spoke sees it


class Star:
    """Use as a context manager.

    Args:
        shapes: one link and one spoke for each.
        congestion: TCP congestion control of every sender in the star, given to the routes over its links (a namespace
            may not choose what the machine does not allow everybody; a route may); None: the machine's default. A
            socket may still choose its own (TCP_CONGESTION) once it is connected.
        core: the processor the ferry is pinned to.
        seed: of losses and jitter.
    """

    def __init__(
        self, shapes: Sequence[Shape], *, congestion: str | None = None, core: int | None = None, seed: int = 1
    ) -> None:
        name = f"{PREFIX}-{os.getpid()}"
        self.hub = f"{name}-hub"
        self.spokes = [
            Spoke(number, f"{name}-{number}", f"10.88.{number}.2", f"10.88.{number}.1") for number in range(len(shapes))
        ]
        self._shapes, self._congestion, self._core, self._seed = shapes, congestion, core, seed
        self._ferry: subprocess.Popen[bytes] | None = None
        self._stack = contextlib.ExitStack()
        self._asking = threading.Lock()

    def __enter__(self) -> Self:
        if lacks := missing():
            raise RuntimeError("; ".join(lacks))
        sweep()
        with contextlib.ExitStack() as stack:
            for namespace in (self.hub, *(spoke.namespace for spoke in self.spokes)):
                stack.callback(remove, namespace)
                _ip("netns", "add", namespace)
                _ip("-n", namespace, "link", "set", "lo", "up")
                self._tune(namespace)
            self._ferry = self._start_ferry()
            stack.callback(self._end_ferry)
            for spoke, shape in zip(self.spokes, self._shapes, strict=True):
                ends = ((self.hub, f"spoke{spoke.number}"), (spoke.namespace, "hub"))
                addresses = (spoke.hub_address, spoke.address)
                for (namespace, device), mine, theirs in zip(ends, addresses, reversed(addresses), strict=True):
                    self._address(namespace, device, mine, theirs, shape.mtu)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def command(self, namespace: str, command: Sequence[str]) -> list[str]:
        """The command, run in one of the namespaces. It keeps its pid, folder and user."""
        return ["nsenter", f"--net={NAMESPACES / namespace}", "--", *command]

    def tallies(self) -> list[tuple[Tally, Tally]]:
        """For each link: what happened to the packets from the hub, and to those towards it."""
        said = [Tally(**one) for one in self._ask({"tally": True})]
        return list(zip(said[::2], said[1::2], strict=True))

    def reshape(self, shape: Shape, spokes: Iterable[Spoke] | None = None) -> None:
        """From now on these links (all) behave so. MTU and offload stay."""
        chosen = self.spokes if spokes is None else spokes
        self._ask({"shape": asdict(shape), "links": [spoke.number for spoke in chosen]})

    def _tune(self, namespace: str) -> None:
        """Settings of the namespace, made before its devices.

        The kernel must not remember one download's RTT and losses for the next, and IPv6 would send packets of its own,
        which would take part in the losses.
        """
        for path in ("ipv4/tcp_no_metrics_save", "ipv6/conf/all/disable_ipv6", "ipv6/conf/default/disable_ipv6"):
            file = f"/proc/sys/net/{path}"
            _run(self.command(namespace, ["sh", "-c", f"test ! -e {file} || echo 1 > {file}"]))

    def _address(self, namespace: str, device: str, mine: str, theirs: str, mtu: int) -> None:
        _ip("-n", namespace, "addr", "add", mine, "peer", theirs, "dev", device)
        _ip("-n", namespace, "link", "set", device, "up", "mtu", str(mtu), "txqueuelen", str(QUEUE_PACKETS))
        if self._congestion:
            _ip("-n", namespace, "route", "replace", theirs, "dev", device, "src", mine, "congctl", self._congestion)

    def _start_ferry(self) -> subprocess.Popen[bytes]:
        links = [
            {
                "hub": self.hub,
                "hub_device": f"spoke{spoke.number}",
                "spoke": spoke.namespace,
                "spoke_device": "hub",
                "shape": asdict(shape),
            }
            for spoke, shape in zip(self.spokes, self._shapes, strict=True)
        ]
        orders = json.dumps({"links": links, "core": self._core, "seed": self._seed})
        ferry = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.link.ferry", orders],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a ^C is for the runner, which ends the ferry last
        )
        assert ferry.stdout is not None
        if not ferry.stdout.readline():
            ferry.wait()
            raise RuntimeError("the link emulator did not start: see what it wrote above")
        return ferry

    def _end_ferry(self) -> None:
        assert self._ferry is not None
        assert self._ferry.stdin is not None
        assert self._ferry.stdout is not None
        self._ferry.stdin.close()
        try:
            self._ferry.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._ferry.kill()
            self._ferry.wait()
        self._ferry.stdout.close()

    def _ask(self, order: dict[str, Any]) -> Any:
        assert self._ferry is not None
        assert self._ferry.stdin is not None
        assert self._ferry.stdout is not None
        with self._asking:
            self._ferry.stdin.write(json.dumps(order).encode() + b"\n")
            self._ferry.stdin.flush()
            return json.loads(self._ferry.stdout.readline())


def ours() -> list[str]:
    """Names of the lab's namespaces that exist now, whoever made them."""
    try:
        return sorted(name for name in os.listdir(NAMESPACES) if name.startswith(f"{PREFIX}-"))
    except FileNotFoundError:
        return []


def sweep() -> None:
    """Remove the namespaces of processes that are gone."""
    for name in ours():
        pid = name.split("-")[1]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            remove(name)


def remove(namespace: str) -> None:
    """End what runs in the namespace and remove it; one that is not there is fine."""
    if not (NAMESPACES / namespace).exists():
        return
    deadline = time.monotonic() + END_WITHIN_S
    for sign in (signal.SIGTERM, signal.SIGKILL):
        while pids := _pids(namespace):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sign)
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
    _ip("netns", "del", namespace)


def _pids(namespace: str) -> list[int]:
    said = _run(["ip", "netns", "pids", namespace])
    return [int(pid) for pid in said.split() if int(pid) != os.getpid()]


def _ip(*words: str) -> None:
    _run(["ip", *words])


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
