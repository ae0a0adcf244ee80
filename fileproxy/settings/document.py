"""YAML → plain values and the line each stands on. Pure.

YAML 1.2's core rules, not 1.1's: ``off`` and ``no`` stay text (options read them), ``10:80`` and ``010`` hold no
surprise, dates stay text. Tags, merge keys and duplicate keys are errors: what is written is what holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import yaml

from fileproxy.settings.options import Place

_STANDARD = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """SafeLoader with the core schema of YAML 1.2. Only composes: no object is ever constructed from a tag."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own way: none of 1.1's, those below instead


for _kind, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?[0-9]+$", list("-+0123456789")),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(_STANDARD + _kind, re.compile(_pattern), _first)


class BadDocument(Exception):
    """Not readable as YAML. ``line`` counts from 1."""

    def __init__(self, line: int, sentence: str) -> None:
        super().__init__(sentence)
        self.line = line
        self.sentence = sentence


@dataclass(slots=True)
class Document:
    """``value``: dicts, lists and scalars. ``lines``: place → line. ``problems``: (line, place, sentence) each."""

    value: object = None
    lines: dict[Place, int] = field(default_factory=dict)
    problems: list[tuple[int, Place, str]] = field(default_factory=list)


def read_document(text: str) -> Document:
    """Read one YAML document. Raises BadDocument when it is not YAML at all."""
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(filter(None, (error.context, error.problem)))
        raise BadDocument(mark.line + 1 if mark else 1, f"not valid YAML: {what}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise BadDocument(line, f"not valid YAML: character number {error.character} is not allowed") from None
    except RecursionError:
        raise BadDocument(1, "nested too deeply") from None
    document = Document()
    if root is not None:
        document.value = _value(root, (), root.start_mark.line + 1, document, set())
    return document


def read_value(text: str) -> object:
    """One value as on a command line: ``[GET, POST]``, ``4s``, ``null``. What is not YAML counts as text."""
    try:
        document = read_document(text)
    except BadDocument:
        return text
    return text if document.problems else document.value


def _value(node: yaml.Node, place: Place, line: int, into: Document, above: set[int]) -> object:
    into.lines[place] = line
    if id(node) in above:
        into.problems.append((line, place, "an alias cannot stand inside what it names"))
        return None
    kind = node.tag.removeprefix(_STANDARD)
    if kind not in _kinds(node):
        into.problems.append((line, place, f"the tag {node.tag} is not supported"))
        return None
    above = above | {id(node)}
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, place, into, above)
    if isinstance(node, yaml.SequenceNode):
        return [
            _value(one, (*place, number), one.start_mark.line + 1, into, above) for number, one in enumerate(node.value)
        ]
    try:
        return _SCALARS[kind](node.value)
    except ValueError:  # `!!int abc`, or more digits than Python reads
        into.problems.append((line, place, "the value does not fit its tag"))
        return None


def _mapping(node: yaml.MappingNode, place: Place, into: Document, above: set[int]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            into.problems.append((line, place, "a key must be plain text"))
            continue
        name = str(key.value)
        if name in found:
            first = into.lines[*place, name]
            into.problems.append((line, (*place, name), f"given twice; the first is on line {first}"))
            continue
        found[name] = _value(value, (*place, name), line, into, above)
    return found


def _kinds(node: yaml.Node) -> Collection[str]:
    if isinstance(node, yaml.ScalarNode):
        return _SCALARS
    return ("map",) if isinstance(node, yaml.MappingNode) else ("seq",)


def _truth(text: str) -> bool:
    return text.lower() == "true"


_SCALARS: dict[str, Callable[[str], object]] = {
    "str": str,
    "null": lambda _: None,
    "bool": _truth,
    "int": int,
    "float": float,
}
