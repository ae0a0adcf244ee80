"""Who did what through the admin API: one JSON line for each call that changes something or was refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from fileproxy.clock import Clock
from fileproxy.model import Ask

MOST_VALUES = 50  # of a list in one line


class Audit:
    """``put`` takes whole lines; it must not raise (``observe/stream.py``)."""

    def __init__(self, put: Callable[[bytes], None], clock: Clock) -> None:
        self._put = put
        self._clock = clock

    def note(self, action: str, ask: Ask, status: int, **details: Any) -> None:
        """One line. The token itself is nowhere in it."""
        now = datetime.fromtimestamp(self._clock.time(), UTC).isoformat(timespec="milliseconds")
        line: Mapping[str, Any] = {
            "time": f"{now[:-6]}Z",
            "action": action,
            "client": ask.client,
            "peer": ask.peer,
            "id": ask.id,
            "method": ask.method,
            "target": str(ask.target),
            "status": status,
            **{name: _short(value) for name, value in details.items()},
        }
        # ASCII only: no value can end or turn round a line, whatever it holds.
        self._put(json.dumps(line, ensure_ascii=True).encode() + b"\n")


def _short(value: Any) -> Any:
    if isinstance(value, list) and len(value) > MOST_VALUES:
        return [*value[:MOST_VALUES], f"… {len(value) - MOST_VALUES} more"]
    return value
