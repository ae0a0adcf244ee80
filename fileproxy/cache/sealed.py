"""A record, and the bytes of a small object, as one value of the shared store (pure).

Layout: version (1 byte), keyed BLAKE2 tag over all that follows (16), representation's id (16, zeros for a rule of
Vary), packing (1: plain or zlib), then MessagePack of record, data and who wrote it. Nothing of it is believed before
the tag fits, and the tag covers the key it is found under: a value moved elsewhere is not genuine there (law 10).
"""

from __future__ import annotations

import hmac
import zlib
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from fileproxy.cache import records
from fileproxy.cache.ban import FeedId
from fileproxy.model import Meta, Record, header

VERSION = b"\x01"
TAG = 16
RID = slice(1 + TAG, 1 + TAG + 16)  # where the representation's id stands
HEAD = RID.stop + 1
OVERHEAD = records.LARGEST + 1024  # a value may be this much longer than the object's bytes
PAYS_FROM = 1024  # bytes; shorter values are not compressed
_PAYS_BELOW = 0.9
_PLAIN, _ZLIB = b"\x00", b"\x01"
_DENSE = ("image/", "video/", "audio/", "font/woff")
_DENSE_TYPES = frozenset(
    {
        "application/zip", "application/gzip", "application/x-gzip", "application/x-bzip2", "application/x-xz",
        "application/zstd", "application/x-7z-compressed", "application/vnd.rar", "application/java-archive",
        "application/pdf", "application/epub+zip", "application/vnd.debian.binary-package", "application/x-rpm",
    }
)  # fmt: skip


class Sealed(NamedTuple):
    """A value as it was read: ``machine`` and ``position`` say what its writer had tested it against."""

    record: Record
    data: bytes
    machine: str
    position: FeedId


class _Value(msgspec.Struct, array_like=True):
    record: bytes
    data: bytes
    machine: str
    position: FeedId


_decoder = msgspec.msgpack.Decoder(_Value)


def seal(sealed: Sealed, secret: bytes) -> bytes:
    """The value to store."""
    record = sealed.record
    value = _Value(records.encode(record), sealed.data, sealed.machine, sealed.position)
    plain = msgspec.msgpack.encode(value)
    packing, packed = _PLAIN, plain
    if len(plain) >= PAYS_FROM and compressible(record):
        shorter = zlib.compress(plain, 1)
        if len(shorter) < len(plain) * _PAYS_BELOW:
            packing, packed = _ZLIB, shorter
    rest = (record.rid if isinstance(record, Meta) else bytes(16)) + packing + packed
    return VERSION + _tag(record.key, rest, secret) + rest


def unseal(key: bytes, value: bytes, secret: bytes, largest: int) -> Sealed | None:
    """What ``seal`` stored under ``key``, or None: another version, not genuine, or not a whole object.

    ``largest`` bounds the object's bytes, and what is unpacked.
    """
    if not HEAD < len(value) <= largest + OVERHEAD or value[:1] != VERSION:
        return None
    rest = value[1 + TAG :]
    if not hmac.compare_digest(value[1 : 1 + TAG], _tag(key, rest, secret)):
        return None
    packed = value[HEAD:]
    try:
        if value[RID.stop : HEAD] == _ZLIB:
            unpacking = zlib.decompressobj()
            packed = unpacking.decompress(packed, largest + OVERHEAD)
            if not unpacking.eof:
                return None
        found = _decoder.decode(packed)
    except (zlib.error, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    record = records.decode(found.record)
    if record is None or record.key != key:
        return None
    size = record.size if isinstance(record, Meta) else 0
    return Sealed(record, found.data, found.machine, found.position) if len(found.data) == size else None


def compressible(record: Record) -> bool:
    """May it pay to compress this? What its type or coding says is dense already is left alone."""
    if not isinstance(record, Meta):
        return False
    if (header(record.headers, "content-encoding") or "identity").strip().lower() not in ("identity", ""):
        return False
    kind = (header(record.headers, "content-type") or "").partition(";")[0].strip().lower()
    return kind == "image/svg+xml" or not (kind in _DENSE_TYPES or kind.startswith(_DENSE))


def _tag(key: bytes, rest: bytes, secret: bytes) -> bytes:
    digest = blake2b(key, digest_size=TAG, key=secret, person=b"fileproxy-object")
    digest.update(rest)
    return digest.digest()
