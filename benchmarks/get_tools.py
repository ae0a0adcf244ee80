"""Who is compared as a download client: the command of each, and the least that Python itself would need."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

OURS = "fileproxy get"
ROOT = Path(__file__).resolve().parent.parent

# One GET into a file with C modules only and nothing else imported: what no Python program that reads with one
# connection falls below. Its last argument says whether the bytes must be on the disk before it ends.
_BARE = """
import _socket, os, sys
host, port, path, out, flush = sys.argv[1:]
sock = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
sock.connect((host, int(port)))
sock.sendall(f"GET {path} HTTP/1.1\\r\\nHost: {host}:{port}\\r\\n\\r\\n".encode())
head, mark, data = b"", b"", b""
while not mark:
    piece = sock.recv(65536)
    if not piece:
        os._exit(1)
    head, mark, data = (head + data + piece).partition(b"\\r\\n\\r\\n")
left = int(head.lower().partition(b"content-length:")[2].split()[0]) - len(data)
file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
os.write(file, data)
while left:
    data = sock.recv(min(left, 524288), _socket.MSG_WAITALL)
    if not data:
        os._exit(1)
    os.write(file, data)
    left -= len(data)
if flush == "flush":
    os.fsync(file)
os._exit(0)
"""


@dataclass(frozen=True)
class Server:
    """Where the file is."""

    host: str
    port: int
    path: str

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}{self.path}"


@dataclass(frozen=True)
class Tool:
    """One contestant.

    Attributes:
        rival: it is one that ours must be as fast as; the others are there to explain.
        command: what fetches the file to a path that is not there yet.
        about: how it was set, and why.
    """

    name: str
    rival: bool
    command: Callable[[Server, Path], list[str]]
    about: str


def _ours(server: Server, out: Path) -> list[str]:
    return [sys.executable, "-m", "fileproxy", "get", "-q", "-o", str(out), server.url]


def _curl(server: Server, out: Path) -> list[str]:
    return ["curl", "-q", "-sS", "--fail", "-o", str(out), server.url]


def _aria2c(*options: str) -> Callable[[Server, Path], list[str]]:
    def command(server: Server, out: Path) -> list[str]:
        where = ["-d", str(out.parent), "-o", out.name]
        return ["aria2c", "--no-conf=true", "-q", *options, *where, server.url]

    return command


def _bare(flush: str) -> Callable[[Server, Path], list[str]]:
    def command(server: Server, out: Path) -> list[str]:
        return [sys.executable, "-ISc", _BARE, server.host, str(server.port), server.path, str(out), flush]

    return command


TOOLS = {
    tool.name: tool
    for tool in (
        Tool(OURS, False, _ours, "as it comes; it flushes the file to the disk before the file gets its name"),
        Tool("curl", True, _curl, "as it comes: one connection, nothing is flushed"),
        Tool(
            "aria2c -x16",
            True,
            _aria2c("-x16", "-s16", "-k1M", "--file-allocation=none"),
            "`-x16 -s16 -k1M --file-allocation=none`: as many connections as it allows from the start, each with at "
            "least 1 MiB (its smallest), the file not written twice",
        ),
        Tool("aria2c", True, _aria2c(), "as it comes: one connection for a server, file preallocated"),
        Tool("bare python", False, _bare("leave"), "one GET into a file, C modules only: Python's own bound"),
        Tool("bare python, flushed", False, _bare("flush"), "the same with one fsync: with what ours promises, too"),
    )
}


def missing() -> list[str]:
    """What this machine lacks, one sentence each."""
    needed = (("curl", "curl"), ("aria2c", "aria2"), ("taskset", "util-linux"))
    return [f"{tool} is needed (Debian package {package})" for tool, package in needed if not shutil.which(tool)]


def versions() -> dict[str, str]:
    """What was compared with what."""
    said = {}
    for name in ("curl", "aria2c"):
        done = subprocess.run([name, "--version"], capture_output=True, text=True, check=True)
        said[name] = next(word for word in done.stdout.split() if word[0].isdigit())
    return said
