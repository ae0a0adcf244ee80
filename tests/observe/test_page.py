from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fileproxy.clock import ManualClock
from fileproxy.observe.histogram import Histogram
from fileproxy.observe.layout import H_HASH, LAYOUT, OTHER, layout_of
from fileproxy.observe.page import Page, reset
from fileproxy.observe.table import TABLE, Row
from fileproxy.observe.totals import Totals, read_totals


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def read(folder: Path, clock: ManualClock, *held: int) -> Totals:
    return read_totals(folder, held=frozenset(held), now=clock.now(), time_now=clock.time())


def test_what_is_counted_can_be_read(tmp_path: Path, clock: ManualClock) -> None:
    page = Page.create(tmp_path, 0, clock)
    page.add("requests")
    page.add("requests", 4)
    page.add("connections.open", 3)
    page.add("connections.open", -1)
    page.add("route.requests", label="/")
    page.add("route.bytes", 7, "/käse/")
    page.observe("response_time", 0.25)
    page.observe("mirror.first_byte", 0.5, "http://a")
    page.traffic(1000)
    totals = read(tmp_path, clock, 0)
    assert totals.counters["requests"] == 5
    assert totals.counters["connections.open"] == 2
    assert totals.counters["bytes.to_clients"] == 1000
    assert totals.labelled["route.requests"] == {"/": 1, "/käse/": 0}
    assert totals.labelled["route.bytes"] == {"/": 0, "/käse/": 7}
    assert totals.histograms["response_time"] == Histogram.of([0.25])
    assert totals.labelled_histograms["mirror.first_byte"] == {"http://a": Histogram.of([0.5])}
    assert totals.labelled["mirror.tries"] == {"http://a": 0}
    assert totals.unreadable == []


def test_undeclared_names_and_wrong_kinds_are_refused(tmp_path: Path, clock: ManualClock) -> None:
    page = Page.create(tmp_path, 0, clock)
    for name, label in [("no.such", None), ("no.such", "x"), ("route.requests", None), ("requests", "x"),
                        ("response_time", None), ("route.response_time", "/")]:  # fmt: skip
        with pytest.raises(KeyError):
            page.add(name, label=label)
    for name, label in [("requests", None), ("route.requests", "/"), ("route.response_time", None)]:
        with pytest.raises(KeyError):
            page.observe(name, 1.0, label)
    with pytest.raises(ValueError, match="only grows"):
        page.add("requests", -1)
    with pytest.raises(ValueError, match="only grows"):
        page.add("route.bytes", -1, "/")


def test_the_next_holder_goes_on_adding_but_gauges_begin_at_zero(tmp_path: Path, clock: ManualClock) -> None:
    first = Page.create(tmp_path, 0, clock)
    first.add("requests", 10)
    first.add("connections.open", 5)
    first.add("route.requests", 2, "/")
    began_at = clock.time()
    clock.tick(5)
    second = Page.create(tmp_path, 0, clock)
    second.add("requests")
    second.add("route.requests", 1, "/")
    totals = read(tmp_path, clock, 0)
    assert totals.counters["requests"] == 11
    assert totals.counters["connections.open"] == 0
    assert totals.labelled["route.requests"] == {"/": 3}
    assert totals.pages == 1
    (worker,) = totals.live
    assert (worker.pid, worker.lives) == (os.getpid(), 2)
    assert worker.started_at == pytest.approx(clock.time())
    assert totals.began_at == pytest.approx(began_at)


def test_a_page_of_another_version_is_put_aside(tmp_path: Path, clock: ManualClock) -> None:
    other = layout_of((*TABLE, Row("extra", "counter", "One more.")))
    Page.create(tmp_path, 0, clock, layout=other).add("requests", 10)
    Page.create(tmp_path, 0, clock).add("requests", 1)
    assert read(tmp_path, clock).counters["requests"] == 1
    assert (tmp_path / "0.aside").stat().st_size == other.size_bytes


def _shorten(path: Path) -> None:
    os.truncate(path, 1000)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _noise(path: Path) -> None:
    path.write_bytes(os.urandom(LAYOUT.size_bytes))


def _cell(cell: int, value: int) -> object | None:
    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(cell * 8)
            file.write(value.to_bytes(8, "little", signed=True))

    return damage


DAMAGE = {
    "cut short": _shorten,
    "empty": _empty,
    "noise": _noise,
    "negative counter": _cell(LAYOUT.scalars["requests"], -5),
    "huge counter": _cell(LAYOUT.scalars["requests"], 2**63 - 1),
    "huge histogram": _cell(LAYOUT.histograms["response_time"] + 3, 2**63 - 1),
    "too many rows": _cell(LAYOUT.families["route"].used, 1000),
    "no rows": _cell(LAYOUT.families["route"].used, 0),
    "label too long": _cell(LAYOUT.families["route"].base, 5000),
    "negative label": _cell(LAYOUT.families["route"].base, -1),
    "label not utf-8": _cell(LAYOUT.families["route"].base + 1, -1),
    "negative row": _cell(LAYOUT.families["route"].base + LAYOUT.families["route"].counters["route.bytes"], -9),
    "other hash": _cell(H_HASH, 1),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_page_is_left_out_of_the_sums_and_put_aside(name: str, tmp_path: Path, clock: ManualClock) -> None:
    Page.create(tmp_path, 0, clock).add("requests", 7)
    Page.create(tmp_path, 1, clock).add("requests", 30)
    damage = DAMAGE[name]
    assert callable(damage)
    damage(tmp_path / "0.page")
    totals = read(tmp_path, clock, 0, 1)
    assert totals.counters["requests"] == 30
    assert [line.partition(":")[0] for line in totals.unreadable] == ["0.page"]
    Page.create(tmp_path, 0, clock).add("requests", 1)
    assert (tmp_path / "0.aside").exists()
    healed = read(tmp_path, clock, 0, 1)
    assert healed.counters["requests"] == 31
    assert healed.unreadable == []


def test_things_that_are_no_pages_are_left_out(tmp_path: Path, clock: ManualClock) -> None:
    Page.create(tmp_path, 0, clock).add("requests")
    (tmp_path / "1.page").mkdir()
    os.mkfifo(tmp_path / "2.page")
    (tmp_path / "3.page").symlink_to(tmp_path / "0.page")
    totals = read(tmp_path, clock)
    assert totals.counters["requests"] == 1
    assert len(totals.unreadable) == 3


def test_at_most_256_labels_a_family_the_rest_counts_as_other(tmp_path: Path, clock: ManualClock) -> None:
    page = Page.create(tmp_path, 0, clock)
    for number in range(300):
        page.add("mirror.tries", label=f"http://{number}")
    page.observe("mirror.first_byte", 1.0, "http://299")
    totals = read(tmp_path, clock, 0)
    tries = totals.labelled["mirror.tries"]
    assert len(tries) == 257
    assert tries[OTHER] == 44
    assert sum(tries.values()) == 300
    assert totals.labelled_histograms["mirror.first_byte"][OTHER].count == 1
    successor = Page.create(tmp_path, 0, clock)
    successor.add("mirror.tries", label="http://0")
    successor.add("mirror.tries", label="http://new")
    tries = read(tmp_path, clock, 0).labelled["mirror.tries"]
    assert (tries["http://0"], tries[OTHER]) == (2, 45)


def test_a_long_label_is_one_row_for_every_holder(tmp_path: Path, clock: ManualClock) -> None:
    label = "http://" + "ä" * 200
    Page.create(tmp_path, 0, clock).add("mirror.tries", label=label)
    Page.create(tmp_path, 0, clock).add("mirror.tries", label=label)
    assert list(read(tmp_path, clock).labelled["mirror.tries"].values()) == [2]


def test_labels_that_are_no_text_are_spelled_out(tmp_path: Path, clock: ManualClock) -> None:
    Page.create(tmp_path, 0, clock).add("route.requests", label="/\udcff")
    assert read(tmp_path, clock).labelled["route.requests"] == {"/\\udcff": 1}


def test_odd_durations_are_counted_and_break_nothing(tmp_path: Path, clock: ManualClock) -> None:
    page = Page.create(tmp_path, 0, clock)
    for seconds in (-1.0, 0.0, 1e9, float("inf")):
        page.observe("response_time", seconds)
    times = read(tmp_path, clock).histograms["response_time"]
    assert times.count == 4
    assert times.longest_s == 1e6


def test_a_page_that_cannot_be_made_counts_in_memory_and_says_so(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    page = Page.create(tmp_path, 0, clock)
    assert page.problem is not None
    assert "No space left" in page.problem
    page.add("requests")
    page.add("route.requests", label="/")
    assert read(tmp_path, clock).counters["requests"] == 0
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    assert Page.create(tmp_path / "file", 0, clock).problem is not None
    assert Page.create(tmp_path, 0, clock).problem is None


def test_the_disk_blocks_of_a_page_are_taken_at_once(tmp_path: Path, clock: ManualClock) -> None:
    # Otherwise a disk that fills up later would kill the worker at its next count.
    Page.create(tmp_path, 0, clock)
    assert (tmp_path / "0.page").stat().st_blocks * 512 >= LAYOUT.size_bytes


def test_reset_forgets_everything(tmp_path: Path, clock: ManualClock) -> None:
    reset(tmp_path / "nowhere")
    Page.create(tmp_path, 0, clock).add("requests")
    (tmp_path / "0.aside").write_text("")
    (tmp_path / "0.new").write_text("")
    reset(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert read(tmp_path, clock).counters["requests"] == 0
