"""The files in ``server.run_dir`` through which the master, its workers and the command line speak.

| file            | who writes          | what                                                                  |
|-----------------|---------------------|-----------------------------------------------------------------------|
| `fileproxy.pid` | master              | its pid; locked as long as it lives (a POSIX lock: no child holds it) |
| `settings.json` | master, mode 0600   | the newest settings generation, secrets included                      |
| `service.json`  | master              | what `status` shows                                                   |
| `reload.json`   | master              | what became of the last reload                                        |

A file is replaced as a whole, so that nobody reads half of one. What a worker tells the master travels through the
unlinked file they share for gunicorn's heartbeat (:class:`Report`): it vanishes with the worker.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fileproxy.settings import Settings

_PAGE = 4096


class AlreadyRunning(Exception):
    """Another master holds this run folder. ``pid`` is 0 when it did not say."""

    def __init__(self, run_dir: Path, pid: int) -> None:
        who = f"pid {pid}" if pid else "another process"
        super().__init__(
            f"FileProxy is already running here ({who} holds {run_dir / 'fileproxy.pid'}). "
            "Use `fileproxy stop` or `fileproxy reload`, or another folder: --set server.run_dir=DIR"
        )
        self.pid = pid


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one reload: ``unchanged``, ``applied`` (in place), ``rolled`` (new workers) or ``refused``."""

    number: int
    outcome: str
    generation: int
    changes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Status:
    """What ``status`` shows of a running service."""

    pid: int
    started_at: float
    url: str
    generation: int
    workers: list[int]
    draining: list[int]
    restarted: dict[str, int] = field(default_factory=dict)  # embedded children that had to be started again


class RunDir:
    """The run folder. Reading never fails for want of a file: None means there is none (yet)."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: int | None = None

    def lock(self) -> None:
        """Make the folder and hold its pid file until the process ends. Raises AlreadyRunning, OSError."""
        self.path.mkdir(parents=True, exist_ok=True)
        name = self.path / "fileproxy.pid"
        for attempt in range(4):  # `status` tries the lock for a moment too
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if name.exists() and os.path.samestat(os.fstat(descriptor), name.stat()):
                    break  # else a master that ended took the file away between our open and our lock
            except (BlockingIOError, PermissionError):
                pass
            os.close(descriptor)
            if attempt == 3:
                raise AlreadyRunning(self.path, self._written_pid())
            time.sleep(0.05)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock = descriptor

    def unlock(self) -> None:
        """Take the pid file away. Only the master may call it, at its end."""
        if self._lock is not None:
            for name in ("fileproxy.pid", "service.json", "settings.json"):
                (self.path / name).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def running(self) -> int | None:
        """Pid of the master that holds this folder, or None. A pid file left by a killed master counts as none."""
        try:
            descriptor = os.open(self.path / "fileproxy.pid", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return self._written_pid() or None
        finally:
            os.close(descriptor)
        return None

    def _written_pid(self) -> int:
        try:
            return int((self.path / "fileproxy.pid").read_text())
        except (OSError, ValueError):
            return 0

    def write_settings(self, generation: int, settings: Settings) -> None:
        self._write("settings.json", {"generation": generation, "settings": settings.model_dump(mode="json")})

    def read_settings(self) -> tuple[int, Settings] | None:
        found = self._read("settings.json")
        return None if found is None else (found["generation"], Settings.model_validate(found["settings"]))

    def write_outcome(self, outcome: Outcome) -> None:
        self._write("reload.json", asdict(outcome))

    def read_outcome(self) -> Outcome | None:
        found = self._read("reload.json")
        return None if found is None else Outcome(**found)

    def write_status(self, status: Status) -> None:
        self._write("service.json", asdict(status))

    def read_status(self) -> Status | None:
        found = self._read("service.json")
        return None if found is None else Status(**found)

    def _write(self, name: str, content: dict[str, Any]) -> None:
        descriptor, temporary = tempfile.mkstemp(dir=self.path, prefix=f".{name}-")  # mode 0600
        try:
            with os.fdopen(descriptor, "w") as file:
                json.dump(content, file)
            os.replace(temporary, self.path / name)
        except BaseException:
            os.unlink(temporary)
            raise

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self.path / name).read_text())
        except FileNotFoundError:
            return None
        return found


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker last told the master: the generation it serves, and why it could not take over a newer one."""

    generation: int = 0  # 0 = it does not serve yet
    failed: int = 0  # the generation it could not take over
    problem: str = ""

    def write(self, descriptor: int) -> None:
        """Into the shared file, as one write of one page, so that a reader sees all of it."""
        short = Report(self.generation, self.failed, self.problem[:300])
        os.pwrite(descriptor, json.dumps(asdict(short)).encode().ljust(_PAGE), 0)

    @classmethod
    def read(cls, descriptor: int) -> Report:
        data = os.pread(descriptor, _PAGE, 0)
        return cls(**json.loads(data)) if data.strip() else cls()
