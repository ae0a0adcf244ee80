"""A stage between what was selected and its delivery: the answer in a coding the client takes, where that pays.

Laws kept here:

* What is coded is only ever a whole 200. Ranges, and whatever validates them, are of the bytes as they are (law 1).
* The bytes of a coded answer follow from those of the file, the coding and the level alone: they are taken in in equal
  steps. So it may have a strong ETag. Only where no length is known, what came is handed on at once, under a weak one.
* A source that breaks or a compressor that fails ends the download by an error: what makes the stream whole is sent
  only behind a source that proved its end (law 2).
* Bounded (law 5): so many answers are coded at a time, each with a window of 1 MiB and one step under way; the others
  get their bytes as they are. What is kept is a share of the memory tier's size.
* The event loop codes only what takes about a millisecond; the rest is done by threads, one step at a time.

A kept copy belongs to a representation id, whose bytes never change (for a file in a folder: its URL and strong tag).
It is used only for an answer that was given from that very representation: freshness and purges are decided there.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from fileproxy.errors import CodingFailed, FileChanged
from fileproxy.http import coding as rules
from fileproxy.http.coding import Coding
from fileproxy.http.etags import parse_etag
from fileproxy.http.ranges import parse_content_range
from fileproxy.model import Answer, Ask, Body, BytesBody, Counters, FileBody, FileSlice, Headers, Piece, header, without
from fileproxy.server import coders
from fileproxy.server.bounded import Bounded
from fileproxy.server.coders import Compressor
from fileproxy.server.siblings import Beside, Siblings

if TYPE_CHECKING:
    from fileproxy.server.exchange import Selected
    from fileproxy.settings.schema import Compress

    Options = Compress | Literal["off"]

STEP = 64 * 1024  # bytes taken in at once
INLINE = 16 * 1024  # bytes the event loop codes itself: a millisecond, where a thread costs 0.1
THREADS = 2  # of a worker; each worker has its core already
MOST_RUNNING = 16  # answers that are coded at a time, each with up to 4 MiB
SHARE = 8  # of the memory tier's budget, a part of this size for coded copies


@dataclass(frozen=True, slots=True)
class Copy:
    """A coded representation."""

    level: int
    data: bytes

    @property
    def weight(self) -> int:
        return len(self.data) + 300

    def gone(self) -> None:
        """Nothing else holds it."""


class Coded(NamedTuple):
    selected: Selected
    as_ever: bool  # the same request would get the same again: nothing but its fields and the file decided


class Compression:
    """Codes the answers of one worker.

    Args:
        budget: bytes of the worker's memory tier.
        busy: share of its time (0 to 1) that the loop's thread is at work; nothing is coded at 1.
    """

    def __init__(self, counters: Counters, *, budget: Callable[[], int], busy: Callable[[], float]) -> None:
        self._counters = counters
        self._budget = budget
        self._busy = busy
        self._kept: Bounded[tuple[bytes, Coding], Copy] = Bounded(0)
        self._threads: ThreadPoolExecutor | None = None
        self._siblings = Siblings()
        self.running = 0

    def asked(self, ask: Ask, options: Options) -> Ask:
        """The ask as an origin understands it, which does not know the tags of coded answers."""
        if options == "off":
            return ask
        headers = rules.with_origin_tags(ask.headers, taken_only=ask.method in ("GET", "HEAD"))
        return ask if headers is ask.headers else replace(ask, headers=headers)

    def whole(self, ask: Ask, answer: Answer, options: Options) -> Ask:
        """Without a Range that hangs on a date when the client may hold a coded beginning of that date (law 1)."""
        if options == "off" or answer.status != 200 or rules.tells_apart(answer.headers):
            return ask
        if not rules.by_date(ask.headers) or rules.choose(ask.headers, self._offered(options)) is None:
            return ask
        if not rules.may_be_coded(ask.headers, answer.headers, options.types):
            return ask
        return replace(ask, headers=without(ask.headers, frozenset({"range", "if-range"})))

    async def code(
        self,
        ask: Ask,
        answer: Answer,
        selected: Selected,
        options: Options,
        rid: bytes | None,
        *,
        route: str = "",
        beside: Beside | None = None,
    ) -> Coded:
        """What the client gets of ``selected``. ``ask`` as the client sent it, ``rid`` of what is stored, if it is.

        ``beside`` asks for what the site keeps beside this file, ``route`` names what is alike in that.
        The caller closes its body, and the answer's.
        """
        size, rid = _size(answer, selected), rid or _pinned(ask, answer)
        if options == "off" or ask.method not in ("GET", "HEAD") or selected.status not in (200, 206, 304):
            return Coded(selected, True)
        if selected.status == 304:
            return Coded(self._not_modified(ask, answer, selected, options, rid, size), True)
        if (size is not None and size < options.min_size) or not rules.may_be_coded(
            ask.headers, answer.headers, options.types
        ):
            return Coded(selected, True)
        plain = replace(selected, headers=rules.varied(selected.headers))
        if selected.status == 206 or header(ask.headers, "Range") is not None:
            return Coded(plain, True)
        if options.siblings and beside is not None and rid is not None and size is not None:
            one = await self._siblings.find(ask, answer.headers, size, options.siblings, route, beside)
            if one is not None:
                return self._ready(ask, selected, size, one.coding, one.mark, one.answer.body, one.length, "siblings")
        coding = rules.choose(ask.headers, self._offered(options))
        if coding is None:
            return Coded(plain, True)
        proves = selected.body.framed  # a body that only a close ends must not come out as a whole stream
        if not proves or not (answer.stored or rules.tells_apart(answer.headers)):
            return Coded(plain, True)
        copy = None if rid is None else self._kept.get((rid, coding))
        if copy is not None and rid is not None:
            self._kept.refresh((rid, coding))
            body, length = BytesBody(copy.data), len(copy.data)
            return self._ready(ask, selected, size, coding, copy.level, body, length, "kept")
        return await self._made(ask, selected, coding, size, rid, plain)

    async def _made(
        self, ask: Ask, selected: Selected, coding: Coding, size: int | None, rid: bytes | None, plain: Selected
    ) -> Coded:
        """Coded now, if there is time for it."""
        level = rules.level(coding, self._busy(), size)
        if level is None or self.running >= MOST_RUNNING:
            self._counters.add("compression.skipped")
            return Coded(plain, False)
        exact = size is not None
        coded = replace(selected, headers=rules.coded_head(selected.headers, coding, level, exact=exact), length=None)
        if ask.method == "HEAD":
            return Coded(coded, True)
        stage = Stage(self, selected.body, coding, level, size, rid)
        if size is None or size > INLINE:
            return Coded(replace(coded, body=stage), True)
        data = b"".join([piece async for piece in stage])
        return Coded(replace(coded, body=BytesBody(data), length=len(data)), True)

    def keep(self, rid: bytes, coding: Coding, copy: Copy) -> None:
        """A whole coded copy of a stored representation."""
        self._kept.most_bytes = self._budget() // SHARE
        self._kept.add((rid, coding), copy)

    async def run(self, work: Callable[..., bytes], *arguments: Any) -> bytes:
        """Do this in a thread."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="compress")
        return await asyncio.wrap_future(self._threads.submit(work, *arguments))

    def coded(self, coding: Coding, taken: int, given: int) -> None:
        """An answer was coded to its end."""
        self._counters.add("coding.bytes_in", taken, label=coding)
        self._counters.add("coding.bytes_out", given, label=coding)
        self._counters.add("coding.answers", label=coding)

    def close(self) -> None:
        self._kept.clear()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def statistics(self) -> dict[str, int]:
        """For ``/stats``: of this worker alone."""
        return {"running": self.running, "kept": len(self._kept), "kept_bytes": self._kept.bytes}

    # --- within -------------------------------------------------------------------------------------------------------

    def _ready(
        self,
        ask: Ask,
        selected: Selected,
        size: int | None,
        coding: Coding,
        level: int | str,
        body: Body,
        length: int,
        counted: str,
    ) -> Coded:
        """Somebody has coded it before."""
        if ask.method == "GET":
            self._counters.add(f"coding.{counted}", label=coding)
            self.coded(coding, size or 0, length)
        head = rules.coded_head(selected.headers, coding, level)
        return Coded(replace(selected, headers=head, body=body, length=length), True)

    def _offered(self, options: Compress) -> tuple[Coding, ...]:
        absent = coders.missing()
        return tuple(coding for coding in options.codings if coding not in absent)

    def _not_modified(
        self, ask: Ask, answer: Answer, selected: Selected, options: Compress, rid: bytes | None, size: int | None
    ) -> Selected:
        """The tag of a 304 is that of what the client holds; by a date alone, of what it would get."""
        tag = parse_etag(header(selected.headers, "ETag"))
        eligible = (size is None or size >= options.min_size) and rules.may_be_coded(
            ask.headers, answer.headers, options.types
        )
        known = None if tag is None else rules.known_tag(ask.headers, tag)
        if tag is not None and not tag.weak and known is None and eligible and size is not None:
            coding = rules.choose(ask.headers, self._offered(options))
            if coding is not None and header(ask.headers, "If-None-Match") is None:
                copy = None if rid is None else self._kept.get((rid, coding))
                level = copy.level if copy is not None else rules.level(coding, self._busy(), size)
                known = None if level is None else rules.coded_tag(tag, coding, level)
        if known is None:
            return replace(selected, headers=rules.varied(selected.headers)) if eligible else selected
        headers: Headers = (*without(selected.headers, frozenset({"etag"})), ("ETag", str(known)))
        return replace(selected, headers=rules.varied(headers))


class Stage:
    """A body, coded while it is read. It has a place among those that run until it has ended or is closed."""

    length: int | None = None
    framed = True

    def __init__(
        self, owner: Compression, source: Body, coding: Coding, level: int, size: int | None, rid: bytes | None
    ) -> None:
        self._owner = owner
        self._source = source
        self._coding = coding
        self._level = level
        self._size = size
        self._keep = rid if size is not None and size <= rules.BIG else None
        self._runs = True
        owner.running += 1

    async def __aiter__(self) -> AsyncIterator[bytes]:
        taken = given = 0
        kept: list[bytes] = []
        compressor = self._made()
        async for step, last in self._steps():
            out = await self._coded(compressor, step, last)
            taken, given = taken + len(step), given + len(out)
            if self._keep is not None:
                kept.append(out)
            if out:
                yield out
        self._leave()
        if self._keep is not None:
            self._owner.keep(self._keep, self._coding, Copy(self._level, b"".join(kept)))
        self._owner.coded(self._coding, taken, given)

    def _made(self) -> Compressor:
        try:
            return coders.compressor(self._coding, self._level, self._size)
        except Exception as error:  # whatever a library does when it has no memory: the download must end by it
            raise CodingFailed(f"There is no {self._coding} compressor: {error!r}.") from error

    async def _coded(self, compressor: Compressor, step: bytes | memoryview, last: bool) -> bytes:
        flush = self._size is None
        try:
            if self._size is not None and self._size <= INLINE:
                return _push(compressor, step, last, flush)
            return await self._owner.run(_push, compressor, step, last, flush)
        except Exception as error:
            raise CodingFailed(f"The {self._coding} compressor failed: {error!r}.") from error

    async def _steps(self) -> AsyncIterator[tuple[bytes | memoryview, bool]]:
        """The source in equal steps, the last one marked (it may be empty); as it comes when its length is unknown."""
        pending = bytearray()
        async for piece in self._source:
            async for data in self._bytes_of(piece):
                if self._size is None:
                    yield data, False
                    continue
                pending += data
                while len(pending) > STEP:
                    yield bytes(pending[:STEP]), False
                    del pending[:STEP]
        yield bytes(pending), True

    async def _bytes_of(self, piece: Piece) -> AsyncIterator[bytes | memoryview]:
        if isinstance(piece, FileSlice):
            offset, end = piece.offset, piece.offset + piece.length
            while offset < end:
                data = await self._owner.run(
                    _read, _Held(piece.descriptor), offset, min(end - offset, STEP), piece.stamp
                )
                offset += len(data)
                yield data
            return
        view = memoryview(piece)
        for start in range(0, len(view), STEP):
            yield view[start : start + STEP]

    def _leave(self) -> None:
        if self._runs:
            self._runs = False
            self._owner.running -= 1

    async def aclose(self) -> None:
        self._leave()
        await self._source.aclose()


def _push(compressor: Compressor, step: bytes | memoryview, last: bool, flush: bool) -> bytes:
    out = compressor.push(step, flush=flush and not last)
    return out + compressor.end() if last else out


class _Held:
    """A duplicate of a descriptor for one read: a cancelled download may close its own at once.

    Closed with its last reference, if not before: a read that is cancelled may run already, or never.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = os.dup(descriptor)

    def close(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    __del__ = close


def _read(held: _Held, offset: int, length: int, stamp: tuple[int, int] | None) -> bytes:
    """In a thread. Raises FileChanged."""
    try:
        data = os.pread(held.descriptor, length, offset)
        status = os.fstat(held.descriptor)
    finally:
        held.close()
    if not data or (stamp is not None and (status.st_size, status.st_mtime_ns) != stamp):
        raise FileChanged("The file changed while it was being sent.")
    return data


def _pinned(ask: Ask, answer: Answer) -> bytes | None:
    """What stands for a representation id of a file in a folder, which is not stored: its URL and strong tag."""
    tag = parse_etag(header(answer.headers, "ETag"))
    if tag is None or tag.weak or not isinstance(answer.body, FileBody):
        return None
    text = f"{ask.scheme}://{ask.authority}{ask.target} {tag}"
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16, person=b"fp-coded").digest()


def _size(answer: Answer, selected: Selected) -> int | None:
    """Bytes of the whole representation, when they are known."""
    if answer.status == 206:
        part = parse_content_range(header(answer.headers, "Content-Range") or "")
        return None if part is None else part.size
    if selected.status == 200 and selected.length is not None:
        return selected.length
    return answer.body.length if answer.stored else None
