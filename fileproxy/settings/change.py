"""What differs between two generations, and what it takes to apply it. Pure.

An option applies ``live`` (the next request sees it), ``rolling`` (new workers take over) or by ``restart``; the schema
says which, and what stands below a group inherits it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fileproxy.settings.options import Option, Place, options
from fileproxy.settings.schema import Settings
from fileproxy.settings.show import flat, masked


@dataclass(frozen=True, slots=True)
class Difference:
    """One leaf that differs. Values in human units, secrets masked; None where a side does not have the leaf."""

    key: str
    apply: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class Change:
    """All that differs, in the order of the schema."""

    differences: tuple[Difference, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.differences)

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(one.key for one in self.differences)

    @property
    def live(self) -> tuple[str, ...]:
        return self._that("live")

    @property
    def rolling(self) -> tuple[str, ...]:
        return self._that("rolling")

    @property
    def restart(self) -> tuple[str, ...]:
        return self._that("restart")

    @property
    def apply(self) -> str:
        """What the whole change takes: ``nothing``, ``live``, ``rolling`` or ``restart``."""
        for strongest in ("restart", "rolling", "live"):
            if self._that(strongest):
                return strongest
        return "nothing"

    def _that(self, apply: str) -> tuple[str, ...]:
        return tuple(one.key for one in self.differences if one.apply == apply)


def difference(old: Settings, new: Settings) -> Change:
    """What ``new`` changes."""
    before, after = flat(old), flat(new)
    found: list[Difference] = []
    for key in dict.fromkeys([*after, *before]):
        place, was = before.get(key, (None, None))
        there, becomes = after.get(key, (place, None))
        if was == becomes and (key in before) == (key in after):
            continue
        assert there is not None
        found.append(Difference(key, _apply(there), masked(was, there), masked(becomes, there)))
    return Change(tuple(found))


def _apply(place: Place) -> str:
    option: Option | None = options().at(place)
    return option.apply if option is not None else "live"
