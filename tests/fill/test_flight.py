"""One fill, many readers: its table of states, how bytes land, its pace, and going on after a break."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fileproxy.errors import BadAnswer, FileChanged, UpstreamReset
from fileproxy.fill import entry as module
from fileproxy.fill.flight import BARREN_MOST, HOLD_S, Flight
from fileproxy.fill.states import EDGES, OVER, State
from fileproxy.fill.window import Windows
from fileproxy.model import UNKNOWN_SIZE
from tests.fill.kit import BLOCK, FILE, WINDOW, Feed, Kit, MakeKit, sha256

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
    one = kit(pinned=False, keeps=keeps, size=size, window=2 * WINDOW)
    flight = one.fly(Feed(FILE, end=True))
    slow = one.reader()
    fast = one.client()
    if keeps == "below":
        assert await fast == FILE  # the slow one will read stored blocks
    else:
        await one.state(flight, State.PAUSED)
        await one.turns(300)
        assert not fast.done()
        assert (flight.base, flight.state) == (0, State.PAUSED)
        assert flight.held <= 2 * WINDOW + 16 * 1024
        one.windows.configured = WINDOW  # memory gets scarce
        flight.detach(flight.attach(0))
        await one.turns()
        assert flight.base == 0
    got = b"".join([piece async for piece in slow.pieces(0, size) if isinstance(piece, bytes)])
    assert got == await fast == FILE
    assert one.asked == []


async def test_a_block_that_was_not_kept_is_held_for_the_slow_reader(kit: MakeKit) -> None:
    """Also while that one reads stored blocks that come before it."""
    one = kit(pinned=False)
    put = one.put

    def skipping(meta: Any, index: int, data: bytes | memoryview, *, disk: bool, **_: Any) -> Any:
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
    one = kit(size=BLOCK, digest=sha256(data), keeps="")
    one.shared.windows = cast(Windows, SimpleNamespace(size=1000, flights=0))
    one.fly(Feed(data))
    assert await one.client() == data
    assert one.asked == []
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


async def test_blocks_that_did_not_get_to_disk_are_asked_for_together(kit: MakeKit) -> None:
    """Regression: each was found missing when a reader got there, and cost the origin's whole time to answer."""
    one = kit()
    one.fly(Feed(FILE))
    assert await one.client() == FILE
    for index in range(4, 8):
        del one.blocks[index]
        one.lost(index)
    assert not one.entry.has_all(4 * BLOCK, BLOCK)
    assert not one.entry.has(4 * BLOCK)
    assert await one.client() == FILE
    assert one.asked == [(4 * BLOCK, 8 * BLOCK)]


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
