"""When a mirror is asked, and when it is left alone. No network: only its memory."""

from __future__ import annotations

import pytest

from fileproxy.client.failures import Declined
from fileproxy.client.mirrors import LONGEST_PAUSE_S, MOST_CHANGED, Mirror, Servers, best, source_of
from fileproxy.client.tally import Tally
from fileproxy.client.values import Options
from fileproxy.clock import ManualClock
from fileproxy.errors import ConnectRefused, TlsFailed

REFUSED = ConnectRefused("a:80: no connection")


def mirror(clock: ManualClock, url: str = "http://a/f") -> Mirror:
    servers = Servers(Options(), Tally())
    return Mirror(url, servers, (), clock=clock, cap_s=60.0, random=lambda: 0.5)


def test_failures_in_a_row_are_asked_again_ever_later_but_soon_enough() -> None:
    clock = ManualClock()
    one = mirror(clock)
    pauses = []
    for _ in range(8):
        one.asking()
        one.failed(REFUSED, began=clock.now(), after_bytes=False)
        pauses.append(one.rests_until() - clock.now())
        assert not one.usable(clock.now())
        clock.tick(pauses[-1])
        assert one.usable(clock.now())
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(LONGEST_PAUSE_S)
    one.delivered(1)
    one.failed(REFUSED, began=clock.now(), after_bytes=False)
    assert one.rests_until() - clock.now() == pytest.approx(0.05)  # as if nothing had been


def test_connections_that_fail_together_count_once() -> None:
    clock = ManualClock()
    one, began = mirror(clock), clock.now()
    for _ in range(16):
        clock.tick(0.001)
        one.failed(REFUSED, began=began, after_bytes=False)
    assert one.rests_until() - clock.now() <= 0.1


def test_while_it_fails_it_is_asked_now_and_then_and_when_it_is_back_by_all() -> None:
    clock = ManualClock()
    one = mirror(clock)
    for _ in range(6):
        one.failed(REFUSED, began=clock.now(), after_bytes=False)
        clock.tick(5)
    one.asking()
    assert not one.usable(clock.now())
    one.delivered(1)
    assert one.usable(clock.now())


def test_a_break_after_bytes_is_no_reason_to_wait() -> None:
    clock = ManualClock()
    one = mirror(clock)
    one.failed(REFUSED, began=clock.now(), after_bytes=True)
    assert one.usable(clock.now())


def test_retry_after_is_kept_whatever_others_bring() -> None:
    clock = ManualClock()
    one = mirror(clock)
    one.failed(Declined("busy", 503, retry_after_s=7.0), began=clock.now(), after_bytes=False)
    one.delivered(1)
    clock.tick(6.9)
    assert not one.usable(clock.now())
    clock.tick(1.0)
    assert one.usable(clock.now())


def test_what_does_not_mend_is_not_asked_again() -> None:
    clock = ManualClock()
    for error in (TlsFailed("no"), Declined("no", 404, retryable=False), Declined("busy", 503, retry_after_s=61.0)):
        one = mirror(clock)
        one.failed(error, began=clock.now(), after_bytes=False)
        assert one.hopeless == error.detail


def test_another_version_is_believed_when_it_was_said_often_enough() -> None:
    clock = ManualClock()
    one = mirror(clock)
    for number in range(2 * MOST_CHANGED):
        assert (one.hopeless is None) == (number < MOST_CHANGED)
        one.failed(Declined("other", 200, changed=True), began=clock.now(), after_bytes=False)
    two = mirror(clock)
    for _ in range(2 * MOST_CHANGED):
        two.failed(Declined("other", 200, changed=True), began=clock.now(), after_bytes=False)
        two.delivered(1)
    assert two.hopeless is None


def test_who_gives_a_connection_the_most_is_asked() -> None:
    clock = ManualClock()
    fast, slow, unknown = (mirror(clock, f"http://{name}/f") for name in ("a", "b", "c"))
    fast.measured(1000.0)
    slow.measured(100.0)
    given = {fast: 0, slow: 0, unknown: 0}
    for _ in range(21):
        chosen = best([slow, fast, unknown], clock.now())
        assert chosen is not None
        given[chosen] += 1
        chosen.active += 1
    assert given == {fast: 10, slow: 1, unknown: 10}
    assert best([fast, unknown], clock.now(), rather_not=fast) is unknown
    assert best([fast], clock.now(), rather_not=fast) is fast


def test_a_mirror_without_ranges_has_one_flight() -> None:
    clock = ManualClock()
    one = mirror(clock)
    one.rangeless = True
    assert best([one], clock.now()) is one
    one.active = 1
    assert best([one], clock.now()) is None


@pytest.mark.parametrize(
    ("url", "place", "path"),
    [
        ("http://A.example", "http://a.example", "/"),
        ("https://a:8443/x?y=%41#z", "https://a:8443", "/x?y=%41"),
        ("http://[::1]:80/ü", "http://[::1]", "/%C3%BC"),
    ],
)
def test_urls(url: str, place: str, path: str) -> None:
    step = source_of(url)
    assert (str(step.place), step.path_query, step.own) == (place, path, True)
