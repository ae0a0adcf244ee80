from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from multiprocessing.synchronize import Barrier
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fileproxy.cache.ban import Ban, judge
from fileproxy.cache.bans import KINDS, Bans, Kind
from fileproxy.clock import ManualClock
from fileproxy.model import Meta, Record, VaryRule

URL = "files/a.test/dir/one.bin?x=1"


def meta(url: str = URL, ban: int = 0, tags: tuple[str, ...] = (), expired_at: float | None = None) -> Meta:
    return Meta(
        key=bytes(16), rid=bytes(range(16)), url=url, status=200, reason="OK", headers=(), size=10, block=1024,
        pinned=True, requested_at=1.0, received_at=2.0, age_s=0.0, ban=ban, expired_at=expired_at, tags=tags,
    )  # fmt: skip


def ban(kind: Kind, value: str = "", *, soft: bool = False, seq: int = 1, at: float = 50.0) -> Ban:
    return Ban(seq, kind, value, soft, at)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


# --- what a ban speaks of (pure) --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value", "hit"),
    [
        ("all", "", True),
        ("key", URL, True),
        ("key", "files/a.test/dir/one.bin", False),
        ("key", "files/*/dir/one.bin?x=1", True),
        ("key", "*/*/dir/one.bin?x=1", True),
        ("key", "*/b.test/dir/one.bin?x=1", False),
        ("key", "files/a.test/*/one.bin?x=1", False),  # only for upstream and host
        ("prefix", "files/a.test/dir/", True),
        ("prefix", "*/*/dir/", True),
        ("prefix", "other/*/dir/", False),
        ("prefix", "files/*/dir/two", False),
        ("tag", "red", True),
        ("tag", "re", False),
    ],
)
def test_hits(kind: Kind, value: str, hit: bool) -> None:
    assert ban(kind, value).hits(meta(tags=("red", "blue"))) is hit


def test_a_rule_of_vary_goes_with_its_url_and_has_no_tags() -> None:
    rule = VaryRule(key=bytes(16), url=URL, fields=("accept-encoding",))
    assert ban("key", URL).hits(rule)
    assert not ban("tag", "").hits(rule)


def test_soft_bans_expire_and_the_earliest_counts() -> None:
    judged = judge(meta(), [ban("all", soft=True, at=70.0), ban("all", soft=True, at=60.0)], 2)
    assert judged.outcome == "soft"
    assert judged.record == meta(ban=2, expired_at=60.0)
    again = judge(meta(ban=2, expired_at=60.0), [ban("all", soft=True, at=90.0)], 3)
    assert again.record == meta(ban=3, expired_at=60.0)


def test_a_hard_ban_among_soft_ones_wins() -> None:
    assert judge(meta(), [ban("all", soft=True), ban("key", URL)], 2).outcome == "gone"


def test_what_is_not_hit_is_kept_with_the_newest_number() -> None:
    judged = judge(meta(), [ban("tag", "x"), ban("prefix", "files/b")], 9)
    assert judged.outcome == "keep"
    assert judged.record == meta(ban=9)


# --- the list, seen by several workers --------------------------------------------------------------------------------


def kept(bans: Bans, record: Record) -> bool:
    return bans.judge(record).record is not None


def test_another_worker_sees_a_ban_at_once_and_only_older_records_go(tmp_path: Path, clock: ManualClock) -> None:
    one, two = Bans(tmp_path, clock), Bans(tmp_path, clock)
    before = meta(ban=two.seq)
    assert two.judge(before).record is before
    added = one.add("key", URL)
    assert two.seq == added.seq == one.seq == before.ban + 1
    assert not kept(two, before)
    assert kept(two, meta(url="files/a.test/other", ban=before.ban))
    assert kept(two, meta(ban=added.seq)), "fetched after the purge"


def test_a_ban_outlives_the_process_and_reaches_who_was_away(tmp_path: Path, clock: ManualClock) -> None:
    first = Bans(tmp_path, clock)
    before = meta(ban=first.seq, tags=("red",))
    first.add("tag", "red", soft=True)
    first.close()
    later = Bans(tmp_path, clock)
    judged = later.judge(before)
    assert judged.outcome == "soft"
    assert judged.record == meta(ban=before.ban + 1, tags=("red",), expired_at=clock.time())


def test_several_are_added_together(tmp_path: Path, clock: ManualClock) -> None:
    bans = Bans(tmp_path, clock)
    base = bans.seq
    assert [one.seq for one in bans.add_all([("key", "a", False), ("key", "b", True)])] == [base + 1, base + 2]
    assert bans.seq == base + 2


def test_bytes_that_are_no_text_are_kept(tmp_path: Path, clock: ManualClock) -> None:
    url = "files/a.test/\udcff\n\"'\u2028"
    bans, other = Bans(tmp_path, clock), Bans(tmp_path, clock)
    before = meta(url=url, ban=bans.seq)
    bans.add("key", url)
    assert not kept(other, before)


_KIND_VALUES = st.tuples(st.sampled_from(KINDS), st.sampled_from(["u/h/a", "u/h/a/b", "u/h/c", "red"]), st.booleans())


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(st.one_of(_KIND_VALUES, st.integers(0, 2), st.just("new")), max_size=30),
    keep=st.sampled_from([2, 3, 4096]),
)
def test_every_worker_judges_as_the_whole_history_says(steps: list[object], keep: int) -> None:
    """Workers add, look, and are started anew in any order; a short list may only ever forget records, not bans."""
    clock = ManualClock()
    with TemporaryDirectory() as folder:
        workers = [Bans(Path(folder), clock, keep=keep) for _ in range(2)]
        history: list[Ban] = []
        records = [meta(url=url, ban=workers[0].seq, tags=("red",)) for url in ("u/h/a", "u/h/a/b", "u/h/c")]
        for number, step in enumerate(steps):
            clock.tick(1.0)
            if isinstance(step, tuple):
                history.append(workers[number % 2].add(*step))
            elif step == "new":
                workers[number % 2].close()
                workers[number % 2] = Bans(Path(folder), clock, keep=keep)
            elif isinstance(step, int):
                workers[number % 2].judge(records[step])
            for worker in workers:
                assert worker.seq == records[0].ban + len(history)
                for record in records:
                    judged = worker.judge(record)
                    expected = judge(record, history, worker.seq)
                    assert judged == expected or (judged.outcome == "gone" and len(history) > keep)
        for worker in workers:
            worker.close()


def test_a_list_is_shortened_and_what_is_older_than_it_counts_as_gone(tmp_path: Path, clock: ManualClock) -> None:
    one, two = Bans(tmp_path, clock, keep=10), Bans(tmp_path, clock, keep=10)
    base = one.seq
    two.catch_up()
    for number in range(25):
        one.add("key", f"files/a.test/{number}")
    assert two.seq == base + 25
    assert not kept(two, meta(ban=base))
    assert kept(two, meta(ban=base + 24))
    assert not kept(two, meta(url="files/a.test/24", ban=base + 24))
    assert len(two.kept) <= 21
    assert (tmp_path / "bans").read_bytes().count(b"\n") <= 22


# --- damage -----------------------------------------------------------------------------------------------------------


def test_a_torn_tail_was_never_acknowledged_and_is_cut_off(tmp_path: Path, clock: ManualClock) -> None:
    bans = Bans(tmp_path, clock)
    before = meta(ban=bans.seq)
    bans.add("key", "files/a.test/x")
    whole = (tmp_path / "bans").read_bytes()
    with (tmp_path / "bans").open("ab") as file:
        file.write(b'000000ff 12345678 {"seq":')
    assert kept(bans, before)
    bans.add("key", URL)
    lines = (tmp_path / "bans").read_bytes()
    assert lines.startswith(whole)
    assert b'{"seq":0' not in lines[len(whole) :]
    assert lines.count(b"\n") == whole.count(b"\n") + 1
    assert not kept(Bans(tmp_path, clock), before)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_loses_records_but_never_a_ban(data: st.DataObject) -> None:
    clock = ManualClock()
    with TemporaryDirectory() as folder:
        bans = Bans(Path(folder), clock)
        old = meta(ban=bans.seq)
        values = ["files/a.test/1", "files/a.test/2", "files/a.test/3"]
        values.insert(data.draw(st.integers(0, 3)), URL)
        for value in values:
            bans.add("key", value)
        bans.close()
        path = Path(folder) / "bans"
        content = bytearray(path.read_bytes())
        what = data.draw(st.sampled_from(["flip", "cut", "drop", "zero"]))
        place = data.draw(st.integers(0, len(content) - 1))
        if what == "flip":
            content[place] ^= 1 << data.draw(st.integers(0, 7))
        elif what == "zero":
            content[place:] = bytes(len(content) - place)
        else:
            del content[place : None if what == "cut" else place + 1]
        path.write_bytes(content)
        later = Bans(Path(folder), clock)
        assert not kept(later, old)
        assert later.add("tag", "red").seq == later.seq
        third = Bans(Path(folder), clock)
        assert not kept(third, old)
        assert not kept(third, meta(ban=later.seq - 1, tags=("red",)))
        assert kept(third, meta(ban=third.seq))
        later.close()
        third.close()


def test_a_list_that_vanished_takes_all_that_was_stored_under_it(tmp_path: Path, clock: ManualClock) -> None:
    bans = Bans(tmp_path, clock)
    bans.add("key", URL)
    before = meta(url="files/a.test/other", ban=bans.seq)
    bans.close()
    for name in ("bans", "bans.seq"):
        (tmp_path / name).unlink()
    clock.tick(5.0)
    later = Bans(tmp_path, clock)
    assert later.machine != bans.machine
    assert not kept(later, before)
    assert kept(later, meta(ban=later.seq))


def test_a_list_that_vanishes_under_running_workers(tmp_path: Path, clock: ManualClock) -> None:
    one, two = Bans(tmp_path, clock), Bans(tmp_path, clock)
    before = meta(ban=one.seq)
    (tmp_path / "bans").unlink()
    one.add("tag", "x")
    assert not kept(two, before)
    assert kept(two, meta(ban=two.seq))
    assert one.problem is two.problem is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_nobody_may_write_to_is_still_read_and_mends_itself(tmp_path: Path, clock: ManualClock) -> None:
    first = Bans(tmp_path, clock)
    before = meta(ban=first.seq)
    first.add("key", URL)
    first.close()
    (tmp_path / "bans.seq").unlink()
    tmp_path.chmod(0o500)
    later = Bans(tmp_path, clock)
    assert later.problem is not None
    assert not kept(later, before)
    with pytest.raises(OSError, match="bans"):
        later.add("all", "")
    tmp_path.chmod(0o700)
    clock.tick(2.0)
    assert later.seq > before.ban
    assert "status" not in later.statistics()
    later.add("all", "")


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "file").write_text("")
    bans = Bans(tmp_path / "file" / "cache", clock)
    assert bans.problem is not None
    assert "file" in bans.problem
    assert bans.statistics()["status"] == "degraded"
    assert kept(bans, meta(ban=bans.seq))
    with pytest.raises(OSError, match="bans"):
        bans.add("all", "")


# --- many at once, and sudden ends ------------------------------------------------------------------------------------


def _add_many(folder: str, name: str, count: int, together: Barrier) -> None:
    bans = Bans(Path(folder), ManualClock(), keep=50)
    together.wait(30)
    for number in range(count):
        bans.add("key", f"{name}{number}")


def test_processes_that_add_at_once_get_numbers_of_their_own(tmp_path: Path, clock: ManualClock) -> None:
    bans = Bans(tmp_path, clock, keep=50)
    base = bans.seq
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(3)
    adders = [context.Process(target=_add_many, args=(str(tmp_path), name, 60, together)) for name in "abc"]
    for adder in adders:
        adder.start()
    for adder in adders:
        adder.join(30)
        assert adder.exitcode == 0
    bans.catch_up()
    numbers = [one.seq for one in bans.kept]
    assert numbers == list(range(base + 180 - len(numbers) + 1, base + 181))
    assert len({one.value for one in bans.kept}) == len(numbers)


KILLED = """
import sys
from pathlib import Path
from fileproxy.cache.bans import Bans
from fileproxy.clock import SystemClock
bans = Bans(Path(sys.argv[1]), SystemClock(), keep=20)
number = 0
while True:
    print(bans.add("key", f"u/h/{number}").seq, flush=True)
    number += 1
"""


def test_kill_9_while_adding_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    clock = ManualClock(epoch=1e6)
    base = Bans(tmp_path, clock).seq
    for told in (1, 7, 45):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True) as one:
            assert one.stdout is not None
            last = [int(one.stdout.readline()) for _ in range(told)][-1]
            one.kill()
            last = max([last, *(int(line) for line in one.stdout if line.endswith("\n"))])
        later = Bans(tmp_path, clock)
        assert later.seq >= last > base
        assert not kept(later, meta(url=f"u/h/{told - 1}", ban=base))
        later.close()
