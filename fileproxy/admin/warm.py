"""Warm jobs: fetch a list of files, or what a sitemap lists, so that the first client finds them stored.

A job runs in the worker that was asked; every worker can tell how far it is, because the job says so in a file of
``RUN_DIR/warm`` (and takes a request to stop from there). Everything is bounded: jobs, addresses, fetches at once.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from fileproxy.admin.sitemap import LARGEST_BYTES, BadSitemap, Sitemap, parse
from fileproxy.clock import Clock
from fileproxy.errors import FileProxyError
from fileproxy.model import Counters
from fileproxy.tasks import Tasks

MOST_JOBS = 4  # running in one worker
MOST_URLS = 50_000
MOST_SITEMAPS = 200
KEPT_JOBS = 100  # files of jobs that have ended
KEPT_FAILURES = 20  # of one job
PUBLISH_S = 0.5
LOST_AFTER_S = 15.0  # a running job says at least this often that it does
_ID = re.compile(r"[0-9a-f]{16}")

Url = Annotated[str, msgspec.Meta(min_length=1, max_length=8192, pattern=r"^(/|https?://)")]


class WarmOrder(msgspec.Struct, forbid_unknown_fields=True):
    """Give ``urls`` (addresses or paths of files served here) or the address or path of a ``sitemap``."""

    urls: Annotated[list[Url], msgspec.Meta(max_length=MOST_URLS)] = []
    sitemap: Url | None = None
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=16)] = 4


class Failure(msgspec.Struct, frozen=True):
    url: str
    detail: str


class WarmState(msgspec.Struct):
    """How far a job is. ``lost``: its worker has ended."""

    id: str
    state: Literal["running", "done", "cancelled", "failed", "lost"]
    started_at: float
    updated_at: float
    total: int | None = None  # not known while a sitemap is being read
    fetched: int = 0
    failed: int = 0
    bytes: int = 0
    detail: str = ""
    failures: list[Failure] = []


@dataclass(frozen=True, slots=True)
class Fetched:
    """What became of one file: ``ok`` when it was fetched whole (or was stored already)."""

    ok: bool
    size: int = 0
    detail: str = ""


class TooManyJobs(Exception):
    """All places for jobs are taken."""


class WarmJobs:
    """The jobs of one worker, and the files of all.

    ``fetch(url)`` brings one file into the cache; ``read(url, most)`` returns a small file's bytes and raises
    FileProxyError. Both serve addresses and paths of our own routes only, which keeps a sitemap's author out of the
    rest of the network.
    """

    def __init__(
        self,
        folder: Path,
        *,
        fetch: Callable[[str], Awaitable[Fetched]],
        read: Callable[[str, int], Awaitable[bytes]],
        tasks: Tasks,
        counters: Counters,
        clock: Clock,
        publish_s: float = PUBLISH_S,
    ) -> None:
        self._folder = folder
        self._fetch = fetch
        self._read = read
        self._tasks = tasks
        self._counters = counters
        self._clock = clock
        self._publish_s = publish_s
        self._running: dict[str, asyncio.Task[None]] = {}

    async def start(self, order: WarmOrder) -> WarmState:
        """Begin a job. Raises TooManyJobs, OSError."""
        if len(self._running) >= MOST_JOBS:
            raise TooManyJobs(f"{MOST_JOBS} jobs are running already")
        now = self._clock.time()
        total = None if order.sitemap else len(order.urls)
        state = WarmState(secrets.token_hex(8), "running", now, now, total, failures=[])
        self._folder.mkdir(parents=True, exist_ok=True)
        self._prune()
        self._publish(state)
        task = self._tasks.start(self._run(state, order), f"warm {state.id}")
        self._running[state.id] = task
        task.add_done_callback(lambda _: self._running.pop(state.id, None))
        return state

    def state(self, identity: str) -> WarmState | None:
        """How far a job is, whichever worker runs it; None when there is none of this id."""
        if not _ID.fullmatch(identity):
            return None
        try:
            state = msgspec.json.decode((self._folder / f"{identity}.json").read_bytes(), type=WarmState)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None
        if state.state == "running" and self._clock.time() - state.updated_at > LOST_AFTER_S:
            state.state = "lost"
        return state

    async def cancel(self, identity: str) -> WarmState | None:
        """Stop a job; one of another worker stops within a second. Raises OSError."""
        if (task := self._running.get(identity)) is not None:
            task.cancel()
            await asyncio.wait([task])
        elif (state := self.state(identity)) is not None and state.state == "running":
            (self._folder / f"{identity}.stop").touch()
        return self.state(identity)

    # --- one job ------------------------------------------------------------------------------------------------------

    async def _run(self, state: WarmState, order: WarmOrder) -> None:
        fetchers: list[asyncio.Task[None]] = []
        try:
            urls = await self._listed(order.sitemap) if order.sitemap else order.urls
            state.total = len(urls)
            left = iter(urls)
            fetchers = [
                self._tasks.start(self._fetch_all(left, state), f"warm {state.id} {number}")
                for number in range(min(order.concurrency, len(urls)))
            ]
            state.state = "done" if await self._follow(state, fetchers) else "cancelled"
        except (BadSitemap, FileProxyError) as error:
            state.state, state.detail = "failed", _text(str(error))
        except asyncio.CancelledError:
            state.state = "cancelled"
            raise
        finally:
            for fetcher in fetchers:
                fetcher.cancel()
            if state.state == "running":
                state.state = "failed"
            self._try_to_publish(state)
            with suppress(OSError):
                (self._folder / f"{state.id}.stop").unlink(missing_ok=True)

    async def _follow(self, state: WarmState, fetchers: list[asyncio.Task[None]]) -> bool:
        """Say how far it is until all is done; False when somebody asked to stop."""
        running: set[asyncio.Task[None]] = set(fetchers)
        while running:
            done, running = await asyncio.wait(running, timeout=self._publish_s)
            for one in done:
                one.result()
            if (self._folder / f"{state.id}.stop").exists():
                return False
            self._try_to_publish(state)
        return True

    async def _fetch_all(self, left: Iterator[str], state: WarmState) -> None:
        """Fetch one after the other; the fetchers of a job share what is left."""
        for url in left:
            try:
                got = await self._fetch(url)
            except FileProxyError as error:
                got = Fetched(False, detail=error.detail)
            state.bytes += got.size
            if got.ok:
                state.fetched += 1
                self._counters.add("warm.fetched")
            else:
                state.failed += 1
                self._counters.add("warm.failed")
                if len(state.failures) < KEPT_FAILURES:
                    state.failures.append(Failure(url, _text(got.detail)))

    async def _listed(self, sitemap: str) -> list[str]:
        """The addresses of a sitemap, or of all sitemaps of an index (which lists no further index)."""
        first = await self._sitemap(sitemap, MOST_URLS)
        urls = list(first.urls)
        for one in first.sitemaps[:MOST_SITEMAPS]:
            if (room := MOST_URLS - len(urls)) <= 0:
                break
            urls += (await self._sitemap(one, room)).urls
        return urls

    async def _sitemap(self, url: str, most: int) -> Sitemap:
        data = await self._read(url, LARGEST_BYTES)
        return await asyncio.to_thread(parse, data, most)

    # --- files --------------------------------------------------------------------------------------------------------

    def _publish(self, state: WarmState) -> None:
        state.updated_at = self._clock.time()
        unborn = self._folder / f"{state.id}.new"
        unborn.write_bytes(msgspec.json.encode(state))
        unborn.replace(self._folder / f"{state.id}.json")

    def _try_to_publish(self, state: WarmState) -> None:
        """A full disk does not end a job; whoever follows it sees it stand still."""
        with suppress(OSError):
            self._publish(state)

    def _prune(self) -> None:
        files = sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in files[KEPT_JOBS:]:
            path.unlink(missing_ok=True)


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
