"""Stored files that the fast front sends without waiting: one block, open, checked, and with room for all of it.

What does not fit the socket at once, or would have to come from a disk first, is for the long way (``deliver.py``).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fileproxy.model import Meta
from fileproxy.server.pages import socket_of
from fileproxy.server.sendfile import send_whole

if TYPE_CHECKING:
    from fileproxy.server.front import Front
    from fileproxy.server.proof import Disk


def is_stored(disk: Disk, record: Meta) -> bool:
    """Whether the file is open, and was checked."""
    piece = disk.slice_now(record, 0, 1)
    if piece is not None:
        os.close(piece.descriptor)
    return piece is not None


def send_stored(front: Front, disk: Disk, record: Meta, head: bytes) -> int | None:
    """Send ``head`` and the file. Returns the bytes of it that the kernel sent by itself; None: nothing was done.

    Raises FileChanged: some were sent, and the rest is not to be had.
    """
    target = socket_of(front)
    if target < 0 or front.transport.get_write_buffer_size():
        return None
    piece = disk.slice_now(record, 0, 1)
    if piece is None:
        return None
    try:
        rest = send_whole(target, head, piece)
    finally:
        os.close(piece.descriptor)
    if rest is None:
        return None
    if rest:
        front.transport.write(rest)
    return max(0, record.size - len(rest))
