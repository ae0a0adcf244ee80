"""One segment on its way from one mirror, and law 1 at its door."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from fileproxy.client.contact import RETRIED, Opened, declined, headers_for_span
from fileproxy.client.mirrors import Mirror
from fileproxy.client.partfile import meta_of
from fileproxy.clock import Clock
from fileproxy.control.segments import Rest
from fileproxy.errors import BadAnswer, Truncated
from fileproxy.fill.join import Differs, Joins, if_range, is_pinned, judge
from fileproxy.http.ranges import parse_content_range
from fileproxy.model import Answer, Body, Meta, header

NEAR = 1024 * 1024  # a whole file instead of a part is read forward so far; a rangeless mirror's as far as needed


@dataclass(slots=True, eq=False)
class Flight:
    """Bytes ``at`` to ``end`` (exclusive, may be lowered while it flies) of the file, from one mirror."""

    mirror: Mirror
    first: int
    end: int
    at: int
    began: float
    heard: float | None = None  # when its first bytes came
    listening_since: float | None = None  # waiting for bytes since then; None: held back by our own limit
    shared: bool = False  # somebody else asked for its rest, too
    twin: Flight | None = None  # who does
    replaces: bool = False  # the twin ends as soon as bytes come from here
    stalled: bool = False
    asked: bool = True  # its answer was waited for while it flew; False: it began with one at hand
    alone_until: float = 0.0  # nobody helps before: it is too young to be judged by its rate
    task: asyncio.Task[None] | None = None

    def rate(self, now: float) -> float | None:
        if self.heard is None or self.at == self.first:
            return None
        return (self.at - self.first) / max(now - self.began, 1e-6)

    def silent_s(self, now: float) -> float:
        return 0.0 if self.listening_since is None else now - self.listening_since

    def rest(self, now: float) -> Rest:
        return Rest(self.at, self.end, self.rate(now), self.silent_s(now), self.shared)


@dataclass(frozen=True, slots=True)
class Joined:
    """A body whose bytes belong to the file: ``skip`` of them come before ``at``; it ends at ``end``."""

    body: Body
    skip: int
    end: int


class Door:
    """Which answers may be joined to the file.

    Args:
        meta: the version that is being collected.
        proved: a checksum of the whole file is known, so that a mirror only has to have the same size (law 1).
        size_and_time: mirrors with equal size and Last-Modified hold the same bytes.
    """

    def __init__(self, meta: Meta, *, proved: bool, size_and_time: bool, clock: Clock) -> None:
        self.meta = meta
        self._proved = proved
        self._size_and_time = size_and_time
        self._clock = clock

    def validator(self, mirror: Mirror) -> str | None:
        """For If-Range. A mirror whose own version is not known yet is asked without it where it need not be ours."""
        if mirror.meta is None and (self._proved or self._size_and_time):
            return None
        return if_range(mirror.meta or self.meta)

    async def ask(self, flight: Flight) -> Joined:
        """Ask for the flight's bytes. Raises UpstreamError; then nothing of the answer was used."""
        mirror = flight.mirror
        answer = await mirror.fetch(headers_for_span(flight.at, flight.end, self.validator(mirror)))
        try:
            return self.admit(flight, answer)
        except BaseException:
            await answer.body.aclose()
            raise

    def admit(self, flight: Flight, answer: Answer) -> Joined:
        """Whether this answer's bytes are ours."""
        mirror = flight.mirror
        if answer.status in RETRIED or answer.status in (401, 403):
            raise declined(answer, self._clock, changed=answer.status not in RETRIED)
        meta = mirror.meta or self._own_version(mirror, answer) or self.meta
        found = judge(
            meta, answer.status, answer.headers, answer.body.length, flight.at, flight.end - 1, self._clock.time()
        )
        if isinstance(found, Differs):
            another = found.changed or meta is not mirror.meta or answer.status not in (200, 206)
            raise declined(answer, self._clock, found.reason, changed=another)
        mirror.meta = meta
        if answer.status == 206:
            mirror.kept_range()
        else:
            mirror.ignored_range()
            if found.skip > NEAR and not mirror.rangeless:
                raise BadAnswer(f"{answer.mirror}: sent the whole file instead of a part")
        return _joined(answer, found, meta)

    def opened(self, opened: Opened, flight: Flight) -> Joined:
        """The answer that told the version in the first place."""
        flight.mirror.meta = self.meta
        end = self.meta.size if opened.end is None else opened.end
        return Joined(opened.answer.body, flight.at - opened.offset, end)

    def _own_version(self, mirror: Mirror, answer: Answer) -> Meta | None:
        """The version a mirror names in other words, when it may be taken for ours all the same."""
        if not (self._proved or self._size_and_time) or not is_pinned(answer.headers, self._clock.time()):
            return None
        part = parse_content_range(header(answer.headers, "Content-Range") or "")
        size = answer.body.length if answer.status == 200 else None if part is None else part.size
        if size != self.meta.size:
            return None
        modified = header(self.meta.headers, "Last-Modified")
        same_time = modified is not None and modified == header(answer.headers, "Last-Modified")
        same_coding = header(self.meta.headers, "Content-Encoding") == header(answer.headers, "Content-Encoding")
        if same_coding and (self._proved or same_time):
            return meta_of(mirror.url, answer.headers, self.meta.size, self._clock.time())
        return None


def _joined(answer: Answer, found: Joins, meta: Meta) -> Joined:
    return Joined(answer.body, found.skip, meta.size if found.end is None else found.end)


async def pour(
    flight: Flight,
    joined: Joined,
    *,
    clock: Clock,
    land: Callable[[Flight, bytes], None],
    hold: Callable[[int], float] | None,
) -> None:
    """Read the body and hand its bytes to ``land`` until the flight's end. Closes the body.

    ``hold`` says how long to wait after so many bytes (the rate limit). Raises UpstreamError on a break.
    """
    skip = joined.skip
    flight.listening_since = clock.now()
    try:
        async for piece in joined.body:
            assert isinstance(piece, bytes)
            flight.heard = flight.heard or clock.now()
            wait_s = 0.0 if hold is None else hold(len(piece))
            data = piece[skip:]
            skip = max(0, skip - len(piece))
            if data:
                land(flight, data[: min(flight.end, joined.end) - flight.at])
            if wait_s > 0:
                flight.listening_since = None
                await clock.sleep(wait_s)
            flight.listening_since = clock.now()
            if flight.at >= min(flight.end, joined.end):
                return
        if flight.at < joined.end:
            raise Truncated(
                f"{flight.mirror.source.place.address}: the part ended {joined.end - flight.at} bytes early"
            )
    finally:
        flight.listening_since = None
        await joined.body.aclose()
