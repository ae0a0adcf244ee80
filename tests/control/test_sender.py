"""Who minds loss gets help, who does not is left alone: senders of three kinds, on paths of all kinds.

The senders are models. A window that is sent at once, or spread over half a round trip, doubles each round trip and
goes down to 0.7 with a loss (CUBIC without and with pacing). A rate doubles until the link is full and stays so (BBR).
Each gives when segments come, and whether behind a gap.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator

from hypothesis import given
from hypothesis import strategies as st

from fileproxy.control.sender import LONG_S, PATIENT, Sender, Verdict

FIRST = 10  # segments of a first flight
FOREVER_S = 9.0


def window(rtt_s: float, loss: float, seed: int, *, spread: float, link: float) -> Iterator[tuple[float, bool]]:
    """``spread``: the share of a round trip over which a window is sent; ``link``: segments a second."""
    chance, cwnd, now, grows = random.Random(seed), float(FIRST), 0.0, True
    while now < FOREVER_S:
        sent = int(cwnd)
        step_s = max(1 / link, spread * rtt_s / sent if now else 0.0)
        lost = [chance.random() < loss for _ in range(sent)]
        yield from ((now + number * step_s, any(lost[:number])) for number in range(sent) if not lost[number])
        grows = grows and not any(lost)
        cwnd = cwnd * 2 if grows else max(2.0, cwnd * 0.7 if any(lost) else cwnd + 1)
        cwnd = min(cwnd, 200.0)  # what the receiver takes
        now += max(rtt_s, sent * step_s)


def steady(
    rtt_s: float, loss: float, seed: int, *, link: float, until: float = FOREVER_S
) -> Iterator[tuple[float, bool]]:
    """After a first flight at once, a rate that doubles each round trip up to the link's; after ``until`` a third."""
    chance, behind_until = random.Random(seed), 0.0
    yield from ((number / link, False) for number in range(FIRST))
    now = rtt_s
    while now < FOREVER_S:
        rate = min(link, 2 * FIRST / rtt_s * 2 ** (now / rtt_s - 1)) / (1 if now < until else 3)
        if chance.random() < loss:
            behind_until = now + rtt_s
        else:
            yield now, now < behind_until
        now += 1 / rate


def play(
    arrivals: Iterable[tuple[float, bool]],
    sender: Sender,
    seconds: float = FOREVER_S,
    *,
    begins: float = 0.0,
    before: int = 0,
    round_trip_s: float = 0.0,
) -> tuple[float, Verdict]:
    """The first verdict that is not the one it begins with, and when; or the last one.

    ``before``: segments behind a gap that came earlier; ``round_trip_s``: as it is felt later.
    """
    came = sorted(arrivals)
    times = [at for at, _ in came]
    gaps = [before]
    for _, behind in came:
        gaps.append(gaps[-1] + behind)
    now, first = begins, sender.verdict
    while now < seconds:
        now += sender.next_look_s
        count = bisect_right(times, now)
        if sender.look(now, count, gaps[count], round_trip_s) is not first:
            break
    return now, sender.verdict


paths = {"rtt_s": st.floats(0.1, 0.4), "seed": st.integers(0, 10**6)}


@given(**paths, loss=st.floats(0, 0.05), fast=st.floats(1.0, 100.0))
def test_bursts_are_helped_as_soon_as_the_second_one_is_over(rtt_s: float, seed: int, loss: float, fast: float) -> None:
    link = fast * 4 * 2 * FIRST / rtt_s  # the second burst takes a quarter of a round trip at most
    at, verdict = play(window(rtt_s, loss, seed, spread=0.0, link=link), Sender(0.0, rtt_s))
    assert verdict is Verdict.HELP
    if loss == 0:
        assert at < 1.75 * rtt_s


@given(**paths, loss=st.floats(0.005, 0.03), doublings=st.integers(1, 4))
def test_a_rate_that_minds_no_loss_is_left_alone(rtt_s: float, seed: int, loss: float, doublings: int) -> None:
    came = list(steady(rtt_s, loss, seed, link=2 * FIRST / rtt_s * 2**doublings))
    gap_at = min((at for at, behind in came if behind), default=FOREVER_S)
    at, verdict = play(came, Sender(0.0, rtt_s))
    if gap_at < (doublings + 1) * rtt_s:  # while it grows; one that grows no more without a gap is helped
        assert verdict is Verdict.ALONE
        assert at <= gap_at + (PATIENT + 1) * rtt_s


@given(**paths, doublings=st.integers(1, 4))
def test_without_a_gap_it_is_helped_when_it_grows_no_more(rtt_s: float, seed: int, doublings: int) -> None:
    at, verdict = play(steady(rtt_s, 0.0, seed, link=2 * FIRST / rtt_s * 2**doublings), Sender(0.0, rtt_s))
    assert verdict is Verdict.HELP
    assert (doublings + 1) * rtt_s < at < (doublings + 7) * rtt_s


@given(**paths, loss=st.floats(0.01, 0.05))
def test_one_that_is_paced_and_minds_loss_is_helped_in_the_end(rtt_s: float, seed: int, loss: float) -> None:
    came = list(window(rtt_s, loss, seed, spread=0.5, link=1000 / rtt_s))
    sender = Sender(0.0, rtt_s)
    at, verdict = play(came, sender)
    if verdict is Verdict.ALONE:  # it had luck: whether that goes on is looked at
        at, verdict = play(came, sender, begins=at)
    assert verdict is Verdict.HELP


@given(**paths, loss=st.floats(0, 0.03))
def test_one_that_is_known_is_left_alone_while_it_goes_on(rtt_s: float, seed: int, loss: float) -> None:
    link = 10 * FIRST / rtt_s
    came = list(steady(rtt_s, loss, seed, link=link))
    assert play(came, Sender(0.0, rtt_s, alone=True))[1] is Verdict.ALONE
    came = list(steady(rtt_s, loss, seed, link=link, until=6.0))
    at, verdict = play(came, Sender(0.0, rtt_s, alone=True))
    assert verdict is Verdict.HELP
    assert 6.0 < at < 6.0 + LONG_S


@given(**paths, loss=st.floats(0.01, 0.05), times=st.floats(1.0, 20.0))
def test_a_round_trip_that_was_measured_far_too_long_is_corrected(
    rtt_s: float, seed: int, loss: float, times: float
) -> None:
    came = list(window(rtt_s, loss, seed, spread=0.0, link=1000 / rtt_s))
    sender = Sender(0.0, times * rtt_s)
    at, verdict = play(came, sender, round_trip_s=rtt_s)
    if verdict is Verdict.ALONE:
        at, verdict = play(came, sender, begins=at, round_trip_s=rtt_s)
    assert verdict is Verdict.HELP


def test_a_small_flight_tells_nothing_at_first() -> None:
    """One with two segments after a loss, then one that is spread: it is watched."""
    came = [(0.0, False), *((0.1 + number / 100, True) for number in range(2))]
    spread = [*came, *((0.2 + number / 200, False) for number in range(20))]
    assert play(spread, Sender(0.0, 0.1), 0.3)[1] is Verdict.WATCH
    burst = [*came, *((0.2 + number / 2000, False) for number in range(20))]
    assert play(burst, Sender(0.0, 0.1), 0.3)[1] is Verdict.HELP


def test_one_that_has_nothing_to_send_is_not_watched_for_long() -> None:
    at, verdict = play([(0.0, False)], Sender(0.0, 0.1))
    assert verdict is Verdict.HELP
    assert at < 1.0


def test_packets_behind_a_gap_are_no_silence() -> None:
    sender = Sender(0.0, 0.1, 10, 0, alone=True)
    sender.look(1.0, 20, 10)
    assert sender.silent_s(1.0) == 0
    sender.look(2.0, 20, 10)
    assert sender.silent_s(2.0) == 1.0


def test_what_an_earlier_answer_lost_is_no_gap() -> None:
    """A connection that was used before: its counts go on."""
    came = list(steady(0.1, 0.0, 1, link=1600.0))
    assert play(came, Sender(0.0, 0.1, 0, 50), before=50)[1] is Verdict.HELP  # it grows no more, and lost nothing
