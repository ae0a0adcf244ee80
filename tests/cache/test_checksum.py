"""The checksum of stored blocks: the same numbers with and without the fast library, on every processor."""

from __future__ import annotations

import importlib
import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.cache import checksum


@given(st.binary(max_size=5000), st.integers(0, 2**32 - 1))
def test_it_is_zlib_s(data: bytes, before: int) -> None:
    assert checksum.crc32(data, before) == zlib.crc32(data, before)
    assert checksum.crc32(memoryview(data), before) == zlib.crc32(data, before)


def test_without_a_build_for_the_processor_zlib_s_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    try:
        assert importlib.reload(checksum).crc32 is zlib.crc32
    finally:
        monkeypatch.undo()
        importlib.reload(checksum)
