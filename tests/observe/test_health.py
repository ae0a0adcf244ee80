"""One status for all, from the parts."""

from __future__ import annotations

import pytest

from fileproxy.observe.health import (
    cache_parts,
    compression_part,
    descriptors_part,
    health,
    logs_part,
    overall,
    part,
    shared_store_part,
    sockets_part,
    upstreams_part,
    workers_part,
)


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([], "ok"),
        (["ok", "ok"], "ok"),
        (["ok", "degraded"], "degraded"),
        (["degraded", "failing", "ok"], "failing"),
    ],
)
def test_the_worst_part_decides(statuses: list[str], expected: str) -> None:
    assert overall({str(number): {"status": status} for number, status in enumerate(statuses)}) == expected


@pytest.mark.parametrize(
    ("uvloop", "optimizer", "level"),
    [(True, True, "high"), (True, False, "medium"), (False, True, "medium"), (False, False, "low")],
)
def test_the_optimization_level(uvloop: bool, optimizer: bool, level: str) -> None:
    facts = {"version": "1", "started_at": 10.0, "uvloop_enabled": uvloop, "optimizer_enabled": optimizer}
    report = health(facts, config={}, parts={"a": part("ok")}, now=15.0)
    assert report["performance_optimization"] == {
        "uvloop_enabled": uvloop, "optimizer_enabled": optimizer, "optimization_level": level,
    }  # fmt: skip
    assert (report["status"], report["uptime_seconds"]) == ("ok", 5.0)


def test_what_is_kept_can_be_served_without_any_upstream() -> None:
    down = {"files": {"status": "failing"}}
    assert upstreams_part(down)["status"] == "failing"
    assert upstreams_part(down, kept=True)["status"] == "degraded"
    assert upstreams_part({**down, "other": {"status": "ok"}})["status"] == "degraded"
    assert upstreams_part({"files": {}})["status"] == "ok"


def test_what_is_missing_degrades_and_says_so() -> None:
    assert workers_part(1, 2)["status"] == "degraded"
    assert workers_part(0, 2)["status"] == "failing"
    lost = shared_store_part({"state": "down", "error": "refused"})
    assert (lost["status"], "refused" in lost["detail"]) == ("degraded", True)
    assert shared_store_part({"state": "off", "error": None})["status"] == "ok"
    assert descriptors_part(1000, 1000, 950)["status"] == "degraded"
    assert descriptors_part(1000, 1000, 10)["status"] == "ok"
    assert "full" in logs_part({"access": "disk full"}, 3)["detail"]
    assert sockets_part({}, None, {"congestion": "not loaded"})["status"] == "degraded"


def test_a_sick_tier_degrades_and_a_missing_one_does_not() -> None:
    described = {
        "memory": {"bytes": 1},
        "disk": {"status": "degraded", "detail": "disk full", "bytes": 5},
        "shared": None,
        "bans": {},
        "owners": {"slot": 0, "held": [0]},
    }
    parts = cache_parts(described)
    assert (parts["cache_disk"]["status"], parts["cache_disk"]["detail"]) == ("degraded", "disk full")
    assert (parts["cache_memory"]["status"], parts["cache_shared"]["state"]) == ("ok", "off")
    assert parts["one_fetch"]["status"] == "ok"
    alone = cache_parts({**described, "owners": {"slot": None, "held": []}})["one_fetch"]
    assert "each worker fetches for itself" in alone["detail"]


def test_a_coding_that_is_missing_is_named_and_no_reason_to_worry() -> None:
    assert compression_part(("zstd", "br", "gzip"), {}) == {"status": "ok", "codings": ["zstd", "br", "gzip"]}
    told = compression_part(["gzip"], {"zstd": "not there", "br": "broken"})
    assert told == {
        "status": "ok",
        "detail": "br is not offered: broken; zstd is not offered: not there",
        "codings": ["gzip"],
    }
