"""Who is compared over a bad link, each in a namespace of the star: their configurations, started and ended."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from benchmarks.cpu import cpu_seconds, pinned, tree
from benchmarks.link.ferry import inside
from benchmarks.link.tun import Star
from benchmarks.peers import nginx_binary

ROOT = Path(__file__).resolve().parent.parent
ORIGIN_PORT = 8000
CACHE_SIZE = "10g"  # of nginx; FileProxy's default is the same 10 GiB
START_WITHIN_S = 60.0
END_WITHIN_S = 30.0

_NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
user root;
events {{ worker_connections 4096; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    default_type application/octet-stream;
    sendfile on; tcp_nopush off; tcp_nodelay on; access_log off; keepalive_requests 100000000; keepalive_timeout 600s;
{http}
}}
"""

# The origin: /ANYTHING/FILE is FILE, so that a file is cold as often as one likes. Fresh for an hour.
_ORIGIN = """
    server {{
        listen 0.0.0.0:{port} backlog=1024;
        root {files};
        add_header Cache-Control "public, max-age=3600";
        location / {{ rewrite ^/[^/]+/([^/]+)$ /$1 break; }}
    }}
"""

# As one would tune a cache for files behind a bad line: kept connections to the origin, HTTP/1.1, big buffers, one
# fetch for many who ask, patient time limits, what was fetched stays fetched.
_CACHE = """
    proxy_cache_path {folder}/cache levels=1:2 keys_zone=files:16m max_size={cache_size} inactive=1h use_temp_path=off;
    upstream origin {{ server {origin}; keepalive 64; keepalive_requests 100000000; keepalive_timeout 600s; }}
    server {{
        listen 0.0.0.0:{port} backlog=1024;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffer_size 32k;
            proxy_buffers 8 256k;
            proxy_busy_buffers_size 512k;
            proxy_connect_timeout 30s;
            proxy_read_timeout 120s;
            proxy_socket_keepalive on;
            proxy_cache files;
            proxy_cache_valid 200 206 1h;
            proxy_cache_lock on;
            proxy_cache_lock_age 10m;
            proxy_cache_lock_timeout 10m;
            proxy_ignore_client_abort on;
            add_header X-Cache $upstream_cache_status;
{slice}
        }}
    }}
"""
_SLICE = """
            slice 1m;
            proxy_cache_key $uri$slice_range;
            proxy_set_header Range $slice_range;
"""


@dataclass
class Server:
    """A process in a namespace. Use as a context manager: it is started, awaited, and ended by its pid."""

    name: str
    star: Star
    namespace: str
    command: list[str]
    port: int
    core: int
    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.pid)

    def forget_peak(self) -> None:
        """From now on :meth:`peak_rss` knows nothing of before (proc(5), clear_refs)."""
        for pid in tree(self.pid):
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak_rss(self) -> int:
        """Bytes: the sum of what each process of the tree held at most (VmHWM). Shared pages count in each."""
        total = 0
        for pid in tree(self.pid):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            total += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
        return total * 1024

    def __enter__(self) -> Self:
        with (self.folder / "output").open("wb") as output:
            self._process = subprocess.Popen(
                pinned(self.core, self.star.command(self.namespace, self.command)),
                cwd=self.folder,
                env={**{key: value for key, value in os.environ.items() if "FILEPROXY" not in key}, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a ^C is for the runner, which ends it
            )
        self._await_port()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _await_port(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_WITHIN_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with inside(self.namespace):
                    socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        self.__exit__()
        said = (self.folder / "output").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{self.name} did not start: {said}")


def _nginx(name: str, http: str, star: Star, namespace: str, port: int, core: int, folder: Path) -> Server:
    configuration = folder / "nginx.conf"
    configuration.write_text(_NGINX.format(folder=folder, http=http))
    command = [nginx_binary(), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(configuration)]
    return Server(name, star, namespace, command, port, core, folder)


def origin(star: Star, namespace: str, files: Path, core: int, folder: Path) -> Server:
    """nginx over the folder ``files``, on all addresses of its namespace."""
    http = _ORIGIN.format(port=ORIGIN_PORT, files=files)
    return _nginx("origin", http, star, namespace, ORIGIN_PORT, core, folder)


def nginx(name: str, source: str, star: Star, port: int, core: int, folder: Path) -> Server:
    """A tuned proxy_cache in the hub; with ``nginx-slice`` it fetches by slices of 1 MiB."""
    slice_ = _SLICE if name == "nginx-slice" else ""
    http = _CACHE.format(folder=folder, port=port, origin=source, cache_size=CACHE_SIZE, slice=slice_)
    return _nginx(name, http, star, star.hub, port, core, folder)


def fileproxy(name: str, source: str, star: Star, port: int, core: int, folder: Path) -> Server:
    """This checkout's FileProxy in the hub with its defaults, but one worker and no access log, as nginx has."""
    command = [sys.executable, "-m", "fileproxy", "serve", f"http://{source}", "--host", "0.0.0.0", "--port", str(port)]
    command += ["--workers", "1", "--set", "logs.access=off"]
    if name == "fileproxy-baseline":
        command += ["--set", "profile=baseline"]
    return Server(name, star, star.hub, command, port, core, folder, env={"PYTHONPATH": str(ROOT), "HOME": str(folder)})


MAKERS = {
    "nginx": nginx,
    "nginx-slice": nginx,
    "fileproxy-baseline": fileproxy,
    "fileproxy": fileproxy,
}
DIRECT = "direct"
NAMES = (DIRECT, *MAKERS)


def missing() -> list[str]:
    """What this machine lacks besides what the link lab needs, one sentence each."""
    lacks = [
        f"{tool} is needed (Debian package {package})"
        for tool, package in (("curl", "curl"), ("taskset", "util-linux"))
        if not shutil.which(tool)
    ]
    try:
        nginx_binary()
    except RuntimeError as error:
        lacks.append(str(error))
    if len(os.sched_getaffinity(0)) < 2:
        lacks.append("two processors are needed: one for the proxies, one for links, origins and clients")
    return lacks
