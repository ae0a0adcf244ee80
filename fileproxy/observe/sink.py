"""Where whole lines go: a file, stdout or stderr.

Every write is one system call on a descriptor opened with O_APPEND, so the lines of several workers do not mix: the
kernel appends a batch to a file as one piece; to a pipe it does so up to PIPE_BUF, and batches are cut to that. Pipes
are opened anew, non-blocking: a reader that has stopped reading must not stop the downloads.
"""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_STANDARD = {"stdout": 1, "stderr": 2}
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Written(NamedTuple):
    """What was not taken: it waits for the pipe's reader when ``error`` is None, and is lost when not."""

    rest: list[bytes]
    error: OSError | None = None


class Sink:
    """An open target. Making one raises OSError when it cannot be opened."""

    def __init__(self, target: str) -> None:
        self.target = target
        self._descriptor = _open(target)
        self._is_file = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
        self._torn = False  # the last write stopped within a line; the next one must not be glued to it

    def write(self, pieces: Sequence[bytes]) -> Written:
        """Append the pieces, each of whole lines. Never raises OSError, and never waits for a pipe."""
        batches = self._batches(pieces)
        for number, batch in enumerate(batches):
            data = b"\n" + batch if self._torn else batch
            try:
                written = os.write(self._descriptor, data)
            except BlockingIOError:
                return Written(batches[number:])
            except OSError as error:
                return Written(batches[number:], error)
            self._torn = False
            if written < len(data):  # a disk that just filled up, or one line longer than the pipe's room
                end = data.rfind(b"\n", 0, written) + 1
                self._torn = end != written
                return Written([data[end:], *batches[number + 1 :]], OSError("the target took only part of a line"))
        return Written([])

    def _batches(self, pieces: Sequence[bytes]) -> list[bytes]:
        if self._is_file:
            return [b"".join(pieces)]
        batches: list[bytes] = []
        current: list[bytes] = []
        size = int(self._torn)
        for line in b"".join(pieces).splitlines(keepends=True):
            if current and size + len(line) > select.PIPE_BUF:
                batches.append(b"".join(current))
                current, size = [], 0
            current.append(line)
            size += len(line)
        if current:
            batches.append(b"".join(current))
        return batches

    def reopen(self) -> None:
        """Open the target by its name again (it was renamed away). OSError: the old file stays in use."""
        if self.target in _STANDARD:
            return
        descriptor = _open(self.target)
        old, self._descriptor = self._descriptor, descriptor
        self._is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._torn = False
        os.close(old)

    def close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def _open(target: str) -> int:
    number = _STANDARD.get(target)
    if number is None:
        path = Path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, _FLAGS | os.O_CREAT, 0o640)
    try:
        # A description of its own: O_NONBLOCK on the inherited one would change it for whoever shares it.
        return os.open(f"/proc/self/fd/{number}", _FLAGS)
    except OSError:  # a socket (as under systemd), or no /proc: shared then, and blocking
        return os.dup(number)
