"""A connection that keeps still gives its handler back, and goes on as before when it asks again."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fileproxy.server.ends import REST_S, Phase
from tests.server.test_front import GET, Place, until

pytestmark = pytest.mark.loops("asyncio", "uvloop")


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    one = Place()
    yield one
    await one.connections.close()
    assert len(one.connections) == 0


async def test_an_idle_connection_gives_its_handler_back_and_answers_again(place: Place) -> None:
    front, wire = place.connect()
    front.data_received(GET)
    await until(lambda: front.phase is Phase.IDLE)
    task = front.task
    assert task is not None
    await place.clock.advance(REST_S - 0.1)
    place.connections.sweep()
    assert front.task is task
    await place.clock.advance(0.1)
    place.connections.sweep()
    await until(lambda: front.task is None)
    await until(task.done)
    assert not wire.closed
    front.data_received(GET + GET)
    await until(lambda: wire.statuses == [200, 200, 200])
    assert front.task is not None
    assert place.cancelled == 0
    assert not wire.closed


async def test_a_connection_that_serves_or_waits_for_a_head_keeps_its_handler(place: Place) -> None:
    front, wire = place.connect()
    place.go.clear()
    front.data_received(GET)
    await until(lambda: place.seen)
    await place.clock.advance(3 * REST_S)
    place.connections.sweep()
    assert front.task is not None
    place.go.set()
    await until(lambda: front.phase is Phase.IDLE)
    front.data_received(GET[:9])
    await place.clock.advance(3 * REST_S)
    place.connections.sweep()
    assert front.task is not None
    front.data_received(GET[9:])
    await until(lambda: wire.statuses == [200, 200])


async def test_a_client_that_leaves_while_its_connection_rests_is_forgotten(place: Place) -> None:
    front, wire = place.connect()
    front.data_received(GET)
    await until(lambda: front.phase is Phase.IDLE)
    await place.clock.advance(REST_S)
    place.connections.sweep()
    assert front.task is None
    front.eof_received()
    await until(lambda: wire.closed and len(place.connections) == 0)
    assert place.endings == {}
