"""Clients of a tortured proxy, and the verdict on what they got.

Every byte is compared with what the origin held under the validator that the client was told; so is the prefix of a
download that was cut. A download that ends as complete must be exact, and one that could be completed must be complete.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tests.clients import Connection, Got
from tests.origin import KIB, Content
from tests.trips.torture_plays import Path, Torturer, lasting_validator

Ending = Literal[
    "complete", "left", "cut", "refused",  # as the client saw it
    "corrupt", "hang", "not completed", "wrong answer",  # what must not happen
]  # fmt: skip
BAD: frozenset[Ending] = frozenset({"corrupt", "hang", "not completed", "wrong answer"})


@dataclass
class Download:
    """One ask. ``first`` and ``last`` as in a Range; both None: the whole file."""

    number: int
    path: Path
    first: int | None = None
    last: int | None = None
    pace: float = 0.0  # seconds between reads of 32 KiB
    leaves_after: int | None = None  # bytes
    got: Got | None = None
    seconds: float = 0.0
    ending: Ending = "hang"
    why: str = ""

    @property
    def header(self) -> tuple[str, ...]:
        if self.first is None and self.last is None:
            return ()
        return (f"Range: bytes={'' if self.first is None else self.first}-{'' if self.last is None else self.last}",)


def downloads(seed: int, files: Mapping[str, Path], count: int) -> list[Download]:
    """What is asked for: popular files often, a third of them in part, some slowly, some by clients who leave."""
    dice = random.Random(f"{seed} downloads")
    names = list(files)
    made = []
    for number in range(count):
        path = files[names[min(int(dice.expovariate(2.5 / len(names))), len(names) - 1)]]
        one = Download(number, path)
        size = path.content.size
        kind = dice.random()
        if kind < 0.2:
            one.first = dice.randrange(size)
            one.last = min(size - 1, one.first + dice.randrange(size))
        elif kind < 0.28:
            one.first = dice.randrange(size)
        elif kind < 0.33:
            one.last = dice.randrange(1, size)  # the last so many
        if dice.random() < 0.1:
            one.pace = 0.01
        if dice.random() < 0.1:
            one.leaves_after = dice.randrange(size)
        made.append(one)
    return made


@dataclass
class Crowd:
    """``clients`` at once, each with a connection that it keeps as long as it can."""

    port: int
    within_s: float
    left: list[Download]
    done: list[Download] = field(default_factory=list)

    async def run(self, clients: int) -> None:
        self.left.reverse()
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._client(), name="client")

    async def _client(self) -> None:
        connection: Connection | None = None
        try:
            while self.left:
                one = self.left.pop()
                if connection is None:
                    connection = await Connection.open(self.port)
                if not await self._download(connection, one):
                    await connection.close()
                    connection = None
                self.done.append(one)
        finally:
            if connection is not None:
                await connection.close()

    async def _download(self, connection: Connection, one: Download) -> bool:
        """Whether the connection can be used again."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout(self.within_s):
                await connection.request("GET", one.path.name, *one.header)
                one.got = await connection.head()
                left = await _read(connection, one, one.got)
        except TimeoutError:
            one.ending, one.why = "hang", f"not over after {self.within_s:g} s"
            return False
        except ValueError as error:
            one.ending, one.why = "wrong answer", f"no HTTP: {error}"
            return False
        except (ConnectionError, EOFError) as error:
            one.ending, one.why = "not completed", f"no answer: {error!r}"
            return False
        finally:
            one.seconds = loop.time() - started
        one.ending, one.why = verdict(one.path, one.first, one.last, one.got, left=left)
        one.got.body = b""  # thousands of them would fill the memory
        if left:
            connection.reset()
        return not left and one.got.complete and (one.got.get("connection") or "").lower() != "close"


async def _read(connection: Connection, one: Download, got: Got) -> bool:
    """The body, at the client's pace. True when the client has left inside it."""
    kept = bytearray()
    length = got.get("content-length")
    try:
        if length is None:
            got.ending = await connection._read_body(got, "GET", kept.extend)
        else:
            stop = int(length) if one.leaves_after is None else min(int(length), one.leaves_after)
            while len(kept) < stop:
                piece = await connection.reader.read(min(stop - len(kept), 32 * KIB))
                if not piece:
                    raise EOFError
                kept += piece
                if one.pace:
                    await asyncio.sleep(one.pace)
            got.ending = "length" if len(kept) == int(length) else "cut"
    except EOFError:
        got.ending = "cut"
    except ConnectionError:
        got.ending = "reset"
    got.body, got.size = bytes(kept), len(kept)
    return length is not None and got.size == one.leaves_after and got.size < int(length)


# --- the verdict ------------------------------------------------------------------------------------------------------


def verdict(path: Path, first: int | None, last: int | None, got: Got, *, left: bool) -> tuple[Ending, str]:
    """How a download of ``path`` ended, and what is wrong with that."""
    if (
        got.status == 416
        and first is not None
        and first >= min(_size(one) for held in path.held.values() for one in held)
    ):
        return "refused", ""  # true of a version that the origin had for a moment
    if got.status not in (200, 206):
        return ("not completed" if path.lasting else "refused"), f"status {got.status}: {got.body[:200]!r}"
    validator = got.get("etag") or got.get("last-modified") or ""
    coding = got.get("content-encoding") or ""
    versions = path.held.get((validator, coding))
    if not versions:
        return "wrong answer", f"the origin never held {validator} {coding}"
    start, total = 0, got.get("content-length")
    if got.status == 206:
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", got.get("content-range") or "")
        if match is None:
            return "wrong answer", f"Content-Range: {got.get('content-range')}"
        start, total = int(match[1]), match[3]
    exact = [one for one in versions if _read_at(one, start, got.size) == got.body]
    if not exact:
        return "corrupt", f"{got.size} bytes from {start} on are not those of {validator} {coding}"
    if left:
        return "left", ""
    if got.complete:
        if any((start, got.size) == _span(got.status, first, last, _size(one)) for one in exact):
            return "complete", ""
        return "corrupt", f"ended as if complete: {got.size} bytes from {start} on, of {[_size(one) for one in exact]}"
    same = (validator, coding, total) == (lasting_validator(path), "", str(path.content.size))
    if path.lasting and same:
        return "not completed", f"{got.ending} after {got.size} bytes of {got.get('content-length')} from {start} on"
    return "cut", ""


def _span(status: int, first: int | None, last: int | None, size: int) -> tuple[int, int]:
    """Where an answer begins and how long it is (RFC 9110 §14.1.2)."""
    if status == 200:
        return 0, size
    if first is None:
        return max(0, size - (last or 0)), min(size, last or 0)
    return first, (size if last is None else min(size, last + 1)) - first


def _size(one: Content | bytes) -> int:
    return one.size if isinstance(one, Content) else len(one)


def _read_at(one: Content | bytes, start: int, length: int) -> bytes:
    return one.read(start, length) if isinstance(one, Content) else one[start : start + length]


def report(done: Sequence[Download]) -> dict[str, int]:
    """How many ended how."""
    return dict(Counter(one.ending for one in done))


def problems(done: Sequence[Download], *mirrors: Torturer) -> list[str]:
    """What must not have happened, with what the mirrors told of that file."""
    said = []
    for one in done:
        if one.ending in BAD:
            asked = (one.header or ("whole",))[0]
            told = [told for mirror in mirrors for told in (mirror.told.get(one.path.name, ()), "|")]
            said.append(
                f"#{one.number} {one.path.name} ({one.path.content.size}) {asked}: {one.ending}, {one.why}\n    {told}"
            )
    return said
