"""The options as a tree, read once from the models: what may stand where, how errors describe it, what a change needs.

Pure. ``layers.py`` finds keys by it, ``load.py`` words errors by it, ``change.py`` and ``show.py`` read ``apply`` and
``secret`` from it, and the tests go through it so that no option is forgotten.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

from fileproxy.settings.schema import Settings
from fileproxy.settings.types import Meaning, Row

Kind = Literal["value", "row", "table", "list"]
Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Option:
    """One place of the configuration.

    Attributes:
        key: dotted, with ``*`` for a name or number: ``upstreams.*.timeouts.idle``.
        kind: ``value``; ``row`` (a group of known keys), ``table`` (free names), ``list``.
        accepts: completes "… is not ACCEPTS".
        default: its default, or Ellipsis when it must be given (or stands below a name or number).
        apply: what a reload does with a change: ``live``, ``rolling`` or ``restart``.
        secret: never shown.
        text: any text is a value of it, so that it is never read as YAML.
        can_be_off: a row that can be ``off`` altogether.
        nullable: null is a value of it.
        fields: of a row.  item: of a table or list.  model: of a row.
    """

    key: str
    kind: Kind
    accepts: str
    default: Any = ...
    description: str = ""
    apply: str = "live"
    secret: bool = False
    text: bool = False
    can_be_off: bool = False
    nullable: bool = False
    fields: Mapping[str, Option] = field(default_factory=dict)
    item: Option | None = None
    model: type[Row] | None = None

    def below(self, name: str | int) -> Option | None:
        """What stands one level down, or None when there is no such key."""
        if self.kind == "row":
            return self.fields.get(str(name))
        if self.kind == "list" and not isinstance(name, int):
            return None
        return self.item

    def at(self, place: Iterable[str | int]) -> Option | None:
        """What stands at ``place`` below this one, or None."""
        option: Option | None = self
        for name in place:
            if option is None:
                return None
            option = option.below(name)
        return option


@cache
def options() -> Option:
    """The root of the tree."""
    return _row("", Settings, FieldInfo(annotation=Settings), "live", secret=False)


def leaves(option: Option | None = None) -> Iterator[Option]:
    """Every single thing that can be set: values, lists and tables of values, and groups that can be ``off``."""
    option = option or options()
    if option.kind == "value" or (option.item is not None and option.item.kind == "value"):
        yield option
    elif option.item is not None:
        yield from leaves(option.item)
    else:
        if option.can_be_off:
            yield option
        for one in option.fields.values():
            yield from leaves(one)


def dotted(place: Iterable[str | int]) -> str:
    return ".".join(map(str, place))


def nearest(place: Sequence[str | int], known: Iterable[str] = ()) -> str | None:
    """The known key that somebody who wrote the unknown ``place`` most likely meant, dotted, or None.

    The most similar of the names that may stand there (``known`` adds those of a table) and of all last names in the
    tree; a name from elsewhere must be the clearly better one.
    """
    *above, last = place
    word = str(last).lower()
    level = options().at(above)
    here = {name: dotted([*above, name]) for name in [*(level.fields if level is not None else ()), *known]}
    everywhere: dict[str, str] = {}  # last name → whole key; the first, shallowest one stays
    for option in sorted(every(options()), key=lambda one: one.key.count(".")):
        everywhere.setdefault(option.key.rpartition(".")[2], option.key)
    everywhere.pop("*", None)
    near, sibling = _closest(word, here, 0.6)
    far, other = _closest(word, everywhere, 0.75)
    if sibling is not None and near + _AT_HOME >= far:
        return here[sibling]
    if other is None:
        return None
    return everywhere[other].replace("routes.*", "routes.0").replace("servers.*", "servers.0").replace("*", "NAME")


_AT_HOME = 0.14  # how much less similar a name may be that stands at the right place


def _closest(word: str, names: Iterable[str], least: float) -> tuple[float, str | None]:
    """The most similar name and its likeness from 0 to 1; (0, None) when none is ``least`` like it."""
    likeness = {name: difflib.SequenceMatcher(None, name, word).ratio() for name in names}
    best = max(likeness, key=likeness.__getitem__, default=None)
    return (likeness[best], best) if best is not None and likeness[best] >= least else (0.0, None)


def every(option: Option) -> Iterator[Option]:
    """The option and everything below it, but for the root itself."""
    if option.key:
        yield option
    for one in [*option.fields.values(), *([option.item] if option.item else [])]:
        yield from every(one)


# --- reading the models -----------------------------------------------------------------------------------------------


def _row(key: str, model: type[Row], info: FieldInfo, apply: str, *, secret: bool, off: bool = False) -> Option:
    fields = {
        name: _option(f"{key}.{name}" if key else name, one, apply, secret=secret)
        for name, one in model.model_fields.items()
    }
    accepts = f"a group of options ({', '.join(fields)})" + (", or off" if off else "")
    default = info.default if not info.is_required() else ...
    return Option(
        key, "row", accepts, default, info.description or "", apply, secret, can_be_off=off, fields=fields, model=model
    )


def _option(key: str, info: FieldInfo, apply: str, *, secret: bool) -> Option:
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    apply = str(extra.get("apply", apply))
    secret = bool(extra.get("secret", secret))
    plain, metadata = _strip(info.annotation, info.metadata)
    branches = _branches(plain)
    rows = [one for one, _ in branches if isinstance(one, type) and issubclass(one, Row)]
    if rows:
        return _row(key, rows[0], info, apply, secret=secret, off=len(branches) > 1)
    default = info.get_default(call_default_factory=False) if not info.is_required() else ...
    origin = get_origin(plain)
    if origin in (list, dict):
        *_, inner = get_args(plain)
        item = _option(f"{key}.*", FieldInfo.from_annotation(inner), apply, secret=secret)
        kind: Kind = "list" if origin is list else "table"
        accepts = "a list" if kind == "list" else "a group of names with their values"
        return Option(key, kind, accepts, default, info.description or "", apply, secret, item=item)
    phrases = [_phrase(one, [*more, *metadata]) for one, more in branches]
    return Option(
        key,
        "value",
        ", or ".join(dict.fromkeys(phrases)),
        default,
        info.description or "",
        apply,
        secret,
        text=all(_is_text(one) for one, _ in branches),
        nullable=any(one is type(None) for one, _ in branches),
    )


def _strip(annotation: Any, metadata: Iterable[Any] = ()) -> tuple[Any, list[Any]]:
    """The type without ``Annotated``, and all metadata flat."""
    flat = [one for more in metadata for one in (more.metadata if isinstance(more, FieldInfo) else [more])]
    while get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        flat = [*(one for each in more for one in (each.metadata if isinstance(each, FieldInfo) else [each])), *flat]
    return annotation, flat


def _branches(plain: Any) -> list[tuple[Any, list[Any]]]:
    if get_origin(plain) in (Union, types.UnionType):
        return [found for one in get_args(plain) for found in _flat(*_strip(one))]
    return [(plain, [])]


def _flat(plain: Any, metadata: list[Any]) -> list[tuple[Any, list[Any]]]:
    return [(one, [*more, *metadata]) for one, more in _branches(plain)]


def _is_text(plain: Any) -> bool:
    return plain in (str, type(None)) or get_origin(plain) is Literal


def _phrase(plain: Any, metadata: list[Any]) -> str:
    meanings = [one for one in metadata if isinstance(one, Meaning)]
    if get_origin(plain) is Literal:
        values = [str(value) for value in get_args(plain)]
        return values[0] if len(values) == 1 else f"one of {', '.join(values)}"
    if plain is type(None):
        return "null"
    if meanings:
        return meanings[-1].phrase + _bounds(metadata, meanings[0].write)
    return {int: "a whole number", float: "a number", str: "text"}.get(plain, "a value") + _bounds(metadata, str)


def _bounds(metadata: list[Any], write: Any) -> str:
    low = next((write(one.ge) for one in metadata if isinstance(one, Ge)), None)
    high = next((write(one.le) for one in metadata if isinstance(one, Le)), None)
    over = next((write(one.gt) for one in metadata if isinstance(one, Gt)), None)
    if low and high:
        return f" from {low} to {high}"
    if low:
        return f", at least {low}"
    if over:
        return f", more than {over}"
    return f", at most {high}" if high else ""
