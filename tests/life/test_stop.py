"""The service ends: gently, at once, or by force; nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable

import psutil
import pytest

from fileproxy.embedded import ORIGIN_PORT
from fileproxy.server.control import RunDir
from tests.life.tools import FILE, SlowDownload, child, eventually, fileproxy, reload, status_of
from tests.origin import OriginThread
from tests.service import Service

Start = Callable[..., Service]


def test_term_without_downloads_ends_at_once_and_leaves_no_files(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}, "server": {"workers": 2}})
    status_of(one)
    assert one.stop() == 0
    left = {path.name for path in (one.folder / "run").iterdir()}
    assert not left & {"fileproxy.pid", "service.json", "settings.json"}


def test_term_accepts_no_more_and_lets_the_running_download_end(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}})
    with SlowDownload(one, threaded) as download:
        one.process.send_signal(signal.SIGTERM)
        eventually(lambda: _refused(one.port), "the closed door")
        assert one.process.poll() is None
        assert download.finish() == FILE.read()
    assert one.process.wait(10) == 0


def test_an_idle_connection_does_not_hold_up_the_end(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}})
    with socket.create_connection(("127.0.0.1", one.port)) as idle:
        idle.sendall(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert idle.recv(65536).startswith(b"HTTP/1.1 200")
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(10) == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_second_signal_ends_at_once(service: Start, threaded: OriginThread, second: signal.Signals) -> None:
    one = service({"upstreams": {"files": threaded.url}})
    family = one.family()
    with SlowDownload(one, threaded) as download:
        one.process.send_signal(signal.SIGTERM)
        eventually(lambda: _refused(one.port), "the closed door")
        one.process.send_signal(second)
        assert one.process.wait(10) == 0
        assert download.was_cut()
    assert psutil.wait_procs(family, timeout=5)[1] == []


def test_interrupt_ends_at_once(service: Start, threaded: OriginThread) -> None:
    """Ctrl-C."""
    one = service({"upstreams": {"files": threaded.url}})
    with SlowDownload(one, threaded) as download:
        one.process.send_signal(signal.SIGINT)
        assert one.process.wait(10) == 0
        assert download.was_cut()


@pytest.mark.option("server.drain_timeout")
def test_the_drain_timeout_ends_what_still_runs(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}, "server": {"drain_timeout": "300ms"}})
    with SlowDownload(one, threaded) as download:
        one.process.send_signal(signal.SIGTERM)
        assert download.was_cut()
        assert one.process.wait(10) == 0
    assert one.lines("access.log")[-1]["ending"] == "drained_out"


def test_a_new_drain_timeout_is_taken_over(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}})
    with SlowDownload(one, threaded) as download:
        one.write({"server": {"drain_timeout": "300ms"}})
        assert reload(one).outcome == "applied"
        one.process.send_signal(signal.SIGTERM)
        assert download.was_cut()
        assert one.process.wait(10) == 0


def test_stop_waits_until_it_has_ended(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}})
    done = fileproxy("stop", "--config", str(one.config), cwd=one.folder)
    assert (done.returncode, done.stdout) == (0, f"Stopped (pid {one.process.pid}).\n")
    assert one.process.wait(1) == 0


def test_stop_now_cuts_downloads(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}})
    with SlowDownload(one, threaded) as download:
        done = fileproxy("stop", "--now", "--config", str(one.config), cwd=one.folder)
        assert done.returncode == 0
        assert download.was_cut()


def test_a_killed_master_takes_workers_origin_and_valkey_with_it(service: Start) -> None:
    one = service({"server": {"workers": 2}, "redis": {"url": "embedded"}})
    status_of(one)
    assert child(one, "valkey.sock")
    family = one.family()
    assert len(family) == 4
    one.process.kill()
    one.process.wait(10)
    assert psutil.wait_procs(family, timeout=10)[1] == []
    assert RunDir(one.folder / "run").running() is None

    one.start()  # what lies about of the dead one is no obstacle
    assert one.get("/hello.txt")[0] == 200


def test_a_killed_master_leaves_a_running_download_its_end(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}})
    with SlowDownload(one, threaded) as download:
        family = one.family()
        one.process.kill()
        one.process.wait(10)
        eventually(lambda: _refused(one.port), "the closed door")
        assert download.finish() == FILE.read()
    assert psutil.wait_procs(family, timeout=10)[1] == []


def test_a_worker_holds_no_listening_socket_but_its_own(service: Start) -> None:
    one = service({})
    listening = {
        each.laddr.port
        for each in psutil.Process(status_of(one).workers[0]).net_connections("tcp")
        if each.status == psutil.CONN_LISTEN
    }
    assert listening == {one.port}


def test_a_rotated_log_is_let_go_by_everybody(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}, "server": {"workers": 2}})
    status_of(one)
    old = one.folder / "error.log"
    old.rename(one.folder / "error.log.1")
    (one.folder / "access.log").rename(one.folder / "access.log.1")
    one.process.send_signal(signal.SIGUSR1)
    everybody = [psutil.Process(one.process.pid), *one.family()]

    def rotated_still_open() -> set[str]:
        return {file.path for process in everybody for file in process.open_files() if file.path.endswith(".1")}

    eventually(lambda: not rotated_still_open(), "nobody holds the old files")
    assert one.get("/none")[0] == 404
    eventually(lambda: (one.folder / "access.log").read_text().endswith("\n"), "a line in the new file")
    one.write({"server": {"prot": 1}})
    assert reload(one).outcome == "refused"
    assert old.read_text().count("reload_refused") == 1


def test_the_terminals_interrupt_reaches_only_the_master(service: Start) -> None:
    """The embedded children stand in process groups of their own, so that the master can end them last."""
    one = service({"redis": {"url": "embedded"}})
    groups = {os.getpgid(child(one, word).pid) for word in ("origin", "valkey.sock")}
    assert os.getpgid(one.process.pid) not in groups
    assert len(groups) == 2


def test_the_origins_port_is_free_after_the_end(service: Start) -> None:
    one = service({})
    port = int(one.json("/health")["config"]["upstreams"]["files"]["servers"][0]["url"].rsplit(":", 1)[1])
    assert port == ORIGIN_PORT or not _refused(ORIGIN_PORT)
    one.stop()
    assert _refused(port)


def _refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
