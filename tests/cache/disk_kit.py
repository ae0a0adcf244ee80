"""What the tests of the disk tier share: objects with known bytes, tiers that close, and disks that misbehave."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fileproxy.cache.disk import DiskTier
from fileproxy.cache.disk_files import Files
from fileproxy.clock import Clock, SystemClock
from fileproxy.model import FileSlice, Meta
from fileproxy.tasks import Tasks
from tests.house import Watched

BLOCK = 64 * 1024


def identity(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def make_meta(name: str = "one", size: int = 5 * BLOCK + 100, block: int = BLOCK, **changes: Any) -> Meta:
    fields: dict[str, Any] = {
        "key": identity(f"key {name}"),
        "rid": identity(f"rid {name} {size}"),
        "url": f"files/example.org/{name}",
        "status": 200,
        "reason": "OK",
        "headers": (("Content-Type", "text/plain"), ("X-Odd", "\udcff")),
        "size": size,
        "block": block,
        "pinned": True,
        "requested_at": 1.0,
        "received_at": 2.0,
        "age_s": 0.0,
    }
    return Meta(**{**fields, **changes})


def content(meta: Meta, index: int) -> bytes:
    """The right bytes of a block: no two blocks of any two objects are alike."""
    seed = hashlib.blake2b(meta.rid + index.to_bytes(8, "little")).digest()
    length = meta.length_of(index)
    return (seed * (length // len(seed) + 1))[:length]


def took(piece: object) -> bytes | None:
    """The bytes of a slice, whose descriptor is closed; None for None."""
    if piece is None:
        return None
    assert isinstance(piece, FileSlice)
    try:
        return os.pread(piece.descriptor, piece.length, piece.offset)
    finally:
        os.close(piece.descriptor)


async def fill(tier: DiskTier, meta: Meta) -> None:
    assert await tier.save(meta)
    for index in range(meta.blocks):
        assert await tier.write(meta, index, content(meta, index))


async def whole(tier: DiskTier, meta: Meta) -> list[bytes | None]:
    """Every block, each read by itself."""
    return [took(await tier.read(meta, index, 1)) for index in range(meta.blocks)]


def everything(meta: Meta) -> list[bytes]:
    return [content(meta, index) for index in range(meta.blocks)]


def files_in(folder: Path) -> list[Path]:
    """Records and extents, without what else lies about."""
    return sorted(one for one in folder.glob("??/*") if one.is_file())


class Told(list[str]):
    """The problems a tier reported; ``wait_for`` waits for one."""

    def __init__(self) -> None:
        super().__init__()
        self._more = asyncio.Event()

    def __call__(self, detail: str) -> None:
        self.append(detail)
        self._more.set()

    async def wait_for(self, condition: Callable[[list[str]], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition(self):
                self._more.clear()
                await self._more.wait()


class Kit:
    """A tier and what it was given."""

    def __init__(self, tier: DiskTier, counters: Watched, told: Told, failures: list[BaseException]) -> None:
        self.tier, self.counters, self.told, self.failures = tier, counters, told, failures


@asynccontextmanager
async def open_tier(
    folder: Path,
    *,
    size: int = 1 << 30,
    min_free: int = 0,
    scrub: int = 0,
    writable: bool = True,
    clock: Clock | None = None,
    files: Files | None = None,
) -> AsyncIterator[Kit]:
    counters, told, failures = Watched(), Told(), list[BaseException]()
    tasks = Tasks(lambda name, error: failures.append(error))
    tier = DiskTier(
        folder,
        size=size,
        min_free=min_free,
        scrub=scrub,
        writable=writable,
        counters=counters,
        clock=clock or SystemClock(),
        tasks=tasks,
        on_problem=told,
        files=files,
    )
    await tier.open()
    try:
        yield Kit(tier, counters, told, failures)
    finally:
        await tier.close()
        await tasks.close()
        assert failures == []


class HurriedClock(SystemClock):
    """Real time, but nobody sleeps for long: pauses of seconds take hundredths."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(max(0.0, seconds), 3600.0) / 100)


class Gate(Files):
    """A disk whose writes (and reads) stop while ``closed``, and fail while ``error`` is set."""

    def __init__(self) -> None:
        self.open_gate = threading.Event()
        self.open_gate.set()
        self.waiting = threading.Event()
        self.error: OSError | None = None
        self.reads_too = False

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
        self._pass()
        super().write(descriptor, data, offset)

    def open(self, path: str, flags: int) -> int:
        if self.reads_too:
            self._pass()
        return super().open(path, flags)

    def _pass(self) -> None:
        self.waiting.set()
        assert self.open_gate.wait(30)
        if self.error is not None:
            raise self.error
