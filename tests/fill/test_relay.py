"""What a relay holds while its client waits."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

from fileproxy.clock import ManualClock
from fileproxy.fill.relay import LastingBody
from fileproxy.model import Piece, PipeSlice
from tests.house import Watched


class Half:
    """A body that begins with bytes and goes on in a pipe."""

    framed = True

    def __init__(self, first: bytes, rest: int) -> None:
        self.length = len(first) + rest
        self._first, self._rest = first, rest

    def __aiter__(self) -> AsyncIterator[Piece]:
        raise AssertionError("pipes are welcome")

    async def piped(self) -> AsyncIterator[Piece | PipeSlice]:
        first, self._first = self._first, b""
        yield first
        del first
        yield PipeSlice(0, self._rest)

    async def aclose(self) -> None:
        """Nothing."""


async def test_first_bytes_are_let_go_of_when_the_rest_comes_in_a_pipe() -> None:
    first = bytes(100_000)
    source = SimpleNamespace(stream=lambda meta, need, got, at, span: got)
    need = cast(Any, SimpleNamespace(source=source))
    body = LastingBody(Half(first, 1000), cast(Any, None), need, (0, 101_000), ManualClock(), Watched())
    before = sys.getrefcount(first)
    pieces = body.piped()
    assert await anext(pieces) is first
    assert isinstance(await anext(pieces), PipeSlice)
    assert sys.getrefcount(first) < before  # not even the origin's side has it
