"""One URL of the file: where its redirects lead, when it may be asked again, what it gave."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from fileproxy.client.asking import BASE
from fileproxy.client.connect import Dialer
from fileproxy.client.early import Early
from fileproxy.client.failures import Declined
from fileproxy.client.server import Server
from fileproxy.client.tally import Tally
from fileproxy.client.values import Options
from fileproxy.clock import Clock
from fileproxy.errors import FileProxyError, RedirectRefused
from fileproxy.model import Answer, Headers, Meta, header, without
from fileproxy.upstream.redirects import STATUSES, Place, follow, place_of
from fileproxy.upstream.retry import Failure, rest

HOPS = 10
BUFFER = 256 * 1024  # of a connection: read at once
MOST_CHANGED = 6  # answers in a row of another version until we believe that the file is another one
MOST_IGNORED = 2  # whole files in a row to requests for a part until we believe that there are no ranges
FIRST_PAUSE_S = 0.1  # after a failure; doubles with each further one
LONGEST_PAUSE_S = 1.0  # between tries, so that a mirror which returns is used at once
_EXPIRED = frozenset({401, 403, 404, 410})  # a redirect's target that was a signed link: ask the source again
_URI = "%!#$&'()*+,/:;=?@[]~"


@dataclass(frozen=True, slots=True)
class Step:
    """One place to ask: the source itself, or where a redirect of it led. ``own``: it gets the user's headers."""

    place: Place
    path_query: str
    own: bool


def source_of(url: str) -> Step:
    """Where a URL that somebody typed leads. ValueError says what is wrong with it."""
    text = quote(url.strip(), safe=_URI)
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{url!r} must start with http:// or https://")
    if "@" in parts.netloc:
        raise ValueError("a URL must not carry a password; send a header instead (-H 'Authorization: …')")
    try:
        place = place_of(text)
    except ValueError:
        raise ValueError(f"{url!r} names no server") from None
    return Step(place, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), own=True)


class Servers:
    """A ``Server`` for each that is asked, made when it is needed; ``early``: a connection that is there already."""

    def __init__(self, options: Options, tally: Tally, early: Early | None = None) -> None:
        self._options = options
        self._early = early
        self._tally = tally
        self._dialer = Dialer(connect_s=min(15.0, options.timeout_s), ca=options.ca, verify=options.verify)
        self._open: dict[Place, Server] = {}

    def at(self, place: Place) -> Server:
        if place not in self._open:
            self._open[place] = self._make(place)
        return self._open[place]

    def _make(self, place: Place) -> Server:
        options = self._options
        # What a connection may hold unread must not be worth many seconds of the limit.
        buffer = BUFFER if options.limit_rate is None else max(8192, min(BUFFER, options.limit_rate // 4))
        return Server(
            place,
            self._dialer,
            first_byte_s=min(30.0, options.timeout_s),
            idle_s=min(60.0, options.timeout_s),
            buffer=buffer,
            tally=self._tally,
            early=self._early_at(place),
        )

    def _early_at(self, place: Place) -> Early | None:
        early = self._early
        if early is None or place != Place(early.scheme, early.host, early.port):
            return None
        self._early = None
        return early

    async def close(self) -> None:
        if self._early is not None:
            self._early.drop()
        for server in self._open.values():
            await server.close()


@dataclass(frozen=True, slots=True)
class Cap:
    """The longest Retry-After that is waited for, in seconds."""

    cap: float


class Mirror:
    """One URL of the file.

    Attributes:
        meta: the version it was seen to hold, when that has been accepted as ours.
        rangeless: it sends the whole file whatever is asked.
        hopeless: why it is not asked any more, or None.
    """

    def __init__(
        self,
        url: str,
        servers: Servers,
        headers: Headers,
        *,
        clock: Clock,
        cap_s: float,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.url = url
        self.source = source_of(url)
        self.meta: Meta | None = None
        self.rangeless = False
        self.hopeless: str | None = None
        self.last_error: str | None = None
        self.active = 0
        self.rate: float | None = None  # bytes a second of one connection, a moving average
        self.tries = self.failures = self.bytes = self.redirects = 0
        self._servers = servers
        given = frozenset(name.lower() for name, _ in headers)
        self._headers = (*without(BASE, given), *headers)
        self._clock = clock
        self._random = random
        self._patience = Cap(cap_s)
        self._goal: Step | None = None  # where the redirects led last time
        self._rounds = 0
        self._rested_at = self._counted_at = 0.0
        self._ordered_until = 0.0  # by Retry-After, and the like
        self._changed = 0
        self._ignored = 0

    # --- asking ------------------------------------------------------------------------------------------------------

    async def fetch(self, conditions: Headers) -> Answer:
        """One GET, redirects followed. Raises UpstreamError; any final status is returned."""
        self.tries += 1
        goal = self._goal
        if goal is not None:
            answer = await self._ask(goal, conditions)
            if answer.status not in _EXPIRED:
                return await self._follow(goal, answer, conditions)
            await answer.body.aclose()
            self._goal = None
        return await self._follow(self.source, await self._ask(self.source, conditions), conditions)

    async def _ask(self, step: Step, conditions: Headers) -> Answer:
        headers = (*(self._headers if step.own else BASE), *conditions)
        return await self._servers.at(step.place).fetch(step.path_query, headers)

    async def _follow(self, step: Step, answer: Answer, conditions: Headers) -> Answer:
        """Like ``curl -L``: to any http(s) server, never from https to http, without the user's headers elsewhere."""
        for hops_left in range(HOPS, -1, -1):
            location = header(answer.headers, "Location")
            if answer.status not in STATUSES or location is None:
                if step is not self.source and answer.status in (200, 206):
                    self._goal = step
                return answer
            await answer.body.aclose()
            step = self._onward(step, location, hops_left)
            self.redirects += 1
            answer = await self._ask(step, conditions)
        raise RedirectRefused(f"{step.place.address} sent one redirect too many")

    def _onward(self, step: Step, location: str, hops_left: int) -> Step:
        try:
            host = urlsplit(urljoin(f"{step.place}{step.path_query}", location)).hostname or ""
        except ValueError:
            host = ""
        goal = follow(
            location,
            place=step.place,
            path_query=step.path_query,
            own=[self.source.place],
            hosts=[host],
            hops_left=hops_left,
        )
        return Step(goal.place, goal.path_query, goal.own)

    # --- how it does -------------------------------------------------------------------------------------------------

    def usable(self, now: float) -> bool:
        return self.hopeless is None and now >= self.rests_until() and not (self.rangeless and self.active)

    def rests_until(self) -> float:
        return max(self._rested_at, self._ordered_until)

    def delivered(self, amount: int) -> None:
        """Bytes came: whatever failed before is forgotten."""
        self.bytes += amount
        if self._rounds:
            self._rested_at = 0.0
        self._rounds = self._changed = 0

    def measured(self, rate: float) -> None:
        """What one connection brought, in bytes a second."""
        self.rate = rate if self.rate is None else 0.7 * self.rate + 0.3 * rate

    def kept_range(self) -> None:
        self._ignored = 0

    def ignored_range(self) -> None:
        self._ignored += 1
        if self._ignored >= MOST_IGNORED:
            self.rangeless = True

    def asking(self) -> None:
        """It is about to be asked. While it fails it is asked now and then, not by all connections at once."""
        if self._rounds:
            self._rested_at = max(self._rested_at, self._clock.now() + self._pause_s)

    @property
    def _pause_s(self) -> float:
        doubled: float = 2.0 ** min(self._rounds - 1, 16)
        return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * doubled)

    def failed(self, error: FileProxyError, *, began: float, after_bytes: bool) -> None:
        """A try that began then ended so. Decides when, and whether, it is asked again."""
        self.failures += 1
        self.last_error = error.detail
        if after_bytes and error.retryable:
            return  # it works; the next missing byte is asked for at once
        now = self._clock.now()
        if began >= self._counted_at:  # several connections that fail together count once
            self._rounds, self._counted_at = self._rounds + 1, now
        declined = error if isinstance(error, Declined) else None
        if declined is not None and declined.changed:
            self._changed += 1
        failure = Failure(
            error=None if declined is not None else error,
            status=0 if declined is None else declined.answer_status,
            retry_after_s=error.retry_after_s,
        )
        pause_s = rest(failure, self._rounds, self._patience)
        if pause_s is None or not error.retryable or self._changed >= MOST_CHANGED:
            self.hopeless = error.detail
            return
        if pause_s:
            self._ordered_until = max(self._ordered_until, now + pause_s)
        self._rested_at = max(self._rested_at, now + pause_s + self._random() * self._pause_s)

    def give_up(self, reason: str) -> None:
        self.hopeless = reason


def best(mirrors: Iterable[Mirror], now: float, *, rather_not: Mirror | None = None) -> Mirror | None:
    """Whom to ask next: who gives a new connection the most, as far as is known; None when all rest.

    A mirror that nobody measured counts as good as the best known one.
    """
    usable = [mirror for mirror in mirrors if mirror.usable(now)]
    if not usable:
        return None
    fastest = max((mirror.rate for mirror in usable if mirror.rate is not None), default=1.0)

    def cost(mirror: Mirror) -> tuple[bool, float]:
        rate = fastest if mirror.rate is None else max(mirror.rate, 1.0)
        return mirror is rather_not, (mirror.active + 1) / rate

    return min(usable, key=cost)
