from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.http.digests import Verifier, digest_of, format_digests, parse_digests, parse_wanted

DATA = b'{"hello": "world"}\n'
SHA256 = hashlib.sha256(DATA).digest()
SHA512 = hashlib.sha512(DATA).digest()


def repr_digest(value: str) -> dict[str, bytes]:
    return parse_digests((("repr-digest", value),), "Repr-Digest")


def test_the_example_of_the_rfc() -> None:
    """RFC 9530 §3: the digest of this file."""
    assert repr_digest("sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:") == {"sha-256": SHA256}


def test_both_algorithms_and_several_lines() -> None:
    line = format_digests({"sha-256": SHA256, "sha-512": SHA512})
    assert repr_digest(line) == {"sha-256": SHA256, "sha-512": SHA512}
    headers = tuple(("Repr-Digest", part) for part in line.split(", "))
    assert parse_digests(headers, "Repr-Digest") == {"sha-256": SHA256, "sha-512": SHA512}


@pytest.mark.parametrize(
    "value",
    ["", "sha-256", "sha-256=abc", "sha-256=:YWJj:", "sha-256=:###:", "md5=:1B2M2Y8AsgTpgAmY7PhCfg==:",
     "SHA-256=:AA==:", "sha-256=:" + base64.b64encode(SHA256).decode() + ":, !"],
)  # fmt: skip
def test_what_cannot_be_checked_is_ignored(value: str) -> None:
    assert repr_digest(value) == {}


def test_content_and_repr_digest_are_told_apart() -> None:
    headers = (("Content-Digest", format_digests({"sha-256": SHA256})),)
    assert parse_digests(headers, "Repr-Digest") == {}
    assert parse_digests(headers, "Content-Digest") == {"sha-256": SHA256}


@pytest.mark.parametrize(
    ("value", "algorithms"),
    [
        ("sha-256=1", ("sha-256",)),
        ("sha-512=3, sha-256=10, unixsum=9", ("sha-256", "sha-512")),
        ("sha-256=3, sha-512=10", ("sha-512", "sha-256")),
        ("sha-256=0, sha-512=1", ("sha-512",)),
        ("sha-256=11", ()),
        ("sha-256=-1", ()),
        ("sha-256", ()),
        ("sha-256=1,", ()),
        ("", ()),
    ],
)
def test_who_wants_which(value: str, algorithms: tuple[str, ...]) -> None:
    assert parse_wanted((("Want-Repr-Digest", value),)) == algorithms
    assert parse_wanted((("Want-Content-Digest", value),), "Want-Content-Digest") == algorithms


@given(st.binary(), st.lists(st.integers(0, 1000)), st.sampled_from(["sha-256", "sha-512"]))
def test_verified_piece_by_piece(data: bytes, cuts: list[int], algorithm: str) -> None:
    verifier = Verifier({algorithm: digest_of(data, algorithm)})
    at = 0
    for cut in sorted(cuts):
        verifier.update(memoryview(data)[at:cut])
        at = max(at, min(cut, len(data)))
    verifier.update(data[at:])
    assert verifier.agrees()


@given(st.binary(min_size=1), st.integers(0), st.integers(1, 255))
def test_one_wrong_byte_is_found(data: bytes, at: int, change: int) -> None:
    wrong = bytearray(data)
    wrong[at % len(data)] ^= change
    verifier = Verifier({"sha-256": digest_of(data)})
    verifier.update(bytes(wrong))
    assert not verifier.agrees()


def test_the_end_missing_is_found() -> None:
    verifier = Verifier({"sha-512": SHA512, "other": b""})
    assert verifier.algorithm == "sha-512"
    verifier.update(DATA[:-1])
    assert not verifier.agrees()


def test_nothing_to_check_with() -> None:
    with pytest.raises(ValueError, match="no digest"):
        Verifier({"md5": b""})
