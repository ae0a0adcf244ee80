"""What differs between two generations, and what it takes to apply it. Pure.

An option applies ``live`` (the next request sees it), ``rolling`` (new workers take over) or by ``restart``; the schema
says which, and what stands below a group inherits it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from fileproxy.settings.options import Place, dotted, options
from fileproxy.settings.schema import Settings
from fileproxy.settings.show import effective, masked


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs. Values in human units, secrets masked; None where a side does not have it."""

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
    """What ``new`` changes. An upstream or route that is new or gone is one difference, not one for each leaf."""
    return Change(tuple(_differences(effective(old, mask=False), effective(new, mask=False), ())))


def _differences(old: Any, new: Any, place: Place) -> Iterator[Difference]:
    if old == new:
        return
    option = options().at(place)
    assert option is not None, place
    inside = option.kind == "row" or (option.item is not None and option.item.kind == "row")
    if inside and isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*new, *old]):
            yield from _differences(old.get(name), new.get(name), (*place, name))
    elif inside and isinstance(old, list) and isinstance(new, list):
        for number, (one, other) in enumerate(zip_longest(old, new)):
            yield from _differences(one, other, (*place, number))
    else:
        yield Difference(dotted(place), option.apply, masked(old, place), masked(new, place))
