"""The memory manager: gives memory back before the kernel takes it, and takes it again slowly.

``decide`` is pure: figures in, a decision out. ``MemoryManager`` reads the figures (psutil for the machine, the control
group's files for a container) and tells of each change. What a container may still use is judged without its page
cache: the kernel gives that up by itself, and a proxy that sends files fills it all day.

The share of memory that is left, the scarcer of machine and control group, makes the level:

========  ===========  ===============================================================================================
level     left         what happens at each check
========  ===========  ===============================================================================================
normal    20 % and up  budget grows by a sixteenth of the configured one, window and chunk double; up to the configured
tight     10 to 20 %   nothing: growing and shrinking in turn would only cost
low       5 to 10 %    budget shrinks by a quarter, window and chunk halve
critical  under 5 %    budget halves, window and chunk fall to a quarter
========  ===========  ===============================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from fileproxy.clock import Clock

Level = Literal["normal", "tight", "low", "critical"]

LEAST_CHUNK = 8 * 1024
LEAST_WINDOW = 256 * 1024
LEAST_BUDGET = 1024**2  # below it a memory tier is not worth its sketch: it becomes 0
MOST_SHARE = 0.5  # of the machine or container for all budgets together, whatever is configured
UNLIMITED = 1 << 60  # control groups of version 1 write a number of about 2**63 for "no limit"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes: the budget of the memory tier, the window of a fill, a chunk of a copy."""

    budget: int
    window: int
    chunk: int


@dataclass(frozen=True, slots=True)
class Decision(Sizes):
    level: Level = "normal"


@dataclass(frozen=True, slots=True)
class Reading:
    """Bytes of the machine, and of the control group that leaves the least room (None: no limit)."""

    available: int
    total: int
    cgroup_limit: int | None = None
    cgroup_used: int | None = None

    @property
    def whole(self) -> int:
        """Bytes that may be used at all, at least 1."""
        return max(1, self.total if self.cgroup_limit is None else min(self.total, self.cgroup_limit))

    @property
    def left(self) -> float:
        """Share of memory that can still be had, 0 to 1."""
        share = self.available / max(1, self.total)
        if self.cgroup_limit is not None:
            share = min(share, 1 - (self.cgroup_used or 0) / max(1, self.cgroup_limit))
        return min(1.0, max(0.0, share))


def level_of(left: float) -> Level:
    """The level at this share of memory left."""
    if left >= 0.20:
        return "normal"
    if left >= 0.10:
        return "tight"
    return "low" if left >= 0.05 else "critical"


def ceiling_of(reading: Reading, configured: Sizes, workers: int) -> int:
    """The most bytes one of ``workers`` may ever keep: what is configured, or its part of half the memory."""
    return min(configured.budget, int(reading.whole * MOST_SHARE / workers))


def decide(reading: Reading, configured: Sizes, current: Sizes, workers: int = 1) -> Decision:
    """What one of ``workers`` may use from now on; one step away from ``current`` at most, but never over what is
    configured, nor over its part of half the memory.
    """
    level = level_of(reading.left)
    ceiling = ceiling_of(reading, configured, workers)
    budget, window, chunk = current.budget, current.window, current.chunk
    if level == "normal":
        budget, window, chunk = budget + max(LEAST_BUDGET, configured.budget // 16), window * 2, chunk * 2
    elif level == "low":
        budget, window, chunk = budget * 3 // 4, window // 2, chunk // 2
    elif level == "critical":
        budget, window, chunk = budget // 2, window // 4, chunk // 4
    budget = min(budget, ceiling)
    return Decision(
        budget=0 if budget < min(LEAST_BUDGET, ceiling) else budget,
        window=min(configured.window, max(LEAST_WINDOW, window)),
        chunk=min(configured.chunk, max(LEAST_CHUNK, chunk)),
        level=level,
    )


class MemoryManager:
    """Decides every ``every_s`` seconds and calls ``on_change`` with each decision that differs from the last.

    Args:
        configured: what may be used without pressure, the budget being this worker's part.
        workers: how many workers share the machine.
        read: the figures; raises OSError when they cannot be had, and then nothing changes.
    """

    def __init__(
        self,
        configured: Sizes,
        every_s: float,
        clock: Clock,
        on_change: Callable[[Decision], None],
        *,
        workers: int = 1,
        read: Callable[[], Reading] | None = None,
    ) -> None:
        self._configured = configured
        self._every_s = every_s
        self._clock = clock
        self._on_change = on_change
        self._workers = workers
        self._read = read or read_memory
        self._reading: Reading | None = None
        self._detail = ""
        self._checks = self._shrunk = self._grown = 0
        self._decision = Decision(configured.budget, configured.window, configured.chunk)

    @property
    def decision(self) -> Decision:
        return self._decision

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            self.check()
            checked = self._clock.now()
            # In steps of a second, so that a shorter interval after a reload need not wait for the end of a long one.
            while (remaining := checked + self._every_s - self._clock.now()) > 0:
                await self._clock.sleep(min(1.0, remaining))

    def check(self) -> Decision:
        """Read, decide, tell."""
        self._checks += 1
        try:
            reading = self._reading = self._read()
            self._detail = ""
        except OSError as error:
            self._detail = f"memory cannot be read: {error}"
            return self._decision
        return self._become(decide(reading, self._configured, self._decision, self._workers))

    def configure(self, configured: Sizes, every_s: float, workers: int | None = None) -> Decision:
        """Another configuration holds. What is not under pressure follows at once, the rest at the next checks."""
        old, self._configured, self._every_s = self._configured, configured, every_s
        now = self._decision
        free = now == Decision(self._ceiling(old), old.window, old.chunk)
        if workers is not None:
            self._workers = workers
        ceiling = self._ceiling(configured)
        return self._become(
            Decision(
                budget=ceiling if free else min(now.budget, ceiling),
                window=configured.window if free else min(now.window, configured.window),
                chunk=configured.chunk if free else min(now.chunk, configured.chunk),
                level=now.level,
            )
        )

    def statistics(self) -> dict[str, Any]:
        """For ``/stats``: bytes, the level, how often something shrank or grew."""
        now, reading = self._decision, self._reading
        return {
            "level": now.level,
            "budget": now.budget,
            "window": now.window,
            "chunk": now.chunk,
            "configured": {
                "budget": self._configured.budget,
                "window": self._configured.window,
                "chunk": self._configured.chunk,
            },
            "available": reading.available if reading else None,
            "total": reading.total if reading else None,
            "cgroup_limit": reading.cgroup_limit if reading else None,
            "cgroup_used": reading.cgroup_used if reading else None,
            "checks": self._checks,
            "shrunk": self._shrunk,
            "grown": self._grown,
            **({"status": "degraded", "detail": self._detail} if self._detail else {}),
        }

    def _ceiling(self, configured: Sizes) -> int:
        reading = self._reading
        return configured.budget if reading is None else ceiling_of(reading, configured, self._workers)

    def _become(self, decision: Decision) -> Decision:
        before, self._decision = self._decision, decision
        if decision != before:
            sizes = [(decision.budget, before.budget), (decision.window, before.window), (decision.chunk, before.chunk)]
            self._shrunk += any(now < then for now, then in sizes)
            self._grown += any(now > then for now, then in sizes)
            self._on_change(decision)
        return decision


def read_memory(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Reading:
    """The machine's figures and the control group's. OSError when the machine's cannot be had."""
    machine = psutil.virtual_memory()
    scarcest = read_cgroup(groups, own)
    if scarcest is None:
        return Reading(machine.available, machine.total)
    return Reading(machine.available, machine.total, *scarcest)


def read_cgroup(groups: Path, own: Path) -> tuple[int, int] | None:
    """(limit, used) in bytes of the group we are in or that of its ancestors which leaves the least room.

    ``groups`` is where control groups are mounted, ``own`` our ``/proc/PID/cgroup``. Inside a container the path named
    there may be the host's, which is not visible; the root of the mount is then our own group. None: no limit.
    """
    found: list[tuple[int, int]] = []
    for base, path, files in _places(groups, own):
        folder = base / path
        for place in (folder, *folder.parents):
            if (figures := _limit_and_use(place, files)) is not None:
                found.append(figures)
            if place == base:
                break
    return min(found, key=lambda pair: 1 - pair[1] / max(1, pair[0]), default=None)


@dataclass(frozen=True, slots=True)
class _Files:
    limits: tuple[str, ...]
    used: str
    page_cache: tuple[str, ...]  # lines of memory.stat


_V1 = _Files(("memory.limit_in_bytes",), "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))
_V2 = _Files(("memory.max", "memory.high"), "memory.current", ("inactive_file", "active_file"))


def _places(groups: Path, own: Path) -> list[tuple[Path, str, _Files]]:
    """(mount, our path below it, names of files) of each hierarchy that may limit memory."""
    try:
        lines = own.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []
    places: list[tuple[Path, str, _Files]] = []
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        inside = path.strip("/")
        if ".." in inside.split("/"):  # a group outside of our namespace
            inside = ""
        if number == "0" and not controllers:
            places.append((groups, inside, _V2))
        elif "memory" in controllers.split(","):
            places.append((groups / "memory", inside, _V1))
    return places


def _limit_and_use(folder: Path, files: _Files) -> tuple[int, int] | None:
    limits = [limit for name in files.limits if (limit := _number(folder / name)) is not None and limit < UNLIMITED]
    used = _number(folder / files.used)
    if not limits or used is None:
        return None
    try:
        lines = (folder / "memory.stat").read_text("ascii", "replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, amount = line.partition(" ")
        if name in files.page_cache and amount.strip().isdigit():
            used -= int(amount)
    return min(limits), max(0, used)


def _number(file: Path) -> int | None:
    """A file of one number; None when it says ``max`` or cannot be read."""
    try:
        text = file.read_text("ascii", "replace").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
