"""The compressors behind the content codings, all with the same two verbs. None of them is imported before its use.

``gzip`` is of the standard library; ``br`` and ``zstd`` need packages that may be missing: then they are not offered.
Given the same bytes in the same steps, a compressor of a level gives the same bytes (no times, no names, one thread).
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, Protocol

from fileproxy.http.coding import CODINGS, Coding

_WINDOW = 20  # base 2 logarithm: 1 MiB, so that a compressor takes a few MiB whatever it is given
_MODULES: dict[Coding, str] = {
    "br": "brotli",
    "zstd": "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd",
}


class Compressor(Protocol):
    def push(self, data: bytes | memoryview, *, flush: bool = False) -> bytes:
        """Take bytes in; what came out (perhaps nothing). ``flush``: what was taken in can be decoded from it."""
        ...

    def end(self) -> bytes:
        """The last bytes. Without them a decoder sees that something is missing."""
        ...


@cache
def missing() -> dict[Coding, str]:
    """The codings that cannot be offered, and why."""
    wrong: dict[Coding, str] = {}
    for coding, module in _MODULES.items():
        try:
            import_module(module)
        except ImportError as error:
            wrong[coding] = str(error)
    return wrong


def available() -> tuple[Coding, ...]:
    """The codings that can be offered, by our preference."""
    return tuple(coding for coding in CODINGS if coding not in missing())


def compressor(coding: Coding, level: int, size: int | None) -> Compressor:
    """A new one. ``size``: how many bytes will come, when that is known; it then needs less memory for few."""
    return _MAKERS[coding](level, size)


class _Gzip:
    def __init__(self, level: int, size: int | None) -> None:
        self._one = zlib.compressobj(level, wbits=31)

    def push(self, data: bytes | memoryview, *, flush: bool = False) -> bytes:
        out = self._one.compress(data)
        return out + self._one.flush(zlib.Z_SYNC_FLUSH) if flush else out

    def end(self) -> bytes:
        return self._one.flush()


class _Brotli:
    def __init__(self, level: int, size: int | None) -> None:
        window = _WINDOW if size is None else max(16, min(_WINDOW, size.bit_length()))
        self._one: Any = import_module(_MODULES["br"]).Compressor(quality=level, lgwin=window)

    def push(self, data: bytes | memoryview, *, flush: bool = False) -> bytes:
        out: bytes = self._one.process(data)
        return out + self._one.flush() if flush else out

    def end(self) -> bytes:
        out: bytes = self._one.finish()
        return out


class _Zstd:
    def __init__(self, level: int, size: int | None) -> None:
        zstd: Any = import_module(_MODULES["zstd"])
        parameters = zstd.CompressionParameter
        self._one = zstd.ZstdCompressor(
            options={parameters.compression_level: level, parameters.window_log: _WINDOW, parameters.checksum_flag: 1}
        )
        if size is not None:
            self._one.set_pledged_input_size(size)
        self._flush, self._end = self._one.FLUSH_BLOCK, self._one.FLUSH_FRAME

    def push(self, data: bytes | memoryview, *, flush: bool = False) -> bytes:
        out: bytes = self._one.compress(data, self._flush if flush else self._one.CONTINUE)
        return out

    def end(self) -> bytes:
        out: bytes = self._one.flush(self._end)
        return out


_MAKERS: dict[Coding, Callable[[int, int | None], Compressor]] = {"gzip": _Gzip, "br": _Brotli, "zstd": _Zstd}
