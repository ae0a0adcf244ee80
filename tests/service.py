"""The product as people start it: ``python -m fileproxy serve`` with real gunicorn workers, in a folder of its own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.house import free_port

ROOT = Path(__file__).resolve().parent.parent
READY_WITHIN_S = 30.0


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid on ``base``, group by group."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


class Service:
    """One running service. ``settings`` lie on quiet defaults: loopback, a free port, one worker, no shared store."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        folder: Path,
        flags: Sequence[str] = (),
        *,
        env: Mapping[str, str] | None = None,
        files_limit: int | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.port = free_port()
        defaults = {
            "server": {"host": "127.0.0.1", "port": self.port, "workers": 1, "run_dir": str(folder / "run")},
            "redis": {"url": "off"},
            "cache": {"disk": {"path": str(folder / "cache"), "min_free": 0}},
            "logs": {"access": str(folder / "access.log"), "error": str(folder / "error.log"), "audit": "off"},
        }
        self.settings = merged(defaults, settings)
        self.config = folder / "fileproxy.yaml"
        self._flags = flags
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FILEPROXY_")},
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            **(env or {}),
        }
        self._files_limit = files_limit
        self._prefix = prefix  # a program that runs it, with its options
        self.process: subprocess.Popen[bytes]

    # --- life --------------------------------------------------------------------------------------------------------

    def write(self, settings: Mapping[str, Any]) -> None:
        """Lay ``settings`` on what the configuration file says, and save it (for a reload)."""
        self.settings = merged(self.settings, settings)
        self.config.write_text(json.dumps(self.settings))  # JSON is YAML

    def start(self) -> None:
        """Start it and wait until ``/-/readyz`` says 200."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.write({})
        serve = [sys.executable, "-m", "fileproxy", "serve", "--config", str(self.config), *self._flags]
        command = [*self._prefix, *serve]
        if self._files_limit is not None:
            command = ["prlimit", f"--nofile={self._files_limit}:{self._files_limit}", *command]
        with (self.folder / "output").open("ab") as output:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=self._env, stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )
        self.wait_ready()

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while True:
            if self.process.poll() is not None:
                raise AssertionError(f"the service ended with {self.process.returncode}:\n{self.logs()}")
            try:
                if self.get("/-/readyz")[0] == 200:
                    return
            except OSError:
                pass  # not listening yet; the deadline below decides
            if time.monotonic() > deadline:
                raise AssertionError(f"not ready within {READY_WITHIN_S} s:\n{self.logs()}")
            time.sleep(0.02)

    def stop(self, within: float = 15.0) -> int:
        """TERM, wait, and make sure that nothing of it is left. Returns the exit code."""
        if not hasattr(self, "process"):
            return 0
        family = self.family()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(within)
        except subprocess.TimeoutExpired:
            print(f"pid {self.process.pid} did not end within {within} s of TERM and was killed")
            self.process.kill()
            self.process.wait(10)
        _, alive = psutil.wait_procs(family, timeout=5)
        for process in alive:
            process.kill()
        return self.process.returncode

    # --- looking at it -----------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def family(self) -> list[psutil.Process]:
        """Every process below the master: workers, embedded servers."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def worker(self) -> psutil.Process:
        """The child that serves most: with one worker, that one (known by the port it listens on)."""
        for process in self.family():
            try:
                connections = process.net_connections("tcp")
            except psutil.Error:
                continue  # it ended meanwhile
            if any(one.status == psutil.CONN_LISTEN and one.laddr[1] == self.port for one in connections):
                return process
        raise AssertionError(f"no worker listens on {self.port}:\n{self.logs()}")

    def get(self, target: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Status and body of a GET. OSError while nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", target, headers=dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def json(self, target: str) -> dict[str, Any]:
        status, body = self.get(target)
        assert status == 200, (status, body)
        result: dict[str, Any] = json.loads(body)
        return result

    def logs(self) -> str:
        """Everything it said."""
        parts = []
        for name in ("output", "error.log", "access.log"):
            path = self.folder / name
            if path.exists():
                parts.append(f"--- {name}\n{path.read_text(errors='replace')[-8000:]}")
        return "\n".join(parts)

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The JSON lines of ``access.log`` or ``error.log``."""
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]
