"""Asks to the admin API, and an API whose world is this test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fileproxy.admin.api import Answer, Api
from fileproxy.admin.audit import Audit
from fileproxy.admin.calls import Kind
from fileproxy.admin.token import Token
from fileproxy.admin.warm import Fetched, WarmJobs
from fileproxy.clock import SystemClock
from fileproxy.errors import NoRoute
from fileproxy.model import Ask, Headers, Target
from fileproxy.tasks import Tasks
from tests.house import Watched


def ask(method: str, path: str, *headers: tuple[str, str]) -> Ask:
    return Ask(
        id="id-1", method=method, target=Target(path), authority="files.test:10080", scheme="http", client="192.0.2.1",
        peer="192.0.2.1", trusted_peer=False, headers=headers,
    )  # fmt: skip


class World:
    """An Api over lists: what was banned, what is stored, which files can be fetched."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token = Token(folder / "admin_token")
        self.lines: list[dict[str, Any]] = []
        self.banned: list[tuple[Kind, str, bool]] = []
        self.broken: OSError | None = None
        self.stored: set[str] = set()
        self.files: dict[str, bytes] = {}
        self.counts = Watched()
        self.failures: list[BaseException] = []
        self.tasks = Tasks(lambda name, error: self.failures.append(error))
        self.warm = self.jobs()
        self.api = Api(
            token=self.token,
            audit=Audit(lambda line: self.lines.append(json.loads(line)), SystemClock()),
            bans=self,
            resolve=lambda value: [] if "nowhere" in value else [f"files/*/{value.rpartition('/')[2]}"],
            present=self.present,
            warm=self.warm,
            counters=self.counts,
            version="1.2.3",
        )

    def jobs(self) -> WarmJobs:
        """The jobs of a worker; all share a folder."""
        return WarmJobs(
            self.folder / "warm",
            fetch=self.fetch,
            read=self.read,
            tasks=self.tasks,
            counters=self.counts,
            clock=SystemClock(),
            publish_s=0.01,
        )

    @property
    def bearer(self) -> tuple[str, str]:
        return ("Authorization", f"Bearer {(self.folder / 'admin_token').read_text().strip()}")

    async def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """An admin call with the token: status and JSON."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        status, _, said = await self.api.answer(ask(method, f"/-/api/v1/{path}", self.bearer), data)
        return status, json.loads(said)

    async def announce(self, wanted: Sequence[tuple[Kind, str, bool]]) -> Sequence[object]:
        if self.broken is not None:
            raise self.broken
        self.banned += wanted
        return wanted

    async def present(self, urls: Sequence[str]) -> bool:
        return not self.stored.isdisjoint(urls)

    async def fetch(self, url: str) -> Fetched:
        return Fetched(True, len(await self.read(url, 10**9)))

    async def read(self, url: str, most: int) -> bytes:
        if url not in self.files:
            raise NoRoute(f"No route serves {url}.")
        return self.files[url]


def header_of(answer: Answer, name: str) -> str | None:
    headers: Headers = answer[1]
    return next((value for key, value in headers if key == name), None)
