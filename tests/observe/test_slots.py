from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from fileproxy.observe.slots import Slots

HOLDER = """
import sys, time
from pathlib import Path
from fileproxy.observe.slots import Slots
slot = Slots(Path(sys.argv[1])).claim()
print(slot.number, flush=True)
sys.stdin.read()
"""


def hold(run_dir: Path) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(run_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_numbers_are_given_from_the_lowest_and_given_back(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    first, second, third = slots.claim(), slots.claim(), slots.claim()
    assert [first.number, second.number, third.number] == [0, 1, 2]
    second.release()
    second.release()
    assert slots.held() == {0, 2}
    again = slots.claim()
    assert again.number == 1
    for slot in (first, again, third):
        slot.release()
    assert slots.held() == set()


def test_kill_9_frees_a_slot(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    one, first = hold(tmp_path)
    other, second = hold(tmp_path)
    try:
        assert (first, second) == (0, 1)
        assert slots.held() == {0, 1}
        os.kill(one.pid, signal.SIGKILL)
        one.communicate()
        assert slots.held() == {1}
        slot = slots.claim()
        assert slot.number == 0
        slot.release()
    finally:
        end(one)
        end(other)


def test_looking_takes_nothing_away(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    slot = slots.claim()
    for _ in range(3):
        assert slots.held() == {0}
    slot.release()
    assert slots.held() == set()
    assert Slots(tmp_path / "nowhere").held() == set()


def test_foreign_files_in_the_folder_are_no_slots(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    slot = slots.claim()
    (tmp_path / "slots" / "note.txt").write_text("hello")
    (tmp_path / "slots" / "٣").write_text("a digit, but not ours")
    assert slots.held() == {0}
    slot.release()
