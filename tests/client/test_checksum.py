"""Checksums as people write them."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from fileproxy.client.checksum import Checksum, Interrupted, hash_file

DIGEST = hashlib.sha256(b"x").hexdigest()


@pytest.mark.parametrize("text", [f"sha256={DIGEST}", f"SHA-256:{DIGEST.upper()}", f" sha256 = {DIGEST} "])
def test_written_in_several_ways(text: str) -> None:
    assert str(Checksum.parse(text)) == f"sha256={DIGEST}"


@pytest.mark.parametrize("text", ["", DIGEST, f"crc32={DIGEST}", "sha256=", "sha256=xyz", f"sha256={DIGEST}0"])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="checksum"):
        Checksum.parse(text)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "sha1", "md5"])
def test_files_are_hashed_from_their_start(algorithm: str, tmp_path: Path) -> None:
    data = os.urandom(3 * 1024 * 1024 + 1)
    (tmp_path / "f").write_bytes(data)
    with (tmp_path / "f").open("rb") as file:
        file.seek(1000)
        found = hash_file(file.fileno(), algorithm, threading.Event())
        assert found == hashlib.new(algorithm, data).hexdigest()
        assert Checksum(algorithm, found).agrees(found)
        assert not Checksum(algorithm, found).agrees("0" * len(found))
        stop = threading.Event()
        stop.set()
        with pytest.raises(Interrupted):
            hash_file(file.fileno(), algorithm, stop)


def test_what_an_origin_promises() -> None:
    assert Checksum.of_digests({}) is None
    assert Checksum.of_digests({"sha-256": bytes.fromhex(DIGEST)}) == Checksum("sha256", DIGEST)
