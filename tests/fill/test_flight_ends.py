"""How a flight ends: failures reach every reader, digests decide, and nobody fills what nobody reads."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fileproxy.errors import BadDigest, CannotContinue, Truncated, UpstreamReset
from fileproxy.fill.flight import HOLD_S, UNREAD_S
from fileproxy.fill.states import State
from fileproxy.model import UNKNOWN_SIZE
from tests.fill.kit import BLOCK, FILE, Feed, MakeKit, drained, sha256

# --- failing ---------------------------------------------------------------------------------------------------------


async def test_failure_reaches_every_reader_after_what_had_come(kit: MakeKit) -> None:
    one = kit(pinned=False)
    body = Feed(FILE[: BLOCK + 5])
    one.fly(body)
    bodies = [one.reader() for _ in range(3)]
    body.fail()
    for reader in bodies:
        got, error = await drained(reader)
        assert isinstance(error, UpstreamReset)
        assert got == FILE[: BLOCK + 5]
    assert one.entry.gone
    assert one.dropped
    assert not one.saved


async def test_an_end_that_proves_nothing_is_a_failure(kit: MakeKit) -> None:
    one = kit(pinned=False, size=UNKNOWN_SIZE)
    one.fly(Feed(FILE, end=True, framed=False))
    with pytest.raises(Truncated):
        await one.client()
    assert not one.saved


async def test_a_framed_end_tells_the_size(kit: MakeKit) -> None:
    one = kit(pinned=False, size=UNKNOWN_SIZE)
    one.fly(Feed(FILE[: 2 * BLOCK + 3], end=True))
    assert await one.client() == FILE[: 2 * BLOCK + 3]
    (saved,) = one.saved
    assert (saved.size, one.entry.complete, set(one.blocks)) == (2 * BLOCK + 3, True, {0, 1, 2})  # type: ignore[union-attr]


async def test_a_mistake_of_ours_is_told_to_readers(kit: MakeKit) -> None:
    one = kit()
    one.fly(Feed(FILE))

    def broken(*_: object, **__: object) -> Any:
        raise ZeroDivisionError

    one.put = broken  # type: ignore[method-assign]
    with pytest.raises(UpstreamReset):
        await one.client()
    assert [type(error) for error in one.failures] == [ZeroDivisionError]
    one.failures.clear()


async def test_a_flight_cancelled_before_it_began_is_over(kit: MakeKit) -> None:
    one = kit()
    flight = one.fly(Feed(FILE))
    reader = one.reader()
    assert flight.task is not None
    flight.task.cancel()
    await one.turns()
    assert flight.over
    assert one.entry.flights == []
    await reader.aclose()


# --- digests (RFC 9530) ----------------------------------------------------------------------------------------------


async def test_a_digest_that_agrees_is_noted(kit: MakeKit) -> None:
    one = kit(digest=sha256(FILE))
    one.fly(Feed(FILE))
    assert await one.client() == FILE
    assert one.entry.meta.verified


async def test_a_digest_that_does_not_agree_never_completes(kit: MakeKit) -> None:
    one = kit(digest=sha256(b"other"))
    one.fly(Feed(FILE))
    slow = one.reader().pieces(0, len(FILE))
    taken = 0
    while taken < 2 * BLOCK:
        piece = await anext(slow)
        assert isinstance(piece, bytes)
        taken += len(piece)
    with pytest.raises(BadDigest):
        await one.client()
    assert one.entry.gone
    assert one.dropped
    # Nor for who lags, and asks for the rest by itself.
    error = None
    try:
        async for piece in slow:
            assert isinstance(piece, bytes)
            taken += len(piece)
    except BadDigest as wrong:
        error = wrong
    assert error is not None
    assert taken < len(FILE)


async def test_a_small_file_with_a_wrong_digest_is_asked_again_before_anybody_sees_it(kit: MakeKit) -> None:
    data, wrong = FILE[:1000], FILE[1:1001]
    one = kit(size=1000, digest=sha256(data))
    one.plays.append(Feed(data))
    one.fly(Feed(wrong))
    task = one.client()
    await one.clock.advance(1)
    assert await task == data
    assert one.blocks == {0: data}
    assert one.counts["cache.digest_mismatches"] == 1


async def test_a_wrong_digest_at_a_framed_end(kit: MakeKit) -> None:
    one = kit(pinned=False, size=UNKNOWN_SIZE, digest=sha256(b"other"))
    one.fly(Feed(FILE, end=True))
    with pytest.raises(BadDigest):
        await one.client()
    assert not one.saved
    assert one.counts["cache.digest_mismatches"] == 1


# --- leaving ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["never read", "waits for its origin", "waits for its reader", "between tries"])
async def test_it_stops_when_nobody_reads(kit: MakeKit, when: str) -> None:
    one = kit()
    body = Feed(FILE if when == "waits for its reader" else FILE[:BLOCK])
    flight = one.fly(body)
    if when != "never read":
        reader = one.reader()
        if when == "waits for its reader":
            await one.state(flight, State.PAUSED)
        else:
            await one.until(lambda: flight.position == BLOCK)
        if when == "between tries":
            one.plays.append(UpstreamReset("no"))
            body.fail()
            await one.state(flight, State.RESUMING)
        await one.clock.advance(10 * HOLD_S if when != "between tries" else 0)
        await reader.aclose()
    await one.clock.advance(HOLD_S / 2)
    assert not flight.over
    await one.clock.advance(HOLD_S)
    await one.state(flight, State.STOPPED)
    await one.turns()
    assert body.closed == 1
    assert one.entry.flights == []


async def test_a_reader_who_comes_back_in_time_finds_it(kit: MakeKit) -> None:
    one = kit()
    body = Feed(FILE[: 2 * BLOCK])
    flight = one.fly(body)
    for _ in range(3):
        reader = one.reader()
        await one.clock.advance(5 * HOLD_S)
        await reader.aclose()
        await one.clock.advance(HOLD_S / 2)
        assert not flight.over
    body.give(FILE[2 * BLOCK :])
    assert await one.client() == FILE
    assert one.asked == []


async def test_it_finishes_alone_when_little_is_missing(kit: MakeKit) -> None:
    one = kit(finish=len(FILE) // 2)
    body = Feed(FILE[: len(FILE) // 2])
    flight = one.fly(body)
    assert await one.client(0, len(FILE) // 2) == FILE[: len(FILE) // 2]
    for _ in range(3):
        await one.clock.advance(0.6 * UNREAD_S)
        assert not flight.over
        body.give(FILE[flight.position : flight.position + BLOCK])
        await one.turns()
    body.give(FILE[flight.position :])
    await one.state(flight, State.DONE)
    assert len(one.blocks) == 16


async def test_but_not_for_ever_when_nothing_comes(kit: MakeKit) -> None:
    one = kit(finish=len(FILE) // 2)
    flight = one.fly(Feed(FILE[: len(FILE) // 2]))
    await one.client(0, len(FILE) // 2)
    await one.clock.advance(UNREAD_S)
    await one.clock.advance(UNREAD_S)
    await one.state(flight, State.STOPPED)
    await one.turns()
    assert len(one.blocks) == 8  # these stay


async def test_what_could_not_be_continued_is_waited_for(kit: MakeKit) -> None:
    one = kit(pinned=False, finish=len(FILE) // 2)
    body = Feed(FILE[: len(FILE) // 2])
    flight = one.fly(body)
    await one.client(0, len(FILE) // 2)
    for _ in range(3):
        await one.clock.advance(UNREAD_S)
    assert not flight.over
    body.give(FILE[len(FILE) // 2 :])
    await one.state(flight, State.DONE)


async def test_whole_blocks_of_a_stopped_flight_stay(kit: MakeKit) -> None:
    one = kit()
    flight = one.fly(Feed(FILE[: 2 * BLOCK + 100]))
    reader = one.reader()
    await one.until(lambda: flight.position == 2 * BLOCK + 100)
    await reader.aclose()
    await one.clock.advance(HOLD_S)
    await one.state(flight, State.STOPPED)
    await one.turns()
    assert set(one.blocks) == {0, 1}
    assert await one.client() == FILE
    assert one.asked == [(2 * BLOCK, len(FILE))]


async def test_what_cannot_be_joined_is_given_up_with_its_fill(kit: MakeKit) -> None:
    one = kit(pinned=False, size=UNKNOWN_SIZE)
    flight = one.fly(Feed(FILE[: 2 * BLOCK + 100]))
    reader = one.reader()
    await one.until(lambda: flight.position == 2 * BLOCK + 100)
    await reader.aclose()
    await one.clock.advance(HOLD_S)
    await one.state(flight, State.STOPPED)
    await one.turns()
    assert one.entry.gone
    assert not one.entry.joinable
    (dropped,) = one.dropped
    assert dropped.size == 2 * BLOCK + 100  # type: ignore[union-attr]
    with pytest.raises(CannotContinue):
        await one.client()


@pytest.mark.parametrize("turns", [0, 1, 2, 5, 20])
async def test_a_cancelled_reader_disturbs_nobody(kit: MakeKit, turns: int) -> None:
    one = kit()
    body = Feed()
    one.fly(body)
    leaver, stayer = one.client(), one.client()
    body.give(FILE[: 3 * BLOCK])
    await one.turns(turns)
    leaver.cancel()
    body.give(FILE[3 * BLOCK :])
    assert await stayer == FILE
    assert leaver.cancelled() or await leaver == FILE


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 30])
@pytest.mark.parametrize("pinned", [True, False])
async def test_a_cancelled_flight_leaves_nothing_and_tells_its_readers(kit: MakeKit, turns: int, pinned: bool) -> None:
    """Before, during and after each of its steps."""
    one = kit(pinned=pinned)
    body = Feed(FILE[: 3 * BLOCK])
    body.fail()
    flight = one.fly(body)
    task = one.client()
    await one.turns(turns)
    assert flight.task is not None
    flight.task.cancel()
    await one.clock.advance(1)
    try:
        async with asyncio.timeout(5):
            assert await task == FILE  # pinned: it has asked for the rest
    except (UpstreamReset, CannotContinue):
        pass
    assert flight.over
