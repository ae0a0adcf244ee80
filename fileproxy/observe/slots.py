"""Which worker holds which number. A slot is a locked file; the kernel frees it at its holder's death.

The lock is ``flock``: it belongs to the open file, so nobody else can drop it by closing a copy of the path, and it
needs no clean-up after kill -9. The files themselves stay: removing one would let two workers lock two files of the
same name.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

MOST = 1024  # workers of one service, generations that still drain included


class Slot:
    """A held number. It is free again after ``release`` or when this process is gone."""

    def __init__(self, number: int, descriptor: int) -> None:
        self.number = number
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


class Slots:
    """The slots of one service: ``RUN_DIR/slots/NUMBER``."""

    def __init__(self, run_dir: Path) -> None:
        self._folder = run_dir / "slots"

    def claim(self) -> Slot:
        """Take the lowest free number. OSError when the folder cannot be used or all are held."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for number in range(MOST):
            descriptor = os.open(self._folder / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if _lock(descriptor):
                return Slot(number, descriptor)
            os.close(descriptor)
        raise OSError(f"all {MOST} worker slots in {self._folder} are held")

    def held(self) -> frozenset[int]:
        """The numbers that are held now, by any process (this one included)."""
        try:
            names = [name for name in os.listdir(self._folder) if name.isascii() and name.isdigit()]
        except FileNotFoundError:
            return frozenset()
        return frozenset(int(name) for name in names if self._is_held(name))

    def _is_held(self, name: str) -> bool:
        descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Shared, so that two who look do not take each other for the holder.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


def _lock(descriptor: int) -> bool:
    # `held` takes a free slot's lock for some microseconds; a second look keeps a newcomer from passing that slot over.
    for attempt in range(3):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if attempt < 2:
                time.sleep(0.001)
    return False
