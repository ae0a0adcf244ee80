"""Small things asked of the operating system. What a system lacks is left out, never an error (Linux has all of it)."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # prctl(2)
_PR_SET_NAME = 15


def _prctl(option: int, argument: object) -> bool:
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0) == 0)


def die_with_parent(parent: int, sig: int = signal.SIGKILL) -> None:
    """Have the kernel send ``sig`` to this process when ``parent`` (its pid) ends, however it ends.

    To be called in the child, after the fork. A parent that was gone before the kernel knew of our wish is noticed by
    the changed parent pid; then the signal is sent at once.
    """
    _prctl(_PR_SET_PDEATHSIG, sig)
    if os.getppid() != parent:
        os.kill(os.getpid(), sig)


def set_title(title: str) -> None:
    """Name shown by ``top`` and ``ps -o comm`` (15 characters at most)."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(title.encode()[:15]))


def raise_descriptor_limit() -> tuple[int, int]:
    """Raise the soft limit of open files to the hard one. Returns (soft, hard) as they are now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return soft, hard  # macOS refuses an unlimited value; what we have still works
    return resource.getrlimit(resource.RLIMIT_NOFILE)


@contextmanager
def without_ca_bundle() -> Iterator[None]:
    """While this lasts, TLS contexts made with the system's certificate authorities read no bundle and trust none.

    For importing aiohttp, which makes two that nothing of ours uses (``upstream/connections.py`` makes its own). Where
    ``SSL_CERT_FILE`` or the system's OpenSSL names a bundle, a start took 0.60 s with them and 0.55 s without.
    """
    kept = os.environ.get("SSL_CERT_FILE")
    os.environ["SSL_CERT_FILE"] = os.devnull
    try:
        yield
    finally:
        if kept is None:
            del os.environ["SSL_CERT_FILE"]
        else:
            os.environ["SSL_CERT_FILE"] = kept


def worked_s() -> float:
    """Seconds that the calling thread ran or waited for a processor; where the system does not tell, those it ran."""
    try:
        with open("/proc/thread-self/schedstat", "rb") as file:
            ran, waited, _ = file.read().split()
    except (OSError, ValueError):
        return time.thread_time()
    return (int(ran) + int(waited)) / 1e9


def cpu_count() -> int:
    """Processors this process may run on: affinity, and a container's quota (cgroup v2 ``cpu.max``), at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _cgroup_quota(Path("/sys/fs/cgroup/cpu.max"))
    return max(1, min(count, quota) if quota else count)


def _cgroup_quota(path: Path) -> int | None:
    """Whole processors of a ``cpu.max`` file (``"150000 100000"`` → 2), or None when there is no limit."""
    try:
        quota, _, period = path.read_text().strip().partition(" ")
        return None if quota == "max" else -(-int(quota) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return None  # not Linux, cgroup v1, or outside a container


def alive(pid: int) -> bool:
    """Whether a process with this pid exists (it may belong to somebody else)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
