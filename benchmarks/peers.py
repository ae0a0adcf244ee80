"""What is measured and what it is measured against: started on one processor, on loopback, in a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.request import urlopen

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.cpu import cpu_seconds, pinned

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable  # what FileProxy runs on, see ``use_python``

_NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
{user}
events {{ worker_connections 4096; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    default_type application/octet-stream;
{http}
}}
"""

# The origin: a plain file server that is never the slow part. tcp_nopush is off, as it stalls keep-alive answers here.
_ORIGIN = """
    sendfile on; tcp_nodelay on; access_log off; keepalive_requests 100000000;
    server {{ listen 127.0.0.1:{port} backlog=1024; root {files}; }}
"""

# As Debian installs it (its nginx.conf: sendfile, tcp_nopush, an access log) with one proxy_pass and nothing else:
# HTTP/1.0 to the origin, a new connection for each request, small buffers, what does not fit goes to a temporary file.
_DEFAULT = """
    sendfile on; tcp_nopush on; access_log {folder}/access.log;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://{origin}; }}
    }}
"""

# As one would tune it for relaying files: kept connections to the origin, HTTP/1.1, big buffers, no temporary files,
# no log; tcp_nopush off, because it delays the last segment of an answer on a kept connection.
_TUNED = """
    sendfile on; tcp_nopush off; tcp_nodelay on; access_log off; keepalive_requests 100000000;
    upstream origin {{ server {origin}; keepalive 128; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffer_size 32k;
            proxy_buffers 8 256k;
            proxy_busy_buffers_size 512k;
            proxy_max_temp_file_size 0;
        }}
    }}
"""


# The same, keeping what it relays on disk. What does not fit into the buffers goes to the cache file at once.
_CACHING = """
    sendfile on; tcp_nopush off; tcp_nodelay on; access_log off; keepalive_requests 100000000;
    proxy_cache_path {folder}/cache levels=1:2 keys_zone=files:16m max_size=64g inactive=1h use_temp_path=off;
    upstream origin {{ server {origin}; keepalive 128; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_cache files;
            proxy_cache_valid 200 1h;
            proxy_buffer_size 32k;
            proxy_buffers 8 256k;
            proxy_busy_buffers_size 512k;
            proxy_temp_file_write_size 512k;
        }}
    }}
"""


def free_port() -> int:
    """A port of loopback nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Peer:
    """A server under measurement. Use as a context manager: it is started, awaited, and ended by its pid."""

    name: str
    command: list[str]
    port: int
    core: int
    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.pid)

    def __enter__(self) -> Self:
        with (self.folder / "output").open("wb") as output:
            self._process = subprocess.Popen(
                pinned(self.core, self.command),
                cwd=self.folder,
                env={**os.environ, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._await_port()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _await_port(self, within_s: float = 60.0) -> None:
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is None:
                try:
                    socket.create_connection(("127.0.0.1", self.port), 1).close()
                    return
                except OSError:
                    time.sleep(0.05)
                    continue
            break
        self.__exit__()
        said = (self.folder / "output").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{self.name} did not start: {said}")

    def fetch(self, path: str) -> bytes:
        """One whole answer, to warm up and to compare."""
        with urlopen(self.url + path, timeout=60) as answer:
            data: bytes = answer.read()
            return data


def _nginx(name: str, http: str, core: int, folder: Path, **values: object) -> Peer:
    folder = folder / name
    folder.mkdir()
    port = free_port()
    configuration = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""  # else its worker could not read a private folder
    configuration.write_text(
        _NGINX.format(folder=folder, user=user, http=http.format(folder=folder, port=port, **values))
    )
    command = [nginx_binary(), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(configuration)]
    return Peer(name, command, port, core, folder)


def nginx_binary() -> str:
    """Debian keeps nginx in /usr/sbin, which is not on everybody's PATH."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if not found:
        raise RuntimeError("nginx is needed: apt-get install nginx-light")
    return found


def use_python(path: str) -> None:
    """Let FileProxy run on another interpreter from now on. Ends the program when that one lacks a requirement.

    The peers come as their distribution optimized them. A Python that was compiled without profiles
    (``--enable-optimizations``) takes up to a fifth more for the same work. One without a library that makes things
    faster still runs: without ISA-L a fill took a sixth more, and nobody saw it.
    """
    global PYTHON  # noqa: PLW0603 (of the whole program)
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    ask = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    said = subprocess.run([path, "-c", ask], capture_output=True, text=True, check=True, timeout=20).stdout
    has = {canonicalize_name(name): version for name, version in json.loads(said).items()}
    for one in wanted:
        if (one.marker is None or one.marker.evaluate()) and has.get(
            canonicalize_name(one.name), ""
        ) not in one.specifier:
            sys.exit(f"{path} has not {one}: {path} -m pip install -r requirements.txt")
    PYTHON = path


def python_version() -> str:
    """Of what FileProxy runs on, and what it was compiled with."""
    ask = "import platform; print(platform.python_version(), f'({platform.python_compiler()})')"
    return subprocess.run([PYTHON, "-c", ask], capture_output=True, text=True, check=True, timeout=20).stdout.strip()


def origin(files: Path, core: int, folder: Path) -> Peer:
    """nginx over the folder ``files``."""
    return _nginx("origin", _ORIGIN, core, folder, files=files)


def nginx_default(upstream: Peer, core: int, folder: Path) -> Peer:
    return _nginx("nginx-default", _DEFAULT, core, folder, origin=f"127.0.0.1:{upstream.port}")


def nginx_tuned(upstream: Peer, core: int, folder: Path) -> Peer:
    return _nginx("nginx-tuned", _TUNED, core, folder, origin=f"127.0.0.1:{upstream.port}")


def nginx_caching(upstream: Peer, core: int, folder: Path) -> Peer:
    return _nginx("nginx-caching", _CACHING, core, folder, origin=f"127.0.0.1:{upstream.port}")


def fileproxy_caching(upstream: Peer, core: int, folder: Path) -> Peer:
    """This checkout's FileProxy with memory and disk tier, one worker, nothing that limits requests."""
    folder = folder / "fileproxy-caching"
    folder.mkdir()
    port = free_port()
    command = [PYTHON, "-m", "fileproxy", "serve", upstream.url, "--host", "127.0.0.1", "--port", str(port)]
    for setting in (
        "routes.0.upstream=files",
        "routes.0.cache=1h",
        "upstreams.files.rate_limit=off",
        "cache.disk.size=64GiB",
        "logs.access=off",
        "logs.audit=off",
        f"logs.error={folder}/error.log",
    ):
        command += ["--set", setting]
    command += ["--workers", "1", "--redis", "off", "--cache-dir", str(folder / "cache")]
    return Peer("fileproxy-caching", command, port, core, folder, env={"PYTHONPATH": str(ROOT)})


def fileproxy(upstream: Peer, core: int, folder: Path, name: str, options: Sequence[str]) -> Peer:
    """This checkout's FileProxy as a relay: one worker, no cache, no shared store, nothing that limits requests.

    ``options``: flags of ``serve``.
    """
    folder = folder / name
    folder.mkdir()
    port = free_port()
    command = [PYTHON, "-m", "fileproxy", "serve", upstream.url, "--host", "127.0.0.1", "--port", str(port)]
    unlimited = "upstreams.files.rate_limit=off"  # auto would hold it at 1,000 requests a second
    for setting in ("routes.0.upstream=files", "routes.0.cache=off", "cache.memory=0", "cache.disk=off", unlimited):
        command += ["--set", setting]
    command += ["--workers", "1", "--redis", "off", "--set", "logs.audit=off", *options]
    return Peer(name, command, port, core, folder, env={"PYTHONPATH": str(ROOT)})
