"""The calls of the admin API: one row each, and the types of what they take and give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from fileproxy.admin.warm import WarmOrder, WarmState

PREFIX = "/-/api/v1/"
MOST_VALUES = 1000

Kind = Literal["key", "prefix", "tag", "all"]
_Value = Annotated[str, msgspec.Meta(min_length=1, max_length=8192)]
_OneOrMore = _Value | Annotated[list[_Value], msgspec.Meta(min_length=1, max_length=MOST_VALUES)]


class Purge(msgspec.Struct, forbid_unknown_fields=True):
    """What to drop: exactly one of ``key`` (address or path), ``prefix``, ``tag`` and ``all``."""

    key: _OneOrMore | None = None
    prefix: _OneOrMore | None = None
    tag: _OneOrMore | None = None
    all: bool = False
    soft: bool = False


class Purged(msgspec.Struct):
    """It holds in every worker now, and on the other machines within seconds."""

    kind: Kind
    soft: bool
    values: list[str]
    bans: int


@dataclass(frozen=True, slots=True)
class Route:
    """One call. ``{id}`` in the path matches one segment; ``takes`` and ``gives`` are the types of the bodies."""

    method: str
    path: str
    name: str
    sentence: str
    takes: type | None = None
    gives: type | None = None
    status: int = 200
    errors: tuple[int, ...] = ()


ROUTES: tuple[Route, ...] = (
    Route("GET", "openapi.json", "describe", "This description."),
    Route("POST", "purge", "purge", "Drop files from every tier and worker.", Purge, Purged, errors=(400, 404, 503)),
    Route("POST", "warm", "warm", "Begin to fetch files.", WarmOrder, WarmState, 202, errors=(400, 503)),
    Route("GET", "warm/{id}", "warm_state", "How far a warm job is.", None, WarmState, errors=(404,)),
    Route("DELETE", "warm/{id}", "warm_stop", "Stop a warm job.", None, WarmState, errors=(404, 503)),
)
