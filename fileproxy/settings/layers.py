"""Defaults < file < environment < flags: one tree of plain values, each remembering where it came from.

Pure but for ``read``, which is handed in and reads the files that ``…_FILE`` and ``…_file`` name. Layers are laid from
the lowest to the highest; the defaults are in the models and need no layer. Groups merge key by key, lists and values
are replaced as a whole, and an item of a list can be reached by its number.

========== ==================================================== ==============================================
file       nested YAML; ``url_file: PATH`` beside a secret       duplicate and unknown keys are errors
environment ``FILEPROXY_SERVER__PORT``, ``…_FILE`` for any value names of upstreams match without case, ``_`` = ``-``
flags      ``--set server.port=1``, dedicated ones               lists by number: ``routes.0.methods=GET,POST``
========== ==================================================== ==============================================

Where a text is to be read (environment, ``--set``) it is taken as it is for options that are text, as a list between
commas for options that are lists, and as YAML for all others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fileproxy.settings.document import BadDocument, read_document, read_value
from fileproxy.settings.options import Option, Place, dotted, nearest, options

PREFIX = "FILEPROXY_"
NOT_OPTIONS = frozenset({"FILEPROXY_CONFIG"})
# The dedicated flags of `fileproxy serve`, by what they set.
FLAGS = {
    "server.host": "--host",
    "server.port": "--port",
    "server.workers": "--workers",
    "upstreams.files.servers": "--upstream",
    "cache.disk.path": "--cache-dir",
    "redis.url": "--redis",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend. ``source`` says where it is written, ``place`` which option it is about."""

    source: str
    place: Place
    sentence: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.source, dotted(self.place), self.sentence) if part)


class _Refused(Exception):
    """A key or value that cannot be laid; becomes a Problem."""

    def __init__(self, place: Place, sentence: str) -> None:
        super().__init__(sentence)
        self.place = place
        self.sentence = sentence


Origin = Callable[[Place], str]


class Layers:
    """The tree while it is laid. ``read(path)`` returns a file's text or raises OSError / UnicodeDecodeError."""

    def __init__(self, read: Callable[[str], str]) -> None:
        self.tree: dict[str, Any] = {}
        self.problems: list[Problem] = []
        self._sources: dict[Place, str] = {}
        self._read = read

    def source(self, place: Sequence[str | int]) -> str:
        """Where the value at ``place`` (or the nearest thing around it) is written; "" for a default."""
        for length in range(len(place), -1, -1):
            if found := self._sources.get(tuple(place[:length])):
                return found
        # A default list of which an item was set by its number.
        return next((found for below, found in self._sources.items() if below[: len(place)] == tuple(place)), "")

    def holds(self, place: Place) -> bool:
        """Whether a layer says anything about ``place``; if not, its default holds."""
        node: Any = self.tree
        for name in place:
            if not has(node, name):
                return False
            node = node[name]
        return True

    # --- the layers, lowest first -------------------------------------------------------------------------------------

    def add_file(self, name: str, text: str) -> None:
        try:
            document = read_document(text)
        except BadDocument as error:
            self.problems.append(Problem(f"{name}:{error.line}", (), error.sentence))
            return
        for line, place, sentence in document.problems:
            self.problems.append(Problem(f"{name}:{line}", place, sentence))
        if document.value is not None and not isinstance(document.value, dict):
            self.problems.append(Problem(f"{name}:1", (), "must hold options (`server:` …), not a bare value or list"))
            return
        lines = document.lines

        def origin(place: Place) -> str:
            while place and place not in lines:
                place = place[:-1]
            return f"{name}:{lines[place]}" if place else name

        self._lay(options(), (), document.value, origin)

    def add_environment(self, environment: Mapping[str, str]) -> None:
        """All variables ``FILEPROXY_…``. One that is empty counts as not set, as Compose files leave them."""
        given: dict[Place, str] = {}
        names = [name for name, text in environment.items() if name.startswith(PREFIX) and text.strip()]
        for name in sorted((name for name in names if name not in NOT_OPTIONS), key=_in_order):
            source = f"environment {name}"
            try:
                place, option, from_file = self._locate(_parts(name), loose=True)
                if earlier := given.get(place):
                    raise _Refused(place, f"is also given by {earlier}")
                given[place] = name
                self._assign(place, option, environment[name], source, from_file=from_file)
            except _Refused as refused:
                self.problems.append(Problem(source, refused.place, refused.sentence))

    def add_sets(self, sets: Sequence[str]) -> None:
        """``KEY=VALUE`` each; a later one wins."""
        for one in sets:
            key, equals, text = one.partition("=")
            source = f"--set {key.strip()}"
            try:
                if not equals or not key.strip():
                    raise _Refused((), "must be KEY=VALUE, for example --set server.port=8080")
                parts = [_number(part) for part in key.strip().split(".")]
                place, option, from_file = self._locate(parts)
                self._assign(place, option, text.strip(), source, from_file=from_file)
            except _Refused as refused:
                # The source names the key already.
                sentence = refused.sentence if not refused.place or dotted(refused.place) in source else str(refused)
                self.problems.append(Problem(source, (), sentence))

    def add_flags(self, flags: Mapping[str, object]) -> None:
        """Dotted key → value of dedicated flags; None = not given."""
        for key, value in flags.items():
            if value is None:
                continue
            source = FLAGS.get(key, "command line")
            try:
                place, option, _ = self._locate([_number(part) for part in key.split(".")])
                self._make_room(place)
                self._lay(option, place, value, lambda _, source=source: source)  # type: ignore[misc]
            except _Refused as refused:
                self.problems.append(Problem(source, refused.place, refused.sentence))

    # --- finding keys -------------------------------------------------------------------------------------------------

    def _locate(self, parts: Sequence[str | int], *, loose: bool = False) -> tuple[Place, Option, bool]:
        """Place and option that ``parts`` name, and whether the value is to be read from a file.

        ``loose``: parts are lower case without ``-`` (environment), and ``_file`` may end any value's name.
        """
        option, place, node = options(), (), self.tree  # type: tuple[Option, Place, Any]
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            name = self._match(option, node, part) if loose else part
            if option.kind != "list":
                name = str(name)  # an upstream may be called 0
            below = option.below(name)
            from_file = False
            if last and isinstance(name, str) and name.lower().endswith("_file") and option.kind != "list":
                base = self._match(option, node, name[:-5]) if loose else name[:-5]
                candidate = option.below(base) if base else None
                # In a table any name is known, so there only what holds secrets can be meant.
                if candidate is not None and (candidate.secret or (loose and option.kind == "row" and below is None)):
                    name, below, from_file = base, candidate, True
            if below is None:
                raise _Refused((*place, name), _unknown(option, (*place, name), node))
            if option.kind == "list":
                node = node if isinstance(node, list) else _default_list(option)
                assert isinstance(name, int)
                if name > len(node):
                    raise _Refused((*place, name), f"the list has {len(node)} items; the next is number {len(node)}")
            node = node[name] if has(node, name) else None
            option, place = below, (*place, name)
        return place, option, from_file

    @staticmethod
    def _match(option: Option, node: object, part: str | int) -> str | int:
        """The name that a part of an environment variable means."""
        if option.kind == "list":
            return _number(str(part))
        if option.kind != "table":
            return part
        wanted = str(part).lower().replace("-", "_")
        for name in node if isinstance(node, dict) else ():
            if name.lower().replace("-", "_") == wanted:
                return str(name)
        # Names of headers hold hyphens, and a variable's name cannot.
        return str(part).replace("_", "-") if option.item is not None and option.item.kind == "value" else part

    # --- laying values ------------------------------------------------------------------------------------------------

    def _assign(self, place: Place, option: Option, text: str, source: str, *, from_file: bool) -> None:
        if from_file:
            text, source = self._read_named(place, text), f"{text} (named by {source})"
        self._make_room(place)
        self._lay(option, place, value_of(option, text), lambda _: source)

    def _read_named(self, place: Place, path: object) -> str:
        """The text in the file that a ``…_FILE`` names, without the line's end."""
        if not isinstance(path, str) or not path:
            raise _Refused(place, "the name of a file is expected")
        try:
            return self._read(path).rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise _Refused(place, f"cannot read {path}: {reason}") from None

    def _lay(self, option: Option, place: Place, value: object, origin: Origin) -> None:
        if option.model is not None:
            value = option.model.long_form(value)
        if value is None and option.kind != "value" and not (place and isinstance(place[-1], int)):
            return  # `server:` with nothing below it
        if option.kind in ("row", "table") and isinstance(value, dict):
            self._enter(place)
            if place:
                self._sources[place] = origin(place)
            for name in value:
                self._lay_named(option, place, name, value, origin)
        elif option.kind == "list" and isinstance(value, list | tuple):
            self._replace(place, [], origin(place))
            for number, one in enumerate(value):
                assert option.item is not None
                self._lay(option.item, (*place, number), one, origin)
        else:
            self._replace(place, copy.deepcopy(value), origin(place))

    def _lay_named(
        self, option: Option, place: Place, name: str, siblings: Mapping[str, object], origin: Origin
    ) -> None:
        here, value = (*place, name), siblings[name]
        source = origin(here)
        base = name.removesuffix("_file")
        candidate = option.below(base) if base != name else None
        try:
            if candidate is not None and candidate.secret and candidate.kind == "value":
                if base in siblings:
                    raise _Refused(here, f"give {base} or {name}, not both")
                text = self._read_named(here, value)
                self._lay(candidate, (*place, base), text, lambda _: f"{value} (named by {source})")
                return
            below = option.below(name)
            if below is None:
                raise _Refused(here, _unknown(option, here, None))
            self._lay(below, here, value, origin)
        except _Refused as refused:
            self.problems.append(Problem(source, refused.place, refused.sentence))

    def _make_room(self, place: Place) -> None:
        for length in range(1, len(place)):
            self._enter(place[:length])

    def _enter(self, place: Place) -> Any:
        """The group or list at ``place``, made when there is none yet (a list: with its default items)."""
        node: Any = self.tree
        for length, name in enumerate(place, 1):
            option = options().at(place[:length])
            assert option is not None
            kind = list if option.kind == "list" else dict
            present = node[name] if has(node, name) else None
            if not isinstance(present, kind):
                present = _default_list(option) if kind is list else {}
                _set(node, name, present)
            node = present
        return node

    def _replace(self, place: Place, value: object, source: str) -> None:
        _set(self._enter(place[:-1]), place[-1], value)
        for stale in [one for one in self._sources if one[: len(place)] == place]:
            del self._sources[stale]
        self._sources[place] = source


def value_of(option: Option, text: str) -> object:
    """What a text of the environment or the command line means for an option."""
    if option.kind == "value":
        if option.nullable and text in ("null", "~"):
            return None
        return text if option.text else read_value(text)
    item = option.item
    if option.kind == "list" and item is not None and not text.startswith(("[", "{")):
        return [value_of(item, one.strip()) for one in text.split(",") if one.strip()]
    if option.kind == "row" and not text.startswith(("[", "{")):
        return text  # a short form, or off
    return read_value(text)


def has(node: object, name: str | int) -> bool:
    """Whether a group or list of the tree has this name or number."""
    if isinstance(node, list):
        return isinstance(name, int) and name < len(node)
    return isinstance(node, dict) and name in node


def _unknown(option: Option, place: Place, node: object) -> str:
    if option.kind == "value":
        return f"unknown option; {dotted(place[:-1])} is a single value"
    if option.kind == "list":
        return "an item of a list is named by its number, from 0"
    meant = nearest(place, node if option.kind == "table" and isinstance(node, dict) else ())
    return f"unknown option; did you mean {meant}?" if meant else "unknown option"


def _default_list(option: Option) -> list[Any]:
    return list(option.default) if isinstance(option.default, list) else []


def _set(node: Any, name: str | int, value: object) -> None:
    if isinstance(node, list) and name == len(node):
        node.append(value)
    else:
        node[name] = value


def _number(part: str) -> str | int:
    return int(part) if part.isascii() and part.isdecimal() else part


def _parts(variable: str) -> list[str | int]:
    return list(variable.removeprefix(PREFIX).lower().split("__"))


def _in_order(variable: str) -> list[tuple[int, int, str]]:
    """Short names before the ones below them, numbers by size."""
    return [(0, one, "") if isinstance(one := _number(str(part)), int) else (1, 0, one) for part in _parts(variable)]
