"""How often an answer that cannot be used is asked for again. Pure.

Mirrors that are being updated, caches between us and the origin, and servers that fail in odd ways say for a moment
what is not so: another version, a part that was not asked for, "not found". One such answer ends no download. A file
that did change says so each time: then it is over after about two seconds, and nobody has got a wrong byte.
"""

from __future__ import annotations

from collections.abc import Iterator

MOST = 8  # answers in a row; two mirrors that are right once in four answers still are right once
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 0.5


def pauses_s() -> Iterator[float]:
    """Seconds to wait after each answer that cannot be used, as long as one more is worth asking for."""
    for number in range(MOST - 1):
        yield min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**number)
