"""Receive windows that begin equally wide for all, in a network namespace that ends with the race.

On loopback, what the client's window lets out at once is sent at the server's cost, and what waits for an
acknowledgement at the client's. How wide a window grows is the client's doing and depends on how the bytes come: with
1 MiB from nginx it was 64 to 128 KiB, from us 200 to 480 KiB, by ``ss -ti``. A server's share alone then says more
about the window than about the server.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

from benchmarks.link.ferry import CLONE_NEWNET

_LEAST, _MOST = 4096, 32 * 1024**2


def begin_at(size: int) -> None:
    """Move to a network namespace of our own, whose TCP receive buffers begin at ``size`` bytes. Linux, as root.

    Raises OSError: with a sentence that says what to do.
    """
    if not _LEAST <= size <= _MOST:
        raise OSError(f"{size} is not a number of bytes from {_LEAST} to {_MOST}")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(f"no network namespace of our own ({os.strerror(ctypes.get_errno())}); it takes root")
    try:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    except subprocess.CalledProcessError as error:
        raise OSError(f"loopback stays down: {error}") from error
    Path("/proc/sys/net/ipv4/tcp_rmem").write_text(f"{_LEAST} {size} {_MOST}")
