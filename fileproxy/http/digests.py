"""Digest fields (RFC 9530): what a response says its bytes hash to, and what a client would like to be told.

``Repr-Digest`` is about the whole selected representation, whatever part of it a message carries (§3);
``Content-Digest`` about the content of the one message it stands in (§2): of a 206, the part. Only sha-256 and sha-512
are believed and written; the others are broken or unknown (§5) and ignored, which §2 allows for any of them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from fileproxy.http.structured import Item, parse_dictionary, sf_bytes
from fileproxy.model import Headers, header_values

# Fastest first on machines with SHA instructions. Both prove bytes equal.
_SIZES = {"sha-256": 32, "sha-512": 64}
ALGORITHMS = tuple(_SIZES)


def parse_digests(headers: Headers, name: str) -> dict[str, bytes]:
    """The digests of all lines of ``name`` (Repr-Digest or Content-Digest) by algorithm, as far as we can check them.

    Empty when there are none, or the field is malformed: then nothing is known.
    """
    members = parse_dictionary(header_values(headers, name)) or {}
    return {
        algorithm: member.value
        for algorithm, size in _SIZES.items()
        if isinstance(member := members.get(algorithm), Item)
        and isinstance(member.value, bytes)
        and len(member.value) == size
    }


def format_digests(digests: Mapping[str, bytes]) -> str:
    """A Repr-Digest or Content-Digest value."""
    return ", ".join(f"{algorithm}={sf_bytes(digest)}" for algorithm, digest in digests.items())


def parse_wanted(headers: Headers, name: str = "Want-Repr-Digest") -> tuple[str, ...]:
    """The algorithms of Want-Repr-Digest or Want-Content-Digest that we know, most wanted first (§4).

    Weights run from 0 (not wanted) to 10; what is no such number is ignored, a malformed field altogether.
    """
    members = parse_dictionary(header_values(headers, name)) or {}
    weights = {
        algorithm: member.value
        for algorithm in ALGORITHMS
        if isinstance(member := members.get(algorithm), Item) and type(member.value) is int and 0 < member.value <= 10
    }
    return tuple(sorted(weights, key=lambda algorithm: -weights[algorithm]))


class Verifier:
    """Hashes bytes as they pass, in order, and compares at the end.

    ``expected`` is what :func:`parse_digests` returned; one of them is checked. ValueError when it holds none we know.
    """

    __slots__ = ("_expected", "_hash", "algorithm")

    def __init__(self, expected: Mapping[str, bytes]) -> None:
        self.algorithm = next((name for name in ALGORITHMS if name in expected), "")
        if not self.algorithm:
            raise ValueError("no digest that can be checked")
        self._expected = expected[self.algorithm]
        self._hash = hashlib.new(self.algorithm.replace("-", ""))

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes. Large pieces release the interpreter lock."""
        self._hash.update(data)

    def agrees(self) -> bool:
        """Whether everything taken so far is what was announced."""
        return hmac.compare_digest(self._hash.digest(), self._expected)


def digest_of(data: bytes, algorithm: str = "sha-256") -> bytes:
    """The digest of bytes at hand. ``algorithm`` is one of :data:`ALGORITHMS`."""
    return hashlib.new(algorithm.replace("-", ""), data).digest()
