"""How quickly a mirror answers, and what it says of its load."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.upstream.gauge import DECAY_S, FAILED_S, REPORT_S, TELLING_BYTES, Gauge, load_in, load_of

seconds = st.floats(0.001, 100.0)


def test_before_the_first_answer_nothing_is_known() -> None:
    assert Gauge().response_s(0.0) is None


@given(st.lists(st.tuples(seconds, st.floats(0.0, 60.0)), min_size=1, max_size=20))
def test_a_slow_answer_counts_at_once_and_nothing_is_slower_than_the_slowest(
    answers: list[tuple[float, float]],
) -> None:
    gauge, now = Gauge(), 0.0
    for took, later in answers:
        now += later
        gauge.observe(took, good=True, now=now)
        average = gauge.response_s(now)
        assert average is not None
        assert took - 1e-9 <= average <= max(one for one, _ in answers) + 1e-9


def test_a_quick_answer_counts_by_the_time_since_the_last() -> None:
    gauge = Gauge()
    gauge.observe(2.0, good=True, now=0.0)
    gauge.observe(1.0, good=True, now=DECAY_S)
    assert gauge.response_s(DECAY_S) == pytest.approx(1.0 + 1.0 / math.e)


def test_unasked_the_memory_fades() -> None:
    gauge = Gauge()
    gauge.observe(1.0, good=True, now=0.0)
    assert gauge.response_s(DECAY_S) == pytest.approx(1.0 / math.e)


MIB = 1024**2


def mib_s(gauge: Gauge, now: float) -> float:
    return gauge.seen(1.0, 1.0, now).mib_s


def test_a_trickle_counts_at_once_and_fades() -> None:
    gauge = Gauge()
    assert mib_s(gauge, 0.0) == 0.0
    gauge.flowed(2 * MIB, 1.0, 1.0, 0.0)
    assert mib_s(gauge, 0.0) == 0.5
    gauge.flowed(MIB // 4, 1.0, 0.5, 0.0)
    assert mib_s(gauge, 0.0) == 4.0
    assert mib_s(gauge, DECAY_S) == pytest.approx(4.0 / math.e)
    gauge.flowed(MIB, 1.0, 1.0, DECAY_S)
    assert mib_s(gauge, DECAY_S) == pytest.approx(1.0 + 3.0 / math.e)
    gauge.forget()
    assert mib_s(gauge, DECAY_S) == 0.0


@pytest.mark.parametrize(("received", "waited_s"), [(TELLING_BYTES - 1, 9.0), (MIB, 4.9)])
def test_a_few_bytes_and_a_slow_reader_say_nothing_of_a_mirror(received: int, waited_s: float) -> None:
    gauge = Gauge()
    gauge.flowed(received, 10.0, waited_s, 0.0)
    assert mib_s(gauge, 0.0) == 0.0


def test_a_quick_refusal_is_not_fast() -> None:
    gauge = Gauge()
    gauge.observe(0.001, good=False, now=0.0)
    assert gauge.response_s(0.0) == FAILED_S
    gauge.forget()
    assert gauge.response_s(0.0) is None


@pytest.mark.parametrize(
    ("text", "load"),
    [("0.9", 0.9), ("90%", 0.9), (" 0 ", 0.0), ("1", 1.0), (".5", 0.5), ("250 %", 1.0), ("2.5", 1.0)]
    + [(text, None) for text in ("", "-1", "high", "nan", "inf", "1e3", "0,9", "0.5 0.6", "9" * 5000)],
)
def test_what_a_load_looks_like(text: str, load: float | None) -> None:
    assert load_of(text) == load


def test_a_report_holds_for_a_while() -> None:
    gauge = Gauge()
    gauge.report("0.9", 0.0)
    gauge.report(None, 1.0)
    gauge.report("nonsense", 1.0)
    assert gauge.load(REPORT_S - 0.1) == 0.9
    assert gauge.load(REPORT_S) is None


@pytest.mark.parametrize(
    ("page", "field", "text"),
    [
        (b'{"load": 0.9}', "load", "0.900000"),
        (b'{"load": "90%"}', "load", "90%"),
        (b'{"cpu": {"load": 1}}', "cpu.load", "1.000000"),
        (b'{"cpu": {"load": 1}}', "cpu", None),
        (b'{"cpu": 1}', "cpu.load", None),
        (b'{"load": true}', "load", None),
        (b"{}", "load", None),
        (b"[1]", "load", None),
        (b"load=0.9", "load", None),
        (b"", "load", None),
        (b"[" * 60000, "load", None),
    ],
)
def test_where_a_health_page_says_the_load(page: bytes, field: str, text: str | None) -> None:
    assert load_in(page, field) == text


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda one: st.dictionaries(st.text(), one)))
def test_whatever_a_page_says_a_load_is_between_none_and_all(page: object) -> None:
    text = load_in(json.dumps({"a": page}).encode(), "a")
    load = None if text is None else load_of(text)
    assert load is None or 0.0 <= load <= 1.0
