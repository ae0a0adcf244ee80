"""Whether and when a request is tried again. Pure: values and the time come in, a decision goes out.

Rules, in this order:

1. What is no fault of a mirror (we are out of descriptors, the client is gone) is not tried again.
2. ``attempts`` and ``within`` bound one request, whatever happens.
3. A mirror that was not asked in this round is asked at once.
4. When all were asked a new round begins after a pause: exponential with full jitter ("Exponential Backoff And Jitter",
   M. Brooker, AWS Architecture Blog, 2015).
5. A mirror that said Retry-After (RFC 9110 §10.2.3) rests for that long, one that said 429 without it for at least 1 s,
   doubling with each round. A new round asks those that do not rest. While all do, it waits for the first, and rule 4's
   pause comes on top, so that not everybody returns at once.
6. A mirror whose error will not mend itself (TLS), or which wants to rest longer than ``cap``, is not asked again; when
   none is left, give up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Protocol

from fileproxy.errors import FileProxyError, UpstreamError

if TYPE_CHECKING:
    from fileproxy.settings.schema import Retry

_TOO_MANY_REQUESTS = 429
_TOO_MANY_PAUSE_S = 1.0
_MOST_DOUBLINGS = 32


@dataclass(frozen=True, slots=True)
class Failure:
    """How a try ended: with an error, or with an answer of a retried status."""

    error: FileProxyError | None = None
    status: int = 0
    retry_after_s: float | None = None

    @property
    def mends(self) -> bool:
        """The same mirror may do better next time."""
        return self.error is None or self.error.retryable


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Hand on what there is."""

    reason: str


@dataclass(frozen=True, slots=True)
class Again:
    """Try again after ``after_s`` seconds; with the next mirror of this round, or in a new round."""

    after_s: float
    new_round: bool


def decide(
    failure: Failure,
    *,
    tries: int,
    rounds: int,
    elapsed_s: float,
    untried: int,
    usable: int,
    rest_s: float,
    settings: Retry,
    random: Callable[[], float],
) -> GiveUp | Again:
    """What to do after a failed try.

    Args:
        failure: how it ended.
        tries: tries made so far, this one included.
        rounds: rounds over the mirrors so far, this one included.
        elapsed_s: seconds since the first try began.
        untried: mirrors not asked in this round.
        usable: mirrors a new round could ask, now or after their rest.
        rest_s: until the first of these has rested.
        random: a number in [0, 1), for the jitter.
    """
    if failure.error is not None and not isinstance(failure.error, UpstreamError):
        return GiveUp("not the mirror's fault")
    if tries >= settings.attempts:
        return GiveUp("attempts")
    if elapsed_s > settings.within:
        return GiveUp("within")
    if untried:
        return Again(0.0, new_round=False)
    if not usable:
        return GiveUp("no mirror left")
    pause_s = rest_s + random() * min(settings.cap, settings.base * _doubled(rounds))
    if elapsed_s + pause_s > settings.within:
        return GiveUp("within")
    return Again(pause_s, new_round=True)


class Capped(Protocol):
    """What :func:`rest` needs of the settings."""

    @property
    def cap(self) -> float: ...


def rest(failure: Failure, rounds: int, settings: Capped) -> float | None:
    """Seconds that the mirror which failed so must not be asked again; None: not at all for this request."""
    if not failure.mends:
        return None
    if failure.retry_after_s is not None:
        return None if failure.retry_after_s > settings.cap else failure.retry_after_s
    if failure.status == _TOO_MANY_REQUESTS:
        return max(_TOO_MANY_PAUSE_S, min(settings.cap, _TOO_MANY_PAUSE_S * _doubled(rounds)))
    return 0.0


def _doubled(rounds: int) -> float:
    factor: float = 2.0 ** min(rounds - 1, _MOST_DOUBLINGS)
    return factor


def retry_after(value: str | None, now_epoch: float) -> float | None:
    """Seconds that a Retry-After asks for: a number, or until a date (RFC 9110 §10.2.3). None when it is neither."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - takes long to import, and is seldom needed

    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:  # "-0000": a date in UTC of unknown origin (RFC 5322 §3.3)
        date = date.replace(tzinfo=UTC)
    return max(0.0, date.timestamp() - now_epoch)


class RetryBudget:
    """Retries may add only so much to what clients ask, so that they cannot bury a failing origin.

    In every sliding window of 10 s: ``share`` retries per first try, and never fewer than ``floor_per_s`` a second.
    """

    WINDOW_S = 10

    def __init__(self, share: float, floor_per_s: int) -> None:
        self._share = share
        self._floor = floor_per_s * self.WINDOW_S
        # (second, first tries, retries); at most 11 entries, however many requests
        self._seconds: deque[list[int]] = deque()

    def first_try(self, now: float) -> None:
        """A client's request came in."""
        self._second(now)[1] += 1

    def allow(self, now: float) -> bool:
        """Whether one more retry fits; if so it is counted."""
        second = self._second(now)
        first_tries = sum(entry[1] for entry in self._seconds)
        retries = sum(entry[2] for entry in self._seconds)
        if retries >= max(self._floor, self._share * first_tries):
            return False
        second[2] += 1
        return True

    def _second(self, now: float) -> list[int]:
        number = int(now)
        while self._seconds and self._seconds[0][0] <= number - self.WINDOW_S:
            self._seconds.popleft()
        if not self._seconds or self._seconds[-1][0] != number:
            self._seconds.append([number, 0, 0])
        return self._seconds[-1]
