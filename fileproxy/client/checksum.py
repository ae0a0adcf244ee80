"""What a whole file must hash to."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass

_DIGITS = {"sha256": 64, "sha512": 128, "sha1": 40, "md5": 32}
_PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Checksum:
    """``digest`` in lower-case hexadecimal."""

    algorithm: str
    digest: str

    def __str__(self) -> str:
        return f"{self.algorithm}={self.digest}"

    @classmethod
    def parse(cls, text: str) -> Checksum:
        """From ``sha256=…`` (``sha-256`` and ``:`` do as well). ValueError says what is accepted.

        sha1 and md5 find accidents only, not forgery; some mirrors publish nothing else.
        """
        match = re.fullmatch(r"\s*([A-Za-z0-9-]+)\s*[=:]\s*([0-9A-Fa-f]+)\s*", text)
        name = "" if match is None else match[1].lower().replace("-", "")
        if match is None or name not in _DIGITS:
            raise ValueError(f"{text!r} is not a checksum; write sha256=… ({', '.join(_DIGITS)} are known)")
        if len(match[2]) != _DIGITS[name]:
            raise ValueError(f"a {name} checksum has {_DIGITS[name]} hexadecimal digits, not {len(match[2])}")
        return cls(name, match[2].lower())

    @classmethod
    def of_digests(cls, digests: Mapping[str, bytes]) -> Checksum | None:
        """From what ``http.digests.parse_digests`` found in Repr-Digest; None when that was nothing."""
        for algorithm, digest in digests.items():
            return cls(algorithm.replace("-", ""), digest.hex())
        return None

    def agrees(self, digest: str) -> bool:
        return hmac.compare_digest(self.digest, digest)


class Interrupted(Exception):
    """Hashing was told to stop."""


def hash_file(descriptor: int, algorithm: str, stop: threading.Event) -> str:
    """The hex digest of an open file, read from its start. For a thread; ``stop`` ends it early (Interrupted)."""
    state = hashlib.new(algorithm, usedforsecurity=False)
    at = 0
    while data := os.pread(descriptor, _PIECE, at):
        if stop.is_set():
            raise Interrupted
        state.update(data)
        at += len(data)
    return state.hexdigest()
