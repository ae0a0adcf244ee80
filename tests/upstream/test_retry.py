"""Whether and when to try again: a table of cases, and what holds whatever happens."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.errors import ClientGone, ConnectRefused, FileProxyError, Shed, TlsFailed, UpstreamError
from fileproxy.settings.schema import Retry
from fileproxy.upstream.retry import Again, Failure, GiveUp, RetryBudget, decide, rest, retry_after

REFUSED = Failure(error=ConnectRefused("refused"))
SETTINGS = Retry()
NOW = 1_790_000_000.0


def judge(
    failure: Failure = REFUSED,
    *,
    tries: int = 1,
    rounds: int = 1,
    elapsed_s: float = 0.0,
    untried: int = 0,
    usable: int = 1,
    rest_s: float = 0.0,
    settings: Retry = SETTINGS,
    random: float = 0.5,
) -> Again | GiveUp:
    return decide(
        failure,
        tries=tries,
        rounds=rounds,
        elapsed_s=elapsed_s,
        untried=untried,
        usable=usable,
        rest_s=rest_s,
        settings=settings,
        random=lambda: random,
    )


# --- decide ----------------------------------------------------------------------------------------------------------


def test_the_next_mirror_is_asked_at_once() -> None:
    assert judge(untried=1) == Again(0.0, new_round=False)
    assert judge(Failure(status=503), untried=1, rest_s=30.0) == Again(0.0, new_round=False)


@pytest.mark.parametrize(("rounds", "pause_s"), [(1, 0.05), (2, 0.1), (3, 0.2), (4, 0.4)])
def test_each_round_waits_twice_as_long(rounds: int, pause_s: float) -> None:
    assert judge(rounds=rounds) == Again(pause_s, new_round=True)


@pytest.mark.option("upstreams.retry.base", "upstreams.retry.cap")
def test_pauses_lie_between_nothing_and_the_cap() -> None:
    settings = Retry(base=3.0, cap=8.0)
    assert judge(settings=settings, random=0.0) == Again(0.0, new_round=True)
    assert judge(settings=settings, random=0.5) == Again(1.5, new_round=True)
    assert judge(settings=settings, rounds=40, random=0.5) == Again(4.0, new_round=True)


def test_a_rest_is_waited_for_in_full() -> None:
    assert judge(rest_s=7.0, random=0.0) == Again(7.0, new_round=True)
    assert judge(rest_s=7.0, random=0.5) == Again(7.05, new_round=True)


@pytest.mark.parametrize("error", [Shed("no descriptor"), ClientGone("left"), FileProxyError("a bug")])
def test_what_is_no_mirrors_fault_is_not_tried_again(error: FileProxyError) -> None:
    assert isinstance(judge(Failure(error=error), untried=3), GiveUp)


def test_attempts_and_within_bound_everything() -> None:
    assert judge(tries=11, untried=1) == Again(0.0, new_round=False)
    assert judge(tries=12, untried=1) == GiveUp("attempts")
    assert judge(elapsed_s=60.0, untried=1) == Again(0.0, new_round=False)
    assert judge(elapsed_s=60.1, untried=1) == GiveUp("within")
    assert judge(elapsed_s=50.0, rest_s=11.0) == GiveUp("within")  # not slept through to be given up afterwards


def test_no_mirror_left() -> None:
    assert judge(usable=0) == GiveUp("no mirror left")


failures = st.one_of(
    st.builds(Failure, error=st.sampled_from([ConnectRefused("x"), TlsFailed("x"), UpstreamError("x"), Shed("x")])),
    st.builds(Failure, status=st.sampled_from([429, 500, 503]), retry_after_s=st.none() | st.floats(0, 1e9)),
)
settings = st.builds(
    Retry,
    attempts=st.integers(1, 100),
    within=st.floats(0, 1e4),
    base=st.floats(0, 1e3),
    cap=st.floats(0, 1e3),
)


@given(
    failure=failures,
    tries=st.integers(1, 200),
    rounds=st.integers(1, 10**6),
    elapsed_s=st.floats(0, 1e5),
    untried=st.integers(0, 3),
    usable=st.integers(0, 3),
    rest_s=st.floats(0, 1e5),
    settings=settings,
    random=st.floats(0, 1, exclude_max=True),
)
def test_no_try_starts_too_late_too_often_or_too_early(
    failure: Failure,
    tries: int,
    rounds: int,
    elapsed_s: float,
    untried: int,
    usable: int,
    rest_s: float,
    settings: Retry,
    random: float,
) -> None:
    decision = judge(
        failure,
        tries=tries,
        rounds=rounds,
        elapsed_s=elapsed_s,
        untried=untried,
        usable=usable,
        rest_s=rest_s,
        settings=settings,
        random=random,
    )
    if isinstance(decision, Again):
        assert tries < settings.attempts
        assert elapsed_s + decision.after_s <= settings.within
        assert decision.new_round == (untried == 0)
        if decision.new_round:
            assert usable
            assert rest_s <= decision.after_s <= rest_s + settings.cap


# --- rest ------------------------------------------------------------------------------------------------------------


def test_how_long_a_mirror_rests() -> None:
    assert rest(REFUSED, 1, SETTINGS) == 0.0
    assert rest(Failure(status=503), 1, SETTINGS) == 0.0
    assert rest(Failure(status=503, retry_after_s=5.0), 1, SETTINGS) == 5.0
    assert rest(Failure(status=503, retry_after_s=60.0), 1, SETTINGS) == 60.0
    assert rest(Failure(status=503, retry_after_s=60.1), 1, SETTINGS) is None  # longer than the cap: not at all
    assert rest(Failure(error=TlsFailed("x")), 1, SETTINGS) is None  # will not mend itself


def test_after_429_it_rests_longer() -> None:
    assert [rest(Failure(status=429), rounds, SETTINGS) for rounds in (1, 2, 3, 10)] == [1.0, 2.0, 4.0, 60.0]
    assert rest(Failure(status=429), 1, Retry(cap=0.05)) == 1.0
    assert rest(Failure(status=429, retry_after_s=0.0), 1, SETTINGS) == 0.0  # it said so itself


# --- Retry-After -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0.0),  # RFC 850 form
        ("Sun Nov  6 08:49:37 1994", 0.0),  # asctime form
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("٣", None),  # a digit, but not one of HTTP's
        ("9" * 400, 999_999_999.0),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


@given(st.text())
def test_retry_after_takes_anything(value: str) -> None:
    seconds = retry_after(value, NOW)
    assert seconds is None or seconds >= 0.0


# --- the budget ------------------------------------------------------------------------------------------------------


def test_there_is_always_a_floor() -> None:
    budget = RetryBudget(0.2, 10)
    budget.first_try(0.0)
    assert sum(budget.allow(0.5) for _ in range(200)) == 100
    assert not budget.allow(9.9)
    assert budget.allow(10.0)  # the window has moved on


def test_above_it_retries_are_a_share_of_first_tries() -> None:
    budget = RetryBudget(0.2, 1)
    for _ in range(1000):
        budget.first_try(5.0)
    assert sum(budget.allow(5.0) for _ in range(1000)) == 200


def test_nothing_is_allowed_where_nothing_is_wanted() -> None:
    budget = RetryBudget(0.0, 0)
    budget.first_try(0.0)
    assert not budget.allow(0.0)


@given(
    share=st.floats(0, 1),
    floor=st.integers(0, 5),
    events=st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=200),
)
def test_in_no_window_are_there_more_retries_than_the_budget(
    share: float, floor: int, events: list[tuple[float, bool]]
) -> None:
    """A simulated origin under load: first tries and retries at any times."""
    budget = RetryBudget(share, floor)
    now, firsts, allowed = 0.0, [0.0], list[float]()
    budget.first_try(now)
    for pause, is_first in events:
        now += pause
        if is_first:
            budget.first_try(now)
            firsts.append(now)
        elif budget.allow(now):
            allowed.append(now)
            # Seconds are counted whole, so the window is 9 to 10 s long.
            start = int(now) - RetryBudget.WINDOW_S + 1
            window = sum(start <= one for one in allowed)
            assert window <= max(floor * RetryBudget.WINDOW_S, share * sum(start <= one for one in firsts) + 1)


@given(st.lists(st.floats(0, 30), max_size=300))
def test_it_forgets(pauses: list[float]) -> None:
    budget, now = RetryBudget(0.2, 1), 0.0
    for pause in pauses:
        now += pause
        budget.first_try(now)
    assert len(budget._seconds) <= RetryBudget.WINDOW_S
