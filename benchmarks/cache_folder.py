"""The disk tier's folder as it lies there: which files are stored, which blocks of them; and bits flipped in it."""

from __future__ import annotations

import contextlib
import os
import random
from pathlib import Path

from fileproxy.cache import disk_records, extents
from fileproxy.cache.disk_files import SUBFOLDERS, Files, parse
from fileproxy.model import Meta


def committed(folder: Path) -> dict[str, tuple[Meta, set[int]]]:
    """Every readable record of a file, by its URL's path without query, and the blocks that are committed."""
    found: dict[str, tuple[Meta, set[int]]] = {}
    files = Files()
    for subfolder in SUBFOLDERS:
        try:
            names = os.listdir(folder / subfolder)
        except FileNotFoundError:
            continue
        for name in names:
            parsed = parse(subfolder, name)
            if parsed is None or parsed.kind != "record":
                continue
            try:
                stored = disk_records.load(files, str(folder), parsed.id)
            except disk_records.Damaged:
                continue
            if stored is None or not isinstance(stored.record, Meta):
                continue
            meta = stored.record
            inline = {0} if stored.inline else set()
            blocks = inline if disk_records.is_inline(meta) else extents.held(files, str(folder), meta)
            found[path_of(meta)] = (meta, blocks)
    return found


def path_of(meta: Meta) -> str:
    """``/SIZE/NAME`` of a file of the origin."""
    return "/" + "/".join(meta.url.partition("?")[0].rsplit("/", 2)[1:])


def taken(folder: Path) -> int:
    """Bytes that records and extents take on disk."""
    total = 0
    for path in stored_files(folder):
        with contextlib.suppress(FileNotFoundError):  # evicted meanwhile
            total += path.stat().st_blocks * 512
    return total


def stored_files(folder: Path) -> list[Path]:
    return [
        path
        for subfolder in SUBFOLDERS
        for path in sorted((folder / subfolder).glob("*"))
        if (parsed := parse(subfolder, path.name)) is not None and parsed.kind != "leftover"
    ]


def flip(path: Path, rng: random.Random, first: int = 0) -> None:
    """One bit of a file, at ``first`` or later, is another one from now on."""
    with path.open("r+b", buffering=0) as file:
        at = rng.randrange(first, path.stat().st_size)
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1 << rng.randrange(8)]))
