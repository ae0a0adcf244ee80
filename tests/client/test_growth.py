"""How many connections a download of the client has: tests/control/test_growth.py tells the rest."""

from __future__ import annotations

import pytest

from fileproxy.client.engine import growth_for
from fileproxy.control.growth import LEAST, LONG_S, MOST, WINDOW_S

STEP_S = WINDOW_S + 0.001  # a window is over


def test_it_begins_with_four_and_more_where_a_round_trip_is_long() -> None:
    assert growth_for(None, 0.0, 0.0).target == LEAST
    assert growth_for(None, 0.0, LONG_S).target == 2 * LEAST


def test_the_first_window_measures_and_sixteen_are_the_most() -> None:
    growth, received = growth_for(None, 0.0, 0.0), 0
    for number in range(1, 6):
        received += 100_000 * growth.target
        growth.look(number * STEP_S, received, 0.0)
    assert growth.target == MOST


def test_what_brought_nothing_is_not_tried_again() -> None:
    growth = growth_for(None, 0.0, 0.0)
    for number in range(1, 50):
        growth.look(number * STEP_S, 100_000 * number, 0.0)
    assert (growth.target, growth.growing) == (LEAST, False)


@pytest.mark.parametrize("connections", [1, 3, 40])
def test_a_fixed_number_is_kept(connections: int) -> None:
    growth = growth_for(connections, 0.0, 0.2)
    for number in range(1, 50):
        growth.look(number * STEP_S, 100_000 * number**2, 0.0)
    assert growth.target == connections
