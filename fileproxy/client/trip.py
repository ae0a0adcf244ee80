"""One download from its URLs to its final name, on one screen."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from fileproxy.client.checksum import Checksum, Interrupted, hash_file
from fileproxy.client.contact import FIRST, Opened, contact
from fileproxy.client.early import Early
from fileproxy.client.engine import Engine
from fileproxy.client.failures import ChecksumMismatch, PartFileError
from fileproxy.client.flight import Door
from fileproxy.client.mirrors import Mirror, Servers
from fileproxy.client.names import file_name
from fileproxy.client.partfile import PartFile, journal_of, part_of
from fileproxy.client.plan import Spans
from fileproxy.client.rate import RateLimit
from fileproxy.client.speed import Speed
from fileproxy.client.stream import stream
from fileproxy.client.tally import Tally
from fileproxy.client.values import Job, OnProgress, Options, Progress, Result, State
from fileproxy.clock import Clock
from fileproxy.fill.join import same_representation

REPORT_EVERY_S = 0.1


class Download:
    """One file on its way. ``progress`` says how far it is; ``mirrors`` what each URL did."""

    def __init__(
        self,
        job: Job,
        options: Options,
        *,
        tally: Tally,
        limit: RateLimit | None,
        clock: Clock,
        on_progress: OnProgress | None,
        early: Early | None = None,
    ) -> None:
        self._job = job
        self._options = options
        self._tally = tally
        self._limit = limit
        self._clock = clock
        self._on_progress = on_progress
        self._began = clock.now()
        self._told = 0.0
        self._speed = Speed(self._began)
        self._state: State = "connecting"
        self._out: Path | None = None
        self._part: PartFile | None = None
        self._engine: Engine | None = None
        self._size: int | None = None
        self._resumed = 0
        self._early = early
        self._servers = Servers(options, tally, early)
        self.mirrors = [
            Mirror(url, self._servers, options.headers, clock=clock, cap_s=options.timeout_s) for url in job.urls
        ]

    # --- the trip ----------------------------------------------------------------------------------------------------

    async def run(self) -> Result:
        """Fetch the file. Raises DownloadError, OSError (the disk), and whatever the progress callback raises."""
        opened: Opened | None = None
        try:
            self._tell(now=True)
            if (out := self._known_name()) is not None:
                self._claim(out)
            opened = await self._contact()
            if self._out is None:
                assert opened is not None
                self._claim((self._job.path or Path()) / file_name(opened.disposition, opened.mirror.url))
            if self._part is None:
                assert opened is not None
                return await self._already_there(opened)
            opened = await self._of_one_version(opened, self._part)
            await self._fetch(opened, self._part)
            try:
                verified = await self._verify(opened, self._part)
                await asyncio.to_thread(self._part.finish, force=self._job.force)
            except BaseException:
                self._part.save(tuple(self._part.done))
                raise
            self._state = "done"
            self._tell(now=True)
            return self._result(opened, verified)
        except BaseException:
            if self._part is not None and not self._part.done.total and self._state != "done":
                self._part.discard()
            raise
        finally:
            if opened is not None:
                await opened.answer.body.aclose()
            await self._servers.close()
            if self._part is not None:
                self._part.close()

    def _known_name(self) -> Path | None:
        """The file's name, if the user chose it; else the server does."""
        path = self._job.path
        return None if path is None or path.is_dir() else path

    def _claim(self, out: Path) -> None:
        """The file's name is known: see what is there. Without a part file after this, the file is there already."""
        job, self._out = self._job, out
        if out.is_dir():
            raise PartFileError(f"{out} is a folder")
        left_over = part_of(out).exists() or journal_of(out).exists()
        if out.exists() and not job.force:
            if job.resume and not left_over:
                return
            raise PartFileError(f"{out} exists; --force replaces it")
        out.parent.mkdir(parents=True, exist_ok=True)
        self._part = PartFile.open(out, resume=job.resume, restart=job.restart)
        self._size = None if self._part.meta is None else self._part.meta.size
        self._resumed = self._part.done.total

    async def _contact(self) -> Opened | None:
        """The first answer, from the first missing byte on; None when every byte is here already."""
        part, first = self._part, 0
        if part is not None and part.meta is not None:
            gaps = part.done.gaps(part.meta.size)
            if not gaps:
                return None
            first = gaps[0][0]
        length = FIRST
        if self._early is not None and first == 0:  # the same request as it sent
            if not self._early.settled:
                await asyncio.to_thread(self._early.settle)
            length = self._early.length
        return await contact(self.mirrors, first, self._clock, self._options.timeout_s, length)

    async def _of_one_version(self, opened: Opened | None, part: PartFile) -> Opened | None:
        """What is here must be of the version that is there (law 1), or must go."""
        if opened is None or part.meta is None:
            return opened
        now = self._clock.time()
        if opened.meta is not None and same_representation(part.meta, opened.answer.headers, opened.meta.size, now):
            return opened
        if not self._job.restart:
            raise PartFileError(
                f"the file has changed since {part.path} was begun, or no longer names its version; "
                "--restart starts over"
            )
        part.reset()
        self._resumed = 0
        if opened.offset == 0:
            return opened
        await opened.answer.body.aclose()
        return await contact(self.mirrors, 0, self._clock, self._options.timeout_s)

    async def _fetch(self, opened: Opened | None, part: PartFile) -> None:
        """Every byte into the part file."""
        options = self._options
        self._state = "fetching"
        self._speed.start(self._clock.now(), part.done.total)
        meta = part.meta if opened is None else opened.meta
        self._size = opened.size if opened is not None else meta.size if meta is not None else None
        if self._size is not None:
            part.check_room(self._size - part.done.total)
        if meta is None:
            assert opened is not None
            try:
                self._size = await stream(
                    opened,
                    part,
                    limit=self._limit,
                    clock=self._clock,
                    timeout_s=options.timeout_s,
                    accept_unframed=self._job.accept_unframed or self._job.checksum is not None,
                    report=self._tell,
                )
            except BaseException:
                part.discard()  # it can never be continued
                raise
            return
        if part.meta is None:
            part.begin(meta)
        assert part.meta is not None
        door = Door(
            part.meta,
            proved=self._job.checksum is not None,
            size_and_time=options.mirrors_match == "size+mtime",
            clock=self._clock,
        )
        self._engine = Engine(
            self.mirrors,
            part,
            door,
            options=options,
            limit=self._limit,
            clock=self._clock,
            tally=self._tally,
            report=self._tell,
            round_trip_s=0.0 if opened is None else opened.answer.timings.get("first_byte", 0.0),
            ahead_s=0.0 if opened is None else opened.answer.timings.get("ahead", 0.0),
            alone=opened is not None and opened.end is not None and opened.end - opened.offset > FIRST,
        )
        await self._engine.run(opened)

    async def _verify(self, opened: Opened | None, part: PartFile) -> Checksum | None:
        """Every checksum that is known must agree. What does not is kept, but gets no name."""
        promised = opened.promised if opened is not None else None
        wanted = [one for one in (self._job.checksum, promised) if one is not None]
        if wanted:
            self._state = "verifying"
            self._tell(now=True)
        for one in wanted:
            found = await self._hash(part, one.algorithm)
            if not one.agrees(found):
                who = "was promised" if one is self._job.checksum else "the server promised"
                raise ChecksumMismatch(f"{part.path}: {one.algorithm} is {found}, but {one.digest} {who}; it was kept")
        return wanted[0] if wanted else None

    async def _hash(self, part: PartFile, algorithm: str) -> str:
        stop = threading.Event()
        try:
            return await asyncio.to_thread(hash_file, part.descriptor, algorithm, stop)
        except Interrupted:
            raise asyncio.CancelledError from None
        finally:
            stop.set()

    async def _already_there(self, opened: Opened) -> Result:
        """``resume`` and the file is there, without a part file: it is taken for complete when it looks so."""
        out, job = self._out, self._job
        assert out is not None
        if opened.size is None or out.stat().st_size != opened.size:
            raise PartFileError(f"{out} exists and has not the size of the server's file; --force replaces it")
        if job.checksum is not None:
            with out.open("rb") as file:
                found = await asyncio.to_thread(hash_file, file.fileno(), job.checksum.algorithm, threading.Event())
            if not job.checksum.agrees(found):
                raise ChecksumMismatch(
                    f"{out}: {job.checksum.algorithm} is {found}, but {job.checksum.digest} was promised; it was kept"
                )
        return self._result(opened, job.checksum, skipped=True)

    def _result(self, opened: Opened | None, verified: Checksum | None, *, skipped: bool = False) -> Result:
        assert self._out is not None
        size = opened.size if self._size is None and opened is not None else self._size
        return Result(
            path=self._out,
            size=size or 0,
            url=self._job.urls[0] if opened is None else opened.mirror.url,
            fetched=sum(mirror.bytes for mirror in self.mirrors),
            resumed=self._resumed,
            elapsed_s=self._clock.now() - self._began,
            parallel=opened is None or opened.meta is not None,
            checksum=None if verified is None else str(verified),
            skipped=skipped,
        )

    # --- how far it is -----------------------------------------------------------------------------------------------

    @property
    def resumed(self) -> int:
        return self._resumed

    def progress(self) -> Progress:
        done = Spans() if self._part is None else self._part.done
        now = self._clock.now()
        return Progress(
            url=self._job.urls[0],
            path=self._out,
            state=self._state,
            size=self._size,
            received=done.total,
            resumed=self._resumed,
            rate=self._speed.look(now, done.total),
            connections=self._engine.connections if self._engine is not None else int(self._state == "fetching"),
            elapsed_s=now - self._began,
        )

    def _tell(self, *, now: bool = False) -> None:
        at = self._clock.now()
        if self._on_progress is not None and (now or at - self._told >= REPORT_EVERY_S):
            self._told = at
            self._on_progress(self.progress())
