"""Lines on their way to one sink: batched, bounded, and never a reason for a request to fail."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from fileproxy.clock import Clock
from fileproxy.model import Counters
from fileproxy.observe.sink import Sink

FLUSH_AFTER_S = 0.1
FLUSH_BYTES = 65536
MOST_WAITING_BYTES = 1024 * 1024  # while a pipe's reader does not read
REOPEN_AFTER_S = 10.0  # a target that could not be opened is tried again after this


class Stream:
    """The lines of one log. ``problem`` says what is wrong now, or is None."""

    def __init__(self, target: str, counters: Counters | None, clock: Clock) -> None:
        self.counters = counters
        self.problem: str | None = None
        self._clock = clock
        self._target = target
        self._waiting: list[bytes] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._try_again_at: float | None = None
        try:
            self._sink = Sink(target)
        except OSError as error:
            self._sink = _instead()
            self._missing(error)

    def put(self, line: bytes) -> None:
        """Queue a line; it goes out with its batch."""
        if self._size + len(line) > MOST_WAITING_BYTES:
            self._dropped(1)
            return
        self._waiting.append(line)
        self._size += len(line)
        if self._timer is None:
            self._start_timer()
        elif self._size >= FLUSH_BYTES > self._size - len(line):
            self.flush()

    def put_all(self, lines: Sequence[bytes]) -> None:
        """Queue lines that came together."""
        size = sum(map(len, lines))
        if self._size + size > MOST_WAITING_BYTES:
            for line in lines:
                self.put(line)
            return
        self._waiting += lines
        self._size += size
        if self._timer is None:
            self._start_timer()
        elif self._size >= FLUSH_BYTES > self._size - size:
            self.flush()

    def put_now(self, line: bytes) -> None:
        """Write a line and whatever waits before it."""
        self._waiting.append(line)
        self._size += len(line)
        self.flush()

    def _start_timer(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no loop runs here (the master, a command): nothing would flush later
            self.flush()
        else:
            self._timer = loop.call_later(FLUSH_AFTER_S, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self.flush()
        if self._waiting:
            self._start_timer()

    def flush(self) -> None:
        if self._try_again_at is not None and self._clock.now() >= self._try_again_at:
            self.reopen()
        if not self._waiting:
            return
        taken, error = self._sink.write(self._waiting)
        if error is not None:
            self._dropped(len(self._waiting) - taken)
            self.problem = f"{self._sink.target}: {error.strerror or error}"
            taken = len(self._waiting)
        elif self._try_again_at is None:
            self.problem = None
        del self._waiting[:taken]
        self._size = sum(map(len, self._waiting))
        if self._size > MOST_WAITING_BYTES:
            self._dropped(len(self._waiting))
            self._waiting.clear()
            self._size = 0

    def reopen(self) -> str | None:
        """None, or what went wrong (the old target stays in use)."""
        return self.redirect(self._target, again=True)

    def redirect(self, target: str, *, again: bool = False) -> str | None:
        """Send lines to ``target`` from now on. None, or what went wrong (the old target stays in use)."""
        if target == self._sink.target and not again:
            return None
        try:
            if target == self._sink.target:
                self._sink.reopen()
            else:
                sink, self._sink = self._sink, Sink(target)
                sink.close()
        except OSError as error:
            if self._sink.target != self._target:
                self._missing(error)
            return f"{target}: {error.strerror or error}"
        self._target = target
        self._try_again_at = self.problem = None
        return None

    def _missing(self, error: OSError) -> None:
        self.problem = f"{self._target}: {error.strerror or error}; writing to {self._sink.target}"
        self._try_again_at = self._clock.now() + REOPEN_AFTER_S

    def _dropped(self, lines: int) -> None:
        if self.counters is not None and lines:
            self.counters.add("logs.dropped", lines)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.flush()
        self._dropped(len(self._waiting))
        self._waiting.clear()
        self._sink.close()


def _instead() -> Sink:
    """Where lines go whose target cannot be opened."""
    try:
        return Sink("stderr")
    except OSError:  # a daemon without descriptor 2
        return Sink(os.devnull)
