"""How a download is shown: a bar on a terminal, plain lines elsewhere, nothing with ``--quiet``. All on stderr."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Protocol, Self, TextIO

from fileproxy.client.values import Progress

LINE_EVERY_S = 5.0


class Display(Protocol):
    """Used as a context manager around the downloads; ``show`` is a progress callback for any of them."""

    def show(self, progress: Progress) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def display(*, quiet: bool, stream: TextIO | None = None) -> Display:
    """What suits where the output goes."""
    out = stream or sys.stderr
    if quiet:
        return Silent()
    return Bars(out) if out.isatty() else Lines(out)


class Silent:
    """Nothing."""

    def show(self, progress: Progress) -> None:
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Lines(Silent):
    """A line when a download begins to fetch, then one every five seconds; for logs."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._told: dict[str, float] = {}

    def show(self, progress: Progress) -> None:
        if progress.state == "connecting":
            return
        key = str(progress.path)
        told = self._told.get(key)
        if progress.state != "done" and (told is None or progress.elapsed_s - told >= LINE_EVERY_S):
            self._told[key] = progress.elapsed_s
            self._out.write(line(progress) + "\n")
            self._out.flush()


def line(progress: Progress) -> str:
    """``f.iso: 12.5 MiB of 50.0 MiB (25 %), 3.1 MiB/s, 12 s left, 8 connections``."""
    parts = [people(progress.received)]
    if progress.size:
        parts[0] += f" of {people(progress.size)} ({100 * progress.received // progress.size} %)"
    if progress.state == "verifying":
        parts.append("verifying")
    else:
        parts.append(f"{people(progress.rate)}/s")
        if progress.left_s is not None:
            parts.append(f"{progress.left_s:.0f} s left")
        parts.append(f"{progress.connections} connection{'' if progress.connections == 1 else 's'}")
    return f"{name_of(progress)}: {', '.join(parts)}"


def name_of(progress: Progress) -> str:
    return progress.path.name if progress.path is not None else progress.url.partition("?")[0]


def people(count: float) -> str:
    """Bytes for people: ``1.5 GiB``."""
    units = ["TiB", "GiB", "MiB", "KiB", "B"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        units.pop()
    return f"{count:.0f} B" if units[-1] == "B" else f"{count:.1f} {units[-1]}"


class Bars:
    """A bar for each running download."""

    def __init__(self, out: TextIO) -> None:
        from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            DownloadColumn,
            TaskID,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as Rich  # noqa: PLC0415

        self._bars = Rich(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[connections]}"),
            console=Console(file=out, highlight=False),
            transient=True,
            redirect_stdout=False,  # the line of a file that is there goes where it was told to
        )
        self._tasks: dict[str, TaskID] = {}

    def show(self, progress: Progress) -> None:
        task = self._tasks.get(progress.url)
        if task is None:
            task = self._tasks[progress.url] = self._bars.add_task(name_of(progress), total=None, connections="")
        shown = {"connecting": "connecting", "verifying": "verifying"}
        self._bars.update(
            task,
            description=name_of(progress),
            total=progress.size,
            completed=progress.received,
            connections=shown.get(progress.state, f"×{progress.connections}"),
            visible=progress.state != "done",
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
