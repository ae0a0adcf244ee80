"""The benchmark of ``fileproxy get``: its verdict is right, its tools fetch the file, a small run tells the truth."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import get, get_tools, network_peers
from benchmarks.get_tools import OURS, TOOLS
from benchmarks.link import tun
from tests.clients import program
from tests.origin import Content, Origin
from tests.service import ROOT

SIZE = 3 * 1024 * 1024


def rows(number: int = 0, **seconds: float) -> list[dict[str, Any]]:
    """A round in which ``ours``, ``curl`` and ``aria2c`` took so long."""
    named = {OURS: seconds["ours"], "curl": seconds["curl"], "aria2c": seconds["aria2c"]}
    return [
        {"round": number, "tool": tool, "seconds": took, "cpu_s": 0.1, "error": "", "pressed": False}
        for tool, took in named.items()
    ]


# --- the verdict, pure -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ours", "met"), [(1.0, True), (2.0, True), (2.1, False), (3.0, False)])
def test_the_better_rival_is_the_one_to_meet(ours: float, met: bool) -> None:
    found = get.figures(rows(ours=ours, curl=4.0, aria2c=2.0))
    assert found["goal"] == {"better": "aria2c", "met": met}
    assert found["tools"]["curl"]["ours_by_it"]["mean"] == pytest.approx(ours / 4)


def test_a_bare_python_explains_and_is_no_rival() -> None:
    bare = {"round": 0, "tool": "bare python", "seconds": 0.1, "cpu_s": 0.1, "error": "", "pressed": False}
    found = get.figures([*rows(ours=1.0, curl=2.0, aria2c=3.0), bare])
    assert found["goal"] == {"better": "curl", "met": True}


def test_a_failed_download_of_ours_meets_nothing() -> None:
    bad = rows(1, ours=1.0, curl=4.0, aria2c=2.0)
    bad[0]["error"] = "WRONG BYTES"
    found = get.figures([*rows(ours=1.0, curl=4.0, aria2c=2.0), *bad])
    assert found["tools"][OURS]["failed"] == 1
    assert not found["goal"]["met"]


def test_rounds_of_a_machine_short_of_memory_are_left_out() -> None:
    slow = rows(1, ours=90.0, curl=4.0, aria2c=2.0)
    slow[2]["pressed"] = True
    found = get.figures([*rows(ours=1.0, curl=4.0, aria2c=2.0), *slow])
    assert (found["counted"], found["tools"][OURS]["seconds"]) == (1, 1.0)
    assert get.figures(slow)["counted"] == 1  # where all were so, better these than none


# --- the tools -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TOOLS)
async def test_every_tool_fetches_the_file_to_its_place(name: str, origin: Origin, tmp_path: Path) -> None:
    file = Content(1, SIZE)
    origin.serve("/file", file)
    command = TOOLS[name].command(get_tools.Server("127.0.0.1", origin.port, "/file"), tmp_path / "got")
    if command[0] != sys.executable:
        program(command[0])
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=60
    )
    assert done.returncode == 0, done.stderr
    whole = hashlib.sha256(b"".join(file.pieces(piece=SIZE))).digest()
    assert hashlib.sha256((tmp_path / "got").read_bytes()).digest() == whole


# --- a whole run -----------------------------------------------------------------------------------------------------


@pytest.mark.lab
def test_a_small_run_downloads_reports_and_keeps_the_others(tmp_path: Path) -> None:
    if lacks := [*tun.missing(), *network_peers.missing(), *get_tools.missing()]:
        pytest.skip("; ".join(lacks))
    words = ["get", "--scenario", "normal", "--quick", "--rounds", "1", "--size", "1", "--output", str(tmp_path)]
    command = [sys.executable, "-m", "fileproxy", "bench", *words]
    runner = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = runner.communicate(timeout=110)[0]
    assert runner.returncode == 0, said.decode()
    report = json.loads((tmp_path / "get.json").read_text())
    assert {row["tool"] for row in report["normal"]["rows"]} == set(TOOLS)
    assert not [row for row in report["normal"]["rows"] if row["error"]]
    assert all(row["seconds"] >= 0.02 and row["cpu_s"] > 0 for row in report["normal"]["rows"])  # two round trips
    assert "| fileproxy get |" in (tmp_path / "get.md").read_text()
    assert not [name for name in tun.ours() if f"-{runner.pid}-" in name]
