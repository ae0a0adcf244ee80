"""Stress: the next step, the knee, whether it came back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fileproxy.bench.ladder import SENTENCES, Limits, Step, following, knee, recovered

LIMITS = Limits(most=256)


def climb(service: Callable[[int], Step], limits: Limits = LIMITS) -> tuple[list[Step], str | None]:
    steps: list[Step] = []
    while (then := following(steps, limits)).clients is not None:
        steps.append(service(then.clients))
        assert len(steps) < 40
    return steps, then.reason


def saturating(most: float, each: float = 100.0) -> Callable[[int], Step]:
    """A service of which each client gets ``each`` a second, all together ``most``: then they wait (Little's law)."""
    return lambda clients: Step(clients, min(each * clients, most), 0.0, clients / min(each * clients, most) * 1e3)


def test_more_clients_that_bring_no_more_end_it_and_the_knee_is_where_it_began() -> None:
    steps, reason = climb(saturating(780))
    assert [step.clients for step in steps] == [1, 2, 4, 8, 16, 32]
    assert reason == "throughput"
    found = knee(steps, LIMITS)
    assert found is not None
    assert found.clients == 8


def test_errors_and_slowness_end_it() -> None:
    steps, reason = climb(lambda clients: Step(clients, clients, 0.02 if clients > 4 else 0.0, 1.0))
    assert (steps[-1].clients, reason) == (8, "errors")
    found = knee(steps, LIMITS)
    assert found is not None
    assert found.clients == 4
    steps, reason = climb(lambda clients: Step(clients, clients, 0.0, clients * 300.0))
    assert (steps[-1].clients, reason) == (4, "p99")
    assert climb(lambda clients: Step(clients, 0.0, 0.0, None)) == ([Step(1, 0.0, 0.0, None)], "errors")


def test_a_busy_generator_ends_it() -> None:
    steps, reason = climb(lambda clients: Step(clients, clients, 0.0, 1.0, clients / 16))
    assert (steps[-1].clients, reason) == (16, "generator")


def test_the_most_clients_end_it() -> None:
    steps, reason = climb(lambda clients: Step(clients, clients, 0.0, 1.0), Limits(first=3, most=20))
    assert ([step.clients for step in steps], reason) == ([3, 6, 12, 20], "clients")


STEPS = st.builds(Step, st.integers(1, 512), st.floats(0, 1e6), st.floats(0, 1), st.none() | st.floats(0, 1e5))


@settings(deadline=None)
@given(st.lists(STEPS, max_size=12), st.integers(1, 64), st.integers(64, 512))
def test_it_only_climbs_and_ends(steps: list[Step], first: int, most: int) -> None:
    limits = Limits(first=first, most=most)
    then = following(steps, limits)
    if then.clients is None:
        assert then.reason in SENTENCES
    else:
        assert limits.first <= then.clients <= limits.most
        assert not steps or then.clients > steps[-1].clients


@settings(deadline=None)
@given(st.lists(STEPS, max_size=12))
def test_the_knee_is_within_the_limits_and_nearly_the_best(steps: list[Step]) -> None:
    found, good = knee(steps, LIMITS), [step for step in steps if step.meets(LIMITS) is None]
    assert (found is None) == (not good)
    if found is not None:
        best = max(step.per_s for step in good)
        assert found.per_s >= 0.95 * best
        assert all(step.clients >= found.clients for step in good if step.per_s >= 0.95 * best)


def test_recovered() -> None:
    first = Step(1, 100.0, 0.0, 10.0)
    assert recovered(first, first, LIMITS)
    assert recovered(first, Step(1, 80.0, 0.01, 35.0), LIMITS)
    assert not recovered(first, Step(1, 60.0, 0.0, 10.0), LIMITS)
    assert not recovered(first, Step(1, 100.0, 0.0, 60.0), LIMITS)
    assert not recovered(first, Step(1, 100.0, 0.02, 10.0), LIMITS)
    assert not recovered(first, Step(1, 0.0, 0.0, None), LIMITS)


@pytest.mark.parametrize(
    "wrong", [{"errors": 1.1}, {"p99_ms": 0}, {"growth": -1}, {"first": 0}, {"first": 9, "most": 8}]
)
def test_limits_are_bounded(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="limits"):
        Limits(**wrong)  # type: ignore[arg-type]
