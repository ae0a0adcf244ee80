"""Choose → try → judge → again, elsewhere, or give up.

A request is tried again only before its first byte went to the client, and only when sending it twice is allowed and
possible: an idempotent method whose body was not begun. The next mirror is asked at once; see ``retry.py`` for the
rest, and ``breaker.py`` for when a mirror is passed over. When the tries run out, the origin's own last answer is
handed on as it came, or the last error is raised.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from fileproxy.clock import Clock
from fileproxy.errors import FileProxyError, RedirectRefused, ShutOff, TlsFailed, UpstreamError
from fileproxy.model import IDEMPOTENT, Answer, Counters, Target, Want, header
from fileproxy.settings import resolve
from fileproxy.settings.schema import Limits
from fileproxy.settings.schema import Upstream as UpstreamSettings
from fileproxy.upstream.attempt import Patience
from fileproxy.upstream.balance import balancer
from fileproxy.upstream.breaker import Breaker
from fileproxy.upstream.connections import Connections, tls_context
from fileproxy.upstream.file import FileTransport
from fileproxy.upstream.redirects import (
    METHODS,
    STATUSES,
    Follow,
    follow,
    forbidden_address,
    headers_for,
    place_of,
)
from fileproxy.upstream.retry import Again, Failure, GiveUp, RetryBudget, decide, rest, retry_after
from fileproxy.upstream.transport import HttpTransport
from fileproxy.upstream.turns import Trip, Turn, Turns


@dataclass(frozen=True, slots=True)
class Mirror:
    """One server of the upstream."""

    url: str
    weight: int
    label: str
    transport: HttpTransport | FileTransport


class Upstream:
    """Servers that hold the same files, asked as one.

    Args:
        name: of the upstream in the configuration.
        settings: ``upstreams.NAME``.
        profile: ``optimized`` or ``baseline``; what ``auto`` means.
        limits: ``limits.response_head`` bounds an answer's head.
        random: a number in [0, 1), for jitter.

    Raises:
        ConfigurationError: ``tls.ca`` cannot be read, or aiohttp has no C parser.
    """

    def __init__(
        self,
        name: str,
        settings: UpstreamSettings,
        *,
        profile: resolve.Profile,
        limits: Limits,
        counters: Counters,
        clock: Clock,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self._settings = settings
        self._counters = counters
        self._clock = clock
        self._random = random
        self._timeouts = resolve.timeouts(profile, settings.timeouts)
        self._connections, self._outside = self._open(profile, limits)
        self._mirrors = [self._mirror(one.url, one.weight) for one in settings.servers]
        self._own = [one.transport.place for one in self._mirrors if isinstance(one.transport, HttpTransport)]
        self._balance = balancer(settings.balance, [mirror.weight for mirror in self._mirrors])
        breaker = resolve.breaker(profile, settings.circuit_breaker)
        labels = [mirror.label for mirror in self._mirrors]
        self._turns = Turns(name, [Breaker(breaker) for _ in labels], labels, counters, clock)
        self._budget = RetryBudget(settings.retry.budget, settings.retry.budget_floor)
        self._configured = frozenset(key.lower() for key in settings.headers)

    def _open(self, profile: resolve.Profile, limits: Limits) -> tuple[Connections, Connections]:
        """The connections to our own servers, and those (checked) to where redirects may lead."""
        settings = self._settings
        pool = resolve.pool(profile, settings.pool)
        options = resolve.sockets(profile, settings.sockets)
        where = f"upstreams.{self.name}"
        redirects = settings.follow_redirects
        needs_tls = redirects != "off" or any(one.url.startswith("https:") for one in settings.servers)
        context = tls_context(settings.tls, where) if needs_tls else None
        private = redirects != "off" and redirects.private
        own, outside = (
            Connections(
                pool,
                connect_s=self._timeouts.connect,
                options=options,
                context=context,
                response_head=limits.response_head,
                counters=self._counters,
                forbidden=check,
            )
            for check in (None, lambda address: forbidden_address(address, private))
        )
        return own, outside

    def _mirror(self, url: str, weight: int) -> Mirror:
        parts = urlsplit(url)
        if parts.scheme == "file":
            label = f"{self.name}/{parts.path}"
            return Mirror(url, weight, label, FileTransport(url, label=label, clock=self._clock))
        place = place_of(url)
        label = f"{self.name}/{place.address}"
        settings = self._settings
        transport = HttpTransport(
            place,
            prefix=parts.path,
            label=label,
            connections=self._connections,
            timeouts=self._timeouts,
            counters=self._counters,
            clock=self._clock,
            host=settings.host,
            headers=settings.headers,
            server_name=settings.tls.server_name,
        )
        return Mirror(url, weight, label, transport)

    # --- the trip ----------------------------------------------------------------------------------------------------

    async def fetch(self, want: Want) -> Answer:
        """The answer to ``want``, from whichever mirror gave it. The caller closes its body.

        Raises:
            UpstreamError: no mirror answered; the last try's error.
            FileProxyError: what was no mirror's fault (shed, the client's own body failed).
        """
        trip = Trip(self._clock.now(), self._balance.order())
        self._counters.add("upstream.first_tries", label=self.name)
        self._budget.first_try(trip.started)
        while True:
            turn = await self._turn(trip)
            mirror = self._mirrors[turn.index]
            answer: Answer | None = None
            try:
                answer = await self._try(mirror, want, self._patience(trip, want))
                answer.tries = trip.tries
                failure = self._judge(answer)
            except FileProxyError as error:
                failure = Failure(error=error)
            except BaseException:
                self._turns.end(turn, None)
                raise
            self._turns.end(turn, self._verdict(failure, turn.index, trip))
            if failure is None:
                assert answer is not None
                return answer
            if failure.error is None or isinstance(failure.error, UpstreamError):
                self._counters.add("mirror.failures", label=mirror.label)
            decision = self._decide(want, failure, trip)
            if isinstance(decision, GiveUp):
                return self._give_up(failure, answer)
            if answer is not None:
                await answer.body.aclose()
            trip.tries += 1
            if decision.new_round:
                await self._clock.sleep(decision.after_s)
                usable = self._turns.usable(trip)
                trip.new_round([index for index in self._balance.order() if index in usable], self._clock.now())
            else:
                trip.order = self._turns.untried(trip)
            self._counters.add("upstream.retries", label=self.name)

    async def _turn(self, trip: Trip) -> Turn:
        try:
            return await self._turns.take(trip, self._left_s(trip))
        except ShutOff:
            self._counters.add("upstream.failed", label=self.name)
            raise

    def _left_s(self, trip: Trip) -> float:
        """Seconds in which a new try may still start."""
        return trip.started + self._settings.retry.within - self._clock.now()

    def _patience(self, trip: Trip, want: Want) -> Patience:
        """While another mirror could be asked instead, a silent one is waited for only ``stall`` long."""
        timeouts = self._timeouts
        first_byte_s = timeouts.first_byte
        if trip.tries < self._settings.retry.attempts and _repeatable(want) and self._turns.untried(trip):
            first_byte_s = min(first_byte_s, timeouts.stall)
        return Patience(max(self._left_s(trip), first_byte_s), first_byte_s, timeouts.idle)

    def _judge(self, answer: Answer) -> Failure | None:
        if answer.status not in self._settings.retry.statuses:
            return None
        wait_s = retry_after(header(answer.headers, "Retry-After"), self._clock.time())
        return Failure(status=answer.status, retry_after_s=wait_s)

    def _verdict(self, failure: Failure | None, index: int, trip: Trip) -> bool | None:
        """What a try says about its mirror: well, failing, or nothing.

        One file that fails at each try counts once for each request, so that its retries alone do not shut a mirror
        off; 429 comes from one that is well. What will not mend itself may be the file's fault (a redirect that must
        not be followed), but for TLS.
        """
        if failure is None:
            return True
        error = failure.error
        if error is not None:
            return (
                False
                if isinstance(error, UpstreamError) and (error.retryable or isinstance(error, TlsFailed))
                else None
            )
        if failure.status < 500 or index in trip.blamed:
            return None
        trip.blamed.add(index)
        return False

    def _decide(self, want: Want, failure: Failure, trip: Trip) -> Again | GiveUp:
        if not _repeatable(want):
            return GiveUp("not repeatable")
        now = self._clock.now()
        rest_s = rest(failure, trip.rounds, self._settings.retry)
        if rest_s is None:
            trip.hopeless.add(trip.order[0])
        else:
            trip.rested_at[trip.order[0]] = now + rest_s
        usable = self._turns.usable(trip)
        decision = decide(
            failure,
            tries=trip.tries,
            rounds=trip.rounds,
            elapsed_s=now - trip.started,
            untried=len(self._turns.untried(trip)),
            usable=len(usable),
            rest_s=trip.rest_s(usable, now),
            settings=self._settings.retry,
            random=self._random,
        )
        if isinstance(decision, Again) and not self._budget.allow(now):
            self._counters.add("upstream.retries_refused", label=self.name)
            return GiveUp("budget")
        return decision

    def _give_up(self, failure: Failure, answer: Answer | None) -> Answer:
        self._counters.add("upstream.failed", label=self.name)
        if answer is not None:
            return answer
        assert failure.error is not None
        raise failure.error

    async def _try(self, mirror: Mirror, want: Want, patience: Patience) -> Answer:
        self._counters.add("mirror.tries", label=mirror.label)
        if isinstance(mirror.transport, FileTransport):
            return await mirror.transport.fetch(want)
        answer = await mirror.transport.fetch(want, patience)
        redirects = self._settings.follow_redirects
        if redirects == "off" or want.method not in METHODS:
            return answer
        place, path_query = mirror.transport.place, f"{mirror.transport.prefix}{want.target}"
        headers = want.headers
        for hops_left in range(redirects.hops, -1, -1):
            location = header(answer.headers, "Location")
            if answer.status not in STATUSES or location is None:
                return answer
            await answer.body.aclose()
            goal = follow(
                location, place=place, path_query=path_query, own=self._own, hosts=redirects.hosts, hops_left=hops_left
            )
            headers = headers_for(headers, self._configured, goal.own)
            path, mark, query = goal.path_query.partition("?")
            onward = replace(want, target=Target(path, query if mark else None), headers=headers)
            answer = await self._elsewhere(goal).fetch(onward, patience)
            answer.mirror = mirror.label
            place, path_query = goal.place, goal.path_query
        raise RedirectRefused(f"{place.address} sent one redirect too many (follow_redirects.hops)")

    def _elsewhere(self, goal: Follow) -> HttpTransport:
        """A transport to where a redirect leads. Counted under the mirror's upstream, not under a row of its own."""
        return HttpTransport(
            goal.place,
            label=f"{self.name}/redirected",
            connections=self._connections if goal.own else self._outside,
            timeouts=self._timeouts,
            counters=self._counters,
            clock=self._clock,
            headers=self._settings.headers if goal.own else {},
            server_name=self._settings.tls.server_name if goal.own else None,
        )

    # --- what it says of itself --------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """For /health and /stats: the mirrors, the effective timeouts, the pool and the TCP options as granted."""
        timeouts = self._timeouts
        states = [breaker.state for breaker in self._turns.breakers]
        shut = [one.label for one, state in zip(self._mirrors, states, strict=True) if state != "closed"]
        return {
            "status": "ok" if not shut else "failing" if all(state == "open" for state in states) else "degraded",
            **({"detail": f"shut off after failures: {', '.join(shut)}"} if shut else {}),
            "balance": self._settings.balance,
            "mirrors": [
                {"url": one.url, "weight": one.weight, "label": one.label, "state": state}
                for one, state in zip(self._mirrors, states, strict=True)
            ],
            "timeouts": {
                "connect": timeouts.connect,
                "first_byte": timeouts.first_byte,
                "stall": timeouts.stall,
                "idle": timeouts.idle,
            },
            "pool": self._connections.describe(),
        }

    async def close(self) -> None:
        """Close every connection and thread. Called when no download uses this upstream any more."""
        self._turns.close()
        for mirror in self._mirrors:
            await mirror.transport.close()
        await self._connections.close()
        await self._outside.close()


def _repeatable(want: Want) -> bool:
    """May be sent twice (RFC 9110 §9.2.2), and nothing of its body was read yet."""
    return want.method in IDEMPOTENT and (want.body is None or not want.body.started)
