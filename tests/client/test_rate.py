"""The rate limit: never more than the rate over any time, but for a short burst."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fileproxy.client.rate import BURST_S, RateLimit
from fileproxy.clock import ManualClock


@given(st.integers(1, 10**7), st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 5)), min_size=1, max_size=30))
def test_what_is_taken_is_paid_for(rate: int, takes: list[tuple[int, float]]) -> None:
    clock = ManualClock()
    limit, began, taken = RateLimit(rate, clock), clock.now(), 0
    for amount, pause_s in takes:
        clock.tick(pause_s)
        wait_s = limit.charge(amount)
        taken += amount
        clock.tick(wait_s)
        assert taken <= rate * (clock.now() - began + BURST_S) * (1 + 1e-9) + 1


async def test_several_share_it() -> None:
    clock = ManualClock()
    limit = RateLimit(1000, clock)
    assert limit.charge(1000) == 1.0
    assert limit.charge(1000) == 2.0  # behind the first
