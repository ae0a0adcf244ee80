"""What one mirror has to do and how quickly it answers, as this worker sees it. Pure: the time comes in."""

from __future__ import annotations

import math
import re

import msgspec

from fileproxy.upstream.balance import Seen

DECAY_S = 10.0  # an answer's weight falls to 1/e in this time, and so does a bad memory
FAILED_S = 1.0  # a failure counts as an answer that took at least this long: a quick refusal is not fast
REPORT_S = 30.0  # what a mirror said of its load holds this long
GUESS_BYTES = 1024**2  # of a body whose length is not known
TELLING_BYTES = 64 * 1024  # a body, or what of it came, that is shorter tells nothing of how fast bytes flow
WAITED_SHARE = 0.5  # of the time, from which on the mirror was what was waited for
_LOAD = re.compile(r"\s*(\d{1,3}(?:\.\d{1,9})?|\.\d{1,9})\s*(%?)\s*")


class Peak:
    """A peak EWMA (Finagle's scheme): what is slower than the average counts at once, what is faster little by little;
    unasked, the average falls, so that a mirror which was slow is tried again.
    """

    def __init__(self) -> None:
        self._value: float | None = None
        self._stamp = 0.0

    def observe(self, value: float, now: float) -> None:
        known = self._value
        if known is None or value >= known:
            self._value = value
        else:
            share = math.exp(-max(0.0, now - self._stamp) / DECAY_S)
            self._value = known * share + value * (1.0 - share)
        self._stamp = now

    def forget(self) -> None:
        self._value = None

    def now(self, now: float) -> float | None:
        """The average; None before the first value."""
        return None if self._value is None else self._value * math.exp(-max(0.0, now - self._stamp) / DECAY_S)


class Gauge:
    """Requests and bytes on their way; response time, and the time a MiB takes, as peak EWMAs; the load it reports."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.bytes_in_flight = 0
        self._response = Peak()
        self._mib = Peak()
        self._load: float | None = None
        self._load_until = 0.0

    def observe(self, seconds: float, good: bool, now: float) -> None:
        """An answer's first byte came after so long, or the try failed."""
        self._response.observe(seconds if good else max(seconds, FAILED_S), now)

    def flowed(self, received: int, seconds: float, waited_s: float, now: float) -> None:
        """So many bytes of a body came in so many seconds; for ``waited_s`` of them the mirror was waited for.

        What its reader held up says nothing of the mirror, nor do a few bytes.
        """
        if received >= TELLING_BYTES and waited_s >= seconds * WAITED_SHARE:
            self._mib.observe(seconds * 1024**2 / received, now)

    def forget(self) -> None:
        """How quick it is is to be found out anew."""
        self._response.forget()
        self._mib.forget()

    def response_s(self, now: float) -> float | None:
        """The average now; None before the first answer."""
        return self._response.now(now)

    def report(self, text: str | None, now: float, *, holds_s: float = REPORT_S) -> None:
        """What a mirror says of its load; None or nonsense changes nothing."""
        load = None if text is None else load_of(text)
        if load is not None:
            self._load, self._load_until = load, now + holds_s

    def load(self, now: float) -> float | None:
        return self._load if now < self._load_until else None

    def seen(self, weight: float, ramp: float, now: float, *, name: str = "", priority: int = 0) -> Seen:
        return Seen(
            weight,
            ramp,
            self.in_flight,
            self.bytes_in_flight,
            self.response_s(now),
            self.load(now),
            name=name,
            priority=priority,
            mib_s=self._mib.now(now) or 0.0,
        )


def load_of(text: str) -> float | None:
    """``0.9``, ``90%`` → 0.9; more than all is all. None when it is neither."""
    match = _LOAD.fullmatch(text)
    if match is None:
        return None
    value = float(match[1]) / (100.0 if match[2] else 1.0)
    return min(1.0, value)


def load_in(page: bytes, field: str) -> str | None:
    """What a health page (JSON) says at ``field``, a name or several joined by dots; None when it does not."""
    try:
        found: object = msgspec.json.decode(page)
    except (msgspec.DecodeError, RecursionError):
        return None
    for name in field.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    if isinstance(found, int | float) and not isinstance(found, bool):
        return f"{found:.6f}"
    return found if isinstance(found, str) else None
