"""Layers → validated settings, or one clear line for every mistake.

A line reads ``config/fileproxy.yaml:12: server.prot: unknown option; did you mean server.port?``. The library that
validates has words of its own for what is wrong; none of them gets out of this file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from fileproxy.errors import ConfigurationError
from fileproxy.settings.layers import Layers, Problem, has
from fileproxy.settings.options import Option, Place, dotted, options
from fileproxy.settings.schema import Settings
from fileproxy.settings.show import effective, flat, schema
from fileproxy.settings.verify import verify

__all__ = ["DEFAULT_FILE", "Loaded", "effective", "load", "schema", "verify"]

DEFAULT_FILE = Path("config/fileproxy.yaml")
_MISSING = "is missing"
_LONGEST_VALUE = 60  # characters of a wrong value that an error repeats


@dataclass(frozen=True, slots=True)
class Loaded:
    """``settings``, ``sources`` (dotted key of every leaf → where it is written, or ``default``), ``files`` read."""

    settings: Settings
    sources: Mapping[str, str]
    files: tuple[Path, ...]


def load(
    config: Path | None = None,
    env: Mapping[str, str] | None = None,
    sets: Sequence[str] = (),
    flags: Mapping[str, object] | None = None,
) -> Loaded:
    """Read and validate the configuration.

    Args:
        config: the file of ``--config``; else ``$FILEPROXY_CONFIG``, else ``config/fileproxy.yaml`` if there is one.
        env: the environment to read ``FILEPROXY_…`` from.
        sets: ``KEY=VALUE`` texts of ``--set``.
        flags: dotted key → value of dedicated flags; None = not given. They win over ``sets``.

    Raises:
        ConfigurationError: with all problems found, a line each.
    """
    env = env or {}
    files: list[Path] = []

    def read(path: str) -> str:
        files.append(Path(path))
        return Path(path).read_text(encoding="utf-8")

    layers = Layers(read)
    if config is None and (named := env.get("FILEPROXY_CONFIG", "").strip()):
        config = Path(named)
    if config is None and DEFAULT_FILE.exists():
        config = DEFAULT_FILE
    if config is not None:
        try:
            layers.add_file(str(config), read(str(config)))
        except OSError as error:
            layers.problems.append(Problem(str(config), (), f"cannot be read: {error.strerror}"))
        except UnicodeDecodeError as error:
            layers.problems.append(Problem(str(config), (), f"is not UTF-8 (byte {error.start})"))
    layers.add_environment(env)
    layers.add_sets(sets)
    layers.add_flags(flags or {})

    settings, problems = _validate(layers)
    if problems or settings is None:
        raise ConfigurationError([str(one) for one in problems])
    sources = {
        key: layers.source(place) if layers.holds(place) else "default" for key, (place, _) in flat(settings).items()
    }
    return Loaded(settings, sources, tuple(dict.fromkeys(files)))


def _validate(layers: Layers) -> tuple[Settings | None, list[Problem]]:
    problems = list(layers.problems)
    try:
        return Settings.model_validate(layers.tree), problems
    except ValidationError as error:
        found = _problems(error, layers)
    # What holds between options is judged only when each is right; judge it for the part that is.
    if not {one.place[0] for one in found if one.place} & {"upstreams", "routes"}:
        try:
            Settings.model_validate({key: layers.tree[key] for key in ("upstreams", "routes") if key in layers.tree})
        except ValidationError as error:
            found += _problems(error, layers)
    return None, problems + [one for one in dict.fromkeys(found) if not _follows(one, problems)]


def _follows(problem: Problem, earlier: list[Problem]) -> bool:
    """Whether something is missing only because its key is misspelt, or could not be read."""
    meant = f"did you mean {dotted(problem.place)}?"
    return problem.sentence == _MISSING and any(one.place == problem.place or meant in one.sentence for one in earlier)


def _problems(error: ValidationError, layers: Layers) -> list[Problem]:
    """One problem for each place: the branches of a union speak with one voice."""
    at: dict[Place, list[ErrorDetails]] = defaultdict(list)
    for detail in error.errors(include_url=False):
        at[_place(detail, layers.tree)].append(detail)
    problems: list[Problem] = []
    for place, details in at.items():
        option = options().at(place)
        assert option is not None, place
        for below, sentence in _sentences(option, details):
            where = (*place, *below)
            problems.append(Problem(layers.source(where), where, sentence))
    return problems


def _place(detail: ErrorDetails, tree: Any) -> Place:
    """The place in the tree that an error is about; steps of its path that name a union's branch are left out."""
    place: list[str | int] = []
    node = tree
    for step in detail["loc"]:
        if has(node, step):
            node = node[step]
        elif detail["type"] != "missing" or step != detail["loc"][-1]:
            continue
        place.append(step)
    return tuple(place)


def _sentences(option: Option, details: list[ErrorDetails]) -> list[tuple[Place, str]]:
    """What is wrong at one place: (place below it, sentence) each."""
    detail = details[0]
    if detail["type"] == "missing":
        return [((), _MISSING)]
    if detail["loc"] and detail["loc"][-1] == "[key]":
        return [
            ((), "the name must be 1 to 64 letters, digits, _ or -" if option.kind == "row" else "is not a valid name")
        ]
    if len(details) == 1 and detail["type"] == "value_error":
        error = detail["ctx"]["error"]
        together = getattr(error, "problems", None)
        if together is not None:
            return [(_steps(key), sentence) for key, sentence in together]
        return [((), str(error))]
    if detail["type"] == "too_short":
        return [((), "must not be empty")]
    if option.secret:
        return [((), f"must be {option.accepts}")]
    return [((), f"{_shown(detail['input'])} is not {option.accepts}")]


def _steps(key: str) -> Place:
    return tuple(int(step) if step.isdecimal() else step for step in key.split(".")) if key else ()


def _shown(value: object) -> str:
    if value is None:
        return "nothing (null)"
    if isinstance(value, dict | list):
        return "a group" if isinstance(value, dict) else "a list"
    text = repr(value) if not isinstance(value, bool) else str(value).lower()
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
