"""Stored files that the fast front sends without waiting: one block, open, checked, and in the page cache.

What does not fit the socket at once, or would have to come from a disk first, is for the long way (``deliver.py``).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fileproxy.model import Meta
from fileproxy.server.pages import Pages
from fileproxy.server.sendfile import resident

if TYPE_CHECKING:
    from fileproxy.server.proof import Disk


def is_stored(disk: Disk, record: Meta) -> bool:
    """Whether the file is open, and was checked."""
    piece = disk.slice_now(record, 0, 1)
    if piece is not None:
        os.close(piece.descriptor)
    return piece is not None


def open_stored(disk: Disk, record: Meta) -> Pages | None:
    """The file, until ``gone`` is called; None: it cannot be had without waiting."""
    piece = disk.slice_now(record, 0, 1)
    if piece is None:
        return None
    pages = Pages(piece.descriptor, 0, piece.length, piece.offset, stored=True)
    if resident(piece.descriptor, piece.offset, piece.offset + piece.length):
        return pages
    pages.gone()
    return None
