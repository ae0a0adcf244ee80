"""The commands that speak with a running service: status, health, stats, reload. (`stop`: tests/life/test_stop.py.)"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.life.tools import SlowDownload, eventually, fileproxy, status_of
from tests.origin import OriginThread
from tests.service import Service

Start = Callable[..., Service]


@pytest.fixture
def threaded() -> object:
    with OriginThread() as origin:
        yield origin


def ask(one: Service, *arguments: str) -> tuple[int, str, str]:
    """Exit code, output, errors of a command that finds the service by its configuration."""
    done = fileproxy(arguments[0], "--config", str(one.config), *arguments[1:], cwd=one.folder)
    return done.returncode, done.stdout, done.stderr


def test_status(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}, "server": {"workers": 2}})
    pids = ", ".join(map(str, status_of(one).workers))
    code, said, _ = ask(one, "status")
    assert code == 0
    lines = dict(line.split(maxsplit=1) for line in said.splitlines())
    assert lines.pop("uptime").endswith("s")
    assert lines == {
        "running": f"pid {one.process.pid}",
        "url": one.url,
        "workers": f"2 (pid {pids})",
        "settings": "generation 1",
    }


def test_status_tells_of_a_worker_that_drains(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}})
    old = status_of(one).workers[0]
    with SlowDownload(one, threaded):
        one.write({"server": {"backlog": 99}})
        assert ask(one, "reload")[0] == 0
        eventually(lambda: f"draining  1 (pid {old})\n" in ask(one, "status")[1], "the draining worker")


def test_a_wrong_configuration_does_not_hide_the_service(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}})
    where = one.folder / "run"
    one.config.write_text("server: {prot: 1}")
    done = fileproxy(
        "status", "--config", str(one.config), cwd=one.folder, env={"FILEPROXY_SERVER__RUN_DIR": str(where)}
    )
    assert f"pid {one.process.pid}" in done.stdout


def test_health(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}})
    assert ask(one, "health") == (0, "ok\n", "")
    code, said, _ = ask(one, "health", "--json")
    assert code == 0
    assert json.loads(said)["performance_optimization"]["optimization_level"] == "high"


def test_health_says_what_is_missing_and_is_still_well(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}, "redis": {"url": "redis://127.0.0.1:1"}})
    assert ask(one, "health") == (0, "degraded: shared_store degraded, cache_shared degraded\n", "")


def test_health_and_stats_by_url(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}, "server": {"short_names": False}})
    assert fileproxy("health", "--url", one.url, cwd=one.folder).stdout == "ok\n"
    assert fileproxy("stats", "--url", f"{one.url}/", cwd=one.folder).returncode == 0


def test_another_server_is_noticed(threaded: OriginThread, service: Start) -> None:
    threaded.serve("/-/health", b"hello")
    one = service({"upstreams": {"files": threaded.url}})
    done = fileproxy("health", "--url", threaded.url, cwd=one.folder)
    assert done.returncode == 1
    assert done.stderr == f"fileproxy: {threaded.url}/-/health answered 200 without JSON; is that FileProxy?\n"


def test_stats(service: Start, threaded: OriginThread) -> None:
    threaded.serve("/a", bytes(2048))
    one = service({"upstreams": {"files": threaded.url}})
    for _ in range(3):
        one.get("/a")
    code, said, _ = ask(one, "stats", "--json")
    assert code == 0
    report = json.loads(said)
    assert report["routes"]["/"]["requests"] == 3
    assert report["performance_optimizer"]["metrics"]["error_rate"] == "0.00%"
    code, said, _ = ask(one, "stats")
    assert code == 0
    assert any(line.split() == ["│", "/", "│", "3", "│", "0", "│", "6.0", "KiB", "│"] for line in said.splitlines())
    assert "1 (0 crashed so far)" in said


def test_stats_are_for_operators(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}, "server": {"operators": ["192.0.2.1"]}})
    code, _, error = ask(one, "stats")
    assert code == 1
    assert "/-/stats answered 403" in error


def test_reload_says_what_changed(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}})
    assert ask(one, "reload") == (0, "Nothing has changed.\n", "")
    one.write({"server": {"name": "other"}})
    said = "Applied without a restart (generation 2):\n  server.name: fileproxy → other\n"
    assert ask(one, "reload") == (0, said, "")
    one.write({"server": {"backlog": 99}})
    said = (
        "Taken over by new workers; the old ones finish their downloads (generation 3):\n  server.backlog: 2048 → 99\n"
    )
    assert ask(one, "reload") == (0, said, "")
    one.write({"server": {"run_dir": str(one.folder / "else")}})
    done = fileproxy("reload", "--run-dir", str(one.folder / "run"), cwd=one.folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "Refused; nothing has changed:",
        "  server.run_dir: only a restart can change it (fileproxy stop, then serve)",
    ]
