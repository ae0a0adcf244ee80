"""The rate of an upstream is the machine's: real workers, one number."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from tests.life.tools import eventually, reload
from tests.origin import OriginThread, Reply
from tests.service import Service

Start = Callable[..., Service]


def limit(one: Service) -> int | None:
    found: int | None = one.json("/stats")["performance_optimizer"]["current_rate_limit"]
    return found


def test_two_workers_have_one_rate(service: Start, threaded: OriginThread) -> None:
    """Both see what came of all requests; a worker that dies takes nothing of it along."""
    settings = {
        "upstreams": {"files": {"servers": [threaded.url], "retry": {"attempts": 1}, "circuit_breaker": "off"}},
        "server": {"workers": 2},
        "routes": [{"upstream": "files", "cache": "off"}],
    }
    threaded.script("/f", *[Reply(b"no", status=503 if number % 4 == 0 else 200) for number in range(40)])
    one = service(settings)
    eventually(lambda: limit(one) == 1000, "the sum of both", within=10.0)  # the first up says its half alone
    led = lambda: one.json("/stats")["upstreams"].get("files", {}).get("rate_led")  # noqa: E731
    eventually(led, "a worker that judges for all", within=15.0)  # what came before is nobody's
    for _ in range(40):  # whichever worker answers: each has but a part of the 20 that are needed
        one.get("/f")
    eventually(lambda: limit(one) == 800, "a lower rate", within=30.0)
    slots = one.json("/stats")["workers"]["slots"]
    assert len(slots) == 2
    os.kill(slots[0]["pid"], signal.SIGKILL)  # the one that says it

    def replaced() -> bool:
        now = one.json("/stats")["workers"]["slots"]
        return len(now) == 2 and now[0]["pid"] != slots[0]["pid"]

    eventually(replaced, "another worker in its place", within=30.0)
    eventually(lambda: limit(one) == 800, "the same rate", within=10.0)
    one.write({"profile": "baseline"})
    assert reload(one).outcome == "applied"
    eventually(lambda: limit(one) is None, "no rate", within=10.0)
    one.write({"profile": "optimized"})
    assert reload(one).outcome == "applied"
    eventually(lambda: limit(one) == 1000, "a rate again", within=10.0)
