"""One ban, and what it means for a record (pure).

A ban says: what matches and was stored before is not to be served any more (hard), or only after it was revalidated
(soft). ``meta.url`` has the form ``upstream/host/path?query``; in the value of a ``key`` or ``prefix`` ban an upstream
or host that is ``*`` stands for any.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import msgspec

from fileproxy.model import Meta, Record

Kind = Literal["key", "prefix", "tag", "all"]
KINDS: tuple[Kind, ...] = ("key", "prefix", "tag", "all")

FeedId = tuple[int, int]  # an entry of the stream between machines: milliseconds, number
NOT_FED: FeedId = (0, 0)


@dataclass(frozen=True, slots=True)
class Ban:
    """``seq`` orders the bans of one machine; ``feed`` is its place in the stream between machines, once it has one."""

    seq: int
    kind: Kind
    value: str
    soft: bool
    at: float  # seconds since the epoch, by the clock of whoever added it
    uid: str = ""  # the same on every machine
    own: bool = True  # added on this machine
    feed: FeedId = NOT_FED

    def hits(self, record: Record) -> bool:
        """Does this ban speak of ``record``? Its time and number are not looked at."""
        match self.kind:
            case "all":
                return True
            case "tag":
                return isinstance(record, Meta) and self.value in record.tags
            case "key":
                return _as_asked(record.url, self.value) == self.value
            case _:
                return _as_asked(record.url, self.value).startswith(self.value)


@dataclass(frozen=True, slots=True)
class Judged:
    """``keep``: as it is. ``soft``: stale since ``record.expired_at``. ``gone``: not to be used; there is no record."""

    outcome: Literal["keep", "soft", "gone"]
    record: Record | None


GONE = Judged("gone", None)


def judge(record: Record, bans: Iterable[Ban], newest: int) -> Judged:
    """What is left of ``record`` after ``bans``; it then carries ``newest`` as the number it was tested against."""
    expired_at = record.expired_at if isinstance(record, Meta) else None
    soft = False
    for ban in bans:
        if ban.hits(record):
            if not ban.soft:
                return GONE
            soft = True
            # The earliest counts: nothing has revalidated it since.
            expired_at = ban.at if expired_at is None else min(expired_at, ban.at)
    if isinstance(record, Meta) and soft:
        return Judged("soft", msgspec.structs.replace(record, ban=newest, expired_at=expired_at))
    if record.ban == newest:
        return Judged("keep", record)
    return Judged("keep", msgspec.structs.replace(record, ban=newest))


def _as_asked(url: str, value: str) -> str:
    """``url`` with ``*`` where ``value`` has one for its upstream or host."""
    if "*" not in value:
        return url
    wanted, parts = value.split("/", 2), url.split("/", 2)
    for place in range(min(2, len(wanted), len(parts))):
        if wanted[place] == "*":
            parts[place] = "*"
    return "/".join(parts)
