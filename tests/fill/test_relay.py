"""What a relay holds while its client waits."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fileproxy.clock import ManualClock
from fileproxy.fill.lanes import Lanes
from fileproxy.fill.origin import OriginSource
from fileproxy.fill.relay import LastingBody, lasting
from fileproxy.fill.stream import Stream
from fileproxy.fill.values import Span
from fileproxy.model import Answer, Piece, PipeSlice, Target, Want
from fileproxy.tcpinfo import NetPath
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


class Coming(Half):
    """One that comes over a connection. ``landed``: all of it is here."""

    def __init__(self, landed: bool) -> None:
        super().__init__(b"", 1000)
        self.landed = landed
        self.path = NetPath("files/a", connect_s=0.2)

    def __aiter__(self) -> AsyncIterator[Piece]:
        return self.piped()  # type: ignore[return-value]  # nobody takes any

    def nudge(self) -> None:
        """Nobody waits."""


@pytest.mark.parametrize("landed", [True, False])
async def test_what_has_landed_needs_nobody_who_mends_it(landed: bool) -> None:
    clock, lanes = ManualClock(), Lanes()
    body = Coming(landed)
    answer = Answer(200, "OK", (("ETag", '"a"'),), body, path=body.path)
    source = OriginSource(cast(Any, None), writes=False, block=1, clock=clock, ban=lambda: 0, lanes=lanes)
    told = lasting(answer, Want("GET", Target("/f"), ()), lambda: source, clock, Watched())
    assert (told is answer) == landed
    assert isinstance(told.body, LastingBody) != landed
    assert ("files/a" in lanes.paths.describe()) == landed  # the other one tells once it is read


@pytest.mark.parametrize("landed", [True, False])
async def test_what_has_landed_is_not_shared_out(landed: bool) -> None:
    clock, lanes = ManualClock(), Lanes()
    shared = cast(Any, SimpleNamespace(tasks=None, counters=Watched()))
    source = OriginSource(
        cast(Any, None), writes=False, block=1, clock=clock, ban=lambda: 0, lanes=lanes, shared=shared
    )
    body = Coming(landed)
    meta, need = cast(Any, SimpleNamespace(headers=())), cast(Any, SimpleNamespace(want=None))
    found, skip = source.stream(meta, need, (body, 7), 7, Span(1000, lambda: 1000))
    if landed:
        assert (found, skip) == (body, 7)
    else:
        assert isinstance(found, Stream)
        assert skip == 0
        await found.aclose()
    assert lanes.paths.describe()["files/a"]["round_trip_s"] == 0.2  # either way the mirror was heard
