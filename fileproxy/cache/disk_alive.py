"""Which workers have the folder of the disk tier in use, and whether one of them died. Blocking; all raise OSError.

Each worker keeps a file ``running.<token>`` locked; the kernel frees the lock at its death, and only a clean stop
removes the file. One that nobody locks is of a dead worker, which took what it had not shared of the estimate with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets

_PREFIX = "running."


class Alive:
    """This worker's file in ``folder``."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._name = ""
        self._descriptor = -1

    @property
    def known(self) -> bool:
        """Whether the file is there."""
        return self._descriptor >= 0

    def begin(self) -> bool:
        """Clear away what dead workers left, and make our own file. Returns whether there was a dead one."""
        found = self._sweep()
        token = secrets.token_hex(6)
        starting = f"{self._folder}/starting.{token}"  # nobody may see it before it is locked
        descriptor = os.open(starting, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.rename(starting, f"{self._folder}/{_PREFIX}{token}")
        except BaseException:
            os.close(descriptor)
            raise
        self._name, self._descriptor = f"{_PREFIX}{token}", descriptor
        return found

    def _sweep(self) -> bool:
        found = False
        for name in os.listdir(self._folder):
            if not name.startswith(_PREFIX):
                continue
            path = f"{self._folder}/{name}"
            with contextlib.suppress(FileNotFoundError):  # another worker was faster, or it stops just now
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(path)
                    found = True
                except BlockingIOError:
                    pass  # it lives
                finally:
                    os.close(descriptor)
        return found

    def end(self, *, clean: bool) -> None:
        """This worker stops. ``clean``: the estimate holds all it did, so nobody needs to count."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        try:
            if clean:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{self._folder}/{self._name}")
        finally:
            os.close(descriptor)
