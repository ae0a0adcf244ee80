"""Lines on their way to one sink: batched, bounded, and never a reason for a request to fail."""

from __future__ import annotations

import asyncio
import os

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
        self._waiting: list[bytes] = []  # pieces of one line or more
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._try_again_at: float | None = None
        try:
            self._sink = Sink(target)
        except OSError as error:
            self._sink = _instead()
            self._missing(error)

    def put(self, piece: bytes) -> None:
        """Queue a line, or some that came together; they go out with their batch."""
        if self._size + len(piece) > MOST_WAITING_BYTES:
            self._dropped([piece])
            return
        self._waiting.append(piece)
        self._size += len(piece)
        if self._timer is None:
            self._start_timer()
        if self._size >= FLUSH_BYTES > self._size - len(piece):
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
        rest, error = self._sink.write(self._waiting)
        if error is not None:
            self._dropped(rest)
            self.problem = f"{self._sink.target}: {error.strerror or error}"
            rest = []
        elif self._try_again_at is None:
            self.problem = None
        self._waiting = rest
        self._size = sum(map(len, rest))
        if self._size > MOST_WAITING_BYTES:
            self._dropped(rest)
            self._waiting = []
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

    def _dropped(self, pieces: list[bytes]) -> None:
        if self.counters is not None and pieces:
            self.counters.add("logs.dropped", sum(piece.count(b"\n") for piece in pieces))

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.flush()
        self._dropped(self._waiting)
        self._waiting.clear()
        self._sink.close()


def _instead() -> Sink:
    """Where lines go whose target cannot be opened."""
    try:
        return Sink("stderr")
    except OSError:  # a daemon without descriptor 2
        return Sink(os.devnull)
