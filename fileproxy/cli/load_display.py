"""How far a load is: a bar on a terminal, a line every five seconds elsewhere, nothing with ``--quiet``. On stderr."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

if TYPE_CHECKING:
    from fileproxy.bench.run import Seen, Watch

LINE_EVERY_S = 5.0


class Display(Protocol):
    def watch(self, what: str) -> Watch:
        """What is told of one run."""
        ...


def display(*, quiet: bool, stream: TextIO | None = None) -> AbstractContextManager[Display]:
    """What suits where the output goes."""
    out = stream or sys.stderr
    if quiet:
        return nullcontext(Silent())
    return Bar(out) if out.isatty() else nullcontext(Lines(out))


def sentence(seen: Seen) -> str:
    """``1,234 requests, 120/s, 3.4 MB/s, 0 errors, p99 12.3 ms``."""
    span = max(seen.elapsed_s, 1e-9)
    p99 = "" if seen.p99_s is None else f", p99 {seen.p99_s * 1e3:,.1f} ms"
    return (
        f"{seen.requests:,} requests, {seen.requests / span:,.0f}/s, {seen.bytes / span / 1e6:,.1f} MB/s, "
        f"{seen.errors:,} errors{p99}"
    )


class Silent:
    def watch(self, what: str) -> Watch:
        return lambda seen: None


class Lines:
    def __init__(self, out: TextIO) -> None:
        self._out = out

    def watch(self, what: str) -> Watch:
        told = 0.0

        def show(seen: Seen) -> None:
            nonlocal told
            if seen.elapsed_s - told >= LINE_EVERY_S:
                told = seen.elapsed_s
                self._out.write(f"{what}, {seen.elapsed_s:.0f} of {seen.seconds:g} s: {sentence(seen)}\n")
                self._out.flush()

        self._out.write(f"{what}\n")
        self._out.flush()
        return show


class Bar:
    def __init__(self, out: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            console=Console(file=out, highlight=False),
            transient=True,
            redirect_stdout=False,
        )

    def watch(self, what: str) -> Watch:
        for old in self._bars.task_ids:
            self._bars.remove_task(old)
        task = self._bars.add_task(what, total=1.0, figures="")

        def show(seen: Seen) -> None:
            done = min(1.0, seen.elapsed_s / seen.seconds)
            self._bars.update(task, completed=done, figures=sentence(seen))

        return show

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
