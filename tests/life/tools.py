"""What the tests of the life cycle share: waiting for conditions, downloads that stop in the middle, the command."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from fileproxy.server.control import Outcome, RunDir, Status
from tests.origin import MIB, Content, Gate, OriginThread, Reply, stall
from tests.service import ROOT, Service

FILE = Content(seed=22, size=3 * MIB)
PAUSE_AT = 1 * MIB


def eventually(condition: Callable[[], Any], what: str, within: float = 15.0) -> Any:
    """The first true value of ``condition``. AssertionError naming ``what`` when it does not come."""
    deadline = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.02)
    return found


class SlowDownload:
    """A download of ``FILE`` that the origin holds after ``PAUSE_AT`` bytes until ``finish``."""

    def __init__(self, service: Service, origin: OriginThread, path: str = "/slow") -> None:
        self._gate = Gate()
        origin.script(path, Reply(FILE, breaks=stall(at=PAUSE_AT, lasts=self._gate)))
        self._connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
        self._connection.request("GET", path)
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200
        self._first = self._answer.read(PAUSE_AT // 2)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gate.open()
        self._answer.close()
        self._connection.close()

    def finish(self) -> bytes:
        """Let the origin go on; the whole body."""
        self._gate.open()
        return self._first + self._answer.read()

    def was_cut(self) -> bool:
        """Whether the proxy broke it off, visibly, while the origin was still holding."""
        try:
            self._answer.read()
        except (http.client.IncompleteRead, ConnectionError):
            return True
        return False


def status_of(service: Service) -> Status:
    """What the master says of itself, as soon as it has stood."""
    found: Status = eventually(RunDir(service.folder / "run").read_status, "the status of a service that stands")
    return found


def welcome(service: Service) -> str:
    """What it printed when it stood."""

    def said() -> str:
        text = (service.folder / "output").read_text()
        return text if "Try:" in text and text.endswith("\n") else ""

    return str(eventually(said, "the welcome"))


def reload(service: Service) -> Outcome:
    """`fileproxy reload`'s way: HUP, then what became of it."""
    folder = RunDir(service.folder / "run")
    before = folder.read_outcome()
    number = before.number if before else 0
    service.process.send_signal(1)
    return next_outcome(folder, number)


def next_outcome(folder: RunDir, after: int) -> Outcome:
    def newer() -> Outcome | None:
        outcome = folder.read_outcome()
        return outcome if outcome is not None and outcome.number > after else None

    found: Outcome = eventually(newer, "an outcome of the reload", 60)
    return found


def child(service: Service, word: str) -> psutil.Process:
    """The embedded child whose command line holds ``word``."""

    def look() -> psutil.Process | None:
        for process in service.family():
            try:
                if any(word in part for part in process.cmdline()):
                    return process
            except psutil.Error:
                continue
        return None

    found: psutil.Process = eventually(look, f"a child with {word} in its command line")
    return found


def fileproxy(
    *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, within: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FILEPROXY_")}
    return subprocess.run(
        [sys.executable, "-m", "fileproxy", *arguments],
        cwd=cwd,
        env={**inherited, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1", **(env or {})},
        capture_output=True,
        text=True,
        timeout=within,
        stdin=subprocess.DEVNULL,
    )
