"""Reads a Dockerfile as far as ours goes: exec form only, so that what is replayed is what an engine runs. Pure."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Step:
    """One instruction; ``words`` are its arguments, an exec form's as they are."""

    name: str
    words: list[str]


@dataclass
class Stage:
    name: str
    steps: list[Step] = field(default_factory=list)

    def all(self, name: str) -> list[list[str]]:
        return [step.words for step in self.steps if step.name == name]

    def last(self, name: str) -> list[str]:
        return self.all(name)[-1]


def parse(text: str) -> list[Stage]:
    """The stages. ValueError for what would need a shell, or is not known here."""
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    lines = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    for line in filter(str.strip, lines):
        name, _, rest = line.strip().partition(" ")
        rest = re.sub(r"\$\{(\w+)\}", lambda match: arguments.get(match[1], match[0]), rest)
        if name == "ARG":
            key, _, value = rest.partition("=")
            arguments[key] = value
        elif name == "FROM":
            words = rest.split()
            stages.append(Stage(words[2] if len(words) == 3 else str(len(stages))))
        else:
            stages[-1].steps.append(Step(name, _words(name, rest)))
    return stages


def _words(name: str, rest: str) -> list[str]:
    if name in ("ENV", "LABEL", "COPY", "WORKDIR", "USER", "EXPOSE", "STOPSIGNAL"):
        return shlex.split(rest)
    if name == "HEALTHCHECK":
        options, _, command = rest.partition(" CMD ")
        return [*shlex.split(options), *_exec(command)]
    if name in ("RUN", "ENTRYPOINT", "CMD", "VOLUME"):
        return _exec(rest)
    raise ValueError(f"unknown instruction {name}")


def _exec(text: str) -> list[str]:
    words = json.loads(text)
    if not (isinstance(words, list) and all(isinstance(word, str) for word in words)):
        raise ValueError(f"not in exec form: {text}")
    return words
