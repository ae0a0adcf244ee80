"""Lines on their way to a file or a pipe: pieces of many lines go out whole, and what is lost is counted by lines."""

from __future__ import annotations

import os
from pathlib import Path

from fileproxy.clock import ManualClock
from fileproxy.observe.stream import FLUSH_BYTES, MOST_WAITING_BYTES, Stream
from tests.house import Watched

LINE = b"x" * 99 + b"\n"
MANY = LINE * (FLUSH_BYTES // len(LINE) + 1)


async def test_a_large_piece_does_not_wait(tmp_path: Path) -> None:
    counts, target = Watched(), tmp_path / "log"
    stream = Stream(str(target), counts, ManualClock())
    for number in range(1, 40):
        stream.put(MANY)
        assert target.stat().st_size == number * len(MANY)
    stream.put(LINE)
    assert target.stat().st_size == 39 * len(MANY)
    stream.close()
    assert target.read_bytes() == 39 * MANY + LINE
    assert counts["logs.dropped"] == 0


async def test_what_a_pipe_does_not_take_is_counted_by_lines(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    counts = Watched()
    stream = Stream(str(pipe), counts, ManualClock())
    pieces = 2 * MOST_WAITING_BYTES // len(MANY)
    for _ in range(pieces):
        stream.put(MANY)
    stream.close()
    got = b""
    while data := os.read(reader, 65536):
        got += data
    os.close(reader)
    assert got == LINE * (len(got) // len(LINE))
    assert got.count(b"\n") + counts["logs.dropped"] == pieces * MANY.count(b"\n")
    assert counts["logs.dropped"] > 0


async def test_a_disk_that_is_full_loses_lines_by_number() -> None:
    counts = Watched()
    stream = Stream("/dev/full", counts, ManualClock())
    stream.put(MANY)
    assert counts["logs.dropped"] == MANY.count(b"\n")
    assert stream.problem is not None
    stream.close()
