"""The race: its figures and goals are right, its clients count honestly, and a whole small run tells the truth."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.race import __main__ as race
from benchmarks.race import client, contestants, figures, report
from benchmarks.race.cases import CASES, make_files, turn
from tests.clients import program
from tests.origin import Content, Origin, Reply, fin
from tests.service import ROOT


def row(contestant: str, cpu_us: float, *, case: str = "1k", number: int = 0, **more: float) -> dict[str, Any]:
    usual = {"requests_per_s": 1e6 / cpu_us, "mib_per_s": 1.0, "cpu_us": cpu_us, "cpu_s_per_gib": cpu_us,
             "server_busy": 1.0, "client_busy": 0.5, "p50_ms": 0.5, "p99_ms": 1.0, "requests": 100}  # fmt: skip
    return {"case": case, "contestant": contestant, "round": number, **usual, **more}


# --- figures, pure ---------------------------------------------------------------------------------------------------


def test_medians_and_the_best_of_a_peers_variants() -> None:
    rows = [row("nginx", cpu, number=number) for number, cpu in enumerate((9.0, 30.0, 10.0))]
    rows += [row("nginx-sendfile", cpu, number=number) for number, cpu in enumerate((12.0, 8.0, 14.0))]
    people = figures.medians(rows)["1k"]
    assert people["nginx"]["cpu_us"] == 10.0
    assert people["nginx"]["rounds"] == 3
    assert figures.best(people, "nginx") == "nginx"
    assert figures.best(people, "squid") is None


def test_a_ratio_is_that_of_the_same_round() -> None:
    rows = [row("fileproxy", 4.0), row("nginx", 8.0), row("fileproxy", 50.0, number=1), row("nginx", 100.0, number=1)]
    rows.append(row("fileproxy", 7.0, number=2))  # alone
    found = figures.paired(rows, "1k", "fileproxy", "nginx", "cpu_us")
    assert found["mean"] == pytest.approx(0.5)
    assert found["rounds"] == 2


@pytest.mark.parametrize(
    ("case", "ours", "others", "met"),
    [
        ("1k", 8.3, {"nginx": 10.0}, {"CPU a hit against nginx's at most 0.83": True}),
        ("1k", 99.0, {"nginx": 10.0}, {"p99 no worse than nginx's": True}),
        ("1k", 8.4, {"nginx": 10.0}, {"CPU a hit against nginx's at most 0.83": False}),
        ("1k-1000", 9.1, {"haproxy": 9.0}, {"CPU a hit against HAProxy's at most 1": False}),
        ("1k", 9.0, {"haproxy": 9.0, "squid": 30.0}, {"CPU a hit below squid's": True}),
        ("1k-close", 14.2, {"nginx": 10.0}, {"CPU a request without keep-alive against nginx's at most 1.43": True}),
        ("64k", 20.0, {"varnish": 30.0, "haproxy": 19.0}, {"CPU a hit no more than the best peer's": False}),
        ("1g", 11.1, {"nginx": 20.0, "nginx-sendfile": 10.0}, {"CPU a byte against nginx's at most 1.1": False}),
    ],
)  # fmt: skip
def test_goals(case: str, ours: float, others: dict[str, float], met: dict[str, bool]) -> None:
    rows = [row("fileproxy", ours, case=case), *(row(name, cpu, case=case) for name, cpu in others.items())]
    judged = {one["goal"]: one["met"] for one in figures.goals(figures.medians(rows))}
    assert met.items() <= judged.items()


def test_goals_among_ours() -> None:
    rows = [row("fileproxy", 10.0, case="workers"), row("fileproxy-two", 11.2, case="workers")]
    rows += [row("fileproxy", 10.0, case="logging", requests_per_s=90.0),
             row("fileproxy-bare", 9.5, case="logging", requests_per_s=100.0)]  # fmt: skip
    assert [one["met"] for one in figures.goals(figures.medians(rows))] == [False, True]


def test_every_case_and_contestant_is_known() -> None:
    assert all(name in contestants.BY_NAME for case in CASES for name in case.who)
    assert {one.whole for one in contestants.ALL} == {"", "fileproxy", *contestants.PEERS}


# --- the clients -----------------------------------------------------------------------------------------------------


async def test_a_connection_for_each_request(origin: Origin) -> None:
    content = Content(1, 1024)
    origin.serve("/1k", content)
    said = await asyncio.to_thread(client.connect_for, origin.port, "/1k", 1024, 0.2)
    requests, took, p50, p99 = map(float, said.split())
    assert requests == origin.requests_of("/1k")
    assert requests >= client.TOGETHER
    assert took >= 0.2
    assert 0 < p50 <= p99


async def test_a_cut_answer_is_no_figure(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TOGETHER", 1)
    content = Content(1, 1024)
    origin.script("/1k", Reply(content, breaks=fin(at=100)))
    with pytest.raises(RuntimeError, match="within a body"):
        await asyncio.to_thread(client.connect_for, origin.port, "/1k", 1024, 0.2)


# --- the run ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--cases", "2k"], ["--peers", "apache"]])
def test_wrong_words_name_the_right_ones(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        race.main(arguments)
    assert {"--cases": "1k-1000", "--peers": "haproxy"}[arguments[0]] in capsys.readouterr().err


@pytest.mark.parametrize(("size", "why"), [(1024, "4096"), (2**20, "it takes root")])
def test_windows_that_cannot_be_had(
    size: int, why: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contestants, "program", lambda name: name)
    if os.getuid() == 0:  # without the runner's dropped privileges
        monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: SimpleNamespace(unshare=lambda _: -1))
    assert race.main(["--window", str(size)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("--window: ")
    assert why in said


@pytest.mark.parametrize("folder", [".", "window"])
def test_a_report_says_how_windows_began(folder: str) -> None:
    told = json.loads((race.RESULTS / folder / "race.json").read_text())
    size = told["run"].get("window")
    assert (size is not None) == (folder == "window")
    assert (f"begin at {size} bytes for all" in report.markdown(told)) == (folder == "window")


@pytest.mark.lab
def test_windows_that_begin_equally_wide() -> None:
    """In the process that asked, and nowhere else."""
    if os.getuid() != 0:
        pytest.skip("a network namespace takes root")
    program("ip")
    script = """
import socket
from benchmarks.race import window
window.begin_at(1048576)
with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
    print(client.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
"""
    ours = Path("/proc/sys/net/ipv4/tcp_rmem")
    before = ours.read_text()
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.stdout.strip(), done.stderr) == ("1048576", "")
    assert ours.read_text() == before


@pytest.mark.lab
def test_a_small_race(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One round of two peers, one of them missing or not: who is there has figures, and everybody is named."""
    for name in ("curl", "wrk", "taskset"):
        program(name)
    for name in ("nginx", "haproxy"):
        if contestants.program(name) is None:
            pytest.skip(f"{name} is not installed")
    words = ["--rounds", "1", "--seconds", "0.5", "--peers", "nginx,haproxy", "--cases", "1k,1k-new,64k"]
    assert race.main([*words, "--output", str(tmp_path)]) == 0
    told = json.loads((tmp_path / "race.json").read_text())
    assert set(told["medians"]) == {"1k", "1k-new", "64k"}
    assert {"fileproxy", "nginx", "nginx-sendfile", "haproxy"} <= set(told["medians"]["64k"])
    assert all(one["requests"] > 0 and one["cpu_us"] > 0 for one in told["rows"])
    assert all(one["peak_rss_mib"] > 0 for one in told["contestants"].values())
    assert "hit" in told["contestants"]["fileproxy"]["cache"]["1k"]
    text = (tmp_path / "race.md").read_text()
    assert report.TITLE in text
    assert "| haproxy |" in text
    glance = text.partition("## At a glance")[2].partition("##")[0]
    assert "|  | 1k | 1k-new | 64k |" in glance
    assert "| fileproxy |" in glance
    assert "<svg" in (tmp_path / "race.html").read_text()
    assert report.TITLE in capsys.readouterr().out


@pytest.mark.lab
def test_a_turn_with_a_miss_is_no_result(tmp_path: Path) -> None:
    """The origin races against itself: it is asked all the time."""
    for name in ("wrk", "taskset"):
        program(name)
    if contestants.program("nginx") is None:
        pytest.skip("nginx is not installed")
    (tmp_path / "files").mkdir()
    make_files(tmp_path / "files", {"1k"})
    with (
        contestants.origin(tmp_path / "files", tmp_path) as source,
        pytest.raises(RuntimeError, match="origin asked the origin"),
    ):
        turn(CASES[0], source, source, 0.5)


@pytest.mark.lab
def test_a_missing_peer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("curl", "wrk", "taskset"):
        program(name)
    if contestants.program("nginx") is None:
        pytest.skip("nginx is not installed")
    there = contestants.program
    monkeypatch.setattr(contestants, "program", lambda name: None if name == "squid" else there(name))
    words = ["--rounds", "1", "--seconds", "0.5", "--peers", "squid", "--cases", "1k-new"]
    assert race.main([*words, "--output", str(tmp_path)]) == 0
    assert "missing: apt-get install squid" in (tmp_path / "race.md").read_text()
    assert "squid: missing" in capsys.readouterr().err
