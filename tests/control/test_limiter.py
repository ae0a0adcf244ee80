"""Rate, permits and concurrency, in simulated time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.control.limiter import (
    FEWEST,
    GRACE_S,
    HIGHEST,
    LONE,
    LOWEST,
    TOLERANCE,
    WINDOW_S,
    Bucket,
    Gradient,
    Rate,
)

# --- rate -------------------------------------------------------------------------------------------------------------


class Windows:
    """A rate that is told of one window after the other."""

    def __init__(self, start: float = HIGHEST) -> None:
        self.rate = Rate()
        self.rate.follow(start)
        self.now, self.answers, self.errors = 5.0, 0, 0
        self.rate.tally(0, 0, self.now)

    def after(self, answers: int, errors: int, seconds: float = WINDOW_S) -> float:
        self.now += seconds
        self.answers += answers
        self.errors += errors
        self.rate.tally(self.answers, self.errors, self.now)
        return self.rate.per_s


@pytest.mark.parametrize(
    ("answers", "errors", "becomes"),
    [
        (100, 11, 400.0),
        (100, 100, 400.0),
        (100, 10, 500.0),  # not above 10 %
        (100, 2, 500.0),  # not below 2 %
        (100, 1, 600.0),
        (100, 0, 600.0),
        (FEWEST, 3, 400.0),
        (FEWEST - 1, FEWEST - 1, 500.0),  # too few to mean anything
        (0, 0, 500.0),
        (50, 51, 400.0),  # answers of the window before broke inside their bodies
    ],
)
def test_a_window(answers: int, errors: int, becomes: float) -> None:
    assert Windows(500.0).after(answers, errors) == pytest.approx(becomes)


def test_it_begins_free_and_says_how_it_moved() -> None:
    rate = Rate()
    assert rate.per_s == 1000.0
    assert [rate.tally(40 * n, 20 * n, WINDOW_S * n) for n in range(3)] == [None, "lowered", "lowered"]
    assert rate.per_s == pytest.approx(640.0)
    assert [rate.tally(40 * n, 40, WINDOW_S * n) for n in range(3, 7)] == ["raised", "raised", "raised", None]
    assert rate.per_s == 1000.0


def test_nothing_is_judged_before_the_window_is_over() -> None:
    one = Windows()
    assert one.after(1000, 1000, 9.99) == 1000.0
    assert one.after(0, 0, 0.01) == 800.0


def test_few_answers_of_one_window_do_not_add_up_with_the_next() -> None:
    one = Windows()
    for _ in range(10):
        assert one.after(FEWEST - 1, FEWEST - 1) == 1000.0


def test_counters_that_begin_anew_begin_a_window() -> None:
    one = Windows()
    one.after(500, 0)
    one.answers = one.errors = 0
    assert one.after(30, 30) == 1000.0
    assert one.after(30, 30) == 800.0


@given(st.lists(st.tuples(st.integers(0, 500), st.floats(0, 1), st.floats(0, 30)), max_size=60))
def test_it_stays_between_its_bounds_and_goes_where_the_errors_say(windows: list[tuple[int, float, float]]) -> None:
    one = Windows()
    for answers, share, seconds in windows:
        before = one.rate.per_s
        errors = round(answers * share)
        after = one.after(answers, errors, seconds)
        assert LOWEST <= after <= HIGHEST
        assert after in (before, pytest.approx(max(LOWEST, before * 0.8)), pytest.approx(min(HIGHEST, before * 1.2)))


@given(st.integers(FEWEST, 10_000), st.integers(1, 100))
def test_a_failing_origin_gets_the_least_and_a_good_one_all(answers: int, windows: int) -> None:
    one = Windows()
    rates = [one.after(answers, answers) for _ in range(windows)]
    assert rates == sorted(rates, reverse=True)
    for _ in range(100):
        one.after(answers, answers)
    assert one.rate.per_s == LOWEST
    for _ in range(100):
        one.after(answers, 0)
    assert one.rate.per_s == HIGHEST


# --- permits ----------------------------------------------------------------------------------------------------------


@given(
    st.floats(10, 1000),
    st.integers(1, 16),
    st.lists(st.floats(0, 0.5), min_size=1, max_size=200),
)
def test_never_more_than_the_share_and_a_burst(per_s: float, workers: int, pauses: list[float]) -> None:
    bucket = Bucket(per_s, workers, 0.0)
    now, taken = 0.0, 0
    for pause in pauses:
        now += pause
        while bucket.take(now):
            taken += 1
    share = per_s / workers
    assert taken <= max(1.0, share, LONE * per_s / HIGHEST) + share * now + 1


@given(st.floats(1, 1000), st.integers(1, 64), st.integers(1, 50))
def test_who_waits_as_long_as_it_says_gets_a_permit(per_s: float, workers: int, count: int) -> None:
    bucket = Bucket(per_s, workers, 0.0)
    while bucket.take(0.0):
        pass
    wait_s = bucket.wait_s(0.0, 1)
    assert wait_s > 0
    if wait_s > 0.001:  # less is a rounding error, and here at once
        assert not bucket.take(wait_s * 0.5)
    assert bucket.take(wait_s)
    if count * workers <= per_s:  # so many fit in a burst
        now = wait_s + bucket.wait_s(wait_s, count)
        assert all(bucket.take(now) for _ in range(count))


@given(st.integers(1, 256))
def test_a_free_rate_lets_a_parallel_download_begin_at_once(workers: int) -> None:
    bucket = Bucket(HIGHEST, workers, 0.0)
    assert all(bucket.take(0.0) for _ in range(LONE))


def test_what_is_not_used_is_kept_for_a_second() -> None:
    bucket = Bucket(100.0, 2, 0.0)
    assert sum(bucket.take(3600.0) for _ in range(1000)) == 50


def test_another_rate_holds_from_now_on() -> None:
    bucket = Bucket(1000.0, 1, 0.0)
    bucket.turn(10.0, 1, 0.0)
    assert sum(bucket.take(0.0) for _ in range(100)) == 10  # no burst is left over from before
    assert bucket.wait_s(0.0) == pytest.approx(0.1)
    bucket.turn(1000.0, 1, 0.0)
    assert bucket.wait_s(0.0) == pytest.approx(0.001)
    bucket.give_back()
    assert bucket.take(0.0)


# --- concurrency ------------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 500),
    st.lists(st.tuples(st.floats(0, 60), st.integers(0, 600), st.floats(0, 10), st.booleans()), max_size=100),
)
def test_the_limit_stays_between_floor_and_ceiling(ceiling: int, samples: list[tuple[float, int, float, bool]]) -> None:
    one = Gradient(ceiling)
    now = 0.0
    for seconds, in_flight, pause, judge in samples:
        now += pause
        one.sample(seconds, in_flight, now, judge=judge)
        assert max(1, ceiling // 3) <= one.limit <= ceiling


@given(st.floats(0.0001, 5), st.integers(1, 500))
def test_steady_answers_never_lower_it(seconds: float, ceiling: int) -> None:
    one = Gradient(ceiling)
    for number in range(200):
        one.sample(seconds, one.limit, number * 0.1)
    assert one.limit == ceiling


@given(st.floats(0.001, 1), st.floats(0, 1))
def test_a_little_longer_is_no_queue(seconds: float, more: float) -> None:
    one = Gradient(60)
    longer_s = seconds + more * ((TOLERANCE - 1) * seconds + GRACE_S)
    for number in range(400):
        one.sample(seconds if number < 100 else longer_s, one.limit, number * 0.1)
    assert one.limit == 60


def slow_down(one: Gradient, in_flight: int | None = None, *, judge: bool = True) -> None:
    """Answers that took 50 ms take 2 s."""
    for number in range(100):
        one.sample(0.05, one.limit, number * 0.1)
    for number in range(200):
        one.sample(2.0, one.limit if in_flight is None else in_flight, 10 + number * 0.1, judge=judge)


def test_longer_answers_lower_it_and_shorter_ones_raise_it_again() -> None:
    one = Gradient(60)
    slow_down(one)
    assert one.limit < 40
    for number in range(300):
        one.sample(0.05, one.limit, 30 + number * 0.1)
    assert one.limit == 60


def test_a_limit_that_nobody_meets_is_left_alone() -> None:
    one = Gradient(60)
    slow_down(one, in_flight=40)
    assert one.limit == 60


def test_what_a_lone_download_sees_changes_nothing() -> None:
    one = Gradient(60)
    slow_down(one, judge=False)
    assert one.limit == 60


@given(st.integers(20, 60))
def test_a_crowd_is_held_to_about_what_the_origin_can_do(capacity: int) -> None:
    """An origin serves so many at a time, half a second each; more than that queue there, and all take longer."""
    one = Gradient(200)
    now = 0.0
    for _ in range(200):  # a quiet time
        now += 0.5
        one.sample(0.5, 1, now)
    assert one.limit == 200
    for _ in range(5000):  # a crowd that uses whatever the limit lets through, for a minute or so
        took_s = 0.5 * max(1.0, one.limit / capacity)
        now += took_s / one.limit
        one.sample(took_s, one.limit, now)
    assert capacity <= one.limit <= max(one.floor, 4 * capacity)
