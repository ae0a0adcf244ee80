"""server.*: where and how clients are served."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import OpenHouse
from tests.origin import Origin
from tests.service import Service
from tests.trips.plays import settings

Start = Callable[..., Service]


@pytest.mark.option("server.name")
async def test_name(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/f", b"x")
    running = await house(settings(origin, server={"name": "edge-7"}))
    got = await running.fetch("/f")
    assert got.get("via") == "1.1 edge-7"
    assert (got.get("cache-status") or "").startswith("edge-7;")
    assert "edge-7" in (origin.last.get("via") or "")


@pytest.mark.option("server.short_names")
async def test_short_names(house: OpenHouse, origin: Origin) -> None:
    origin.serve("/health", b"a file")
    running = await house(settings(origin, server={"short_names": False}))
    assert (await running.fetch("/health")).body == b"a file"
    assert "parts" in json.loads((await running.fetch("/-/health")).body)
    usual = await house(origin)
    assert "parts" in json.loads((await usual.fetch("/health")).body)


@pytest.mark.option("server.operators")
@pytest.mark.parametrize(("operators", "status"), [([], 403), (["127.0.0.1"], 200), (["192.0.2.0/24"], 403)])
async def test_operators(house: OpenHouse, origin: Origin, operators: list[str], status: int) -> None:
    running = await house(settings(origin, server={"operators": operators}))
    assert (await running.fetch("/stats")).status == status
    health = json.loads((await running.fetch("/health")).body)
    assert ("config" in health) is (status == 200)


@pytest.mark.option("server.trusted_proxies")
@pytest.mark.parametrize(("trusted", "client"), [([], "127.0.0.1"), (["127.0.0.0/8"], "192.0.2.7")])
async def test_trusted_proxies(house: OpenHouse, origin: Origin, trusted: list[str], client: str) -> None:
    origin.serve("/f", b"x")
    running = await house(settings(origin, server={"trusted_proxies": trusted}))
    await running.fetch("/f", "X-Forwarded-For: 192.0.2.7")
    await running.quiet()
    assert running.lines.access_lines[-1]["client"] == client


# --- of a whole service -----------------------------------------------------------------------------------------------


def backlog_of(port: int) -> int:
    """The kernel's backlog of the socket that listens on this port (sock_diag(7), as `ss -ltn` shows it)."""
    request = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 1 << 10)  # sockets in LISTEN
    request += bytes(48)
    header = struct.pack("=IHHII", 16 + len(request), 20, 0x301, 1, 0)  # SOCK_DIAG_BY_FAMILY, REQUEST | DUMP
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as diag:  # NETLINK_SOCK_DIAG
        diag.settimeout(5)
        diag.send(header + request)
        while True:
            data = diag.recv(65536)
            while data:
                length, kind = struct.unpack_from("=IH", data)
                if kind == 3:  # NLMSG_DONE
                    raise AssertionError(f"nobody listens on {port}")
                if struct.unpack_from("!H", data, 20)[0] == port:
                    backlog: int = struct.unpack_from("=I", data, 16 + 60)[0]  # idiag_wqueue
                    return backlog
                data = data[(length + 3) & ~3 :]


@pytest.mark.option("server.host", "server.port", "server.backlog", "server.run_dir", "redis.url")
@pytest.mark.option("logs.access", "logs.error", "logs.level")
def test_a_service_as_configured(service: Start) -> None:
    """One start for all that belongs to a process."""
    nobody = {"servers": ["http://127.0.0.1:1"], "retry": {"attempts": 1}}
    values = {"server": {"backlog": 77}, "redis": {"url": "off"}, "logs": {"level": "error"}}
    one = service({**values, "upstreams": {"files": nobody}})
    with pytest.raises(ConnectionRefusedError):  # the default listens on every address
        socket.create_connection(("127.0.0.2", one.port), timeout=5)
    assert backlog_of(one.port) == 77
    assert (one.folder / "run" / "fileproxy.pid").read_text().strip() == str(one.process.pid)
    assert not (one.folder / "var" / "run").exists()
    assert one.json("/health")["parts"]["shared_store"]["state"] == "off"
    assert one.get("/nowhere")[0] == 502
    one.stop()
    assert [line["target"] for line in one.lines("access.log")][-2:] == ["/health", "/nowhere"]
    assert (one.folder / "error.log").exists()
    assert not (one.folder / "logs").exists()
    assert {line["level"] for line in one.lines("error.log")} <= {"error", "critical"}  # the 502 is a warning


@pytest.mark.option("redis.url", "logs.access", "logs.error")
def test_another_service(service: Start) -> None:
    """What the first one was told not to do, so that it could have."""
    logs = {"access": "off", "error": "stdout", "level": "info"}
    one = service({"redis": {"url": "embedded"}, "logs": logs})
    deadline = time.monotonic() + 10
    while True:  # a busy machine may miss its 50 ms once; it comes back by itself
        store: dict[str, Any] = one.json("/health")["parts"]["shared_store"]
        if store["state"] == "ok":
            break
        assert time.monotonic() < deadline, store
    one.stop()
    assert not (one.folder / "access.log").exists()
    assert not (one.folder / "error.log").exists()
    assert '"level":"info"' in (one.folder / "output").read_text().replace(" ", "")
