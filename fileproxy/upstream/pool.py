"""Choose → try → judge → again, elsewhere, or give up.

A request is tried again only before its first byte went to the client, and only when sending it twice is allowed and
possible: an idempotent method whose body was not begun. The next mirror is asked at once; see ``retry.py`` for the
rest, ``breaker.py`` for when a mirror is passed over, and ``gate.py`` for how much the upstream is asked altogether.
When the tries run out, the origin's own last answer is handed on as it came, or the last error is raised.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

from fileproxy.clock import Clock
from fileproxy.errors import FileProxyError, RedirectRefused, ShutOff, TlsFailed, UpstreamError
from fileproxy.model import IDEMPOTENT, Answer, Counters, Want, header
from fileproxy.settings import resolve
from fileproxy.settings.schema import Limits
from fileproxy.settings.schema import Upstream as UpstreamSettings
from fileproxy.upstream.attempt import Patience
from fileproxy.upstream.balance import balancer
from fileproxy.upstream.breaker import Breaker
from fileproxy.upstream.gate import Gate, Machine, Pass
from fileproxy.upstream.mirrors import Mirror, Mirrors
from fileproxy.upstream.probes import Probes
from fileproxy.upstream.retry import Again, Failure, GiveUp, RetryBudget, decide, rest, retry_after
from fileproxy.upstream.turns import Trip, Turn, Turns

# What a change of takes effect on the mirrors as they are, with their connections.
LIVE = frozenset(
    {"balance", "mirrors_match", "retry", "circuit_breaker", "load_header", "slow_start", "health_check"}
    | {"rate_limit", "concurrency"}
)
_TOO_MANY_REQUESTS = 429


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
        self._profile = profile
        self._settings = settings
        self._counters = counters
        self._clock = clock
        self._random = random
        self._mirrors = Mirrors(
            name,
            settings,
            profile=profile,
            limits=limits,
            counters=counters,
            clock=clock,
            on_break=self._broke,
        )
        self._timeouts = self._mirrors.timeouts
        labels = [mirror.label for mirror in self._mirrors.all]
        breaker = resolve.breaker(profile, settings.circuit_breaker)
        self._turns = Turns(name, [Breaker(breaker) for _ in labels], labels, counters, clock, on_change=self._changed)
        self._probes = Probes(self._mirrors, self._turns, counters=counters, clock=clock, on_answer=self._hear)
        self._balance = balancer(resolve.balance(profile, settings.balance), random)
        self._budget = RetryBudget(settings.retry.budget, settings.retry.budget_floor)
        self._gate = Gate(
            name,
            ceiling=self._mirrors.most_connections,
            rate=resolve.limit(profile, settings.rate_limit),
            concurrency=resolve.limit(profile, settings.concurrency),
            counters=counters,
            clock=clock,
        )

    def takes(self, settings: UpstreamSettings) -> bool:
        """Whether ``apply`` can: the same servers, asked in the same way. Weights may differ, and what is ``LIVE``."""
        old = self._settings
        live = {name: getattr(settings, name) for name in LIVE}
        same_servers = [one.url for one in settings.servers] == [one.url for one in old.servers]
        return same_servers and settings == old.model_copy(update={"servers": settings.servers, **live})

    def apply(self, settings: UpstreamSettings) -> None:
        """Go on with other settings that ``takes`` allows; connections and running requests stay. Also told once when
        it is taken into use: health checks begin.
        """
        old, self._settings = self._settings, settings
        if settings.balance != old.balance:
            self._balance = balancer(resolve.balance(self._profile, settings.balance), self._random)
        if settings.retry != old.retry:
            self._budget = RetryBudget(settings.retry.budget, settings.retry.budget_floor)
        self._turns.apply(resolve.breaker(self._profile, settings.circuit_breaker))
        self._gate.apply(
            resolve.limit(self._profile, settings.rate_limit), resolve.limit(self._profile, settings.concurrency)
        )
        self._probes.apply("off" if self._profile == "baseline" else settings.health_check)

    def machine(self, machine: Machine) -> None:
        """What is known of all workers, every few seconds: its limits are the machine's, and this worker's a share."""
        self._gate.machine(machine)

    def inherit(self, rate: float | None) -> None:
        """Begin at the rate of the one whose place it takes."""
        self._gate.inherit(rate)

    def retire(self, *, free: bool) -> float | None:
        """Another one takes its place, and it serves what is under way. ``free``: nothing is limited any more. Returns
        the rate it had come to, if that adapts.
        """
        return self._gate.retire(free=free)

    # --- the trip ----------------------------------------------------------------------------------------------------

    def _order(self, want: Want) -> list[int]:
        """The mirrors in the order in which this request asks them."""
        if len(self._mirrors.all) == 1:
            return [0]
        now = self._clock.now()
        servers, settings = self._settings.servers, self._settings
        known = [
            mirror.gauge.seen(
                servers[mirror.index].weight,
                breaker.ramp(now, settings.slow_start),
                now,
                name=mirror.url,
                priority=servers[mirror.index].priority,
            )
            for mirror, breaker in zip(self._mirrors.all, self._turns.breakers, strict=True)
        ]
        order = self._balance.order(known, str(want.target))
        if want.avoid:
            order.sort(key=lambda index: self._mirrors.all[index].label in want.avoid)
        return order

    def _changed(self, index: int) -> None:
        """A mirror was shut off: it is asked how it is until it is taken back. Then its bad times are forgotten."""
        if self._turns.breakers[index].state == "closed":
            self._mirrors.all[index].gauge.forget()
        else:
            self._probes.watch(index)

    def _hear(self, mirror: Mirror, answer: Answer) -> None:
        """What a mirror says of itself in an answer."""
        if self._settings.balance == "resource_based":
            mirror.gauge.report(header(answer.headers, self._settings.load_header), self._clock.now())

    def _broke(self, mirror: Mirror, error: FileProxyError) -> None:
        """An answer broke inside its body."""
        self._counters.add("mirror.breaks", label=mirror.label)
        if isinstance(error, UpstreamError):
            self._turns.broke(mirror.index)
            self._gate.broke()
            mirror.gauge.observe(0.0, good=False, now=self._clock.now())

    async def fetch(self, want: Want) -> Answer:
        """The answer to ``want``, from whichever mirror gave it. The caller closes its body.

        Raises:
            UpstreamError: no mirror answered; the last try's error.
            FileProxyError: what was no mirror's fault (shed, the client's own body failed).
        """
        trip = Trip(self._clock.now(), self._order(want))
        self._counters.add("upstream.first_tries", label=self.name)
        self._budget.first_try(trip.started)
        while True:
            taken = self._gate.enter(want) or await self._gate.wait(want, self._left_s(trip))
            try:
                answer, failure = await self._try(trip, want, taken)
            except BaseException:
                self._gate.leave(taken, learn=False)
                raise
            if failure is None:
                assert answer is not None
                return answer
            decision = self._decide(want, failure, trip)
            if isinstance(decision, GiveUp):
                return self._give_up(failure, answer)
            if answer is not None:
                await answer.body.aclose()
            trip.tries += 1
            if decision.new_round:
                asked_to_wait = failure.retry_after_s is not None or failure.status == 429
                await (self._clock.sleep if asked_to_wait else self._turns.pause)(decision.after_s)
                usable = self._turns.usable(trip)
                trip.new_round([index for index in self._order(want) if index in usable], self._clock.now())
            else:
                trip.order = self._turns.untried(trip)
            self._counters.add("upstream.retries", label=self.name)

    async def _try(self, trip: Trip, want: Want, taken: Pass) -> tuple[Answer | None, Failure | None]:
        """One try: the answer, and why it is none to be content with. The pass is used up, once the body is over."""
        turn = await self._turn(trip)
        mirror = self._mirrors.all[turn.index]
        self._counters.add("mirror.tries", label=mirror.label)
        began = taken.since = self._clock.now()
        answer: Answer | None = None
        try:
            answer = await self._mirrors.fetch(
                mirror, want, self._patience(trip, want), partial(self._gate.leave, taken)
            )
            answer.tries = trip.tries
            failure = self._judge(answer)
        except FileProxyError as error:
            self._gate.leave(taken, learn=False)
            failure = Failure(error=error)
        except BaseException:
            self._turns.end(turn, None)
            raise
        good = self._verdict(failure, turn.index, trip)
        self._turns.end(turn, good)
        self._learn(mirror, want, answer, self._clock.now() - began, good)
        self._pace(answer, failure)
        if failure is not None and (failure.error is None or isinstance(failure.error, UpstreamError)):
            self._counters.add("mirror.failures", label=mirror.label)
        return answer, failure

    def _pace(self, answer: Answer | None, failure: Failure | None) -> None:
        """What a try tells of how much the upstream can be asked for."""
        if answer is not None:
            first_byte_s = answer.timings.get("first_byte")
            if first_byte_s is not None and answer.path is not None:
                first_byte_s -= answer.path.rtt_s or 0.0  # a longer way, or a queue on it, is none at the origin
            self._gate.answered(answer.status < 500 and answer.status != _TOO_MANY_REQUESTS, first_byte_s)
        elif failure is not None and isinstance(failure.error, UpstreamError):
            self._gate.answered(isinstance(failure.error, RedirectRefused))

    def _learn(self, mirror: Mirror, want: Want, answer: Answer | None, seconds: float, good: bool | None) -> None:
        """What a try tells of how much its mirror has to do."""
        now = self._clock.now()
        if good is not None:
            took = seconds if answer is None else answer.timings.get("first_byte", seconds)
            mirror.gauge.observe(took, good, now)
        if answer is not None:
            self._hear(mirror, answer)
            if good and want.method in ("GET", "HEAD"):
                self._probes.served(mirror, want.target)

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

    def holds(self, ask: str) -> bool:
        """A request of the ask with this id waits for the upstream's limits."""
        return self._gate.holds(ask)

    def qualities(self) -> dict[str, str | None]:
        """The quality of the path to each mirror, by label; without folders, and without those not yet known."""
        return {one.label: found for one in self._mirrors.all if (found := one.path().get("quality")) is not None}

    # --- what it says of itself --------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """For /health and /stats: the mirrors, the effective timeouts, the pool and the TCP options as granted."""
        timeouts = self._timeouts
        now = self._clock.now()
        breakers, servers = self._turns.breakers, self._settings.servers
        states = [breaker.state for breaker in breakers]
        shut = [one.label for one, state in zip(self._mirrors.all, states, strict=True) if state != "closed"]
        return {
            "status": "ok" if not shut else "failing" if all(state == "open" for state in states) else "degraded",
            **({"detail": f"shut off after failures: {', '.join(shut)}"} if shut else {}),
            "balance": resolve.balance(self._profile, self._settings.balance),
            "mirrors": [
                {
                    "url": one.url,
                    "weight": servers[one.index].weight,
                    "label": one.label,
                    "state": states[one.index],
                    "in_flight": one.gauge.in_flight,
                    "response_s": one.gauge.response_s(now),
                    "load": one.gauge.load(now),
                    **one.path(),
                }
                for one in self._mirrors.all
            ],
            "timeouts": {
                "connect": timeouts.connect,
                "first_byte": timeouts.first_byte,
                "stall": timeouts.stall,
                "idle": timeouts.idle,
            },
            "limits": self._gate.describe(),
            "pool": self._mirrors.describe(),
        }

    async def close(self) -> None:
        """Close every connection and thread. Called when no download uses this upstream any more."""
        await self._probes.close()
        await self._gate.close()
        self._turns.close()
        await self._mirrors.close()


def _repeatable(want: Want) -> bool:
    """May be sent twice (RFC 9110 §9.2.2), and nothing of its body was read yet."""
    return want.method in IDEMPOTENT and (want.body is None or not want.body.started)
