"""The network benchmark: its figures are right, its clients count honestly, and a whole small run tells the truth."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import network, network_client, network_figures, network_peers, network_report
from benchmarks.link import tun
from benchmarks.network_lab import MIB, Plan, Row, SocketMemory
from tests.origin import Content, Origin, Reply, fin
from tests.service import ROOT

SIZE = 4096


def plan(*words: str) -> Plan:
    return network.plan(network.options(words))


# --- figures, pure ---------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.1, 100))
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(values: list[float], percent: float) -> None:
    values.sort()
    found = network_figures.percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) >= len(values) * percent / 100
    assert sum(value < found for value in values) < len(values) * percent / 100


def test_the_interval_of_paired_ratios() -> None:
    """Logarithms 0, 1, 2: mean 1, deviation 1, t = 4.30 with two degrees of freedom."""
    found = network_figures.geometric([1, math.e, math.e**2])
    assert found["mean"] == pytest.approx(math.e)
    half = 4.30 / math.sqrt(3)
    assert found["interval"] == pytest.approx([math.exp(1 - half), math.exp(1 + half)])
    assert network_figures.geometric([2.0])["interval"] is None


def downloads(ours: float, *, complete: bool = True) -> list[Row]:
    """Two rounds of 8 MiB: direct and nginx take 80 s, ``baseline`` too, we ``ours``."""
    took = {"direct": 80.0, "nginx": 80.0, "fileproxy-baseline": 80.0, "fileproxy": ours}
    return [
        {
            "round": number,
            "contestant": name,
            "size_mib": 8,
            "seconds": seconds * (1 + number / 100),
            "first_byte_s": 0.3,
            "bytes": 8 * MIB,
            "complete": complete or name != "fileproxy",
            "error": "" if complete or name != "fileproxy" else "cut",
            "cache": "",
            **({} if name == "direct" else {"cpu_s": 0.5, "peak_rss": 100 * MIB}),
        }
        for number in range(2)
        for name, seconds in took.items()
    ]


@pytest.mark.parametrize(
    ("ours", "complete", "met"),
    [
        (8.5, True, [True, True, True]),
        (9.9, True, [True, True, False]),
        (40, True, [False] * 3),
        (8.5, False, [False] * 3),
    ],
)
def test_goals_are_met_by_speed_share_and_whole_files_only(ours: float, complete: bool, met: list[bool]) -> None:
    one = plan("single", "--rounds", "2", "--sizes", "8")
    rows = downloads(ours, complete=complete)
    figures, ratios = network_figures.summary(one, rows), network_figures.ratios(one, rows)
    assert ratios["8 MiB"]["fileproxy / nginx"]["mean"] == pytest.approx(80 / ours)
    assert [goal["met"] for goal in network_figures.goals(one, figures, ratios)] == met
    ours_figures = figures["8 MiB"]["fileproxy"]
    assert ours_figures["share"] == pytest.approx(8 * MIB * 8e-6 / ours / 10, rel=0.01)
    assert ours_figures["cpu_s_per_gib"] == pytest.approx(64)


def test_an_interval_needs_two_rounds() -> None:
    one = plan("single", "--scenario", "normal", "--rounds", "1", "--sizes", "8")
    rows = [row for row in downloads(80) if row["round"] == 0]
    found = network_figures.goals(one, network_figures.summary(one, rows), network_figures.ratios(one, rows))
    assert [goal["met"] for goal in found] == [None]


def test_a_crowd_that_got_nothing_is_reported_and_not_hidden(tmp_path: Path) -> None:
    one = plan("crowd", "--rounds", "1", "--contestants", "direct", "nginx")
    rows: list[Row] = [
        {"round": 0, "contestant": name, "seconds": 5.0, "times_s": [], "bytes": 0, "hits": 0, "errors": {"cut": 3}}
        for name in one.contestants
    ]
    report = {
        "date": "2026-01-01",
        "commit": "",
        "machine": {"processor": "", "processors": 2, "kernel": "", "python": "", "nginx": "", "load_at_start": 0.0},
        "links": {
            "packets": 1,
            "lost": 0,
            "loss": 0.0,
            "dropped": 0,
            "late_ms": 0.0,
            "worst_late_ms": 0.0,
            "pressed": 0,
        },
        "goals": [],
        "figures": network_figures.summary(one, rows),
        "ratios": network_figures.ratios(one, rows),
        "expected": {},
        "rows": [{**row, "count": 0} for row in rows],
    }
    network.write(report, one, tmp_path)
    name = network_report.name(one)
    said = json.loads((tmp_path / f"{name}.json").read_text())
    assert said["figures"]["crowd"]["nginx"]["p50_ms"] is None
    assert said["ratios"] == {}
    assert "cut 3" in (tmp_path / f"{name}.md").read_text()
    assert "NaN" not in (tmp_path / f"{name}.json").read_text()
    assert "<h1>" in (tmp_path / f"{name}.html").read_text()


@pytest.mark.parametrize(
    ("before", "after", "short"),
    [
        (SocketMemory(10, 100, 3, 50), SocketMemory(99, 100, 3, 50), False),
        (SocketMemory(10, 100, 3, 50), SocketMemory(100, 100, 3, 50), True),
        (SocketMemory(100, 100, 3, 50), SocketMemory(10, 100, 3, 50), True),
        (SocketMemory(10, 100, 3, 50), SocketMemory(10, 100, 4, 50), True),
        (SocketMemory(10, 100, 3, 50), SocketMemory(10, 100, 3, 60), True),
    ],
)
def test_a_turn_short_of_socket_memory_is_known(before: SocketMemory, after: SocketMemory, short: bool) -> None:
    assert after.short_since(before) is short
    assert SocketMemory.now().limit > 0


# --- the clients -----------------------------------------------------------------------------------------------------


async def asked(origin: Origin, targets: list[tuple[str, int]], **orders: Any) -> dict[str, Any]:
    usual = {
        "mode": "once",
        "host": "127.0.0.1",
        "port": origin.port,
        "seconds": 10,
        "stall": 5,
        "seed": 1,
        "clients": 3,
    }
    return await asyncio.wait_for(network_client.run({**usual, "targets": targets, **orders}), 20)


async def test_clients_count_what_came_whole_and_name_what_did_not(origin: Origin) -> None:
    file = Content(1, SIZE)
    origin.serve("/whole", file)
    origin.script("/cut", Reply(file, breaks=fin(at=100)))
    got = await asked(origin, [("/whole", SIZE), ("/cut", SIZE), ("/whole", SIZE - 1), ("/none", SIZE)])
    assert len(got["times_s"]) == 1
    assert sorted(got["errors"].values()) == [1, 1, 1]
    assert {"wrong length", "status 404"} <= set(got["errors"])
    assert got["bytes"] > SIZE


async def test_clients_loop_until_the_time_is_over_and_prefer_the_first_files(origin: Origin) -> None:
    targets = [(f"/{n}", SIZE) for n in range(20)]
    for n, (path, _) in enumerate(targets):
        origin.serve(path, Content(n, SIZE))
    got = await asked(origin, targets, mode="loop", seconds=1, zipf=0.9)
    assert got["errors"] == {}
    assert len(got["times_s"]) > 3
    assert got["bytes"] >= SIZE * len(got["times_s"])
    assert got["seconds"] >= 1
    assert origin.requests_of("/0") > 2 * origin.requests_of("/19")


# --- a whole run -----------------------------------------------------------------------------------------------------


@pytest.mark.lab
def test_a_small_run_downloads_and_reports(tmp_path: Path) -> None:
    if lacks := [*tun.missing(), *network_peers.missing()]:
        pytest.skip("; ".join(lacks))
    words = ["network", "single", "--scenario", "normal", "--rounds", "1", "--quick", "--output", str(tmp_path)]
    runner = subprocess.Popen(
        [sys.executable, "-m", "fileproxy", "bench", *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said = runner.communicate(timeout=110)[0]
    assert runner.returncode == 0, said.decode()
    report = json.loads((tmp_path / "network-single-normal-origin-cubic.json").read_text())
    assert {row["contestant"] for row in report["rows"]} == set(network_peers.NAMES)
    assert all(row["complete"] for row in report["rows"]), report["rows"]
    assert all(row["seconds"] >= 0.02 for row in report["rows"])  # two round trips of 10 ms
    assert report["links"]["lost"] == 0
    assert all(row["packets"] > 0 for row in report["rows"])  # each turn used its own link
    assert not [name for name in tun.ours() if f"-{runner.pid}-" in name]
