"""A first connection on a long path is looked at through the kernel's eyes."""

from __future__ import annotations

import math

from fileproxy.control.growth import LONG_S
from fileproxy.fill.alone import LEAST_LOOK_S, Alone
from fileproxy.tcpinfo import NetPath, TcpInfo

RTT_S = 0.1
STALL_S = 0.75


class Told(NetPath):
    """A path as a test says that it is. ``segments`` None: its connection is closed."""

    segments: int | None = 10
    behind = 0

    def tcp(self) -> TcpInfo | None:
        nothing = TcpInfo(*[0] * len(TcpInfo._fields))
        return None if self.segments is None else nothing._replace(data_segs_in=self.segments, out_of_order=self.behind)


def brings(path: Told, alone: Alone, *, begins: float, ends: float, rate: float) -> bool:
    """What the last look said, each 10 ms, while so many segments a second come."""
    said, before, now = False, path.segments or 0, begins
    while now < ends:
        now += 0.01
        path.segments = before + int(rate * (now - begins))
        said = alone.look(now, STALL_S)
    return said


def test_a_short_path_is_not_looked_at() -> None:
    for path in (None, Told("m", connect_s=LONG_S / 2)):
        alone = Alone(path, 0.0, known=True)
        assert (alone.next_look_s, alone.look(1.0, STALL_S), alone.is_best) == (math.inf, False, False)


def test_what_is_known_is_left_alone_until_it_is_refuted() -> None:
    path = Told("m", connect_s=RTT_S)
    alone = Alone(path, 0.0, known=True)
    assert brings(path, alone, begins=0.0, ends=5.0, rate=800.0)
    assert (alone.is_best, alone.refuted) == (True, False)
    assert not brings(path, alone, begins=5.0, ends=9.0, rate=100.0)
    assert (alone.is_best, alone.refuted, alone.next_look_s) == (False, True, math.inf)


def test_what_was_not_known_is_not_refuted() -> None:
    path = Told("m", connect_s=RTT_S)
    alone = Alone(path, 0.0, known=False)
    assert not brings(path, alone, begins=0.0, ends=9.0, rate=800.0)  # it neither grows nor loses anything
    assert (alone.is_best, alone.refuted) == (False, False)


def test_a_gap_while_the_rate_is_held_is_what_makes_it_best() -> None:
    path = Told("m", connect_s=RTT_S)
    alone = Alone(path, 0.0, known=False)
    path.behind = 1
    assert brings(path, alone, begins=0.0, ends=1.0, rate=800.0)
    assert alone.is_best


def test_a_silence_is_no_time_to_be_alone() -> None:
    path = Told("m", connect_s=RTT_S)
    alone = Alone(path, 0.0, known=True)
    assert alone.look(STALL_S - 0.01, STALL_S)
    assert not alone.look(STALL_S, STALL_S)
    path.segments = 11
    assert alone.look(STALL_S + 0.1, STALL_S)


def test_of_a_closed_connection_nothing_is_known() -> None:
    path = Told("m", connect_s=RTT_S)
    alone = Alone(path, 0.0, known=True)
    path.segments = None
    assert not alone.look(0.1, STALL_S)


def test_it_is_not_looked_at_all_the_time() -> None:
    alone = Alone(Told("m", connect_s=LONG_S), 0.0, known=False)
    alone.look(LONG_S / 2, STALL_S)
    assert alone.next_look_s == LEAST_LOOK_S
