"""The file formats: what was committed comes back, what was damaged never does."""

from __future__ import annotations

import errno
import os
import random
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fileproxy.cache import disk_records, extents
from fileproxy.cache.disk_files import Files, Name, extent_name, parse, path_of, record_name
from fileproxy.model import Meta, VaryRule
from tests.cache.disk_kit import BLOCK, content, identity, make_meta

FILES = Files()
NOTHING = extents.Known()
BIG = make_meta("big", 70 * BLOCK + 5)  # two extents


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path)


def write(folder: str, meta: Meta, *indexes: int) -> None:
    for index in indexes:
        assert extents.write_block(FILES, folder, meta, index, content(meta, index)) is not None


def read(
    folder: str, meta: Meta, index: int, most: int = 1, known: extents.Known = NOTHING
) -> bytes | extents.Run | None:
    number, slot = divmod(index, extents.BLOCKS)
    run = extents.read_run(FILES, folder, extents.extent_of(meta, number), slot, most, known)
    if run is None or run.descriptor is None:
        return run
    try:
        return os.pread(run.descriptor, run.length, run.offset)
    finally:
        os.close(run.descriptor)


def flip(path: str, offset: int, bit: int = 0) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


# --- extents ---


def test_a_run_is_written_around_what_is_there(folder: str) -> None:
    """All missing data first, then its slots; what is there stays, also where other bytes are meant to go (law 1)."""
    calls: list[tuple[int, int]] = []

    class Noting(Files):
        def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
            calls.append((offset, len(data)))
            super().write(descriptor, data, offset)

    write(folder, BIG, 2, 5)
    blocks = [content(BIG, index) for index in range(7)]
    other = bytes(BLOCK)
    written = extents.write_run(Noting(), folder, BIG, 0, [*blocks[:5], other, blocks[6]])
    assert written.stored == {0, 1, 2, 3, 4, 6}
    assert written.error is None
    assert written.grown == 5 * -(-BLOCK // 4096) * 4096
    data = [(extents.DATA + at * BLOCK, BLOCK) for at in (0, 1, 3, 4, 6)]
    slots = [(64 + at * 16, (end - at) * 16) for at, end in ((0, 2), (3, 5), (6, 7))]
    assert calls == data + slots
    assert read(folder, BIG, 0, 7) == b"".join(blocks)


def test_what_was_written_before_an_error_is_there(folder: str) -> None:
    class Full(Files):
        def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
            if offset == extents.DATA + 3 * BLOCK:
                raise OSError(errno.ENOSPC, "full")
            super().write(descriptor, data, offset)

    blocks = [content(BIG, index) for index in range(5)]
    written = extents.write_run(Full(), folder, BIG, 0, blocks)
    assert written.stored == {0, 1, 2}
    assert written.error is not None
    assert written.error.errno == errno.ENOSPC
    assert written.grown == extents.DATA + 3 * -(-BLOCK // 4096) * 4096
    assert read(folder, BIG, 0, 5) == b"".join(blocks[:3])
    with pytest.raises(OSError, match="full"):
        extents.write_block(Full(), folder, BIG, 3, blocks[3])


def test_slots_that_cannot_be_written_are_told_apart(folder: str) -> None:
    class NoSlots(Files):
        slots = 0

        def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
            if extents.HEAD_BYTES <= offset < extents.DATA:
                self.slots += 1
                if self.slots == 2:
                    raise OSError(errno.EIO, "slot")
            super().write(descriptor, data, offset)

    write(folder, BIG, 2)
    written = extents.write_run(NoSlots(), folder, BIG, 0, [content(BIG, index) for index in range(5)])
    assert written.stored == {0, 1, 2} == extents.held(FILES, folder, BIG)
    assert written.grown == 4 * -(-BLOCK // 4096) * 4096  # also what was written for nothing
    assert str(written.error) == "[Errno 5] slot"


@pytest.mark.parametrize("most", [1, 700, 1500, 4000])
def test_a_system_that_takes_less_at_once(folder: str, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    real = os.pwrite

    def less(descriptor: int, data: bytes | memoryview, offset: int) -> int:
        return real(descriptor, data[:most], offset)

    monkeypatch.setattr(os, "pwrite", less)
    blocks = [content(BIG, index) for index in range(4)]
    assert extents.write_run(FILES, folder, BIG, 0, blocks).stored == {0, 1, 2, 3}
    assert read(folder, BIG, 0, 4) == b"".join(blocks)


def test_a_run_is_what_is_committed_and_contiguous_within_one_extent(folder: str) -> None:
    write(folder, BIG, 0, 1, 3, 62, 63, 64, 69, 70)
    assert read(folder, BIG, 0, 99) == content(BIG, 0) + content(BIG, 1)
    assert read(folder, BIG, 0, 1) == content(BIG, 0)
    assert read(folder, BIG, 2) is None
    assert read(folder, BIG, 3, 5) == content(BIG, 3)
    assert read(folder, BIG, 62, 5) == content(BIG, 62) + content(BIG, 63)
    assert read(folder, BIG, 64, 5) == content(BIG, 64)
    assert read(folder, BIG, 69, 5) == content(BIG, 69) + content(BIG, 70)
    assert extents.held(FILES, folder, BIG) == {0, 1, 3, 62, 63, 64, 69, 70}
    assert read(folder, make_meta("another", BIG.size), 0) is None


def test_a_block_is_not_taken_for_one_of_another_place_or_another_object(folder: str) -> None:
    write(folder, BIG, 0, 1)
    path = path_of(folder, extent_name(BIG.rid, 0))
    other = make_meta("other", BIG.size)
    os.makedirs(os.path.dirname(path_of(folder, extent_name(other.rid, 0))), exist_ok=True)
    os.link(path, path_of(folder, extent_name(other.rid, 0)))
    assert extents.held(FILES, folder, other) == set()
    found = read(folder, other, 0)
    assert isinstance(found, extents.Run)
    assert found.damaged == 1
    with open(path, "r+b") as file:  # slot 1 and its block copied to slot 2
        data = bytearray(file.read())
        data[96:112] = data[80:96]
        data[4096 + 2 * BLOCK :] = data[4096 + BLOCK : 4096 + 2 * BLOCK]
        file.seek(0)
        file.write(data)
    found = read(folder, BIG, 2)
    assert isinstance(found, extents.Run)
    assert found.damaged == 4


def test_other_bytes_never_replace_committed_ones(folder: str) -> None:
    write(folder, BIG, 4)
    assert extents.write_block(FILES, folder, BIG, 4, bytes(BLOCK)) is None
    assert read(folder, BIG, 4) == content(BIG, 4)
    assert extents.write_block(FILES, folder, BIG, 4, content(BIG, 4)) == 0  # nothing to do


def test_a_damaged_block_is_repaired_by_writing_it_again(folder: str) -> None:
    write(folder, BIG, 4)
    flip(path_of(folder, extent_name(BIG.rid, 0)), 4096 + 4 * BLOCK + 77)
    found = read(folder, BIG, 4)
    assert isinstance(found, extents.Run)
    assert found.damaged == 1 << 4
    write(folder, BIG, 4)
    assert read(folder, BIG, 4) == content(BIG, 4)


def test_quarantine_takes_only_the_slot_it_names(folder: str) -> None:
    write(folder, BIG, 4, 5)
    extents.quarantine(FILES, folder, extent_name(BIG.rid, 0), 1 << 4)
    assert extents.held(FILES, folder, BIG) == {5}
    extents.quarantine(FILES, folder, extent_name(identity("gone"), 0), 1)  # evicted meanwhile: nothing to do


def test_what_was_verified_is_not_read_again_unless_the_file_is_another_one(folder: str) -> None:
    write(folder, BIG, 0, 1)
    path = path_of(folder, extent_name(BIG.rid, 0))
    run = extents.read_run(FILES, folder, extents.extent_of(BIG, 0), 0, 1, NOTHING)
    assert run is not None
    assert run.descriptor is not None
    os.close(run.descriptor)
    identity = run.identity
    flip(path, 4096 + 5)
    assert isinstance(read(folder, BIG, 0), extents.Run)
    assert read(folder, BIG, 0, known=extents.Known(identity, 1)) != content(BIG, 0)  # trusted, as was said
    assert isinstance(read(folder, BIG, 0, known=extents.Known(identity + 1, 1)), extents.Run)
    assert read(folder, BIG, 0, known=extents.Known(identity, 1, bad=1)) is None
    flip(path, 64 + 3)  # its slot, too
    assert isinstance(read(folder, BIG, 0, known=extents.Known(identity, 1)), extents.Run)


def test_threads_writing_one_extent_lose_no_slot(folder: str) -> None:
    start = threading.Barrier(4)

    def work(which: int) -> None:
        start.wait()
        for index in range(which, 64, 4):
            write(folder, BIG, index)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert extents.held(FILES, folder, BIG) == set(range(64))


def test_a_reader_is_not_disturbed_by_unlink(folder: str) -> None:
    write(folder, BIG, 0)
    run = extents.read_run(FILES, folder, extents.extent_of(BIG, 0), 0, 1, NOTHING)
    assert run is not None
    assert run.descriptor is not None
    assert extents.remove_all(FILES, folder, BIG)
    assert os.pread(run.descriptor, run.length, run.offset) == content(BIG, 0)
    os.close(run.descriptor)
    assert read(folder, BIG, 0) is None


def test_a_file_says_what_it_is_to_who_has_no_record(folder: str) -> None:
    write(folder, BIG, 64, 66)
    name = Name("extent", BIG.rid, 1)
    assert extents.identify(FILES, folder, name) == (extents.extent_of(BIG, 1), 0b101)
    assert extents.identify(FILES, folder, Name("extent", BIG.rid, 0)) is None
    flip(path_of(folder, extent_name(BIG.rid, 1)), 9)
    with pytest.raises(ValueError, match="head"):
        extents.identify(FILES, folder, name)
    assert read(folder, BIG, 64) == content(BIG, 64)  # readers do without the head
    write(folder, BIG, 65)  # and a writer mends it
    assert extents.identify(FILES, folder, name) == (extents.extent_of(BIG, 1), 0b111)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_random_flips_in_an_extent_are_never_served(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    meta = make_meta(f"flip {seed}", 3 * 4096 + 10, 4096)
    write(str(tmp_path), meta, 0, 1, 2, 3)
    path = path_of(str(tmp_path), extent_name(meta.rid, 0))
    for _ in range(rng.randrange(1, 6)):
        flip(path, rng.choice((rng.randrange(os.path.getsize(path)), rng.randrange(64, 128))), rng.randrange(8))
    if rng.random() < 0.3:
        os.truncate(path, rng.randrange(os.path.getsize(path)))
    for index in range(4):
        found = read(str(tmp_path), meta, index)
        assert found is None or isinstance(found, extents.Run) or found == content(meta, index)


# --- record files ---

SMALL = make_meta("small", 1000)


def load_data(folder: str, meta: Meta) -> bytes | None:
    opened = disk_records.open_data(FILES, folder, meta, None)
    if opened is None:
        return None
    descriptor, stored = opened
    try:
        return os.pread(descriptor, stored.data_length, stored.data_offset)
    finally:
        os.close(descriptor)


def test_a_small_object_is_one_file(folder: str) -> None:
    assert disk_records.save_data(FILES, folder, SMALL, content(SMALL, 0)) == 4096
    assert disk_records.save(FILES, folder, SMALL) == 0
    assert os.listdir(f"{folder}/{SMALL.key.hex()[:2]}") == [record_name(SMALL.key)]
    stored = disk_records.load(FILES, folder, SMALL.key)
    assert stored is not None
    assert stored.record == SMALL
    assert load_data(folder, SMALL) == content(SMALL, 0)


def test_a_renewed_record_keeps_its_data_and_data_keeps_the_renewed_record(folder: str) -> None:
    renewed = make_meta("small", 1000, received_at=9.0)
    disk_records.save(FILES, folder, SMALL)
    assert load_data(folder, SMALL) is None
    disk_records.save_data(FILES, folder, SMALL, content(SMALL, 0))
    disk_records.save(FILES, folder, renewed)
    assert load_data(folder, SMALL) == content(SMALL, 0)
    disk_records.save_data(FILES, folder, SMALL, content(SMALL, 0))
    stored = disk_records.load(FILES, folder, SMALL.key)
    assert stored is not None
    assert stored.record == renewed


def test_other_bytes_never_replace_those_of_a_small_object_unless_they_are_damaged(folder: str) -> None:
    disk_records.save_data(FILES, folder, SMALL, content(SMALL, 0))
    path = path_of(folder, record_name(SMALL.key))
    inode = os.stat(path).st_ino
    assert disk_records.save_data(FILES, folder, SMALL, bytes(1000)) is None
    assert disk_records.save_data(FILES, folder, SMALL, content(SMALL, 0)) == 0
    assert os.stat(path).st_ino == inode  # nothing was written
    flip(path, os.path.getsize(path) - 1)
    assert disk_records.save_data(FILES, folder, SMALL, content(SMALL, 0)) == 0
    assert load_data(folder, SMALL) == content(SMALL, 0)


def test_another_version_takes_the_place_of_the_old_one_but_not_of_a_newer(folder: str) -> None:
    newer = make_meta("small", 1001, received_at=9.0)
    disk_records.save_data(FILES, folder, SMALL, content(SMALL, 0))
    disk_records.save(FILES, folder, newer)
    assert load_data(folder, newer) is None
    assert load_data(folder, SMALL) is None
    assert disk_records.save_data(FILES, folder, SMALL, content(SMALL, 0)) is None
    assert disk_records.save_data(FILES, folder, newer, content(newer, 0)) is not None
    assert load_data(folder, newer) == content(newer, 0)


def test_what_does_not_fit_a_record_is_not_kept(folder: str) -> None:
    huge = make_meta("huge", 10, headers=(("X", "y" * 300_000),))
    assert disk_records.save(FILES, folder, huge) is None
    assert disk_records.save_data(FILES, folder, huge, content(huge, 0)) is None
    long = make_meta("long", 10, headers=(("X", "y" * 100_000),))  # more than the first read
    assert disk_records.save_data(FILES, folder, long, content(long, 0)) is not None
    assert load_data(folder, long) == content(long, 0)


def test_a_vary_rule_is_a_record(folder: str) -> None:
    rule = VaryRule(key=SMALL.key, url="u", fields=("accept",))
    disk_records.save_data(FILES, folder, SMALL, content(SMALL, 0))
    disk_records.save(FILES, folder, rule)
    stored = disk_records.load(FILES, folder, SMALL.key)
    assert stored is not None
    assert stored.record == rule
    assert load_data(folder, SMALL) is None


def test_a_record_under_the_name_of_another_is_damage(folder: str) -> None:
    disk_records.save(FILES, folder, SMALL)
    wrong = bytes([SMALL.key[0]]) + identity("wrong")[1:]
    os.rename(path_of(folder, record_name(SMALL.key)), path_of(folder, record_name(wrong)))
    with pytest.raises(disk_records.Damaged):
        disk_records.load(FILES, folder, wrong)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flip_or_cut_in_a_record_file_is_seen(tmp_path: Path, data: st.DataObject) -> None:
    folder = str(tmp_path)
    path = path_of(folder, record_name(SMALL.key))
    if os.path.exists(path):
        os.unlink(path)
    disk_records.save_data(FILES, folder, SMALL, content(SMALL, 0))
    size = os.path.getsize(path)
    if data.draw(st.booleans()):
        flip(path, data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, 7)))
    else:
        os.truncate(path, data.draw(st.integers(0, size - 1)))
    with pytest.raises(disk_records.Damaged):
        load_data(folder, SMALL)
    with pytest.raises(disk_records.Damaged):
        disk_records.check(FILES, folder, SMALL.key)


def test_a_failed_write_leaves_no_file_and_the_old_record(folder: str) -> None:
    class Full(Files):
        def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
            super().write(descriptor, data[:10], offset)
            raise OSError(28, "No space left on device")

    disk_records.save_data(FILES, folder, SMALL, content(SMALL, 0))
    with pytest.raises(OSError, match="space"):
        disk_records.save(Full(), folder, make_meta("small", 1000, received_at=9.0))
    assert os.listdir(f"{folder}/{SMALL.key.hex()[:2]}") == [record_name(SMALL.key)]
    assert load_data(folder, SMALL) == content(SMALL, 0)


# --- names ---


def test_names_of_ours_and_of_others() -> None:
    key = "ab" * 16
    assert parse("ab", f"{key}.r") == Name("record", bytes.fromhex(key), 0)
    assert parse("ab", f"{key}.12") == Name("extent", bytes.fromhex(key), 12)
    assert parse("ab", f"{key}.r.0123456789ab.tmp") == Name("leftover", bytes.fromhex(key), 0)
    for name in (f"{key}.r~", f"{key}.tmp", "README", f"{key.upper()}.r", f"{key}.-1", f"{key}.1\n", f"{key[2:]}.r"):
        assert parse("ab", name) is None
    assert parse("cd", f"{key}.r") is None
