"""Whatever moment the process or the machine dies at: no wrong byte afterwards, and a kill loses nothing committed.

A run of the tier is recorded call by call. Then every prefix of it is replayed into a fresh folder: whole (kill -9, the
last write torn), and as a power loss may leave it (what was not synced is there, missing, torn, or is old garbage).
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fileproxy.cache.disk_files import Files, extent_name, path_of
from fileproxy.cache.disk_jobs import DiskJobs, Unreadable
from fileproxy.cache.disk_records import is_inline
from fileproxy.cache.disk_usage import DiskFolder, Usage
from fileproxy.cache.extents import Known
from fileproxy.clock import ManualClock
from fileproxy.model import Meta, Record
from tests.cache.disk_kit import content, identity, make_meta, open_tier

Block = tuple[bytes, int]  # rid and index


@dataclass(frozen=True)
class State:
    """What must be there after a kill at this point."""

    blocks: frozenset[Block] = frozenset()
    records: frozenset[bytes] = frozenset()  # keys


@dataclass
class Recorder(Files):
    """Notes every change of the disk, by file and not by name, as it is made."""

    root: str
    log: list[tuple[Any, ...]] = field(default_factory=list)
    paths: dict[str, int] = field(default_factory=dict)
    opened: dict[int, int] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.Lock)
    made: int = 0

    def open(self, path: str, flags: int) -> int:
        with self.lock:
            new = bool(flags & os.O_CREAT) and not os.path.exists(path)
            descriptor = super().open(path, flags)
            if new:
                self.made += 1
                self.paths[path] = self.made
                self.log.append(("create", self._short(path), self.made))
            self.opened[descriptor] = self.paths[path]
        return descriptor

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
        with self.lock:
            self.log.append(("write", self.opened[descriptor], offset, bytes(data)))
        super().write(descriptor, data, offset)

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        with self.lock:
            self.log.append(("sync", self.opened[descriptor]))

    def sync_folder(self, path: str) -> None:
        super().sync_folder(path)
        with self.lock:
            self.log.append(("sync folder", self._short(path)))

    def rename(self, old: str, new: str) -> None:
        with self.lock:
            super().rename(old, new)
            self.paths[new] = self.paths.pop(old)
            self.log.append(("rename", self._short(old), self._short(new)))

    def unlink(self, path: str) -> None:
        with self.lock:
            super().unlink(path)
            del self.paths[path]
            self.log.append(("unlink", self._short(path)))

    def must_have(self, state: State) -> None:
        with self.lock:
            self.log.append(("state", state))

    def flip(self, path: str, offset: int) -> None:
        """A bit rots. The disk says nothing; what was to be there need not be there from now on."""
        descriptor = self.open(path, os.O_RDWR)
        byte = os.pread(descriptor, 1, offset)
        self.write(descriptor, bytes([byte[0] ^ 1]), offset)
        self.close(descriptor)

    def _short(self, path: str) -> str:
        return os.path.relpath(path, self.root)


class Play:
    """Drives a tier and says after each call what must be there, and before each what need not any more."""

    def __init__(self, recorder: Recorder, tier: Any) -> None:
        self.recorder, self.tier = recorder, tier
        self.blocks: set[Block] = set()
        self.records: set[bytes] = set()
        self.history: list[Record] = []

    def note(self) -> None:
        self.recorder.must_have(State(frozenset(self.blocks), frozenset(self.records)))

    async def save(self, meta: Meta) -> None:
        self.history.append(meta)
        assert await self.tier.save(meta)
        self.records.add(meta.key)
        self.note()

    async def write(self, meta: Meta, *indexes: int) -> None:
        for index in indexes:
            assert await self.tier.write(meta, index, content(meta, index))
            self.blocks.add((meta.rid, index))
            if is_inline(meta):
                self.records.add(meta.key)
            self.note()

    async def write_run(self, meta: Meta, first: int, end: int) -> None:
        assert all(await self.tier.write_run(meta, first, [content(meta, index) for index in range(first, end)]))
        self.blocks |= {(meta.rid, index) for index in range(first, end)}
        self.note()

    def forget(self, meta: Meta, *, record: bool = True) -> None:
        self.blocks = {block for block in self.blocks if block[0] != meta.rid}
        if record:
            self.records.discard(meta.key)
        self.note()


LARGE = make_meta("large", 70 * 512 + 9, 512)
LARGE_NEW = make_meta("large", 70 * 512 + 9, 512, rid=identity("new large"), received_at=7.0)
SMALL = make_meta("small", 400, 512)
SMALL_NEW = make_meta("small", 500, 512, received_at=7.0)
LONE = make_meta("lone", 512, 512)
METAS = (LARGE, LARGE_NEW, SMALL, SMALL_NEW, LONE)


async def record(folder: Path) -> tuple[Recorder, list[Record]]:
    recorder = Recorder(str(folder))
    async with open_tier(folder, clock=ManualClock(), files=recorder) as kit:
        tier = kit.tier
        play = Play(recorder, tier)
        await play.save(LARGE)
        await play.write(LARGE, 0, 1, 63, 64, 70)
        await play.save(SMALL)
        await play.write(SMALL, 0)
        await play.write(LONE, 0)  # its record comes with it
        await tier._care.sync()
        recorder.log.append(("synced",))
        await play.save(make_meta("large", LARGE.size, 512, received_at=3.0))  # after a 304
        await play.save(make_meta("small", SMALL.size, 512, received_at=3.0))
        play.blocks.discard((LARGE.rid, 1))
        play.note()
        recorder.flip(path_of(str(folder), extent_name(LARGE.rid, 0)), 4096 + 512 + 7)
        assert await tier.read(LARGE, 1, 1) is None  # quarantined
        await play.write(LARGE, 1, 2)
        play.forget(SMALL, record=False)
        await play.save(SMALL_NEW)
        await play.write(SMALL_NEW, 0)
        await play.save(LARGE_NEW)
        await play.write(LARGE_NEW, 0, 64)
        play.forget(LARGE, record=False)
        await tier.drop(LARGE)
        play.forget(SMALL_NEW)
        await tier.drop(SMALL_NEW)
        play.forget(LONE)
        play.forget(LARGE_NEW)
        recorder.log.append(("evicting",))
        tier._care._size = 0
        await tier._care.evict()
        tier._care._size = 1 << 30
        await play.save(SMALL)
        await play.write(SMALL, 0)
        await play.save(LARGE)
        await play.write(LARGE, 5, 66)
        await play.write_run(LARGE, 61, 69)  # two files; one block was there
    recorder.log.append(("synced",))
    return recorder, [*play.history, LONE]


# --- what a crash leaves ---

Disk = tuple[dict[str, int], dict[int, bytearray]]  # names; contents


def apply(disk: Disk, entry: tuple[Any, ...]) -> None:
    names, files = disk
    match entry:
        case ("create", path, number):
            names[path] = number
            files.setdefault(number, bytearray())
        case ("write", number, offset, data):
            put(files.setdefault(number, bytearray()), offset, data)
        case ("rename", old, new) if old in names:
            names[new] = names.pop(old)
        case ("unlink", path):
            names.pop(path, None)


def put(file: bytearray, offset: int, data: bytes) -> None:
    file.extend(bytes(max(0, offset + len(data) - len(file))))
    file[offset : offset + len(data)] = data


def killed(log: list[tuple[Any, ...]], rng: random.Random) -> Disk:
    """Everything up to here happened; of the last write perhaps only a part."""
    disk: Disk = ({}, {})
    for entry in log[:-1]:
        apply(disk, entry)
    if log and log[-1][0] == "write":
        _, number, offset, data = log[-1]
        apply(disk, ("write", number, offset, data[: rng.randrange(len(data) + 1)]))
    elif log:
        apply(disk, log[-1])
    return disk


def powerless(log: list[tuple[Any, ...]], rng: random.Random) -> Disk:
    """What was not synced may be there or not, in any order, in parts, or be the garbage that was there before."""
    synced: dict[int, int] = {}
    folders: dict[str, int] = {}
    for at, entry in enumerate(log):
        if entry[0] == "sync":
            synced[entry[1]] = at
        elif entry[0] == "sync folder":
            folders[entry[1]] = at
    disk: Disk = ({}, {})
    garbage = [entry[3] for entry in log if entry[0] == "write"]
    in_order, cut = rng.random() < 0.5, rng.randrange(len(log) + 1)
    for at, entry in enumerate(log):
        if entry[0] == "write" and at > synced.get(entry[1], -1):
            _, number, offset, data = entry
            fate = rng.randrange(5)
            if fate == 1:
                data = data[: rng.randrange(len(data) + 1)]
            elif fate == 2:
                data = (rng.choice(garbage) * (len(data) // 8 + 1))[: len(data)]
            elif fate == 3:  # some of its sectors came through
                data = b"".join(
                    sector if rng.random() < 0.5 else bytes(len(sector))
                    for sector in (data[at : at + 256] for at in range(0, len(data), 256))
                )
            if fate != 4:
                apply(disk, ("write", number, offset, data))
        elif entry[0] in ("create", "rename", "unlink"):
            safe = at <= folders.get(os.path.dirname(entry[-1 if entry[0] == "rename" else 1]), -1)
            if safe or (at < cut if in_order else rng.random() < 0.5):
                apply(disk, entry)
        else:
            apply(disk, entry)
    return disk


def lay_out(disk: Disk, folder: Path) -> None:
    names, files = disk
    for path, number in names.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(files[number])


def look(folder: Path, history: list[Record]) -> tuple[set[Block], set[bytes]]:
    """What can be had; AssertionError at a wrong byte or a record nobody saved."""
    path = str(folder)
    jobs = DiskJobs(DiskFolder(path, Files(), Usage(path, writable=True)), writable=True)
    blocks, records = set(), set()
    for meta in METAS:
        try:
            found = jobs.find(meta.key, None)
        except Unreadable:
            found = None
        if found is not None:
            assert found in history
            records.add(meta.key)
        for index in range(meta.blocks):
            got = jobs.read(meta, index, 1, Known(), None)
            if got is not None and got.run.descriptor is not None:
                data = os.pread(got.run.descriptor, got.run.length, got.run.offset)
                os.close(got.run.descriptor)
                assert data == content(meta, index)
                blocks.add((meta.rid, index))
    return blocks, records


async def test_a_kill_at_any_moment_loses_nothing_committed(tmp_path: Path) -> None:
    recorder, history = await record(tmp_path / "run")
    state = State()
    rng = random.Random(1)
    for length in range(1, len(recorder.log) + 1):
        if recorder.log[length - 1][0] == "state":
            state = recorder.log[length - 1][1]
            continue
        folder = tmp_path / str(length)
        lay_out(killed(recorder.log[:length], rng), folder)
        blocks, records = look(folder, history)
        assert state.blocks <= blocks
        assert state.records <= records
    assert length > 100
    assert len(state.blocks) == 10


async def test_a_power_loss_at_any_moment_shows_no_wrong_byte(tmp_path: Path) -> None:
    recorder, history = await record(tmp_path / "run")
    rng = random.Random(2)
    kept = lost = 0
    for length in range(1, len(recorder.log) + 1):
        if recorder.log[length - 1][0] == "state":
            continue
        for trial in range(3):
            folder = tmp_path / f"{length} {trial}"
            lay_out(powerless(recorder.log[:length], rng), folder)
            blocks, records = look(folder, history)
            required = next((entry[1] for entry in reversed(recorder.log[:length]) if entry[0] == "state"), State())
            kept += len(blocks & required.blocks)
            lost += len(required.blocks - blocks)
            # Renewing a record never costs the way to the blocks of a large object.
            if ("synced",) in recorder.log[:length] and ("evicting",) not in recorder.log[:length]:
                assert LARGE.key in records
    assert kept > 100  # the test did see survivors, and losses
    assert lost > 100


async def test_what_was_synced_survives_a_power_loss(tmp_path: Path) -> None:
    recorder, history = await record(tmp_path / "run")
    rng = random.Random(3)
    ends = [at for at, entry in enumerate(recorder.log) if entry[0] == "synced"]
    assert len(ends) == 2
    for end in ends:
        state = next(entry[1] for entry in reversed(recorder.log[:end]) if entry[0] == "state")
        assert len(state.blocks) >= 3
        for trial in range(10):
            folder = tmp_path / f"{end} {trial}"
            lay_out(powerless(recorder.log[:end], rng), folder)
            blocks, records = look(folder, history)
            assert state.blocks <= blocks
            assert state.records <= records


# --- and really ---

CHILD = """
import asyncio, random, sys
from pathlib import Path
from tests.cache.disk_kit import content, make_meta, open_tier

async def main() -> None:
    rng = random.Random(int(sys.argv[2]))
    async with open_tier(Path(sys.argv[1]), size=6 << 20) as kit:
        print("ready", flush=True)
        while True:
            n = rng.randrange(12)
            meta = make_meta(f"object {n}", 700 if n % 3 == 0 else 70 * 4096 + 1, 4096)
            index = rng.randrange(meta.blocks)
            await kit.tier.save(meta)
            if await kit.tier.write(meta, index, content(meta, index)):
                print(n, index, flush=True)

asyncio.run(main())
"""


@pytest.mark.loops("asyncio")
async def test_kill_9_at_random_moments(tmp_path: Path) -> None:
    rng = random.Random(4)
    committed: set[tuple[int, int]] = set()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for round_ in range(4):
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CHILD, str(tmp_path), str(round_), stdout=asyncio.subprocess.PIPE, env=environment
        )
        assert child.stdout is not None
        try:
            assert await asyncio.wait_for(child.stdout.readline(), 30) == b"ready\n"
            for _ in range(rng.randrange(1, 150)):
                n, index = map(int, (await asyncio.wait_for(child.stdout.readline(), 30)).split())
                committed.add((n, index))
        finally:
            child.send_signal(signal.SIGKILL)
            rest, _ = await child.communicate()
        committed |= {(int(one.split()[0]), int(one.split()[1])) for one in rest.splitlines() if one.count(b" ") == 1}
        path = str(tmp_path)
        jobs = DiskJobs(DiskFolder(path, Files(), Usage(path, writable=False)), writable=False)
        for n, index in committed:
            meta = make_meta(f"object {n}", 700 if n % 3 == 0 else 70 * 4096 + 1, 4096)
            assert jobs.find(meta.key, None) == meta
            assert index in jobs.held(meta)
            got = jobs.read(meta, index, 1, Known(), None)
            assert got is not None
            assert got.run.descriptor is not None
            assert os.pread(got.run.descriptor, got.run.length, got.run.offset) == content(meta, index)
            os.close(got.run.descriptor)
