"""Records as bytes, for the tiers that outlive the process: a version, then MessagePack. Nothing is ever unpickled.

Header text may hold any byte (surrogate escapes), which MessagePack's text may not, so it travels as bytes. What
another version wrote, or what does not add up, decodes to None: it is then simply not there (law 10).
"""

from __future__ import annotations

import msgspec

from fileproxy.model import Meta, Record, VaryRule

VERSION = b"\x01"
LARGEST = 256 * 1024  # bytes of an encoded record: heads are limited to less


class _Meta(msgspec.Struct, array_like=True, tag=1):
    key: bytes
    rid: bytes
    url: bytes
    status: int
    reason: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    size: int
    block: int
    pinned: bool
    requested_at: float
    received_at: float
    age_s: float
    ban: int
    expired_at: float | None
    tags: tuple[bytes, ...]
    verified: bool


class _Vary(msgspec.Struct, array_like=True, tag=2):
    key: bytes
    url: bytes
    fields: tuple[str, ...]
    ban: int
    stored_at: float


_decoder = msgspec.msgpack.Decoder(_Meta | _Vary)
_encoder = msgspec.msgpack.Encoder()


def encode(record: Record) -> bytes:
    """A record as it is stored."""
    if isinstance(record, VaryRule):
        packed: _Meta | _Vary = _Vary(record.key, _bytes(record.url), record.fields, record.ban, record.stored_at)
    else:
        packed = _Meta(
            record.key,
            record.rid,
            _bytes(record.url),
            record.status,
            _bytes(record.reason),
            tuple((_bytes(name), _bytes(value)) for name, value in record.headers),
            record.size,
            record.block,
            record.pinned,
            record.requested_at,
            record.received_at,
            record.age_s,
            record.ban,
            record.expired_at,
            tuple(_bytes(tag) for tag in record.tags),
            record.verified,
        )
    return VERSION + _encoder.encode(packed)


def decode(data: bytes | memoryview) -> Record | None:
    """What ``encode`` made, or None."""
    if not 1 < len(data) <= LARGEST or bytes(data[:1]) != VERSION:
        return None
    try:
        packed = _decoder.decode(data[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(packed, _Vary):
        return VaryRule(
            key=packed.key, url=_text(packed.url), fields=packed.fields, ban=packed.ban, stored_at=packed.stored_at
        )
    if packed.size < 0 or packed.block < 1 or len(packed.rid) != 16 or len(packed.key) != 16:
        return None
    return Meta(
        key=packed.key,
        rid=packed.rid,
        url=_text(packed.url),
        status=packed.status,
        reason=_text(packed.reason),
        headers=tuple((_text(name), _text(value)) for name, value in packed.headers),
        size=packed.size,
        block=packed.block,
        pinned=packed.pinned,
        requested_at=packed.requested_at,
        received_at=packed.received_at,
        age_s=packed.age_s,
        ban=packed.ban,
        expired_at=packed.expired_at,
        tags=tuple(_text(tag) for tag in packed.tags),
        verified=packed.verified,
    )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
