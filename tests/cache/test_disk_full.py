"""A disk that is full, read-only, forbidden or gone: nothing raises, it is said, and it comes back by itself."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fileproxy.model import VaryRule
from tests.cache.disk_kit import (
    BLOCK,
    Gate,
    HurriedClock,
    Kit,
    content,
    everything,
    fill,
    identity,
    make_meta,
    open_tier,
    took,
    whole,
)

SMALL = make_meta("small", 1000)
LARGE = make_meta("large", 66 * BLOCK + 7)
OTHER = make_meta("other", 2 * BLOCK)


async def refused(kit: Kit) -> None:
    """Nothing can be kept, and nothing raises."""
    assert not await kit.tier.write(OTHER, 0, content(OTHER, 0))
    assert not await kit.tier.save(OTHER)
    assert not await kit.tier.save(VaryRule(key=identity("rule"), url="u", fields=()))
    assert kit.tier.statistics()["status"] == "degraded"


async def well_again(kit: Kit) -> None:
    await kit.told.wait_for(lambda told: bool(told) and told[-1] == "")
    assert kit.tier.statistics()["status"] == "ok"
    assert "detail" not in kit.tier.statistics()
    await fill(kit.tier, OTHER)
    assert await whole(kit.tier, OTHER) == everything(OTHER)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.EMFILE])
async def test_an_error_on_write_degrades_and_is_tried_again(tmp_path: Path, number: int) -> None:
    gate = Gate()
    async with open_tier(tmp_path, files=gate, clock=HurriedClock()) as kit:
        await fill(kit.tier, LARGE)
        await fill(kit.tier, SMALL)
        gate.error = OSError(number, os.strerror(number))
        await refused(kit)
        assert kit.told == [f"{tmp_path}: {os.strerror(number)}"]
        assert kit.tier.statistics()["detail"] == kit.told[0]
        assert kit.counters["cache.disk_skipped"] == 1
        if number not in (errno.ENOSPC, errno.EDQUOT):  # then room is being made
            assert await kit.tier.find(LARGE.key) == LARGE
            assert took(await kit.tier.read(LARGE, 3, 2)) == content(LARGE, 3) + content(LARGE, 4)
            assert await whole(kit.tier, SMALL) == everything(SMALL)
        gate.error = None
        await well_again(kit)


async def test_while_it_is_not_well_the_disk_is_not_bothered_with_writes(tmp_path: Path) -> None:
    gate = Gate()
    async with open_tier(tmp_path, files=gate, clock=HurriedClock()) as kit:
        gate.error = OSError(errno.EROFS, "Read-only file system")
        assert not await kit.tier.write(OTHER, 0, content(OTHER, 0))
        gate.open_gate.clear()  # whoever asks the disk now waits
        assert not await kit.tier.write(OTHER, 1, content(OTHER, 1))
        gate.open_gate.set()


async def test_a_folder_that_goes_away_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    async with open_tier(folder, clock=HurriedClock()) as kit:
        await fill(kit.tier, LARGE)
        shutil.rmtree(folder)
        assert await kit.tier.find(LARGE.key) is None
        assert await kit.tier.read(LARGE, 0, 1) is None
        assert await kit.tier.held(LARGE) == frozenset()
        await kit.told.wait_for(lambda told: bool(told))
        await well_again(kit)


async def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.write_text("not a folder")
    async with open_tier(folder, clock=HurriedClock()) as kit:
        await refused(kit)
        assert await kit.tier.find(LARGE.key) is None
        assert await kit.tier.read(LARGE, 0, 1) is None
        assert folder.read_text() == "not a folder"
        folder.unlink()
        await well_again(kit)


async def test_who_only_reads_waits_for_the_folder_too(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    async with open_tier(folder, clock=HurriedClock(), writable=False) as kit:
        assert kit.tier.statistics()["status"] == "degraded"
        assert not folder.exists()
        async with open_tier(folder) as owner:
            await fill(owner.tier, SMALL)
        await kit.told.wait_for(lambda told: told[-1] == "")
        assert await whole(kit.tier, SMALL) == everything(SMALL)


# --- real file systems, in a mount namespace of their own ---

CHILD = """
import asyncio, ctypes, os, subprocess, sys
from pathlib import Path
from tests.cache.disk_kit import *

FOLDER = Path(sys.argv[2])
OTHER = make_meta("other", 2 * BLOCK)

def mount(*more):
    subprocess.run(["mount", *more, str(FOLDER)], check=True)

async def again(kit):
    await kit.told.wait_for(lambda told: bool(told) and told[-1] == "")
    await fill(kit.tier, OTHER)
    assert await whole(kit.tier, OTHER) == everything(OTHER)
    assert kit.tier.statistics()["status"] == "ok"

async def full():
    mount("-t", "tmpfs", "-o", "size=3m", "tmpfs")
    (FOLDER / "cache").mkdir()
    ballast = FOLDER / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == 28
    async with open_tier(FOLDER / "cache", clock=HurriedClock()) as kit:
        assert not await kit.tier.save(OTHER)
        assert not await kit.tier.write(OTHER, 0, content(OTHER, 0))
        assert await kit.tier.find(OTHER.key) is None
        assert kit.tier.statistics()["status"] == "degraded", kit.tier.statistics()
        ballast.unlink()
        await again(kit)

async def small():
    '''More than fits: what is older makes room.'''
    mount("-t", "tmpfs", "-o", "size=3m", "tmpfs")
    async with open_tier(FOLDER, clock=HurriedClock()) as kit:
        async with asyncio.timeout(60):
            for n in range(30):
                meta = make_meta(f"object {n}", 4 * BLOCK)
                while not await kit.tier.save(meta):
                    await asyncio.sleep(0.01)
                for index in range(meta.blocks):
                    while not await kit.tier.write(meta, index, content(meta, index)):
                        await asyncio.sleep(0.01)
        assert kit.counters["cache.evicted"] > 10
        for n in range(30):
            meta = make_meta(f"object {n}", 4 * BLOCK)
            for index, got in enumerate(await whole(kit.tier, meta)):
                assert got in (None, content(meta, index))
                assert n < 29 or got is not None

async def readonly():
    mount("-t", "tmpfs", "-o", "size=3m", "tmpfs")
    small = make_meta("small", 1000)
    async with open_tier(FOLDER, clock=HurriedClock()) as kit:
        await fill(kit.tier, small)
    mount("-o", "remount,ro")
    async with open_tier(FOLDER, clock=HurriedClock()) as kit:
        assert kit.tier.statistics()["status"] == "degraded"
        assert "Read-only" in kit.tier.statistics()["detail"]
        assert not await kit.tier.write(OTHER, 0, content(OTHER, 0))
        await kit.tier.drop(OTHER)
        assert await kit.tier.find(small.key) == small
        assert await whole(kit.tier, small) == everything(small)
        assert await kit.tier.scrub_once() == 0
        mount("-o", "remount,rw")
        await again(kit)

async def permission():
    mount("-t", "tmpfs", "-o", "size=3m,mode=755", "tmpfs")
    async with open_tier(FOLDER, clock=HurriedClock()) as kit:
        await fill(kit.tier, make_meta("small", 1000))
        for mode in (0o500, 0o000):
            for path in [FOLDER, *FOLDER.iterdir()]:
                path.is_dir() and path.chmod(0o700)
            for path in [one for one in FOLDER.iterdir() if one.is_dir()] + [FOLDER]:
                path.chmod(mode)
            del kit.told[:]
            assert not await kit.tier.write(OTHER, 0, content(OTHER, 0))
            assert not await kit.tier.save(OTHER)
            await kit.tier.find(OTHER.key)
            await kit.tier.read(OTHER, 0, 1)
            assert kit.tier.statistics()["status"] == "degraded"
            assert "denied" in kit.tier.statistics()["detail"]
            FOLDER.chmod(0o700)
            for path in FOLDER.iterdir():
                path.is_dir() and path.chmod(0o700)
            await kit.told.wait_for(lambda told: bool(told) and told[-1] == "")
        await again(kit)

def without_override():
    '''Root, too, has to keep to the permissions from now on.'''
    libc = ctypes.CDLL(None, use_errno=True)
    head = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    assert libc.capget(head, data) == 0
    for part in (0, 1):
        data[part] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(head, data) == 0

async def main():
    async with asyncio.timeout(90):
        await globals()[sys.argv[1]]()

if sys.argv[1] == "permission":
    without_override()
asyncio.run(main())
print("done")
"""


def namespace() -> list[str]:
    """How to run something in a mount namespace of its own, or skip."""
    for command in (["unshare", "-Urm"], ["unshare", "-m"]):
        try:
            if subprocess.run([*command, "true"], capture_output=True, timeout=20, check=False).returncode == 0:
                return command
        except OSError:
            continue
    pytest.skip("no mount namespaces here (unshare is missing or not allowed)")


@pytest.mark.parametrize("what", ["full", "small", "readonly", "permission"])
def test_on_a_real_file_system(tmp_path: Path, what: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    child = subprocess.run(
        [*namespace(), sys.executable, "-c", CHILD, what, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        env=environment,
        check=False,
    )
    if "mount" in child.stderr and "CalledProcessError" in child.stderr:
        pytest.skip("a tmpfs cannot be mounted here")
    assert child.stdout == "done\n", child.stderr[-3000:]
