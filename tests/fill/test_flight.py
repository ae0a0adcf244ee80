"""One fill, many readers: its table of states, its pace, and what becomes of it when something fails or leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fileproxy.errors import BadAnswer, BadDigest, CannotContinue, FileChanged, FileProxyError, Truncated, UpstreamReset
from fileproxy.fill import entry as module
from fileproxy.fill.flight import BARREN_MOST, HOLD_S, Flight
from fileproxy.fill.reader import EntryBody
from fileproxy.fill.states import EDGES, OVER, State
from fileproxy.fill.window import Windows
from fileproxy.model import UNKNOWN_SIZE
from tests.fill.kit import BLOCK, FILE, WINDOW, Feed, Kit, sha256

MakeKit = Callable[..., Kit]


@pytest.fixture
async def kit() -> AsyncIterator[MakeKit]:
    made: list[Kit] = []

    def make(**values: Any) -> Kit:
        made.append(Kit(**values))
        return made[-1]

    yield make
    for one in made:
        await one.close()


async def drained(body: EntryBody) -> tuple[bytes, FileProxyError | None]:
    """All bytes of a body, and why it ended too soon."""
    got = b""
    try:
        async for piece in body.pieces(0, UNKNOWN_SIZE if body.length is None else body.length):
            assert isinstance(piece, bytes)
            got += piece
    except FileProxyError as error:
        return got, error
    return got, None


# --- the table of states ---------------------------------------------------------------------------------------------


def test_what_is_over_stays_over() -> None:
    assert {state for state, after in EDGES.items() if not after} == OVER
    assert set(EDGES) == set(State)


async def test_a_flight_goes_only_where_the_table_says(kit: MakeKit) -> None:
    for state in State:
        for wanted in State:
            flight = Flight(kit().entry, kit().need, 0, len(FILE))
            flight.state = state
            if wanted is state or wanted in EDGES[state]:
                flight._turn(wanted)
                assert flight.state is wanted
            else:
                with pytest.raises(RuntimeError):
                    flight._turn(wanted)


async def test_every_edge_is_taken(kit: MakeKit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table holds nothing that never happens."""
    seen: set[tuple[State, State]] = set()
    turn = Flight._turn

    def noting(self: Flight, state: State) -> None:
        if state is not self.state:
            seen.add((self.state, state))
        turn(self, state)

    monkeypatch.setattr(Flight, "_turn", noting)

    async def leave(one: Kit, flight: Flight) -> None:
        await one.clock.advance(HOLD_S)
        await one.state(flight, State.STOPPED)

    one = kit()  # connecting → streaming → resuming → connecting → resuming → connecting … → failed
    one.plays.extend([UpstreamReset("no"), Feed(FILE[:BLOCK]), FileChanged("other")])
    flight = one.fly(first=0)
    task = one.client()
    await one.clock.advance(1)
    await one.until(lambda: len(one.asked) == 2)
    await one.state(flight, State.STREAMING)
    assert isinstance(flight._body, Feed)
    flight._body.fail()
    with pytest.raises(FileChanged):
        await task

    one = kit()  # streaming → paused → streaming → done
    flight = one.fly(Feed(FILE, end=True))
    reader = one.reader()
    await one.state(flight, State.PAUSED)
    pieces = reader.pieces(0, len(FILE))
    async for _ in pieces:
        pass
    await one.state(flight, State.DONE)

    one = kit(pinned=False)  # streaming → failed
    body = Feed(FILE[:BLOCK])
    flight = one.fly(body)
    task = one.client()
    body.fail()
    with pytest.raises(UpstreamReset):
        await task

    for state, came in ((State.CONNECTING, 0), (State.STREAMING, BLOCK), (State.PAUSED, len(FILE))):  # → stopped
        one = kit()
        one.answers.clear()
        flight = one.fly(Feed(FILE[:came]) if came else None)
        reader = one.reader()
        await one.until(lambda flight=flight, came=came: flight.position >= min(came, WINDOW))  # type: ignore[misc]
        await one.turns()
        assert flight.state is state
        await reader.aclose()
        await leave(one, flight)

    one = kit()  # resuming → stopped
    body = Feed(FILE[:BLOCK])
    flight = one.fly(body)
    reader = one.reader()
    await one.until(lambda: flight.position == BLOCK)
    one.plays.extend(UpstreamReset("still") for _ in range(5))
    body.fail()
    await one.state(flight, State.RESUMING)
    await reader.aclose()
    await leave(one, flight)

    possible = {(state, after) for state, afters in EDGES.items() for after in afters}
    # Nothing but these can happen to a flight that waits for its reader, or for its next try.
    assert possible - seen <= {(State.PAUSED, State.FAILED), (State.RESUMING, State.FAILED)}


# --- landing and pace ------------------------------------------------------------------------------------------------


async def test_readers_follow_bytes_as_they_land(kit: MakeKit) -> None:
    one = kit()
    body = Feed()
    one.fly(body)
    readers = [one.client(), one.client(), one.client(100, 5000)]
    for at in range(0, len(FILE), 100_000):
        body.give(FILE[at : at + 100_000], 30_011)
        await one.turns(20)
    assert [await task for task in readers] == [FILE, FILE, FILE[100:5100]]
    assert body.closed == 1
    assert one.blocks == {index: FILE[index * BLOCK :][:BLOCK] for index in range(16)}
    assert one.finished_with == [one.entry.meta]


async def test_it_stays_a_window_ahead_of_its_fastest_reader(kit: MakeKit) -> None:
    one = kit()
    body = Feed(FILE)
    flight = one.fly(body)
    slow, fast = one.reader(), one.reader()
    await one.state(flight, State.PAUSED)
    assert flight.position == WINDOW
    taken = 0
    async for piece in fast.pieces(0, 3 * BLOCK):
        assert isinstance(piece, bytes)
        taken += len(piece)
        await one.turns(10)
        assert flight.position - taken <= WINDOW
        assert flight.held <= WINDOW + 16 * 1024
    assert flight.position == taken + WINDOW
    await fast.aclose()
    assert slow._flight is flight
    await slow.aclose()


async def test_a_reader_left_behind_reads_stored_blocks(kit: MakeKit) -> None:
    one = kit()
    one.fly(Feed(FILE))
    slow = one.reader()
    assert await one.client() == FILE
    got = b"".join([piece async for piece in slow.pieces(0, len(FILE)) if isinstance(piece, bytes)])
    assert got == FILE
    assert one.asked == []


async def test_a_reader_left_behind_without_a_tier_asks_for_itself(kit: MakeKit) -> None:
    one = kit(keeps="")
    one.fly(Feed(FILE))
    slow = one.reader()
    assert await one.client() == FILE
    got = b"".join([piece async for piece in slow.pieces(0, len(FILE)) if isinstance(piece, bytes)])
    assert got == FILE
    assert one.asked[0][0] == 0


@pytest.mark.parametrize("keeps", ["below", "memory", ""])
@pytest.mark.parametrize("size", [len(FILE), UNKNOWN_SIZE])
async def test_what_cannot_be_asked_again_is_kept_for_who_needs_it(kit: MakeKit, keeps: Any, size: int) -> None:
    one = kit(pinned=False, keeps=keeps, size=size)
    flight = one.fly(Feed(FILE, end=True))
    slow = one.reader()
    fast = one.client()
    if keeps == "below":
        assert await fast == FILE  # the slow one will read stored blocks
    else:
        await one.state(flight, State.PAUSED)
        assert flight.base == 0
        assert flight.held <= WINDOW + 16 * 1024
    got = b"".join([piece async for piece in slow.pieces(0, size) if isinstance(piece, bytes)])
    assert got == await fast == FILE
    assert one.asked == []


async def test_a_block_that_was_not_kept_is_held_for_the_slow_reader(kit: MakeKit) -> None:
    """Also while that one reads stored blocks that come before it."""
    one = kit(pinned=False)
    put = one.put

    def skipping(meta: Any, index: int, data: bytes, *, disk: bool) -> Any:
        return "" if index == 2 else put(meta, index, data, disk=disk)

    one.put = skipping  # type: ignore[method-assign]
    flight = one.fly(Feed(FILE, end=True))
    slow, fast = one.reader(), one.client()
    await one.state(flight, State.PAUSED)
    pieces = slow.pieces(0, len(FILE))
    got = b""
    async for piece in pieces:
        assert isinstance(piece, bytes)
        got += piece
        await one.turns(50)
    assert got == await fast == FILE


async def test_a_digest_over_one_block_larger_than_the_window(kit: MakeKit) -> None:
    """Nothing is shown before the end, so nobody can make room: it must not wait for that."""
    data = FILE[:BLOCK]
    one = kit(size=BLOCK, digest=sha256(data))
    one.shared.windows = cast(Windows, SimpleNamespace(size=1000, flights=0))
    one.fly(Feed(data))
    assert await one.client() == data
    one.shared.windows = one.windows


async def test_it_ends_where_another_flight_began(kit: MakeKit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NEAR", 2 * BLOCK)
    one = kit()
    body, ahead = Feed(), Feed()
    one.plays.append(ahead)
    first = one.fly(body)
    whole, far = one.client(), one.client(8 * BLOCK)
    await one.until(lambda: one.asked)
    assert one.asked == [(8 * BLOCK, 10 * BLOCK)]  # beside another one: in short steps
    ahead.give(FILE[8 * BLOCK :][: 2 * BLOCK])
    body.give(FILE)  # more than it should take
    await one.state(first, State.DONE)
    assert first.end == 8 * BLOCK
    assert await far == FILE[8 * BLOCK :]
    assert await whole == FILE
    steps = [8 * BLOCK, *(end for _, end in one.asked)]
    assert one.asked == list(pairwise(steps))  # each byte once
    assert steps[-1] == len(FILE)


async def test_it_ends_at_a_held_block(kit: MakeKit) -> None:
    one = kit()
    one.entry.held.add(4)
    one.blocks[4] = FILE[4 * BLOCK : 5 * BLOCK]
    body = Feed(FILE)
    flight = one.fly(body)
    assert await one.client() == FILE
    assert flight.end == 4 * BLOCK
    assert one.asked == [(5 * BLOCK, len(FILE))]


# --- going on --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, BLOCK - 1, BLOCK, BLOCK + 1, len(FILE) - 1])
@pytest.mark.parametrize("how", ["fail", "end"])
async def test_it_goes_on_at_the_next_missing_byte(kit: MakeKit, at: int, how: str) -> None:
    one = kit()
    body = Feed(FILE[:at])
    getattr(body, how)()
    flight = one.fly(body)
    assert await one.client() == FILE
    assert one.asked == [(at, len(FILE))]
    assert body.closed == 1
    assert flight.resumed == one.counts["flight.resumed"] == 1
    assert len(one.blocks) == 16


async def test_it_gives_up_after_tries_without_a_byte(kit: MakeKit) -> None:
    one = kit()
    one.plays.extend(BadAnswer("no") for _ in range(50))
    one.fly(Feed(FILE[:BLOCK], end=True))
    task = one.client()
    while not task.done():
        await one.clock.advance(5)
    with pytest.raises(BadAnswer):
        await task
    assert len(one.asked) == BARREN_MOST
    assert set(one.blocks) == {0}


async def test_each_byte_renews_its_patience(kit: MakeKit) -> None:
    one = kit()
    one.plays.extend((lambda first, end: Feed(FILE[first : first + 1000], end=True)) for _ in range(3 * BARREN_MOST))
    one.fly(Feed(FILE[:BLOCK], end=True))
    assert await one.client() == FILE
    assert len(one.asked) == 3 * BARREN_MOST + 1


async def test_too_much_is_cut(kit: MakeKit) -> None:
    one = kit()
    one.fly(Feed(FILE[: 3 * BLOCK]), end=2 * BLOCK)
    assert await one.client(0, 2 * BLOCK) == FILE[: 2 * BLOCK]
    await one.turns()
    assert set(one.blocks) == {0, 1}


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
    slow = one.reader()
    with pytest.raises(BadDigest):
        await one.client()
    assert one.entry.gone
    assert one.dropped
    # Nor for who lags, and asks for the rest by itself.
    got, error = await drained(slow)
    assert isinstance(error, BadDigest)
    assert len(got) < len(FILE)


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
    await one.clock.advance(100)
    assert not flight.over
    body.give(FILE[len(FILE) // 2 :])
    await one.state(flight, State.DONE)
    assert len(one.blocks) == 16


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
