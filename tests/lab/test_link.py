"""The link emulator does what it is told, and leaves nothing behind.

What is too early, too fast or uncounted is wrong on any machine. What is late may be the machine: those limits are
wide.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.link import tun
from benchmarks.link.ferry import inside
from benchmarks.link.pipe import Pipe, Shape
from benchmarks.link.scenario import SCENARIOS
from benchmarks.link.tun import Spoke, Star
from tests.service import ROOT

PORT = 9000
WITHIN_S = 10.0
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
IP_UDP = 28  # bytes of headers
SLACK_MS = 60.0  # two scheduling delays of a loaded machine


# --- one direction, pure ---------------------------------------------------------------------------------------------


@given(
    st.builds(
        Shape,
        delay_ms=st.floats(0, 300),
        jitter_ms=st.floats(0, 200),
        loss=st.sampled_from([0.0, 0.3]),
        mbit=st.sampled_from([0.0, 1.0, 10.0]),
        queue_kib=st.integers(2, 64),
    ),
    st.lists(st.tuples(st.integers(40, 1500), st.floats(0, 0.4)), max_size=60),
)
def test_a_pipe_keeps_the_order_is_never_early_and_counts_everything(
    shape: Shape, packets: list[tuple[int, float]]
) -> None:
    pipe, now, came, last = Pipe(shape, 1), 1000.0, 0, 0.0
    for size, pause in packets:
        now += pause
        out = pipe.take(size, now)
        if out is None:
            continue
        came += 1
        assert out >= last
        assert out >= now + shape.delay_ms / 1000 - 1e-9
        if shape.mbit:
            wait = (shape.queue_kib * 1024 + size) / (shape.mbit * 125_000)
            assert out <= max(last, now + wait + (shape.delay_ms + shape.jitter_ms) / 1000) + 1e-9
        last = out
    assert came + pipe.tally.lost + pipe.tally.dropped == pipe.tally.packets == len(packets)


def test_a_pipe_is_as_fast_as_told() -> None:
    """Of what is offered at 20 Mbit/s half goes through, evenly."""
    pipe = Pipe(Shape(mbit=10, queue_kib=32), 1)
    outs = [out for n in range(20_000) if (out := pipe.take(1000, n * 0.0004)) is not None]
    assert len(outs) * 8000 / outs[-1] == pytest.approx(10e6, rel=0.01)
    assert max(after - before for before, after in itertools.pairwise(outs)) == pytest.approx(0.0008, rel=0.6)


def test_jitter_wanders_over_its_whole_width() -> None:
    pipe = Pipe(Shape(jitter_ms=50), 1)
    extras = [(out or 0) - n * 0.01 for n in range(5000) if (out := pipe.take(100, n * 0.01)) is not None]
    assert 0 <= min(extras) < 0.005
    assert 0.045 < max(extras) <= 0.05
    assert statistics.fmean(extras) == pytest.approx(0.025, abs=0.004)
    assert max(abs(b - a) for a, b in itertools.pairwise(extras)) <= 0.01 * 0.05 / 0.25 + 1e-9


# --- real packets ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def star(*shapes: Shape, congestion: str | None = None) -> Iterator[Star]:
    if lacks := tun.missing():
        pytest.skip("; ".join(lacks))
    with Star(shapes, congestion=congestion) as made:
        yield made


@contextlib.contextmanager
def udp(star: Star, spoke: Spoke) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A socket in the hub, connected to one in the spoke."""
    with inside(spoke.namespace):
        there = socket.socket(type=socket.SOCK_DGRAM)
    with inside(star.hub):
        here = socket.socket(type=socket.SOCK_DGRAM)
    with here, there:
        here.bind((spoke.hub_address, PORT))
        there.bind((spoke.address, PORT))
        here.connect((spoke.address, PORT))
        there.connect((spoke.hub_address, PORT))
        for one in (here, there):
            one.settimeout(WITHIN_S)
        yield here, there


def round_trips_ms(here: socket.socket, there: socket.socket, count: int) -> list[float]:
    times = []
    for number in range(count):
        began = time.monotonic()
        here.send(bytes([number]))
        there.send(there.recv(10))
        assert here.recv(10) == bytes([number])
        times.append((time.monotonic() - began) * 1000)
    return times


def drain(there: socket.socket, star: Star, spoke: Spoke, sent: int) -> int:
    """Packets that arrived, once every one of those ``sent`` is accounted for by the hub's tally or has arrived."""
    came = 0
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        there.settimeout(0.05)
        with contextlib.suppress(TimeoutError):
            while True:
                there.recv(2000)
                came += 1
        tally = star.tallies()[spoke.number][0]
        if came + tally.lost + tally.dropped + tally.refused >= sent:
            break
    return came


@pytest.mark.lab
def test_it_delays_and_what_is_told_later_acts() -> None:
    with star(Shape(delay_ms=30), Shape()) as made, contextlib.ExitStack() as stack:
        slow = stack.enter_context(udp(made, made.spokes[0]))
        quick = stack.enter_context(udp(made, made.spokes[1]))
        trips = round_trips_ms(*slow, 9)
        assert min(trips) >= 60
        assert statistics.median(trips) <= 60 + SLACK_MS
        assert statistics.median(round_trips_ms(*quick, 9)) < 60  # each link is its own
        made.reshape(Shape(delay_ms=50, jitter_ms=20), [made.spokes[0]])
        trips = round_trips_ms(*slow, 5)
        assert min(trips) >= 100
        assert statistics.median(trips) <= 140 + SLACK_MS
        assert statistics.median(round_trips_ms(*quick, 9)) < 60


@pytest.mark.lab
def test_it_loses_as_told_and_counts_what_it_lost() -> None:
    count = 2000
    with star(Shape(loss=0.1)) as made, udp(made, made.spokes[0]) as (here, there):
        there.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 * 1024**2)
        for _ in range(count):
            here.send(bytes(100))
        came = drain(there, made, made.spokes[0], count)
        tally = made.tallies()[0][0]
        assert came == count - tally.lost
        assert (tally.dropped, tally.refused) == (0, 0)
        assert tally.lost == pytest.approx(0.1 * count, rel=0.3)  # more than four standard deviations


@pytest.mark.lab
def test_what_does_not_fit_the_queue_is_dropped() -> None:
    with star(Shape(mbit=2, queue_kib=16)) as made, udp(made, made.spokes[0]) as (here, there):
        for _ in range(200):
            here.send(bytes(1000))
        came = drain(there, made, made.spokes[0], 200)
        dropped = made.tallies()[0][0].dropped
        assert came + dropped == 200
        fits = 16 * 1024 // (1000 + IP_UDP)
        assert fits <= came  # and what left the queue while the rest came
        assert dropped > 50


@pytest.mark.lab
@pytest.mark.parametrize("offload", [False, True])
def test_tcp_gets_the_rate_and_the_congestion_control(offload: bool) -> None:
    mbit, size = 40.0, 5_000_000
    shape = Shape(delay_ms=2, mbit=mbit, queue_kib=128, offload=offload)
    with star(shape, congestion="cubic") as made:
        spoke = made.spokes[0]
        with inside(spoke.namespace):
            listener = socket.create_server((spoke.address, PORT))
        with inside(made.hub):
            here = socket.create_connection((spoke.address, PORT), WITHIN_S)
        with listener, here:
            there, _ = listener.accept()
            with there:
                there.settimeout(WITHIN_S)
                name = there.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
                assert name.rstrip(b"\0") == b"cubic"
                sender = threading.Thread(target=there.sendall, args=(bytes(size),))
                sender.start()
                began, came = time.monotonic(), 0
                while came < size:
                    data = here.recv(1 << 18)
                    assert data
                    came += len(data)
                rate = size * 8e-6 / (time.monotonic() - began)
                sender.join()
        sent = made.tallies()[0][1]
        assert sent.bytes >= size  # headers and what was sent twice
        # The clock starts a little after the first packets have left.
        assert 0.5 * mbit <= rate <= 1.05 * mbit


@pytest.mark.lab
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_carries(scenario: str) -> None:
    shape = SCENARIOS[scenario].shape
    with star(replace(shape, loss=0.0)) as made, udp(made, made.spokes[0]) as pair:
        (trip,) = round_trips_ms(*pair, 1)
        assert trip >= 2 * shape.delay_ms


# --- nothing is left -------------------------------------------------------------------------------------------------


def mine(pid: int) -> list[str]:
    return [name for name in tun.ours() if name.startswith(f"{tun.PREFIX}-{pid}-")]


def children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()}


@pytest.mark.lab
def test_after_a_failure_nothing_is_left() -> None:
    """An exception in the middle, with a process still running in a spoke."""
    before = children()
    running = contextlib.ExitStack()
    made = running.enter_context(star(Shape()))
    assert len(mine(os.getpid())) == 2
    stays = subprocess.Popen(made.command(made.spokes[0].namespace, ["sleep", "600"]))
    with pytest.raises(ZeroDivisionError), running:
        raise ZeroDivisionError
    assert stays.wait(WITHIN_S) == -signal.SIGTERM
    assert mine(os.getpid()) == []
    assert children() <= before


@pytest.mark.lab
def test_a_star_that_cannot_be_made_leaves_nothing() -> None:
    before = children()
    with pytest.raises(RuntimeError, match=r"congctl|congestion"), star(Shape(), congestion="no-such-thing"):
        pass
    assert mine(os.getpid()) == []
    assert children() <= before


@pytest.mark.lab
def test_the_next_star_sweeps_up_after_a_killed_one() -> None:
    if lacks := tun.missing():
        pytest.skip("; ".join(lacks))
    script = (
        "import signal; from benchmarks.link.tun import Star; from benchmarks.link.pipe import Shape\n"
        "with Star([Shape()]) as star: print(star._ferry.pid, flush=True); signal.pause()"
    )
    runner = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE)
    assert runner.stdout is not None
    ferry = int(runner.stdout.readline())
    assert len(mine(runner.pid)) == 2
    runner.kill()
    runner.wait(WITHIN_S)
    runner.stdout.close()
    deadline = time.monotonic() + WITHIN_S
    while Path(f"/proc/{ferry}/cmdline").exists() and Path(f"/proc/{ferry}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "the ferry outlives its runner"
        time.sleep(0.02)
    tun.sweep()
    assert mine(runner.pid) == []
