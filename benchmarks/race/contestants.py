"""Who runs, each at its best for cached files: one processor, no access log (FileProxy's own is on), no privileges.

What was tried and dropped stands in the comments. Every folder is new; nothing of the machine's configuration is read.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import peers
from benchmarks.peers import ROOT, Peer

SERVER_CORE, CLIENT_CORE = 0, 1
MEMORY_MIB = 256  # that each may keep files in

# Fresh for an hour, so that nobody asks again; and it says how often it was asked.
_ORIGIN = """
    sendfile on; tcp_nodelay on; access_log off; keepalive_requests 100000000; etag on;
    server {{
        listen 127.0.0.1:{port} backlog=4096; root {files};
        location / {{ expires 1h; }}
        location = /asked {{ stub_status; }}
    }}
"""

# The files lie in the page cache; their descriptors are kept open. reset_timedout and the like change nothing here.
# sendfile costs a system call more for each small file, so both ways run. tcp_nopush stays off: with it, answers on
# kept connections stall. multi_accept: connections come in crowds.
_NGINX_FILES = """
    sendfile {sendfile}; sendfile_max_chunk 2m; output_buffers 1 128k; tcp_nodelay on; access_log off; etag on;
    keepalive_requests 100000000; keepalive_timeout 1h; open_file_cache max=1000 inactive=1h; open_file_cache_valid 1h;
    server {{{{
        listen 127.0.0.1:{{port}} backlog=4096; root {{files}};
        location / {{{{ expires 1h; }}}}
    }}}}
"""

# The same server as a cache: it reads the stored file's head and body for each hit, so it costs more than files.
_NGINX_CACHE = """
    sendfile off; output_buffers 1 128k; tcp_nodelay on; access_log off; keepalive_requests 100000000;
    keepalive_timeout 1h; open_file_cache max=1000 inactive=1h; open_file_cache_valid 1h;
    proxy_cache_path {folder}/cache keys_zone=files:10m max_size=8g inactive=1h use_temp_path=off;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ proxy_pass http://{origin}; proxy_cache files; proxy_cache_lock on; }}
    }}
"""

# One thread; its cache is memory and takes an object of at most half its size. Buffers of 16 KiB, the default, are best
# for 1 KiB and for 64 KiB: those of 64 and 128 KiB cost 2 to 8 % more in both.
_HAPROXY = """
global
    nbthread 1
    maxconn 2500
defaults
    mode http
    timeout client 1h
    timeout server 1h
    timeout connect 5s
    timeout http-keep-alive 1h
    option http-keep-alive
    option splice-auto
cache files
    total-max-size {memory}
    max-object-size {largest}
    max-age 3600
    process-vary off
frontend front
    bind 127.0.0.1:{port} backlog 4096
    http-request cache-use files
    http-response cache-store files
    default_backend origin
backend origin
    http-reuse always
    server origin {origin}
"""

_VCL = """vcl 4.1;
backend origin {{ .host = "127.0.0.1"; .port = "{origin_port}"; }}
sub vcl_recv {{ return (hash); }}
"""

# Everything Varnish would write to its shared log for a hit.
_SILENT = ",".join(f"-{tag}" for tag in (
    "Begin", "End", "Hit", "Link", "ReqAcct", "ReqHeader", "ReqMethod", "ReqProtocol", "ReqStart", "ReqUnset", "ReqURL",
    "RespHeader", "RespProtocol", "RespReason", "RespStatus", "RespUnset", "SessClose", "SessOpen", "Timestamp",
    "VCL_call", "VCL_return",
))  # fmt: skip

# Accelerator with memory alone; one process.
_SQUID = """
http_port 127.0.0.1:{port} accel defaultsite=127.0.0.1 no-vhost
cache_peer 127.0.0.1 parent {origin_port} 0 no-query no-digest originserver name=origin
http_access allow all
cache_mem {memory} MB
maximum_object_size_in_memory 2 MB
memory_cache_mode always
memory_replacement_policy lru
memory_pools on
workers 1
max_filedescriptors 8192
access_log none
cache_store_log none
cache_log {folder}/cache.log
netdb_filename none
pid_filename none
coredump_dir {folder}
client_db off
via off
pinger_enable off
icp_port 0
shutdown_lifetime 0 seconds
{user}
"""

_TRAFFIC = {
    "exec_thread.autoconfig": "INT 0",
    "exec_thread.limit": "INT 1",
    "accept_threads": "INT 0",
    "cache.threads_per_disk": "INT 4",
    "cache.ram_cache.size": "INT {memory_bytes}",
    "cache.ram_cache_cutoff": "INT 4194304",
    "cache.ram_cache.algorithm": "INT 1",  # LRU: the default's scan resistance costs and gains nothing here
    "log.logging_enabled": "INT 0",
    "http.server_ports": "STRING {port}:ip-in=127.0.0.1",
    "http.insert_response_via_str": "INT 0",
    "http.keep_alive_no_activity_timeout_in": "INT 3600",
    "http.cache.required_headers": "INT 0",
    "net.connections_throttle": "INT 8000",
    "net.listen_backlog": "INT 4096",
    "url_remap.remap_required": "INT 1",
    "admin.user_id": "STRING #-1",
    "diags.debug.enabled": "INT 0",
}


@dataclass(frozen=True)
class Contestant:
    """``make`` prepares its folder; ``program``: what must be on PATH; ``whole``: the one a variant belongs to."""

    name: str
    program: str
    package: str
    how: str
    make: Callable[[str, Peer, Path, Path], Peer]
    whole: str = ""

    @property
    def found(self) -> str | None:
        return program(self.program)

    def version(self) -> str:
        """What the program says of itself."""
        if self.program == "python":
            done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, check=False)
            return done.stdout.decode().strip() or "unknown"
        flag = {"nginx": "-v", "haproxy": "-v", "squid": "-v"}.get(self.program, "-V")
        done = subprocess.run([self.found or self.program, flag], capture_output=True, check=False, timeout=20)
        said = re.search(rb"(?:nginx/|HAProxy version |varnish-|Squid Cache: Version |traffic_server - )([\w.-]+)",
                         done.stdout + done.stderr)  # fmt: skip
        return said[1].decode() if said else "unknown"


def program(name: str) -> str | None:
    """Debian keeps servers in /usr/sbin, which is not on everybody's PATH."""
    if name == "python":
        return sys.executable
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def origin(files: Path, folder: Path) -> Peer:
    return peers._nginx("origin", _ORIGIN, CLIENT_CORE, folder, files=files)  # noqa: SLF001


def asked(source: Peer) -> int:
    """How many requests the origin has had, this one included."""
    return int(source.fetch("/asked").split()[9])


def _nginx_files(name: str, source: Peer, files: Path, folder: Path) -> Peer:
    http = _NGINX_FILES.format(sendfile="on" if name.endswith("sendfile") else "off")
    return peers._nginx(name, http, SERVER_CORE, folder, files=files)  # noqa: SLF001


def _nginx_cache(name: str, source: Peer, files: Path, folder: Path) -> Peer:
    return peers._nginx(name, _NGINX_CACHE, SERVER_CORE, folder, origin=_address(source))  # noqa: SLF001


def _haproxy(name: str, source: Peer, files: Path, folder: Path) -> Peer:
    folder, port = _home(folder, name), peers.free_port()
    written = folder / "haproxy.cfg"
    written.write_text(_HAPROXY.format(folder=folder, port=port, memory=MEMORY_MIB, largest=MEMORY_MIB * 2**19,
                                       origin=_address(source)))  # fmt: skip
    return Peer(name, [program("haproxy") or "", "-db", "-f", str(written)], port, SERVER_CORE, folder)


def _varnish(name: str, source: Peer, files: Path, folder: Path) -> Peer:
    """Malloc. One pool with its threads made at once: a thread holds a connection only while it works."""
    folder, port = _home(folder, name), peers.free_port()
    (folder / "files.vcl").write_text(_VCL.format(origin_port=source.port))
    command = [program("varnishd") or "", "-F", "-j", "none", "-f", str(folder / "files.vcl"), "-n", str(folder / "n"),
               "-a", f"127.0.0.1:{port}", "-s", f"malloc,{MEMORY_MIB}m", "-t", "3600"]  # fmt: skip
    parameters = ("thread_pools=1", "thread_pool_min=100", "thread_pool_max=2000", "listen_depth=4096",
                  "timeout_idle=3600", f"vsl_mask={_SILENT}", "ban_lurker_sleep=0")  # fmt: skip
    for parameter in parameters:
        command += ["-p", parameter]
    return Peer(name, command, port, SERVER_CORE, folder)


def _squid(name: str, source: Peer, files: Path, folder: Path) -> Peer:
    folder, port = _home(folder, name), peers.free_port()
    user = ""
    if os.geteuid() == 0:  # it refuses to work as root and goes over to another user
        account = pwd.getpwnam("proxy" if _is_user("proxy") else "nobody")
        os.chown(folder, account.pw_uid, account.pw_gid)
        user = f"cache_effective_user {account.pw_name}"
    written = folder / "squid.conf"
    written.write_text(_SQUID.format(folder=folder, port=port, memory=MEMORY_MIB, origin_port=source.port, user=user))
    return Peer(name, [program("squid") or "", "-N", "-f", str(written)], port, SERVER_CORE, folder)


def _traffic(name: str, source: Peer, files: Path, folder: Path) -> Peer:
    """Traffic Server without its manager: one event thread, a RAM cache over a cache on disk."""
    folder, port = _home(folder, name), peers.free_port()
    values = {"port": port, "memory_bytes": MEMORY_MIB * 2**20}
    records = [f"CONFIG proxy.config.{key} {value.format(**values)}" for key, value in _TRAFFIC.items()]
    layout = {"prefix": folder, "sysconfdir": folder / "etc", "localstatedir": folder / "var", "logdir": folder / "log",
              "runtimedir": folder / "run", "cachedir": folder / "cache", "libexecdir": folder / "modules"}  # fmt: skip
    for path in layout.values():
        path.mkdir(exist_ok=True)
    (folder / "runroot.yaml").write_text("".join(f"{key}: {path}\n" for key, path in layout.items()))
    (folder / "etc/records.config").write_text("\n".join([*records, ""]))
    (folder / "etc/storage.config").write_text(f"{folder / 'cache'} 2G\n")
    (folder / "etc/remap.config").write_text(f"map / http://{_address(source)}/\n")
    (folder / "etc/ip_allow.yaml").write_text(
        "ip_allow:\n  - apply: in\n    ip_addrs: 127.0.0.1\n    action: allow\n    methods: ALL\n"
    )
    command = [program("traffic_server") or "", f"--run-root={folder / 'runroot.yaml'}"]
    return Peer(name, command, port, SERVER_CORE, folder, env={"TS_RUNROOT": str(folder / "runroot.yaml")})


def _fileproxy(name: str, source: Peer, files: Path, folder: Path) -> Peer:
    """Defaults, with the access log; ``-quiet`` without it, ``-bare`` without counting too, ``-two``: two workers."""
    folder, port = _home(folder, name), peers.free_port()
    module = "benchmarks.race.bare" if name.endswith("bare") else "fileproxy"
    log = "off" if name.endswith(("quiet", "bare")) else folder / "access.log"
    settings = ("routes.0.upstream=files", f"cache.disk.path={folder}/cache", f"logs.access={log}",
                f"logs.error={folder}/error.log", f"logs.audit={folder}/audit.log")  # fmt: skip
    command = [peers.PYTHON, "-m", module, "serve", source.url, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "2" if name.endswith("two") else "1"]
    for setting in settings:
        command += ["--set", setting]
    return Peer(name, command, port, SERVER_CORE, folder, env={"PYTHONPATH": str(ROOT)})


def _home(folder: Path, name: str) -> Path:
    home = folder / name
    home.mkdir()
    return home


def _address(source: Peer) -> str:
    return f"127.0.0.1:{source.port}"


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


OURS = "fileproxy"
ALL = (
    Contestant(OURS, "python", "", "defaults, one worker, access log on", _fileproxy),
    Contestant("fileproxy-quiet", "python", "", "without the access log", _fileproxy, OURS),
    Contestant("fileproxy-bare", "python", "", "without access log and counting", _fileproxy, OURS),
    Contestant("fileproxy-two", "python", "", "two workers on the one processor", _fileproxy, OURS),
    Contestant("nginx", "nginx", "nginx-light", "files, sendfile off", _nginx_files, "nginx"),
    Contestant("nginx-sendfile", "nginx", "nginx-light", "files, sendfile on", _nginx_files, "nginx"),
    Contestant("nginx-cache", "nginx", "nginx-light", "proxy_cache, sendfile off", _nginx_cache, "nginx"),
    Contestant("haproxy", "haproxy", "haproxy", "cache in memory, one thread", _haproxy, "haproxy"),
    Contestant("varnish", "varnishd", "varnish", "malloc, one pool, shared log off", _varnish, "varnish"),
    Contestant("squid", "squid", "squid", "memory cache, one process", _squid, "squid"),
    Contestant("trafficserver", "traffic_server", "trafficserver", "RAM cache, one event thread", _traffic,
               "trafficserver"),
)  # fmt: skip
BY_NAME = {one.name: one for one in ALL}
PEERS = ("nginx", "haproxy", "varnish", "squid", "trafficserver")
