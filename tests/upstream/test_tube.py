"""Pipes between sockets: how many there are, and how large."""

from __future__ import annotations

import fcntl
import os
from collections import Counter

import pytest

from fileproxy.upstream import tube
from fileproxy.upstream.tube import Tubes
from tests.house import Watched

pytestmark = pytest.mark.skipif(not tube.AVAILABLE, reason="no splice here")


def test_the_more_pipes_the_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tube, "SIZES", ((2, 1024 * 1024), (5, 65536), (7, 32768)))
    tubes, sizes, ends = Tubes(Watched()), Counter[int](), list[int]()
    try:
        while (pipe := tubes.pipe()) is not None:
            ends += pipe
            sizes[fcntl.fcntl(pipe[1], fcntl.F_GETPIPE_SZ)] += 1
    finally:
        for end in ends:
            os.close(end)
    assert sizes == {1024 * 1024: 2, 65536: 3, 32768: 2}


def test_a_user_without_privileges_may_have_them_all() -> None:
    most, total = 0, 0
    for upto, size in tube.SIZES:
        total += (upto - most) * size
        most = upto
    assert most > 1000
    assert total <= 64 * 1024 * 1024  # fs.pipe-user-pages-soft


def test_tiny_pipes_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has too much in pipes gets those of two pages."""
    real, closed = fcntl.fcntl, list[int]()

    def refusing(descriptor: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETPIPE_SZ and argument > 8192:
            raise PermissionError
        return 8192 if command == fcntl.F_GETPIPE_SZ else real(descriptor, command, argument)

    shut = os.close

    def noted(end: int) -> None:
        closed.append(end)
        shut(end)

    monkeypatch.setattr(fcntl, "fcntl", refusing)
    monkeypatch.setattr(os, "close", noted)
    tubes = Tubes(Watched())
    assert tubes.pipe() is None
    assert (tubes.pipes, len(closed)) == (0, 2)
