"""The service starts, with what there is, and says clearly why when it cannot."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.life.tools import fileproxy, status_of, welcome
from tests.origin import OriginThread
from tests.service import ROOT, Service

Start = Callable[..., Service]


def test_it_serves_and_says_where(service: Start, threaded: OriginThread) -> None:
    threaded.serve("/a", b"bytes")
    one = service({"upstreams": {"files": threaded.url}})
    assert one.get("/a") == (200, b"bytes")
    said = welcome(one)
    assert f"serves at {one.url} (1 worker, pid {one.process.pid})" in said
    assert f"upstream files: {threaded.url}" in said


def test_without_an_upstream_the_embedded_origin_is_served_by_two_curl_lines(service: Start) -> None:
    one = service({"redis": {"url": "embedded"}})
    said = re.findall(r"^  curl .*$", welcome(one), re.M)
    assert len(said) == 2
    for line in said:
        target = line.split()[-1].removeprefix(one.url)
        status, body = one.get(target)
        assert (status, body) == (200, (one.folder / "files" / target.lstrip("/")).read_bytes())


@pytest.mark.option("server.workers")
def test_as_many_workers_as_asked_for(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}, "server": {"workers": 3}})
    assert len(status_of(one).workers) == 3
    assert one.json("/health")["parts"]["workers"]["wanted"] == 3


def test_with_uvloop_the_level_is_high(service: Start, threaded: OriginThread) -> None:
    pytest.importorskip("uvloop")
    one = service({"upstreams": {"files": threaded.url}})
    assert one.json("/health")["performance_optimization"] == {
        "uvloop_enabled": True,
        "optimizer_enabled": True,
        "optimization_level": "high",
    }


@pytest.mark.option("server.uvloop")
def test_switched_off_uvloop_makes_the_level_medium(service: Start, threaded: OriginThread) -> None:
    threaded.serve("/a", b"bytes")
    one = service({"upstreams": {"files": threaded.url}, "server": {"uvloop": "off"}})
    assert one.get("/a") == (200, b"bytes")
    assert one.json("/health")["performance_optimization"]["optimization_level"] == "medium"
    assert one.json("/stats")["performance_optimizer"]["metrics"]["uvloop_enabled"] is False


def test_a_missing_uvloop_makes_the_level_medium(service: Start, threaded: OriginThread, tmp_path: Path) -> None:
    (tmp_path / "uvloop.py").write_text("raise ImportError('not on this system')")
    threaded.serve("/a", b"bytes")
    env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    one = service({"upstreams": {"files": threaded.url}}, env=env)
    assert one.get("/a") == (200, b"bytes")
    assert one.json("/health")["performance_optimization"]["optimization_level"] == "medium"


def test_the_limit_of_open_files_is_raised_as_far_as_allowed(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}}, files_limit=512)
    descriptors = one.json("/health")["parts"]["descriptors"]
    assert (descriptors["soft_limit"], descriptors["hard_limit"]) == (512, 512)


def test_a_low_soft_limit_does_not_stay(short_path: Path, threaded: OriginThread) -> None:
    one = Service({"upstreams": {"files": threaded.url}}, short_path / "s")
    one.folder.mkdir()
    one.write({})
    with (one.folder / "output").open("ab") as output:
        one.process = subprocess.Popen(
            [
                "sh",
                "-c",
                f"ulimit -Sn 128; ulimit -Hn 3000; exec {sys.executable} -m fileproxy serve --config {one.config}",
            ],
            cwd=one.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=output,
        )
    try:
        one.wait_ready()
        assert psutil.Process(one.process.pid).rlimit(psutil.RLIMIT_NOFILE) == (3000, 3000)
        assert one.json("/health")["parts"]["descriptors"]["soft_limit"] == 3000
    finally:
        one.stop()


@pytest.mark.option("server.port")
def test_a_port_in_use_is_said_and_nothing_stays_behind(short_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = fileproxy("serve", "--host", "127.0.0.1", "--port", str(port), cwd=short_path)
    assert done.returncode == 1
    assert done.stderr == f"fileproxy: cannot listen on 127.0.0.1 port {port}: Address already in use\n"
    assert not (short_path / "var/run/fileproxy.pid").exists()
    assert fileproxy("status", cwd=short_path).returncode == 1


def test_a_second_one_with_the_same_run_folder_is_refused(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}})
    done = fileproxy("serve", "--config", str(one.config), "--port", "0", cwd=one.folder)
    assert done.returncode == 1
    assert f"already running here (pid {one.process.pid} holds" in done.stderr
    assert one.get("/readyz")[0] == 200


def test_a_wrong_configuration_is_said_with_its_line(short_path: Path) -> None:
    (short_path / "wrong.yaml").write_text("server:\n  prot: 1\n")
    done = fileproxy("serve", "--config", "wrong.yaml", cwd=short_path)
    assert done.returncode == 2
    assert done.stderr == "wrong.yaml:2: server.prot: unknown option; did you mean server.port?\n"


def test_a_house_that_does_not_open_ends_it_at_once(short_path: Path) -> None:
    """Workers that failed half-way may hang in closing; the sentence is about why they failed."""
    (short_path / "sitecustomize.py").write_text(
        "import fileproxy.app\n"
        "async def refuse(self):\n"
        "    raise OSError('the house is full')\n"
        "fileproxy.app.House.open = refuse\n"
    )
    flags = ["--redis", "off", "--upstream", "http://127.0.0.1:1", "--host", "127.0.0.1", "--port", "0"]
    env = {"PYTHONPATH": f"{short_path}{os.pathsep}{ROOT}"}
    done = fileproxy("serve", *flags, "--workers", "2", cwd=short_path, env=env, within=25)
    assert done.returncode == 1
    assert "fileproxy: a worker could not start: the house is full\n" in done.stderr


def test_a_worker_that_cannot_start_ends_it_with_a_sentence(short_path: Path) -> None:
    (short_path / "run").mkdir()
    (short_path / "run" / "slots").write_text("a file where a folder must be")
    flags = ["--redis", "off", "--upstream", "http://127.0.0.1:1", "--set", "server.run_dir=run"]
    done = fileproxy("serve", "--host", "127.0.0.1", "--port", "0", *flags, cwd=short_path)
    assert done.returncode == 1
    assert "fileproxy: a worker could not start: " in done.stderr
    assert "slots" in done.stderr
