"""``fileproxy bench load`` and ``stress`` as they are typed, against a real service."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fileproxy.bench.plan import Plan
from fileproxy.bench.run import Result, Seen
from fileproxy.bench.tally import Outcome, Tally
from fileproxy.cli import loading
from fileproxy.cli.load_display import Lines, display, sentence
from tests.life.tools import fileproxy
from tests.origin import Content, OriginThread, Reply
from tests.service import ROOT, Service


@pytest.fixture
def origin() -> Iterator[OriginThread]:
    with OriginThread() as origin:
        origin.serve("/small", Content(seed=3, size=1024))
        yield origin


def test_a_load_on_the_service(service: Callable[..., Service], origin: OriginThread, tmp_path: Path) -> None:
    running = service({"upstreams": {"files": origin.url}, "routes": [{"upstream": "files", "cache": "1h"}]})
    (tmp_path / "urls").write_text(f"# the most popular first\n{running.url}/small\n\n{running.url}/small?2\n")
    words = ("--urls", "urls", "-c", "4", "-t", "1s", "--zipf", "1", "--ranges", "30", "--range-size", "100B")
    done = fileproxy("bench", "load", *words, "-o", "report.json", cwd=tmp_path)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert "Times, ms" in done.stdout
    assert "4 clients" in done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["figures"]["errors"] == 0
    assert set(report["figures"]["statuses"]) == {"200", "206"}
    assert report["plan"]["zipf"] == 1.0
    counted = report["service"]
    assert counted["requests"] >= report["figures"]["requests"]  # the look at /stats may be among them
    assert counted["bytes"]["to_clients"] > 0


def test_without_a_fileproxy_behind_it(origin: OriginThread, tmp_path: Path) -> None:
    words = ("-c", "1", "-t", "300ms", "--quiet")
    done = fileproxy("bench", "load", f"{origin.url}/small", *words, "-o", "report.md", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "The service counted" not in done.stdout
    text = (tmp_path / "report.md").read_text()
    assert re.search(r"^\| requests/s \| [\d,.]+ \|$", text, re.MULTILINE)
    done = fileproxy("bench", "load", f"{origin.url}/small", *words, "-o", "report.html", cwd=tmp_path)
    assert "<td>requests/s</td>" in (tmp_path / "report.html").read_text()


def test_many_errors_are_a_failure(origin: OriginThread, tmp_path: Path) -> None:
    words = ("bench", "load", f"{origin.url}/nowhere", "-c", "1", "-t", "300ms", "-q")
    done = fileproxy(*words, cwd=tmp_path)
    assert (done.returncode, "status 404" in done.stdout) == (1, True)
    assert fileproxy(*words, "--max-errors", "100", cwd=tmp_path).returncode == 0


def test_other_bytes_are_a_failure_however_few(origin: OriginThread, tmp_path: Path) -> None:
    origin.script("/lies", Reply(b"one", etag='"x"'), Reply(b"two", etag='"x"'))
    words = ("-c", "1", "-t", "300ms", "-q", "--max-errors", "100")
    done = fileproxy("bench", "load", f"{origin.url}/lies", *words, cwd=tmp_path)
    assert (done.returncode, "other bytes than before" in done.stdout) == (1, True)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["http://192.0.2.1/"], "--yes-this-is-mine"),
        (["https://127.0.0.1/", "http://10.0.0.1/"], "--yes-this-is-mine"),
        ([], "--urls"),
        (["http://127.0.0.1/", "--urls", "x"], "--urls"),
        (["http://127.0.0.1/", "-c", "30000"], "clients"),
        (["http://127.0.0.1/", "-t", "2h"], "seconds"),
        (["http://127.0.0.1/", "-t", "soon"], "soon"),
        (["http://127.0.0.1/", "-o", "report.pdf"], ".json"),
        (["http://127.0.0.1/", "-o", "nowhere/report.md"], "nowhere"),
        (["http://127.0.0.1/", "-H", "Range: bytes=0-1"], "Range"),
        (["http://127.0.0.1/", "-H", "broken"], "NAME: VALUE"),
        (["ftp://127.0.0.1/"], "ftp"),
    ],
)
def test_wrong_usage(words: list[str], named: str, tmp_path: Path) -> None:
    done = fileproxy("bench", "load", *words, cwd=tmp_path)
    assert (done.returncode, named in done.stderr) == (2, True), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_reports_what_was_done(number: signal.Signals, origin: OriginThread, tmp_path: Path) -> None:
    words = ["bench", "load", f"{origin.url}/small", "-t", "60s", "-c", "2", "-o", str(tmp_path / "report.json")]
    load = subprocess.Popen(
        [sys.executable, "-m", "fileproxy", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    origin.wait_for(lambda: len(origin.requests) > 5, within=30, what="requests")
    load.send_signal(number)
    out, err = load.communicate(timeout=30)
    assert load.returncode == 1, err
    assert "Interrupted" in out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["figures"]["interrupted"] is True
    assert report["figures"]["requests"] > 0


def test_a_stress_finds_a_knee_and_sees_it_recover(origin: OriginThread, tmp_path: Path) -> None:
    words = ("--step", "300ms", "--most", "4", "--recover", "6s", "--max-p99", "20s", "-o", "report.json")
    done = fileproxy("bench", "stress", f"{origin.url}/small", *words, cwd=tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["steps"][0]["clients"] == 1
    assert report["steps"][-1]["what"] == "again"
    assert report["knee"]["clients"] in (1, 2, 4)
    assert report["stopped"] in ("clients", "throughput", "generator")
    assert done.returncode == (0 if report["recovered"] else 1)
    assert "The knee:" in done.stdout
    assert "up: 1 clients" in done.stderr


def test_a_stress_on_what_fails_from_the_start(origin: OriginThread, tmp_path: Path) -> None:
    words = ("--step", "200ms", "--recover", "200ms", "-o", "report.json")
    done = fileproxy("bench", "stress", f"{origin.url}/nowhere", *words, cwd=tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert (done.returncode, report["stopped"], report["knee"]) == (1, "errors", None)
    assert "No step went well." in done.stdout


def test_progress_off_a_terminal_is_a_line_now_and_then() -> None:
    out = io.StringIO()
    with display(quiet=False, stream=out) as shown:
        assert isinstance(shown, Lines)
        show = shown.watch("16 clients")
        for tenths in range(120):
            show(Seen(tenths / 10, 12.0, tenths * 10, 1, tenths * 10**6, 0.0123))
    lines = out.getvalue().splitlines()
    assert lines[0] == "16 clients"
    assert lines[1] == "16 clients, 5 of 12 s: 500 requests, 100/s, 10.0 MB/s, 1 errors, p99 12.3 ms"
    assert len(lines) == 3


def test_progress_on_a_terminal_is_a_bar_that_goes_away() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    with display(quiet=False, stream=out) as shown:
        show = shown.watch("8 clients")
        show(Seen(1.0, 2.0, 10, 0, 100, None))
        shown.watch("16 clients")
    assert "8 clients" in out.getvalue()


def test_a_sentence_before_the_first_answer() -> None:
    assert sentence(Seen(0.0, 2.0, 0, 0, 0, None)) == "0 requests, 0/s, 0.0 MB/s, 0 errors"


@pytest.mark.parametrize(("share", "warned"), [(0.95, True), (0.85, False)])
def test_a_busy_generator_is_warned_of(share: float, warned: bool) -> None:
    tally = Tally()
    tally.add(Outcome(200, 0.001, 0.001, None))
    figures = Result(Plan(), tally, 1.0, share, False).figures
    assert figures["generator_was_the_limit"] is warned
    assert any("The generator used 95%" in note for note in loading.notes(figures)) is warned
