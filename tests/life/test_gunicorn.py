"""The same service under plain gunicorn: ``gunicorn -c gunicorn.conf.py``."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from fileproxy.server.control import RunDir
from tests.life.tools import FILE, SlowDownload, child, eventually, fileproxy, reload, status_of
from tests.origin import OriginThread
from tests.service import ROOT, Service

Gunicorn = Callable[..., Service]


class Plain(Service):
    """Started by gunicorn; the configuration file comes by ``$FILEPROXY_CONFIG``."""

    def __init__(self, settings: dict[str, Any], folder: Path, flags: tuple[str, ...] = ()) -> None:
        super().__init__(settings, folder, flags, env={"FILEPROXY_CONFIG": str(folder / "fileproxy.yaml")})

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.write({})
        command = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), *self._flags]
        with (self.folder / "output").open("ab") as output:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=self._env, stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )
        self.wait_ready()


@pytest.fixture
def gunicorn(short_path: Path) -> Iterator[Gunicorn]:
    started: list[Plain] = []

    def start(settings: dict[str, Any], *flags: str) -> Service:
        one = Plain(settings, short_path / f"g{len(started)}", flags)
        started.append(one)
        one.start()
        return one

    yield start
    for one in started:
        one.stop()
        print(one.logs())


def test_it_is_the_same_service(gunicorn: Gunicorn) -> None:
    one = gunicorn({"server": {"workers": 2}, "redis": {"url": "embedded"}})
    assert one.get("/hello.txt") == (200, (one.folder / "files/hello.txt").read_bytes())
    health = one.json("/health")
    assert health["performance_optimization"]["optimization_level"] == "high"
    assert health["parts"]["workers"] == {"status": "ok", "live": 2, "wanted": 2, "crashed": 0}
    eventually(lambda: one.json("/health")["parts"]["shared_store"]["state"] == "ok", "the embedded store")
    status = status_of(one)
    assert (status.pid, status.url, len(status.workers)) == (one.process.pid, one.url, 2)
    family = one.family()
    assert len(family) == 4
    assert one.stop() == 0
    assert psutil.wait_procs(family, timeout=5)[1] == []
    assert RunDir(one.folder / "run").running() is None


def test_no_control_socket_is_left_in_the_home_folder(gunicorn: Gunicorn, threaded: OriginThread) -> None:
    one = gunicorn({"upstreams": {"files": threaded.url}})  # HOME is its folder
    assert not [path for path in one.folder.rglob("*") if "gunicorn" in path.name]


def test_hup_replaces_the_workers_and_cuts_nobody(gunicorn: Gunicorn, threaded: OriginThread) -> None:
    one = gunicorn({"upstreams": {"files": threaded.url}})
    old = status_of(one).workers
    with SlowDownload(one, threaded) as download:
        one.write({"server": {"short_names": False}})
        assert reload(one).outcome == "rolled"
        assert status_of(one).workers != old
        assert one.get("/-/health")[0] == 200
        assert one.get("/health")[0] == 404
        assert psutil.pid_exists(old[0])
        assert download.finish() == FILE.read()
    eventually(lambda: not psutil.pid_exists(old[0]), "the end of the old worker")
    now = status_of(one).workers
    assert reload(one).outcome == "rolled"  # also when nothing has changed
    assert status_of(one).workers != now


def test_a_wrong_configuration_changes_nothing(gunicorn: Gunicorn, threaded: OriginThread) -> None:
    one = gunicorn({"upstreams": {"files": threaded.url}})
    before = status_of(one)
    one.write({"server": {"prot": 1}})
    outcome = reload(one)
    assert outcome.outcome == "refused"
    assert "server.prot: unknown option; did you mean server.port?" in outcome.problems[0]
    assert one.get("/readyz")[0] == 200
    assert status_of(one) == before


def test_term_lets_the_running_download_end(gunicorn: Gunicorn, threaded: OriginThread) -> None:
    one = gunicorn({"upstreams": {"files": threaded.url}})
    with SlowDownload(one, threaded) as download:
        one.process.send_signal(signal.SIGTERM)
        eventually(lambda: _refused(one.port), "the closed door")
        assert download.finish() == FILE.read()
    assert one.process.wait(10) == 0


def test_gunicorns_own_flags_come_on_top(gunicorn: Gunicorn, threaded: OriginThread, short_path: Path) -> None:
    path = short_path / "door"
    one = Plain({"upstreams": {"files": threaded.url}}, short_path / "g")
    one._flags = ("--workers", "2", "--bind", f"127.0.0.1:{one.port}", "--bind", f"unix:{path}")
    try:
        one.start()
        assert len(status_of(one).workers) == 2
        assert one.json("/health")["parts"]["workers"]["wanted"] == 2
        with socket.socket(socket.AF_UNIX) as door:
            door.connect(str(path))
            door.sendall(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert door.recv(65536).startswith(b"HTTP/1.1 200 ")
    finally:
        one.stop()


def test_a_crashed_worker_is_replaced_and_a_killed_child_too(gunicorn: Gunicorn) -> None:
    one = gunicorn({})
    victim = status_of(one).workers[0]
    psutil.Process(victim).kill()
    eventually(lambda: status_of(one).workers not in ([victim], []), "another worker")
    one.wait_ready()
    assert one.json("/stats")["workers"]["crashed"] == 1
    origin = child(one, "origin")
    origin.kill()
    eventually(lambda: child(one, "origin").pid != origin.pid, "another origin")
    assert one.get("/hello.txt")[0] == 200


def test_a_wrong_configuration_is_said_and_nothing_starts(short_path: Path) -> None:
    done = _refuse(short_path, FILEPROXY_SERVER__PROT="1")
    assert done.returncode == 2
    assert done.stderr == "environment FILEPROXY_SERVER__PROT: server.prot: unknown option; did you mean server.port?\n"


def test_a_second_one_with_the_same_run_folder_is_refused(gunicorn: Gunicorn, threaded: OriginThread) -> None:
    one = gunicorn({"upstreams": {"files": threaded.url}})
    done = _refuse(one.folder, FILEPROXY_SERVER__RUN_DIR=str(one.folder / "run"))
    assert done.returncode == 1
    assert f"Error: FileProxy is already running here (pid {one.process.pid}" in done.stderr
    assert "Traceback" not in done.stderr


def test_status_reload_and_stop_find_it(gunicorn: Gunicorn, threaded: OriginThread) -> None:
    one = gunicorn({"upstreams": {"files": threaded.url}})
    where = ("--run-dir", str(one.folder / "run"))
    assert f"running   pid {one.process.pid}\n" in fileproxy("status", *where, cwd=one.folder).stdout
    done = fileproxy("reload", *where, cwd=one.folder)
    assert (done.returncode, done.stdout.startswith("Taken over by new workers")) == (0, True)
    assert fileproxy("stop", *where, cwd=one.folder).returncode == 0
    assert one.process.wait(5) == 0


def _refuse(folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "FILEPROXY_SERVER__PORT": "0"}
    command = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py")]
    return subprocess.run(command, cwd=folder, env=clean | env, capture_output=True, text=True, timeout=30)


def _refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
