"""A changed configuration is taken over without cutting a download; a wrong one changes nothing."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable

import psutil
import pytest

from fileproxy.server.control import RunDir
from tests.house import free_port
from tests.life.tools import FILE, SlowDownload, eventually, fileproxy, next_outcome, reload, status_of
from tests.origin import OriginThread
from tests.service import Service

Start = Callable[..., Service]


def test_what_can_be_applied_in_place_is(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}, "server": {"workers": 2}})
    before = status_of(one)
    assert one.get("/health")[0] == 200
    one.write({"server": {"short_names": False}})
    outcome = reload(one)
    assert (outcome.outcome, outcome.generation) == ("applied", 2)
    assert outcome.changes == ["server.short_names: True → False"]
    assert one.get("/-/health")[0] == 200
    for _ in range(10):  # whichever worker answers
        assert one.get("/health")[0] != 200
    after = eventually(lambda: (now := status_of(one)).generation == 2 and now, "the status of generation 2")
    assert after.workers == before.workers


def test_a_running_download_keeps_its_settings_and_the_next_sees_the_new(
    service: Start, threaded: OriginThread
) -> None:
    one = service({"upstreams": {"files": {"servers": [threaded.url]}}})
    with OriginThread() as other, SlowDownload(one, threaded) as download:
        other.serve("/new", b"from the new server")
        one.write({"upstreams": {"files": {"servers": [other.url]}}})
        assert reload(one).outcome == "applied"
        assert one.get("/new") == (200, b"from the new server")
        assert download.finish() == FILE.read()


def test_new_workers_take_over_while_a_download_runs_on(service: Start, threaded: OriginThread) -> None:
    threaded.serve("/a", b"bytes")
    one = service({"upstreams": {"files": threaded.url}})
    old = status_of(one).workers[0]
    with SlowDownload(one, threaded) as download:
        one.write({"server": {"uvloop": "off"}})
        outcome = reload(one)
        assert outcome.outcome == "rolled"
        assert outcome.changes == ["server.uvloop: auto → off"]
        now = eventually(lambda: (found := status_of(one)).draining and found, "a worker that drains")
        assert now.draining == [old]
        assert old not in now.workers
        assert len(now.workers) == 1
        assert one.get("/a") == (200, b"bytes")
        assert one.json("/health")["performance_optimization"]["uvloop_enabled"] is False
        assert psutil.pid_exists(old)
        assert download.finish() == FILE.read()
    eventually(lambda: not psutil.pid_exists(old), "the end of the old worker")
    eventually(lambda: not status_of(one).draining, "a status without it")
    assert one.json("/stats")["workers"]["crashed"] == 0


@pytest.mark.option("server.drain_timeout")
def test_an_old_worker_waits_no_longer_than_the_drain_timeout(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}, "server": {"drain_timeout": "300ms"}})
    with SlowDownload(one, threaded) as download:
        one.write({"server": {"backlog": 100}})
        assert reload(one).outcome == "rolled"
        assert download.was_cut()
    assert one.json("/stats")["workers"]["crashed"] == 0


def test_more_and_fewer_workers(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}})
    first = status_of(one).workers[0]
    one.write({"server": {"workers": 3}})
    assert reload(one).outcome == "applied"
    assert first in eventually(lambda: len(found := status_of(one).workers) == 3 and found, "three workers")
    one.write({"server": {"workers": 1}})
    assert reload(one).outcome == "applied"
    eventually(lambda: len(status_of(one).workers) == 1 and len(one.family()) == 1, "one worker")
    assert one.get("/readyz")[0] == 200


def test_a_new_address_without_losing_the_old_ones_downloads(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}})
    with SlowDownload(one, threaded) as download:
        old, one.port = one.port, free_port()
        one.write({"server": {"port": one.port}})
        assert reload(one).outcome == "rolled"
        assert one.get("/readyz")[0] == 200
        eventually(lambda: _refused(old), "the old port closed")
        assert status_of(one).url == one.url
        assert download.finish() == FILE.read()


def test_a_new_address_that_is_taken_changes_nothing(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}})
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        one.write({"server": {"port": taken}})
        outcome = reload(one)
    assert outcome.outcome == "refused"
    assert outcome.problems == [f"cannot listen on 127.0.0.1 port {taken}: Address already in use"]
    assert one.get("/readyz")[0] == 200


@pytest.mark.option("server.run_dir")
def test_what_only_a_restart_can_change_is_refused(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}})
    before = status_of(one)
    one.write({"server": {"run_dir": str(one.folder / "elsewhere"), "short_names": False}})
    outcome = reload(one)
    assert outcome.outcome == "refused"
    assert outcome.problems == ["server.run_dir: only a restart can change it (fileproxy stop, then serve)"]
    assert one.get("/health")[0] == 200  # not half of it either
    assert status_of(one) == before


def test_a_wrong_configuration_is_refused_with_file_and_line(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}})
    good = one.config.read_text()
    one.config.write_text(f"server:\n  short_names: off\n  prot: 1\nupstreams:\n  files: {threaded.url}\n")
    outcome = reload(one)
    sentence = f"{one.config}:3: server.prot: unknown option; did you mean server.port?"
    assert (outcome.outcome, outcome.generation, outcome.problems) == ("refused", 1, [sentence])
    assert one.get("/health")[0] == 200
    assert any(line["event"] == "reload_refused" and line["detail"] == sentence for line in one.lines("error.log"))

    done = fileproxy("reload", "--run-dir", str(one.folder / "run"), cwd=one.folder)
    assert done.returncode == 2
    assert "Refused; nothing has changed:" in done.stderr
    assert sentence in done.stderr

    one.config.write_text(good)
    assert reload(one).outcome == "unchanged"


def test_a_configuration_that_new_workers_cannot_live_with_is_refused(service: Start, threaded: OriginThread) -> None:
    """Here: new workers find no slot, because the folder was made a file behind the master's back."""
    threaded.serve("/a", b"bytes")
    one = service({"upstreams": {"files": threaded.url}})
    old = status_of(one).workers
    slots = one.folder / "run" / "slots"
    slots.rename(one.folder / "run" / "kept")
    slots.write_text("")
    one.write({"server": {"backlog": 99}})
    outcome = reload(one)
    assert outcome.outcome == "refused"
    assert "a new worker could not start" in outcome.problems[0]
    slots.unlink()
    (one.folder / "run" / "kept").rename(slots)
    assert one.get("/a") == (200, b"bytes")
    assert status_of(one).workers == old
    assert reload(one).outcome == "rolled"  # and now it can be done


def test_two_reloads_at_once_end_with_the_newest_configuration(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}})
    folder = RunDir(one.folder / "run")
    one.write({"server": {"backlog": 99}})
    one.process.send_signal(signal.SIGHUP)
    eventually(lambda: len(one.family()) > 1, "a new worker on its way")
    one.write({"server": {"short_names": False}})
    os.kill(one.process.pid, signal.SIGHUP)
    outcome = next_outcome(folder, 1)
    assert outcome.changes == ["server.short_names: True → False"]
    assert one.get("/health")[0] != 200


def test_the_embedded_origin_comes_and_goes_with_the_configuration(service: Start, threaded: OriginThread) -> None:
    threaded.serve("/a", b"bytes")
    one = service({})
    assert one.get("/hello.txt")[0] == 200
    assert len(one.family()) == 2
    one.write({"upstreams": {"files": threaded.url}})
    assert reload(one).outcome == "applied"
    assert one.get("/a") == (200, b"bytes")
    eventually(lambda: len(one.family()) == 1, "the end of the origin")


def _refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
