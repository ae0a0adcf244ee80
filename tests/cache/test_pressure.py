from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.cache.memory import MemoryTier
from fileproxy.cache.pressure import (
    LEAST_CHUNK,
    LEAST_WINDOW,
    Decision,
    Level,
    MemoryManager,
    Reading,
    Sizes,
    decide,
    level_of,
    read_cgroup,
    read_memory,
)
from fileproxy.clock import ManualClock
from tests.house import Watched

KIB, MIB, GIB = 1024, 1024**2, 1024**3
WANTED = Sizes(128 * MIB, 8 * MIB, 128 * KIB)
EASY = Reading(available=8 * GIB, total=16 * GIB)
CRITICAL = Reading(available=GIB // 2, total=16 * GIB)
LOW = Reading(available=GIB, total=16 * GIB)
TIGHT = Reading(available=2 * GIB, total=16 * GIB)


# --- decisions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "level"),
    [
        (1.0, "normal"), (0.2, "normal"), (0.199, "tight"), (0.1, "tight"),
        (0.099, "low"), (0.05, "low"), (0.04, "critical"), (0.0, "critical"),
    ],
)  # fmt: skip
def test_levels(left: float, level: Level) -> None:
    assert level_of(left) == level


@pytest.mark.parametrize(
    ("reading", "left"),
    [
        (Reading(500, 1000), 0.5),
        (Reading(500, 1000, 100, 90), 0.1),  # the container is the scarcer
        (Reading(50, 1000, 100, 10), 0.05),  # the machine is
        (Reading(500, 1000, 100, 120), 0.0),
        (Reading(500, 1000, 10_000, 0), 0.5),
        (Reading(0, 0), 0.0),
    ],
)
def test_what_is_left_is_that_of_the_scarcer(reading: Reading, left: float) -> None:
    assert reading.left == pytest.approx(left)


@pytest.mark.parametrize(
    ("reading", "decision"),
    [
        (EASY, Decision(128 * MIB, 8 * MIB, 128 * KIB, "normal")),
        (TIGHT, Decision(128 * MIB, 8 * MIB, 128 * KIB, "tight")),
        (LOW, Decision(96 * MIB, 4 * MIB, 64 * KIB, "low")),
        (CRITICAL, Decision(64 * MIB, 2 * MIB, 32 * KIB, "critical")),
    ],
)
def test_one_step(reading: Reading, decision: Decision) -> None:
    assert decide(reading, WANTED, WANTED) == decision


def test_under_lasting_pressure_everything_falls_to_its_floor() -> None:
    now: Sizes = WANTED
    chunks = []
    for _ in range(12):
        now = decide(LOW, WANTED, now)
        chunks.append(now.chunk // KIB)
    assert chunks[:5] == [64, 32, 16, 8, 8]
    assert (now.window, now.chunk) == (LEAST_WINDOW, LEAST_CHUNK)
    for _ in range(12):
        now = decide(CRITICAL, WANTED, now)
    assert now == Decision(0, LEAST_WINDOW, LEAST_CHUNK, "critical")


def test_it_comes_back_slowly() -> None:
    now: Sizes = Sizes(0, LEAST_WINDOW, LEAST_CHUNK)
    steps = 0
    while now != Decision(WANTED.budget, WANTED.window, WANTED.chunk):
        before, now = now, decide(EASY, WANTED, now)
        assert 0 < now.budget - before.budget <= WANTED.budget / 16
        steps += 1
    assert steps == 16


def test_a_small_container_gets_half_of_its_limit_at_most_over_all_workers() -> None:
    reading = Reading(8 * GIB, 16 * GIB, cgroup_limit=256 * MIB, cgroup_used=64 * MIB)
    assert decide(reading, WANTED, WANTED, workers=4).budget == 32 * MIB


sizes = st.builds(Sizes, st.integers(0, GIB), st.integers(LEAST_WINDOW, GIB), st.integers(4 * KIB, MIB))
readings = st.builds(
    Reading,
    st.integers(0, GIB),
    st.integers(0, GIB),
    st.none() | st.integers(0, GIB),
    st.integers(0, 2 * GIB),
)


@given(reading=readings, configured=sizes, current=sizes, workers=st.integers(1, 64))
def test_never_over_what_is_configured_nor_its_part_of_half_the_memory(
    reading: Reading, configured: Sizes, current: Sizes, workers: int
) -> None:
    new = decide(reading, configured, current, workers)
    assert 0 <= new.budget <= min(configured.budget, reading.whole / 2 / workers)
    assert min(LEAST_WINDOW, configured.window) <= new.window <= configured.window
    assert min(LEAST_CHUNK, configured.chunk) <= new.chunk <= configured.chunk
    if new.level in ("low", "critical"):
        assert new.budget <= current.budget


@given(readings=st.lists(readings, max_size=20), configured=sizes)
def test_without_pressure_all_comes_back_whatever_came_before(readings: list[Reading], configured: Sizes) -> None:
    now: Sizes = configured
    for reading in readings:
        now = decide(reading, configured, now)
    free = Reading(64 * GIB, 64 * GIB)
    for _ in range(32):
        now = decide(free, configured, now)
    assert now == Decision(configured.budget, configured.window, configured.chunk)


# --- the manager ------------------------------------------------------------------------------------------------------


class World:
    """A machine whose memory the test sets."""

    def __init__(self, reading: Reading = EASY) -> None:
        self.reading = reading
        self.broken = False
        self.decisions: list[Decision] = []
        self.clock = ManualClock()
        self.manager = MemoryManager(WANTED, 10.0, self.clock, self.decisions.append, read=self.read)

    def read(self) -> Reading:
        if self.broken:
            raise OSError("no /proc")
        return self.reading


async def test_it_looks_every_so_many_seconds_and_tells_of_changes_only() -> None:
    world = World()
    running = asyncio.get_running_loop().create_task(world.manager.run())
    await world.clock.advance(95)
    assert (world.manager.statistics()["checks"], world.decisions) == (10, [])
    world.reading = LOW
    await world.clock.advance(10)
    assert world.decisions == [Decision(96 * MIB, 4 * MIB, 64 * KIB, "low")]
    world.manager.configure(WANTED, 2.0)  # a reload with another cache.memory_check
    await world.clock.advance(20)
    assert world.manager.statistics()["checks"] in (20, 21)
    world.reading = EASY
    await world.clock.advance(60)
    assert world.decisions[-1] == Decision(WANTED.budget, WANTED.window, WANTED.chunk, "normal")
    told = len(world.decisions)
    await world.clock.advance(60)
    assert len(world.decisions) == told
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def test_statistics_say_what_holds_and_why() -> None:
    world = World(Reading(8 * GIB, 16 * GIB, GIB, 1000 * MIB))
    assert world.manager.statistics()["total"] is None
    world.manager.check()
    stats = world.manager.statistics()
    assert stats["level"] == "critical"
    assert (stats["budget"], stats["window"], stats["chunk"]) == (64 * MIB, 2 * MIB, 32 * KIB)
    assert stats["configured"] == {"budget": WANTED.budget, "window": WANTED.window, "chunk": WANTED.chunk}
    assert (stats["cgroup_limit"], stats["cgroup_used"]) == (GIB, 1000 * MIB)
    assert (stats["checks"], stats["shrunk"], stats["grown"]) == (1, 1, 0)
    world.reading = EASY
    world.manager.check()
    assert (world.manager.statistics()["shrunk"], world.manager.statistics()["grown"]) == (1, 1)


def test_without_figures_nothing_changes_and_it_says_so() -> None:
    world = World(LOW)
    world.manager.check()
    world.broken = True
    assert world.manager.check() == world.decisions[-1]
    assert len(world.decisions) == 1
    assert world.manager.statistics()["detail"] == "memory cannot be read: no /proc"
    world.broken = False
    world.manager.check()
    assert "detail" not in world.manager.statistics()


def test_a_reload_acts_at_once_unless_there_is_pressure() -> None:
    world = World()
    world.manager.check()
    half = Sizes(64 * MIB, 4 * MIB, 64 * KIB)
    world.manager.configure(half, 10.0)
    world.manager.configure(WANTED, 10.0)
    assert world.decisions == [Decision(64 * MIB, 4 * MIB, 64 * KIB), Decision(128 * MIB, 8 * MIB, 128 * KIB)]
    world.reading = CRITICAL
    world.manager.check()
    world.manager.configure(Sizes(GIB, 16 * MIB, MIB), 10.0)
    assert world.manager.decision == Decision(64 * MIB, 2 * MIB, 32 * KIB, "critical")
    world.manager.configure(Sizes(MIB, MIB, 16 * KIB), 10.0)
    assert world.manager.decision == Decision(MIB, MIB, 16 * KIB, "critical")


def test_a_reload_does_not_hurry_what_still_recovers() -> None:
    world = World(CRITICAL)
    double = Sizes(2 * WANTED.budget, 2 * WANTED.window, 2 * WANTED.chunk)
    world.manager.check()
    world.reading = EASY
    for _ in range(3):
        world.manager.check()
    assert world.manager.decision == Decision(88 * MIB, WANTED.window, WANTED.chunk, "normal")
    world.manager.configure(double, 10.0)
    assert world.manager.decision.budget == 88 * MIB
    world = World(TIGHT)
    world.manager.check()
    world.manager.configure(double, 10.0)
    assert world.manager.decision == Decision(WANTED.budget, WANTED.window, WANTED.chunk, "tight")


def test_the_tier_follows() -> None:
    tier = MemoryTier(WANTED.budget, Watched())
    readings = iter([EASY, CRITICAL])
    manager = MemoryManager(
        WANTED, 10.0, ManualClock(), lambda decision: tier.resize(decision.budget), read=lambda: next(readings)
    )
    manager.check()
    assert tier.statistics()["budget"] == 128 * MIB
    manager.check()
    assert tier.statistics()["budget"] == 64 * MIB
    manager.configure(Sizes(16 * MIB, WANTED.window, WANTED.chunk), 10.0)
    assert tier.statistics()["budget"] == 16 * MIB


# --- control groups ---------------------------------------------------------------------------------------------------


def lay(folder: Path, **files: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def own(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "own"
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


STAT_2 = "anon 100\ninactive_file 300\nactive_file 200\nfile_dirty 1"
STAT_1 = "inactive_file 1\ntotal_inactive_file 300\ntotal_active_file 200"


def test_version_2_without_the_page_cache(tmp_path: Path) -> None:
    lay(tmp_path / "cg/a/b", memory__max=2000, memory__high="max", memory__current=1500, memory__stat=STAT_2)
    assert read_cgroup(tmp_path / "cg", own(tmp_path, "0::/a/b")) == (2000, 1000)


def test_version_2_memory_high_counts_too(tmp_path: Path) -> None:
    lay(tmp_path / "cg/a", memory__max=2000, memory__high=1200, memory__current=1000, memory__stat="")
    assert read_cgroup(tmp_path / "cg", own(tmp_path, "0::/a")) == (1200, 1000)


def test_an_ancestor_may_be_the_scarcer(tmp_path: Path) -> None:
    lay(tmp_path / "cg/a/b", memory__max=2000, memory__current=100)
    lay(tmp_path / "cg/a", memory__max=5000, memory__current=4900)
    assert read_cgroup(tmp_path / "cg", own(tmp_path, "0::/a/b")) == (5000, 4900)


def test_inside_a_container_the_root_of_the_mount_is_ours(tmp_path: Path) -> None:
    lay(tmp_path / "cg", memory__max=2000, memory__current=100)
    for line in ("0::/docker/f00", "0::/", "0::/../other"):
        assert read_cgroup(tmp_path / "cg", own(tmp_path, line)) == (2000, 100)


def test_version_1(tmp_path: Path) -> None:
    group = tmp_path / "cg/memory/docker/x"
    lay(group, memory__limit_in_bytes=2000, memory__usage_in_bytes=1500, memory__stat=STAT_1)
    lines = ("9:name=systemd:/", "4:cpu,memory:/docker/x", "0::/")
    assert read_cgroup(tmp_path / "cg", own(tmp_path, *lines)) == (2000, 1000)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"memory__max": "max", "memory__current": 5},
        {"memory__max": "2000"},
        {"memory__max": "nonsense", "memory__current": 5},
        {"memory__max": 2**63 - 4096, "memory__current": 5},
        {"memory__limit_in_bytes": 1, "memory__usage_in_bytes": 1},
    ],
)
def test_no_limit(tmp_path: Path, files: dict[str, Any]) -> None:
    lay(tmp_path / "cg/a", **files)
    assert read_cgroup(tmp_path / "cg", own(tmp_path, "0::/a", "nonsense", "")) is None


def test_no_control_groups_at_all(tmp_path: Path) -> None:
    assert read_cgroup(tmp_path, tmp_path / "absent") is None
    reading = read_memory(tmp_path, tmp_path / "absent")
    assert 0 < reading.available <= reading.total
    assert reading.cgroup_limit is None


def test_this_machine_can_be_read(tmp_path: Path) -> None:
    assert 0 <= read_memory().left <= 1
    lay(tmp_path / "cg/a", memory__max=2000, memory__current=1500)
    reading = read_memory(tmp_path / "cg", own(tmp_path, "0::/a"))
    assert (reading.cgroup_limit, reading.cgroup_used, reading.whole) == (2000, 1500, 2000)
    assert reading.left <= 0.25
