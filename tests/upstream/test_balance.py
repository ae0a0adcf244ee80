"""In which order mirrors are asked."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.settings import resolve, schema
from fileproxy.upstream.balance import Balance, ConsistentHash, FastestResponse, RoundRobin, Seen, balancer
from fileproxy.upstream.gauge import Gauge
from tests.origin import KIB, Content, Origin, Reply
from tests.upstream.conftest import MakeUpstream, read, want

WAYS = [
    "round_robin",
    "weighted_round_robin",
    "least_connections",
    "fastest_response",
    "resource_based",
    "consistent_hash",
]
weights = st.lists(st.integers(1, 9), min_size=1, max_size=6)
mirrors = st.lists(
    st.builds(
        Seen,
        st.floats(0.1, 1000),
        st.floats(0.1, 1),
        st.integers(0, 100),
        st.integers(0, 10**12),
        st.none() | st.floats(0, 100),
        st.none() | st.floats(0, 1),
    ),
    min_size=1,
    max_size=6,
)


def seen(weights: list[int]) -> list[Seen]:
    return [Seen(weight) for weight in weights]


def way(name: str) -> Balance:
    return balancer(name, random.Random(1).random)


@given(st.sampled_from(WAYS), st.lists(st.tuples(mirrors, st.text(max_size=9)), max_size=20))
def test_whatever_is_known_every_mirror_is_in_every_order_once(name: str, picks: list[tuple[list[Seen], str]]) -> None:
    some = way(name)
    for known, key in picks:
        assert sorted(some.order(known, key)) == list(range(len(known)))


# --- taking turns -----------------------------------------------------------------------------------------------------


@given(weights, st.integers(1, 4))
def test_each_mirror_is_first_as_often_as_it_weighs(weights: list[int], laps: int) -> None:
    turns = RoundRobin(weighted=True)
    firsts = Counter(turns.order(seen(weights))[0] for _ in range(laps * sum(weights)))
    assert firsts == {index: laps * weight for index, weight in enumerate(weights)}


def test_the_turns_of_a_heavy_mirror_are_spread() -> None:
    turns = RoundRobin(weighted=True)
    assert [turns.order(seen([5, 1, 1]))[0] for _ in range(7)] == [0, 0, 1, 0, 2, 0, 0]  # as in nginx's own example


def test_the_second_in_line_is_the_next_ones_first() -> None:
    turns = RoundRobin(weighted=True)
    orders = [turns.order(seen([1, 1, 1])) for _ in range(9)]
    assert all(now[1] == following[0] for now, following in pairwise(orders))


@pytest.mark.option("upstreams.balance")
@pytest.mark.parametrize(("name", "shares"), [("round_robin", {0: 4, 1: 4}), ("weighted_round_robin", {0: 6, 1: 2})])
def test_round_robin_ignores_weights_and_the_weighted_one_does_not(name: str, shares: dict[int, int]) -> None:
    turns = way(name)
    assert Counter(turns.order(seen([3, 1]), "")[0] for _ in range(8)) == shares


@pytest.mark.parametrize("name", ["round_robin", "weighted_round_robin"])
def test_one_that_starts_slowly_gets_less(name: str) -> None:
    turns = way(name)
    assert Counter(turns.order([Seen(ramp=0.25), Seen()], "")[0] for _ in range(50)) == {0: 10, 1: 40}


def test_a_weight_that_changes_acts_at_once() -> None:
    turns = way("weighted_round_robin")
    for share in (1, 5, 10, 0.1):
        firsts = Counter(turns.order([Seen(share), Seen(10.0)], "")[0] for _ in range(1100))
        assert firsts[0] == pytest.approx(1100 * share / (share + 10.0), abs=2)


# --- by what they do --------------------------------------------------------------------------------------------------


def test_least_connections_counts_what_each_may_bear() -> None:
    some = way("least_connections")
    assert some.order([Seen(in_flight=3), Seen(in_flight=1), Seen(in_flight=2)], "") == [1, 2, 0]
    assert some.order([Seen(3.0, in_flight=3), Seen(1.0, in_flight=1)], "") == [0, 1]
    assert {some.order([Seen(), Seen()], "")[0] for _ in range(2)} == {0, 1}  # equals take turns


def test_the_faster_of_two_is_asked_and_one_that_is_not_known_is_tried_once() -> None:
    some = way("fastest_response")
    assert some.order([Seen(response_s=0.3), Seen(response_s=0.1)], "")[0] == 1
    assert some.order([Seen(response_s=0.3), Seen(response_s=0.1, in_flight=3)], "")[0] == 0
    assert some.order([Seen(response_s=0.1), Seen()], "")[0] == 1
    assert some.order([Seen(response_s=0.1), Seen(in_flight=1)], "")[0] == 0
    assert some.order([Seen(3.0, response_s=0.2), Seen(response_s=0.1)], "")[0] == 0


def test_a_quick_head_does_not_hide_a_trickle() -> None:
    some = way("fastest_response")
    assert some.order([Seen(response_s=0.01, mib_s=1.0), Seen(response_s=0.05, mib_s=0.05)], "")[0] == 1
    assert some.order([Seen(response_s=0.01, mib_s=0.05), Seen(response_s=0.05, mib_s=0.05)], "")[0] == 0


async def test_a_mirror_that_trickles_is_left_alone_though_its_heads_are_quick(
    origin: Origin, mirror: Origin, upstream: MakeUpstream
) -> None:
    """It would take most, if only the time to the first byte counted. Asked once or twice, it is known."""
    file = Content(4, 256 * KIB)
    origin.script("/f", Reply(file, rate=1024 * KIB))
    mirror.script("/f", Reply(file, before_head=0.15))
    some = upstream(origin, mirror, balance="fastest_response")
    for _ in range(10):
        assert await read(await some.fetch(want())) == file.read()
    assert 1 <= origin.requests_of("/f") <= 3
    await mirror.refuse()
    mirror.reset_all()
    assert await read(await some.fetch(want())) == file.read()  # the last one is not left alone


def test_of_many_two_are_compared() -> None:
    """The slowest is never asked, the fastest not always: so it is not overrun by all workers at once."""
    some = FastestResponse(random.Random(1).random)
    known = [Seen(response_s=one) for one in (0.4, 0.3, 0.2, 0.1)]
    firsts = Counter(some.order(known)[0] for _ in range(6000))
    assert [firsts[index] / 6000 for index in range(4)] == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6], abs=0.03)


def test_in_simulated_time_the_faster_one_gets_most_and_a_slow_one_that_mends_comes_back() -> None:
    some, gauges = way("fastest_response"), [Gauge(), Gauge()]
    takes = [0.5, 0.05]

    def asked(since: float, seconds: float) -> Counter[int]:
        counts: Counter[int] = Counter()
        for step in range(int(seconds * 10)):
            now = since + step / 10
            index = some.order([gauge.seen(1.0, 1.0, now) for gauge in gauges], "")[0]
            gauges[index].observe(takes[index], good=True, now=now)
            counts[index] += 1
        return counts

    assert asked(0.0, 60)[0] < 60 * 10 * 0.02
    takes[0] = 0.01
    assert asked(60.0, 120)[0] > 120 * 10 * 0.6


@given(st.floats(0.9, 1.0), st.floats(0.0, 0.1))
def test_a_mirror_that_reports_nine_tenths_gets_under_a_fifth_of_an_idle_siblings(busy: float, idle: float) -> None:
    some = way("resource_based")
    firsts = Counter(some.order([Seen(load=busy), Seen(load=idle)], "")[0] for _ in range(500))
    assert 0 < firsts[0] < firsts[1] / 5


def test_those_that_report_nothing_are_judged_by_their_bytes() -> None:
    some = way("resource_based")
    firsts = Counter(
        some.order([Seen(bytes_in_flight=9 * 10**6), Seen(bytes_in_flight=10**6)], "")[0] for _ in range(100)
    )
    assert firsts == {0: 10, 1: 90}


# --- by the file ------------------------------------------------------------------------------------------------------

KEYS = [f"/files/{number}" for number in range(3000)]


def test_a_file_stays_with_its_mirror_and_files_are_shared_by_weight() -> None:
    some = ConsistentHash()
    known = seen([1, 2, 3])
    firsts = [some.order(known, key)[0] for key in KEYS]
    assert firsts == [way("consistent_hash").order(known, key)[0] for key in KEYS]
    assert [firsts.count(index) / 3000 for index in range(3)] == pytest.approx([1 / 6, 2 / 6, 3 / 6], abs=0.03)


def test_when_a_weight_grows_files_move_to_that_mirror_only() -> None:
    some = ConsistentHash()
    moved = Counter(
        (before, after)
        for key in KEYS
        if (before := some.order(seen([1, 1, 1]), key)[0]) != (after := some.order(seen([1, 1, 2]), key)[0])
    )
    assert set(moved) == {(0, 2), (1, 2)}
    assert sum(moved.values()) / 3000 == pytest.approx(1 / 2 - 1 / 3, abs=0.03)


def test_without_its_mirror_a_file_goes_to_the_next_and_no_other_file_moves() -> None:
    some = ConsistentHash()
    for key in KEYS[:200]:
        order = some.order(seen([1, 1, 1]), key)
        without = [index for index in order if index != 2]
        assert without == some.order(seen([1, 1]), key)


named = st.lists(
    st.tuples(st.text("abcdef", min_size=1, max_size=6), st.integers(1, 9)),
    min_size=1,
    max_size=6,
    unique_by=lambda one: one[0],
)


@given(named, st.integers(1, 9), st.integers(0, 6))
def test_a_mirror_more_takes_its_part_and_moves_no_other_file(
    others: list[tuple[str, int]], weight: int, at: int
) -> None:
    """Wherever in the list it is put."""
    some = way("consistent_hash")
    before = [Seen(float(one), name=name) for name, one in others]
    after = [*before[:at], Seen(float(weight), name="new"), *before[at:]]
    moved = 0
    for key in KEYS[:600]:
        one, two = before[some.order(before, key)[0]].name, after[some.order(after, key)[0]].name
        assert two in (one, "new")
        moved += two == "new"
    part = weight / (weight + sum(one for _, one in others))
    assert abs(moved / 600 - part) < 5 * math.sqrt(part * (1 - part) / 600)


# --- backups ----------------------------------------------------------------------------------------------------------


@given(st.sampled_from(WAYS), st.lists(st.integers(0, 2), min_size=1, max_size=6))
def test_backups_come_after_all_others(name: str, priorities: list[int]) -> None:
    some = way(name)
    for turn in range(5):
        order = some.order([Seen(priority=one) for one in priorities], str(turn))
        assert [priorities[index] for index in order] == sorted(priorities)


def test_backups_take_no_turn_from_the_others() -> None:
    some = way("weighted_round_robin")
    known = [Seen(3.0), Seen(9.0, priority=1), Seen(1.0)]
    firsts = Counter(some.order(known, "")[0] for _ in range(40))
    assert firsts == {0: 30, 2: 10}


def test_an_unknown_way() -> None:
    with pytest.raises(ValueError, match="chance"):
        way("chance")


def test_the_baseline_does_not_adapt() -> None:
    asked: list[schema.Balance] = ["fastest_response", "resource_based", "round_robin"]
    assert [resolve.balance("baseline", one) for one in asked] == [
        "weighted_round_robin",
        "weighted_round_robin",
        "round_robin",
    ]
    assert resolve.balance("optimized", "fastest_response") == "fastest_response"
