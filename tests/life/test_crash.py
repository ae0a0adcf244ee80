"""What breaks is replaced, counted and said; sums over workers stay right."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
from collections.abc import Callable
from typing import Any

import psutil

from tests.life.tools import SlowDownload, child, eventually, status_of
from tests.origin import OriginThread
from tests.service import Service

Start = Callable[..., Service]


def test_sums_over_workers_are_right_without_a_shared_store(service: Start, threaded: OriginThread) -> None:
    threaded.serve("/a", bytes(1000))
    one = service({"upstreams": {"files": threaded.url}, "server": {"workers": 3}, "redis": {"url": "off"}})
    workers = [psutil.Process(pid) for pid in status_of(one).workers]
    before = one.json("/stats")
    with contextlib.ExitStack() as stack:
        count = 0
        while not all(_serves(worker, one.port) for worker in workers):
            count += 1
            assert count <= 300, "three workers share the connections"
            connection = http.client.HTTPConnection("127.0.0.1", one.port, timeout=20)
            stack.callback(connection.close)
            connection.request("GET", "/a")
            assert connection.getresponse().read() == bytes(1000)
        after = one.json("/stats")
    assert after["routes"]["/"]["requests"] == count
    assert after["routes"]["/"]["bytes"] == count * 1000
    assert after["requests"] - before["requests"] == count + 1  # and /stats itself
    assert after["connections"]["open"] == count + 1
    assert after["workers"]["live"] == 3


def test_a_crashed_worker_is_replaced_counted_and_its_counts_are_kept(service: Start, threaded: OriginThread) -> None:
    threaded.serve("/a", b"12345")
    one = service({"upstreams": {"files": threaded.url}})
    for _ in range(7):
        assert one.get("/a")[0] == 200
    assert one.json("/stats")["routes"]["/"]["requests"] == 7  # hits are counted some milliseconds later, or here
    victim = status_of(one).workers[0]
    os.kill(victim, signal.SIGKILL)
    now = eventually(lambda: (found := status_of(one)).workers != [victim] and found, "another worker")
    assert victim not in now.workers
    one.wait_ready()
    assert one.get("/a")[0] == 200
    stats = one.json("/stats")
    assert stats["workers"]["crashed"] == 1
    assert stats["routes"]["/"] | {"requests": 8, "bytes": 40} == stats["routes"]["/"]
    assert stats["downloads_active"] == 1  # this very request; nothing of the dead worker's
    assert one.json("/health")["parts"]["workers"]["status"] == "ok"
    said = next(line for line in one.lines("error.log") if line["event"] == "worker_crashed")
    assert (said["worker"], said["detail"]) == ("master", "killed by SIGKILL")
    assert said["crashed_pid"] == victim


def test_a_worker_that_hangs_is_replaced(service: Start, threaded: OriginThread) -> None:
    """A stopped process sends no heartbeat; the master waits for 30 s in life, the test pretends the time."""
    one = service({"upstreams": {"files": threaded.url}, "server": {"workers": 2}})
    victim = psutil.Process(status_of(one).workers[0])
    victim.suspend()
    try:
        _age_heartbeat(victim.pid)
        eventually(lambda: victim.pid not in status_of(one).workers, "a replacement", 30)
    finally:
        if victim.is_running():
            victim.kill()
    eventually(lambda: len(status_of(one).workers) == 2, "two workers again")
    assert any(line["event"] == "worker_crashed" for line in one.lines("error.log"))


def test_a_dead_draining_worker_is_no_obstacle(service: Start, threaded: OriginThread) -> None:
    one = service({"upstreams": {"files": threaded.url}})
    with SlowDownload(one, threaded) as download:
        one.process.send_signal(signal.SIGTERM)
        os.kill(one.family()[0].pid, signal.SIGKILL)
        assert one.process.wait(10) == 0
        assert download.was_cut()


def test_a_killed_valkey_is_started_again(service: Start) -> None:
    one = service({"redis": {"url": "embedded"}})
    eventually(lambda: _store(one)["state"] == "ok", "the store")
    victim = child(one, "valkey.sock")
    victim.kill()
    eventually(lambda: not victim.is_running() and child(one, "valkey.sock").pid != victim.pid, "another Valkey")
    eventually(lambda: _store(one)["state"] == "ok", "the store again")
    assert status_of(one).restarted["Valkey"] == 1
    said = [line["event"] for line in one.lines("error.log")]
    assert "the embedded Valkey ended (SIGKILL); it is started again in 0 s" in said


def test_a_killed_origin_is_started_again_on_its_port(service: Start) -> None:
    one = service({})
    victim = child(one, "origin")
    victim.kill()
    status, body = one.get("/hello.txt")  # waits in the backlog that the master holds, or is tried again
    assert (status, body) == (200, (one.folder / "files/hello.txt").read_bytes())
    assert child(one, "origin").pid != victim.pid


def _store(one: Service) -> dict[str, Any]:
    found: dict[str, Any] = one.json("/health")["parts"]["shared_store"]
    return found


def _serves(worker: psutil.Process, port: int) -> bool:
    """Whether it holds a client's connection."""
    connections = worker.net_connections("tcp")
    return any(each.laddr.port == port and each.status == psutil.CONN_ESTABLISHED for each in connections)


def _age_heartbeat(pid: int) -> None:
    """Make the master believe that a worker's last sign of life is long ago."""
    for name in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{name}"
        if "wgunicorn" in os.readlink(path):
            os.utime(path, (-60, -60))  # the clock is the monotonic one, which may be young
            return
    raise AssertionError("no heartbeat file")
