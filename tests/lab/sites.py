"""A site as people run it: a folder of files, an origin over it (nginx or our own), FileProxy with two workers.

Everything under ``/relay/`` is passed on and not kept; everything else is cached. Both serve the same files.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.house import free_port
from tests.origin import KIB, MIB
from tests.service import ROOT, Service, merged

SIZES = {"1KiB": KIB, "1MiB": MIB, "64MiB": 64 * MIB}
CACHED, RELAYED = "/", "/relay/"

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
{user}
events {{ worker_connections 2048; }}
http {{
    client_body_temp_path {folder}/t; proxy_temp_path {folder}/t; fastcgi_temp_path {folder}/t;
    uwsgi_temp_path {folder}/t; scgi_temp_path {folder}/t;
    default_type application/octet-stream; access_log off; sendfile on; keepalive_requests 1000000;
    server {{ listen 127.0.0.1:{port} backlog=2048; root {files}; }}
}}
"""


@dataclass(frozen=True)
class Site:
    """``service`` before an origin over ``folder``."""

    service: Service
    folder: Path

    @property
    def url(self) -> str:
        return self.service.url

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def sha256(self, name: str) -> str:
        return _sha256_of_original(self.folder / name)


@functools.cache
def _sha256_of_original(path: Path) -> str:
    return digest(path)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def child(command: Sequence[str], port: int, folder: Path) -> Iterator[str]:
    """A server in the background: the URL it answers at. Ended by its own pid."""
    with (folder / "origin.out").open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 20
        while not listens(port):
            said = (folder / "origin.out").read_text()
            assert process.poll() is None, f"the origin ended: {said}"
            assert time.monotonic() < deadline, f"the origin does not listen: {said}"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(15)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def origin(kind: str, files: Path, folder: Path) -> Iterator[str]:
    """The URL of an origin over ``files``: ``nginx``, or ``embedded`` (``fileproxy origin``)."""
    port = free_port()
    if kind == "embedded":
        command = [sys.executable, "-m", "fileproxy", "origin", str(files), "--port", str(port)]
    else:
        nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if nginx is None:
            pytest.skip("nginx is not installed")
        # Its workers would otherwise be somebody who may not read a private folder.
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, files=files, user=user))
        command = [nginx, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    with child(command, port, folder) as url:
        yield url


def routes(**more: Any) -> list[dict[str, Any]]:
    return [
        {"path": CACHED, "upstream": "files", **more},
        {"path": RELAYED, "upstream": "files", "strip_prefix": True, "cache": "off", **more},
    ]


@contextmanager
def site_over(kind: str, files: Path, **settings: Any) -> Iterator[Site]:
    """A running site. ``settings`` are laid over: two workers, a cached route and a relayed one."""
    folder = Path(tempfile.mkdtemp(prefix="fp", dir="/tmp"))
    try:
        with origin(kind, files, folder) as url:
            defaults = {"server": {"workers": 2}, "upstreams": {"files": url}, "routes": routes()}
            service = Service(merged(defaults, settings), folder / "s")
            try:
                service.start()
                yield Site(service, files)
            finally:
                service.stop()
                print(service.logs())
    finally:
        shutil.rmtree(folder)
