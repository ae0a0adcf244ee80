"""In which order mirrors are asked."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.upstream.balance import RoundRobin, balancer

weights = st.lists(st.integers(1, 9), min_size=1, max_size=6)


@given(weights, st.integers(1, 4))
def test_each_mirror_is_first_as_often_as_it_weighs(weights: list[int], laps: int) -> None:
    turns = RoundRobin(weights)
    firsts = Counter(turns.order()[0] for _ in range(laps * sum(weights)))
    assert firsts == {index: laps * weight for index, weight in enumerate(weights)}


@given(weights, st.integers(1, 50))
def test_every_mirror_is_in_every_order_once(weights: list[int], picks: int) -> None:
    turns = RoundRobin(weights)
    for _ in range(picks):
        assert sorted(turns.order()) == list(range(len(weights)))


def test_the_turns_of_a_heavy_mirror_are_spread() -> None:
    turns = RoundRobin([5, 1, 1])
    assert [turns.order()[0] for _ in range(7)] == [0, 0, 1, 0, 2, 0, 0]  # as in nginx's own example


def test_the_second_in_line_is_the_next_ones_first() -> None:
    turns = RoundRobin([1, 1, 1])
    orders = [turns.order() for _ in range(9)]
    assert all(now[1] == following[0] for now, following in pairwise(orders))


@pytest.mark.option("upstreams.balance")
def test_round_robin_ignores_weights_and_the_weighted_one_does_not() -> None:
    plain, weighted = balancer("round_robin", [3, 1]), balancer("weighted_round_robin", [3, 1])
    assert Counter(plain.order()[0] for _ in range(8)) == {0: 4, 1: 4}
    assert Counter(weighted.order()[0] for _ in range(8)) == {0: 6, 1: 2}


@pytest.mark.parametrize("weights", [[], [0], [1, -1]])
def test_senseless_weights(weights: list[int]) -> None:
    with pytest.raises(ValueError, match="weight"):
        RoundRobin(weights)


def test_an_unknown_way() -> None:
    with pytest.raises(ValueError, match="chance"):
        balancer("chance", [1])
