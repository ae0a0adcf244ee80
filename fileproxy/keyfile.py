"""Secrets that are made once, at the first start, and then stay: a file only its owner may read."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

LARGEST_BYTES = 4096


def made_once(path: Path, make: Callable[[], bytes]) -> bytes:
    """What the file holds; when there is none it is made, 0600, from ``make()``. Raises OSError.

    Many processes may call this at once: all get the same bytes, and nobody meets half a file.
    """
    while True:
        try:
            return _read(path)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            _make(path, make())


def store_key(secret: str | None, *folders: Path) -> bytes:
    """The 32-byte key of names and tags of what is stored: from ``redis.secret``, else from the file ``store_key`` of
    the first folder that can be used.

    When none can, a key of this process only: what others wrote is then not believed, and no more.
    """
    if secret is not None:
        return blake2b(secret.encode(), digest_size=32, person=b"fileproxy-secret").digest()
    key = secrets.token_bytes(32)
    for folder in folders:
        try:
            key = made_once(folder / "store_key", lambda: secrets.token_bytes(32))
            break
        except OSError:
            continue  # read-only, or full: the next one
    return blake2b(key, digest_size=32, person=b"fileproxy-secret").digest()


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(LARGEST_BYTES + 1)
    if not data.strip() or len(data) > LARGEST_BYTES:
        raise OSError(22, "is empty or too long for a secret", str(path))
    return data


def _make(path: Path, data: bytes) -> None:
    unborn = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(unborn, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        os.link(unborn, path)
    except FileExistsError:
        pass  # another process was quicker: its secret counts
    finally:
        os.unlink(unborn)
