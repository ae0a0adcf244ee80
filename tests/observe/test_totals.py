from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fileproxy.clock import ManualClock
from fileproxy.observe.layout import LAYOUT
from fileproxy.observe.page import MASTER, Page
from fileproxy.observe.totals import Totals, read_totals

WORKER = """
import json, sys
from pathlib import Path
from fileproxy.clock import SystemClock
from fileproxy.observe.page import Page
from fileproxy.observe.slots import Slots
run_dir, rounds = Path(sys.argv[1]), int(sys.argv[2])
slot = Slots(run_dir).claim()
page = Page.create(run_dir / "counters", slot.number, SystemClock())
page.add("connections.open", 3)
for number in range(rounds):
    page.add("requests")
    page.add("route.requests", label="/%d/" % (number % 5))
    page.observe("response_time", 0.001 * (1 + number % 100))
    page.traffic(100)
print(slot.number, flush=True)
sys.stdin.read()
"""
ROUNDS = 5_000


def worker(run_dir: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(run_dir), str(ROUNDS)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def ready(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def test_the_sums_of_several_processes_are_whole_and_survive_kill_9(tmp_path: Path) -> None:
    folder = tmp_path / "counters"
    processes = [worker(tmp_path) for _ in range(3)]
    try:
        seen = 0
        while seen < 3 * ROUNDS:  # read while they write: sums only grow, and nothing breaks
            assert all(process.poll() is None for process in processes)
            totals = read_totals(folder)
            assert totals.unreadable == []
            assert seen <= totals.counters["requests"] <= 3 * ROUNDS
            seen = totals.counters["requests"]
        slots = {ready(process): process for process in processes}
        totals = read_totals(folder)
        assert totals.counters["connections.open"] == 9
        assert [one.slot for one in totals.live] == [0, 1, 2]

        victim = slots[1]
        os.kill(victim.pid, signal.SIGKILL)
        victim.communicate()
        totals = read_totals(folder)
        assert totals.counters["requests"] == 3 * ROUNDS
        assert totals.counters["bytes.to_clients"] == 300 * ROUNDS
        assert totals.labelled["route.requests"] == {f"/{n}/": 3 * ROUNDS // 5 for n in range(5)}
        assert totals.histograms["response_time"].count == 3 * ROUNDS
        assert totals.window.bytes == 300 * ROUNDS
        assert totals.window.requests == 3 * ROUNDS
        assert totals.counters["connections.open"] == 6, "a dead worker has no open connections"
        assert {one.slot for one in totals.live} == {0, 2}

        processes.append(successor := worker(tmp_path))
        assert ready(successor) == 1, "the freed slot, and with it the page"
        totals = read_totals(folder)
        assert totals.pages == 3
        assert totals.counters["requests"] == 4 * ROUNDS
        assert totals.counters["connections.open"] == 9
        assert [one.lives for one in totals.live] == [1, 2, 1]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


READER = """
import sys
from pathlib import Path
from fileproxy.observe.totals import read_totals
for _ in range(int(sys.argv[2])):
    read_totals(Path(sys.argv[1]), held=frozenset())
print("read", flush=True)
"""


def test_a_page_cut_short_while_it_is_read_kills_no_reader(tmp_path: Path) -> None:
    path = tmp_path / "7.page"
    Page.create(tmp_path, 7, ManualClock())
    whole = path.read_bytes()
    reader = subprocess.Popen([sys.executable, "-c", READER, str(tmp_path), "100"], stdout=subprocess.PIPE, text=True)
    try:
        while reader.poll() is None:
            # A copy, not the mapped page: that one belongs to its worker, who would die by it.
            copy = tmp_path / "8.page"
            copy.write_bytes(whole)
            os.truncate(copy, LAYOUT.size_bytes // 2)
        assert reader.returncode == 0
    finally:
        reader.kill()
        out, _ = reader.communicate()
    assert out == "read\n"


def test_the_masters_page_counts_too(tmp_path: Path) -> None:
    clock = ManualClock()
    master = Page.create(tmp_path, MASTER, clock)
    master.add("workers.started", 4)
    totals = read_totals(tmp_path, held=frozenset({0}), now=clock.now(), time_now=clock.time())
    assert totals.counters["workers.started"] == 4
    assert totals.live == []


def test_no_folder_is_all_zeros(tmp_path: Path) -> None:
    totals = read_totals(tmp_path / "counters")
    assert set(totals.counters.values()) == {0}
    assert totals.window.bits_per_second == 0
    assert json.dumps(totals.counters)


class TestWindow:
    """Throughput of the last 60 seconds."""

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock(start=1_000.0)

    def read(self, folder: Path, clock: ManualClock) -> Totals:
        return read_totals(folder, held=frozenset({0}), now=clock.now(), time_now=clock.time())

    def test_a_steady_rate_is_that_rate(self, tmp_path: Path, clock: ManualClock) -> None:
        page = Page.create(tmp_path, 0, clock)
        for _ in range(200):
            page.traffic(1_000)
            clock.tick(1)
            page.add("requests")
        window = self.read(tmp_path, clock).window
        assert window.seconds == 59.0
        assert window.bits_per_second == pytest.approx(8_000, rel=0.02)
        assert window.requests == 60

    def test_old_seconds_fall_out(self, tmp_path: Path, clock: ManualClock) -> None:
        page = Page.create(tmp_path, 0, clock)
        page.traffic(500)
        page.add("errors")
        clock.tick(59)
        assert self.read(tmp_path, clock).window.bytes == 500
        assert self.read(tmp_path, clock).window.errors == 1
        clock.tick(1)
        assert self.read(tmp_path, clock).window.bytes == 0
        clock.tick(4)  # the same place of the ring
        page.traffic(7)
        assert self.read(tmp_path, clock).window.bytes == 7

    def test_right_after_the_start_the_time_since_counts(self, tmp_path: Path, clock: ManualClock) -> None:
        page = Page.create(tmp_path, 0, clock)
        page.traffic(10_000)
        clock.tick(10)
        window = self.read(tmp_path, clock).window
        assert window.seconds == pytest.approx(10)
        assert window.bits_per_second == pytest.approx(8_000)

    def test_several_workers_add_up(self, tmp_path: Path, clock: ManualClock) -> None:
        pages = [Page.create(tmp_path, number, clock) for number in range(3)]
        clock.tick(120)
        for page in pages:
            page.traffic(1_000)
        assert self.read(tmp_path, clock).window.bytes == 3_000
