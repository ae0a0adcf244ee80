"""Whether a mirror is asked: closed (yes), open (no), half-open (a few, to see). Pure: results and the time come in.

Rules:

1. ``failure_threshold`` failures in a row open it; so do failures of at least ``failure_rate`` of the answers of 10 s,
   when these are at least 20.
2. Open, it is asked nothing for ``timeout``; then it is half-open. A probe that succeeds makes it so earlier. Probes
   are due each second; a mirror that keeps breaking down again waits twice as long each time, up to ``timeout``.
3. Half-open, ``half_open_max_calls`` may run at a time. As many successes close it, one failure opens it again.
4. When no other mirror is left, an open one lets as many through, too (``spare``): the last is never shut off.

What a call that began before the breaker opened comes to, changes nothing any more: it tells of another time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

from fileproxy.settings.schema import CircuitBreaker

State = Literal["closed", "open", "half_open"]
Event = Literal["tripped", "waited", "answered", "failed", "proved"]

TRANSITIONS: dict[State, dict[Event, State]] = {
    "closed": {"tripped": "open"},
    "open": {"waited": "half_open", "answered": "half_open"},
    "half_open": {"failed": "open", "proved": "closed"},
}

WINDOW_S = 10
FEWEST = 20  # answers in the window before their rate means anything
PROBE_S = 1.0
LEAST_SHARE = 0.1  # of its weight at the beginning of a slow start
_MOST_DOUBLINGS = 16


@dataclass(frozen=True, slots=True)
class Call:
    """One request that was let through; ``trial``: to see how the mirror is."""

    trial: bool


class Breaker:
    """The breaker of one mirror. ``settings`` may be replaced at any time; ``off`` never opens."""

    def __init__(self, settings: CircuitBreaker | Literal["off"]) -> None:
        self.state: State = "closed"
        self._settings = settings
        self._row = 0  # failures without a success between them
        self._bad_probes = 0  # in a row
        self._seconds: deque[list[int]] = deque()  # (second, answers, failures); at most 11 entries
        self._trials = 0  # running
        self._proofs = 0  # successes since it is half-open
        self._opened_at = 0.0
        self._closed_at: float | None = None  # None: it never broke down
        self._probed_at = 0.0
        self._relapses = 0

    def apply(self, settings: CircuitBreaker | Literal["off"]) -> None:
        """Go on by other numbers. ``off`` closes it."""
        self._settings = settings
        if settings == "off":
            self.state = "closed"
            self._reset()

    # --- may it be asked? ---------------------------------------------------------------------------------------------

    def asks(self, now: float) -> bool:
        """May an ordinary request be sent now?"""
        settings = self._settings
        if self.state == "closed" or settings == "off":
            return True
        if self.state == "open" and now < self._opened_at + settings.timeout:
            return False
        return self._trials < settings.half_open_max_calls

    @property
    def spare(self) -> bool:
        """May a request be sent that nobody else can take?"""
        return self.state == "closed" or self._settings == "off" or self._trials < self._settings.half_open_max_calls

    def begin(self, now: float) -> Call:
        """A request is sent; ``end`` it. The caller has asked whether it may be."""
        if self.state == "closed" or self._settings == "off":
            return Call(trial=False)
        if self.state == "open" and now >= self._opened_at + self._settings.timeout:
            self._go("waited", now)
        self._trials += 1
        return Call(trial=True)

    def end(self, call: Call, good: bool | None, now: float) -> None:
        """What came of it. None: nothing that tells how the mirror is (the client left, for example)."""
        if call.trial:
            self._trials -= 1
        if good is None or self._settings == "off":
            return
        if self.state == "closed":
            self._count(good, now, self._settings)
        elif call.trial:
            self._judge(good, now, self._settings)

    def ramp(self, now: float, slow_start_s: float) -> float:
        """How much of its weight a mirror bears: all, but for the first ``slow_start_s`` after it was taken back."""
        if self._closed_at is None or now >= self._closed_at + slow_start_s:
            return 1.0
        return max(LEAST_SHARE, (now - self._closed_at) / slow_start_s)

    # --- probes -------------------------------------------------------------------------------------------------------

    def probe_in(self, now: float) -> float | None:
        """Seconds until the next probe is due (0: now); None while it is closed."""
        settings = self._settings
        if self.state == "closed" or settings == "off":
            return None
        wait_s = min(settings.timeout, PROBE_S * 2.0 ** min(self._relapses, _MOST_DOUBLINGS))
        return max(0.0, self._probed_at + wait_s - now)

    def probed(self, good: bool | None, now: float) -> None:
        """A probe has ended. While it is closed only bad ones count, in a row of their own: what is asked for there
        may be well when the files are not.
        """
        self._probed_at = now
        settings = self._settings
        if good is None or settings == "off":
            return
        if self.state != "closed":
            self._judge(good, now, settings)
            return
        self._bad_probes = 0 if good else self._bad_probes + 1
        if self._bad_probes >= settings.failure_threshold:
            self._trip(now, settings)

    # --- how it changes -----------------------------------------------------------------------------------------------

    def _count(self, good: bool, now: float, settings: CircuitBreaker) -> None:
        """An answer while it is closed."""
        second = self._second(now)
        second[1] += 1
        if good:
            self._row = 0
            return
        self._row += 1
        second[2] += 1
        answers = sum(entry[1] for entry in self._seconds)
        failures = sum(entry[2] for entry in self._seconds)
        if self._row >= settings.failure_threshold or (
            answers >= FEWEST and failures >= settings.failure_rate * answers
        ):
            self._trip(now, settings)

    def _trip(self, now: float, settings: CircuitBreaker) -> None:
        again = self._closed_at is not None and now < self._closed_at + settings.timeout
        self._relapses = self._relapses + 1 if again else 0
        self._go("tripped", now)

    def _judge(self, good: bool, now: float, settings: CircuitBreaker) -> None:
        """How a trial or probe went."""
        if self.state == "open":
            if not good:
                return
            self._go("answered", now)
        if not good:
            self._relapses += 1
            self._go("failed", now)
            return
        self._proofs += 1
        if self._proofs >= settings.half_open_max_calls:
            self._go("proved", now)

    def _go(self, event: Event, now: float) -> None:
        self.state = TRANSITIONS[self.state][event]
        self._reset()
        if self.state == "open":
            self._opened_at = self._probed_at = now
        elif self.state == "closed":
            self._closed_at = now

    def _reset(self) -> None:
        self._row = self._bad_probes = self._proofs = 0
        self._seconds.clear()

    def _second(self, now: float) -> list[int]:
        number = int(now)
        while self._seconds and self._seconds[0][0] <= number - WINDOW_S:
            self._seconds.popleft()
        if not self._seconds or self._seconds[-1][0] != number:
            self._seconds.append([number, 0, 0])
        return self._seconds[-1]
