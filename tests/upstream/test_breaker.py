"""Closed, open, half-open: by results and the time alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fileproxy.settings.schema import CircuitBreaker
from fileproxy.upstream.breaker import TRANSITIONS, Breaker, Call


def breaker(**options: Any) -> Breaker:
    return Breaker(CircuitBreaker(**options))


def answer(one: Breaker, good: bool | None, now: float = 0.0) -> None:
    one.end(one.begin(now), good, now)


def opened(now: float = 0.0, **options: Any) -> Breaker:
    one = breaker(**options)
    for _ in range(options.get("failure_threshold", 5)):
        answer(one, good=False, now=now)
    assert one.state == "open"
    return one


@pytest.mark.option("upstreams.circuit_breaker.failure_threshold")
@given(st.integers(1, 19))
def test_so_many_failures_in_a_row_open_it(threshold: int) -> None:
    one = breaker(failure_threshold=threshold, failure_rate=1.0)
    for _ in range(threshold - 1):
        answer(one, good=False)
    answer(one, good=None)  # says nothing
    assert one.state == "closed"
    answer(one, good=False)
    assert (one.state, one.asks(0.0)) == ("open", False)


def test_a_success_between_them_begins_a_new_row() -> None:
    one = breaker(failure_threshold=2)
    for second in range(0, 1000, 11):
        answer(one, good=False, now=second)
        answer(one, good=True, now=second)
    assert one.state == "closed"


@pytest.mark.option("upstreams.circuit_breaker.failure_rate")
@pytest.mark.parametrize(("rate", "state"), [(0.25, "open"), (0.26, "closed")])
def test_a_share_of_failures_opens_it(rate: float, state: str) -> None:
    one = breaker(failure_rate=rate)
    for number in range(20):
        assert one.state == "closed"  # with fewer than 20 answers the rate means nothing
        answer(one, good=number % 4 != 3, now=number * 0.4)
    assert one.state == state


def test_what_was_ten_seconds_ago_is_forgotten() -> None:
    one = breaker(failure_threshold=1000)
    for _ in range(19):
        answer(one, good=False, now=0.0)
    for number in range(40):
        answer(one, good=number % 5 > 0, now=10.5)
    assert one.state == "closed"


@pytest.mark.option("upstreams.circuit_breaker.timeout")
@given(st.floats(1.0, 1000.0))
def test_it_is_asked_nothing_for_the_timeout(timeout: float) -> None:
    one = opened(timeout=timeout)
    assert not one.asks(timeout * 0.999)
    assert one.asks(timeout * 1.001)
    states = [str(one.state)]
    one.begin(timeout * 1.001)
    assert [*states, one.state] == ["open", "half_open"]  # not before somebody asks it


@pytest.mark.option("upstreams.circuit_breaker.half_open_max_calls")
@given(st.integers(1, 20))
def test_half_open_lets_a_few_through_and_so_many_successes_close_it(most: int) -> None:
    one = opened(half_open_max_calls=most)
    calls = []
    while one.asks(60.0):
        calls.append(one.begin(60.0))
    assert len(calls) == most
    for call in calls:
        assert one.state == "half_open"
        one.end(call, True, 61.0)
    assert (one.state, one.asks(61.0)) == ("closed", True)


def test_one_failure_of_them_opens_it_again() -> None:
    one = opened()
    answer(one, good=True, now=60.0)
    answer(one, good=False, now=61.0)
    assert (one.state, one.asks(120.0), one.asks(121.0)) == ("open", False, True)


def test_the_last_one_lets_a_few_through_all_the_time() -> None:
    one = opened(half_open_max_calls=2)
    assert not one.asks(1.0)
    calls = [one.begin(1.0) for _ in range(2) if one.spare]
    assert (len(calls), one.spare) == (2, False)
    one.end(calls[0], False, 2.0)
    assert one.spare
    states = [str(one.state)]
    one.end(calls[1], True, 2.0)
    states.append(one.state)
    assert states == ["open", "half_open"]


def test_what_began_before_it_opened_tells_nothing_of_now() -> None:
    one = breaker(failure_threshold=1)
    early = one.begin(0.0)
    answer(one, good=False)
    one.end(early, True, 1.0)
    assert one.state == "open"


def test_probes_close_it_early() -> None:
    one = opened(half_open_max_calls=3)
    assert one.probe_in(0.25) == 0.75
    one.probed(False, 1.0)
    assert (one.state, one.probe_in(1.0)) == ("open", 1.0)
    for _ in range(3):
        assert one.state != "closed"
        one.probed(True, 2.0)
    assert (one.state, one.probe_in(2.0)) == ("closed", None)


def test_bad_probes_in_a_row_open_it_too_and_good_ones_hide_no_failures() -> None:
    one = breaker(failure_threshold=3)
    for good in (False, False, True, False, None, False):
        one.probed(good, 0.0)
        assert one.state == "closed"
    one.probed(False, 0.0)
    assert one.state == "open"
    other = breaker(failure_threshold=3)
    for _ in range(3):
        other.probed(True, 0.0)
        answer(other, good=False)
    assert other.state == "open"


def test_a_probe_that_tells_nothing_is_made_again_in_its_time() -> None:
    one = opened()
    one.probed(None, 1.0)
    assert (one.state, one.probe_in(1.5)) == ("open", 0.5)


def test_one_that_keeps_breaking_down_is_probed_less_often() -> None:
    one = opened(timeout=10.0)
    waits = []
    for _ in range(6):
        waits.append(one.probe_in(0.0))
        one.probed(True, 0.0)
        one.probed(False, 0.0)
    assert waits == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    for _ in range(3):
        one.probed(True, 0.0)
    for _ in range(5):
        answer(one, good=False, now=11.0)  # it was well for longer than `timeout`
    assert one.probe_in(11.0) == 1.0


@pytest.mark.option("upstreams.slow_start")
def test_one_that_was_taken_back_starts_slowly() -> None:
    one = breaker()
    assert one.ramp(0.0, 10.0) == 1.0  # it never was away
    for good in (False,) * 5 + (True,) * 3:
        one.probed(good, 100.0)
    assert (one.state, one.probe_in(100.0)) == ("closed", None)
    assert [one.ramp(100.0 + second, 10.0) for second in (0, 1, 5, 10, 50)] == [0.1, 0.1, 0.5, 1.0, 1.0]
    assert one.ramp(100.0, 0.0) == 1.0


def test_off_never_opens() -> None:
    one = Breaker("off")
    for _ in range(100):
        answer(one, good=False)
    assert (one.state, one.asks(0.0), one.spare, one.probe_in(0.0)) == ("closed", True, True, None)


def test_turned_off_it_closes_and_other_numbers_act_at_once() -> None:
    one = opened()
    one.apply(CircuitBreaker(timeout=1.0))
    assert one.asks(1.0)
    one.apply("off")
    assert (one.state, one.asks(0.0)) == ("closed", True)


def test_every_state_can_be_left() -> None:
    assert set(TRANSITIONS) == {"closed", "open", "half_open"}
    assert all(TRANSITIONS[state] and state not in TRANSITIONS[state].values() for state in TRANSITIONS)


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens: never more trials than allowed, never shut for longer than ``timeout``, the last has room."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.one = breaker(failure_threshold=2, half_open_max_calls=2, timeout=5.0)
        self.calls: list[Call] = []

    @rule(seconds=st.floats(0, 7))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        if self.one.asks(self.now):
            self.calls.append(self.one.begin(self.now))

    @rule()
    def ask_the_last(self) -> None:
        if self.one.spare:
            self.calls.append(self.one.begin(self.now))

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), good=st.sampled_from([True, False, None]))
    def end(self, data: st.DataObject, good: bool | None) -> None:
        self.one.end(self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1))), good, self.now)

    @rule(good=st.sampled_from([True, False, None]))
    def probe(self, good: bool | None) -> None:
        self.one.probed(good, self.now)

    @invariant()
    def few_trials(self) -> None:
        trials = sum(call.trial for call in self.calls)
        assert trials <= 2
        assert self.one.spare == (trials < 2 or self.one.state == "closed")

    @invariant()
    def not_for_ever(self) -> None:
        if sum(call.trial for call in self.calls) < 2:
            assert self.one.asks(self.now + 5.0)


TestAnyHistory = AnyHistory.TestCase
