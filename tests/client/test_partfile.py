"""The journal never says more than the part file holds."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fileproxy.client import PartFileError
from fileproxy.client.partfile import PartFile, journal_of, meta_of, part_of, read_journal

META = meta_of("http://a/f?secret=1", (("ETag", '"1"'), ("Content-Type", "text/plain")), 100, 1_800_000_000.0)


def begun(out: Path, *spans: tuple[int, int]) -> None:
    """What a download that was killed leaves behind."""
    part = PartFile.open(out, resume=False, restart=False)
    part.begin(META)
    for first, end in spans:
        part.write(b"x" * (end - first), first)
        part.done.add(first, end)
    part.save(tuple(part.done))
    part.close()


def test_what_was_kept_is_found_again(out: Path) -> None:
    begun(out, (0, 10), (50, 60))
    part = PartFile.open(out, resume=True, restart=False)
    assert part.meta is not None
    assert (part.meta.size, part.meta.headers) == (100, (("ETag", '"1"'),))
    assert list(part.done) == [(0, 10), (50, 60)]
    part.close()


def test_the_journal_keeps_no_query(out: Path) -> None:
    begun(out, (0, 10))
    assert b"secret" not in journal_of(out).read_bytes()
    assert os.stat(journal_of(out)).st_mode & 0o077 == 0


def test_nothing_is_continued_without_being_asked(out: Path) -> None:
    begun(out, (0, 10))
    with pytest.raises(PartFileError, match="-c continues it, --restart starts over"):
        PartFile.open(out, resume=False, restart=False)
    assert read_journal(out) is not None


def test_restart_forgets(out: Path) -> None:
    begun(out, (0, 10))
    part = PartFile.open(out, resume=False, restart=True)
    assert (part.meta, part.done.total, part_of(out).stat().st_size) == (None, 0, 0)
    assert not journal_of(out).exists()
    part.close()


@pytest.mark.parametrize(
    "damage",
    [
        lambda out: journal_of(out).unlink(),
        lambda out: journal_of(out).write_bytes(b"{"),
        lambda out: journal_of(out).write_bytes(b"\xff"),
        lambda out: journal_of(out).write_bytes(b"{}"),
        lambda out: os.truncate(part_of(out), 5),
        lambda out: rewrite(out, version=2),
        lambda out: rewrite(out, done=[[5, 5]]),
        lambda out: rewrite(out, done=[[0, 101]]),
        lambda out: rewrite(out, done=[[-5, 10]]),
    ],
)
def test_what_cannot_be_believed_is_not_continued(out: Path, damage: object) -> None:
    begun(out, (0, 10))
    damage(out)  # type: ignore[operator]
    with pytest.raises(PartFileError, match="--restart starts over"):
        PartFile.open(out, resume=True, restart=False)
    part = PartFile.open(out, resume=True, restart=True)
    assert (part.meta, part.done.total) == (None, 0)
    part.close()


def rewrite(out: Path, **changes: object) -> None:
    journal = json.loads(journal_of(out).read_bytes())
    journal_of(out).write_text(json.dumps({**journal, **changes}))


def test_an_empty_part_file_without_a_journal_is_a_fresh_start(out: Path) -> None:
    """A kill between making it and the first journal."""
    part_of(out).touch()
    part = PartFile.open(out, resume=True, restart=False)
    assert part.meta is None
    part.close()


def test_only_one_download_has_it(out: Path) -> None:
    part = PartFile.open(out, resume=False, restart=False)
    with pytest.raises(PartFileError, match="another download"):
        PartFile.open(out, resume=True, restart=True)
    part.close()


def test_a_link_is_not_followed(out: Path) -> None:
    victim = out.with_name("victim")
    victim.write_bytes(b"precious")
    part_of(out).symlink_to(victim)
    with pytest.raises(PartFileError, match="symbolic link"):
        PartFile.open(out, resume=True, restart=True)
    assert victim.read_bytes() == b"precious"


def test_the_name_is_not_taken_from_another_file(out: Path) -> None:
    begun(out, (0, 100))
    part = PartFile.open(out, resume=True, restart=False)
    out.write_bytes(b"precious")
    with pytest.raises(PartFileError, match="exists"):
        part.finish(force=False)
    assert out.read_bytes() == b"precious"
    assert part_of(out).read_bytes() == b"x" * 100
    part.close()


def test_force_replaces(out: Path) -> None:
    begun(out, (0, 100))
    part = PartFile.open(out, resume=True, restart=False)
    out.write_bytes(b"old")
    part.finish(force=True)
    part.close()
    assert out.read_bytes() == b"x" * 100
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_late_save_neither_takes_back_nor_comes_back(out: Path) -> None:
    """A thread that still flushes when the download has moved on."""
    begun(out, (0, 100))
    part = PartFile.open(out, resume=True, restart=False)
    part.save(((0, 100),))
    part.save(((0, 10),))
    journal = read_journal(out)
    assert journal is not None
    assert journal.done == ((0, 100),)
    part.finish(force=False)
    part.save(((0, 100),))
    part.close()
    part.save(((0, 100),))
    assert not journal_of(out).exists()


def test_the_journal_waits_for_the_data(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data is flushed before the journal that names it takes the old one's place."""
    order: list[str] = []
    flush, replace = os.fdatasync, Path.replace

    def flushing(descriptor: int) -> None:
        order.append("data")
        flush(descriptor)

    def replacing(self: Path, to: Path) -> Path:
        order.append("journal")
        return replace(self, to)

    monkeypatch.setattr(os, "fdatasync", flushing)
    monkeypatch.setattr(Path, "replace", replacing)
    begun(out, (0, 10))
    assert order == ["data", "journal"]


def test_a_full_disk_is_told_before_the_first_byte(out: Path) -> None:
    part = PartFile.open(out, resume=False, restart=False)
    with pytest.raises(PartFileError, match="bytes left"):
        part.check_room(2**62)
    part.close()
