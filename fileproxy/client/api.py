"""What other programs call: ``fileproxy.download(...)`` for one file, ``fileproxy.Client`` for many."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from fileproxy.client.checksum import Checksum
from fileproxy.client.early import Early
from fileproxy.client.mirrors import source_of
from fileproxy.client.rate import RateLimit
from fileproxy.client.tally import Tally
from fileproxy.client.trip import Download
from fileproxy.client.values import Job, MirrorStatistics, OnProgress, Options, Result, Statistics
from fileproxy.clock import Clock, SystemClock
from fileproxy.settings.units import parse_duration, parse_size

# Headers that frame a message or choose its receiver (``settings.schema.FRAMING``), and what would change the bytes.
OURS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect"}
    | {"range", "if-range", "accept-encoding"}
)
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
T = TypeVar("T")


class Client:
    """Downloads files, with the same options and one rate limit for all, and counts what it did.

    Args:
        connections: exactly so many at once for a file; None = 4 to 16, found by measuring.
        limit_rate: bytes a second (or ``"2MiB"``) over all downloads.
        timeout: give up a download after this long without a new byte, in seconds (or ``"90s"``). Nothing limits how
            long a download may take altogether.
        stall: replace a connection that is silent for this long.
        headers: sent to the hosts of the URLs, never to where redirects lead.
        ca: PEM file of the certificate authorities to trust instead of the system's. verify: False trusts anybody.
        mirrors_match: ``etag``, or ``size+mtime`` to take mirrors with equal size and Last-Modified for equal. With a
            checksum the size alone is enough: the checksum proves the rest.
        early: a connection for the first download that was begun before all this was imported.

    Raises:
        ValueError: an option is wrong.
    """

    def __init__(
        self,
        *,
        connections: int | None = None,
        limit_rate: int | str | None = None,
        timeout: float | str = 60.0,
        stall: float | str = 10.0,
        headers: Mapping[str, str] | None = None,
        ca: str | None = None,
        verify: bool = True,
        mirrors_match: Literal["etag", "size+mtime"] = "etag",
        clock: Clock | None = None,
        early: Early | None = None,
    ) -> None:
        self._options = Options(
            connections=connections,
            limit_rate=None if limit_rate is None else parse_size(limit_rate),
            timeout_s=parse_duration(timeout),
            stall_s=parse_duration(stall),
            headers=_checked(headers or {}),
            ca=ca,
            verify=verify,
            mirrors_match=mirrors_match,
        )
        self._clock = clock or SystemClock()
        self._early = early
        rate = self._options.limit_rate
        self._limit = None if rate is None else RateLimit(rate, self._clock)
        self._tally = Tally()
        self._running: list[Download] = []
        self._mirrors: dict[str, MirrorStatistics] = {}
        self._redirects = 0

    def download(
        self,
        url: str | Sequence[str],
        path: str | Path | None = None,
        *,
        resume: bool = False,
        restart: bool = False,
        force: bool = False,
        checksum: str | None = None,
        accept_unframed: bool = False,
        progress: OnProgress | None = None,
    ) -> Result:
        """Fetch one file and wait until it is complete.

        Args:
            url: its URL, or several mirrors that hold the same file.
            path: where it goes; a folder leaves the name to the server; None = the current folder.
            resume: continue what an interrupted download left beside it (``PATH.part``); a file that is there already
                and has the server's size (and the checksum) is left as it is.
            restart: start over when there is a part file that is not, or cannot be, continued.
            force: replace an existing file.
            checksum: ``sha256=…``; also sha512, sha1, md5.
            accept_unframed: take the close of a connection for the end of a file that has no other.
            progress: called with a :class:`Progress` about ten times a second, in this thread. What it raises ends the
                download; what is here is kept.

        Raises:
            DownloadError: in one sentence (``detail``) why the file is not there. ValueError: an argument is wrong.
            OSError: the disk.
        """
        work = self.download_async(
            url,
            path,
            resume=resume,
            restart=restart,
            force=force,
            checksum=checksum,
            accept_unframed=accept_unframed,
            progress=progress,
        )
        return run(work)

    async def download_async(
        self,
        url: str | Sequence[str],
        path: str | Path | None = None,
        *,
        resume: bool = False,
        restart: bool = False,
        force: bool = False,
        checksum: str | None = None,
        accept_unframed: bool = False,
        progress: OnProgress | None = None,
    ) -> Result:
        """The same in a running event loop. When it is cancelled the part file is kept as after an interruption."""
        urls = (url,) if isinstance(url, str) else tuple(dict.fromkeys(url))
        if not urls:
            raise ValueError("a download needs a URL")
        for one in urls:
            source_of(one)
        job = Job(
            urls=urls,
            path=None if path is None else _path(path),
            resume=resume,
            restart=restart,
            force=force,
            checksum=None if checksum is None else Checksum.parse(checksum),
            accept_unframed=accept_unframed,
        )
        return await self._run(job, progress)

    async def _run(self, job: Job, on_progress: OnProgress | None) -> Result:
        self._tally.downloads += 1
        early, self._early = self._early, None
        one = Download(
            job,
            self._options,
            tally=self._tally,
            limit=self._limit,
            clock=self._clock,
            on_progress=on_progress,
            early=early,
        )
        self._running.append(one)
        try:
            result = await one.run()
        except BaseException:
            self._tally.failed += 1
            raise
        finally:
            self._running.remove(one)
            self._tally.resumed += one.resumed
            self._mirrors = _merged(self._mirrors, one)
            self._redirects += sum(mirror.redirects for mirror in one.mirrors)
        if result.skipped:
            self._tally.skipped += 1
        else:
            self._tally.completed += 1
        return result

    def statistics(self) -> Statistics:
        """What it has done so far, running downloads included. A frozen snapshot; may be asked from any thread."""
        running = list(self._running)
        mirrors = self._mirrors
        for one in running:
            mirrors = _merged(mirrors, one)
        return Statistics(
            **dataclasses.asdict(self._tally),
            failures=sum(mirror.failures for mirror in mirrors.values()),
            redirects=self._redirects + sum(mirror.redirects for one in running for mirror in one.mirrors),
            mirrors=mirrors,
            running=tuple(one.progress() for one in running),
        )


def download(
    url: str | Sequence[str],
    path: str | Path | None = None,
    *,
    resume: bool = False,
    restart: bool = False,
    force: bool = False,
    checksum: str | None = None,
    progress: OnProgress | None = None,
    **options: Any,
) -> Result:
    """Fetch one file: ``Client(**options).download(url, path, …)``. See :class:`Client` for both."""
    return Client(**options).download(
        url, path, resume=resume, restart=restart, force=force, checksum=checksum, progress=progress
    )


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run in an event loop of its own: uvloop's where it is installed."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        work.close()
        raise RuntimeError("an event loop is running here: use `await client.download_async(...)`")
    try:
        import uvloop  # noqa: PLC0415 - optional

        factory: Any = uvloop.new_event_loop
    except ImportError:
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)


def _path(path: str | Path) -> Path:
    """``folder/`` means a folder, even when it is not there yet."""
    if str(path).endswith("/"):
        Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


def _checked(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or not value.isprintable():
            raise ValueError(f"{name!r} is not a header that can be sent")
        if name.lower() in OURS:
            raise ValueError(f"the header {name} is set by FileProxy itself")
    return tuple(headers.items())


def _merged(known: Mapping[str, MirrorStatistics], one: Download) -> dict[str, MirrorStatistics]:
    merged = dict(known)
    for mirror in one.mirrors:
        url = mirror.url.partition("?")[0]
        before = merged.get(url, MirrorStatistics())
        merged[url] = MirrorStatistics(
            tries=before.tries + mirror.tries,
            failures=before.failures + mirror.failures,
            bytes=before.bytes + mirror.bytes,
            bytes_per_s=before.bytes_per_s if mirror.rate is None else mirror.rate,
            last_error=mirror.last_error or before.last_error,
        )
    return merged
