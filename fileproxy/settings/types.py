"""What the values of options may look like: sizes, times, switches, networks, names; and the group they stand in."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    PlainSerializer,
    Strict,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from fileproxy.settings.units import format_duration, format_size, parse_duration, parse_size

HTTP_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # noqa: S105 - RFC 9110 §5.6.2
HOST = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])"
_SWITCH = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}


@dataclass(frozen=True)
class Meaning:
    """Metadata of a type: how an error says what is accepted ("… is not PHRASE"), and how a bound of it is written."""

    phrase: str
    write: Callable[[Any], str] = str


def _switch(value: object) -> object:
    return _SWITCH.get(value.lower(), value) if isinstance(value, str) else value


def _network(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not an IP address or network like 10.0.0.0/8")
    try:
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError:
        raise ValueError(f"{value!r} is not an IP address or network like 10.0.0.0/8") from None


Size = Annotated[
    int,
    Meaning("a size like 64KiB", format_size),
    BeforeValidator(parse_size),
    PlainSerializer(format_size, when_used="json"),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["64KiB", "256MiB"], "title": "size"}),
]
Duration = Annotated[
    float,
    Meaning("a time like 90s", format_duration),
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, when_used="json"),
    WithJsonSchema({"type": ["string", "number"], "examples": ["50ms", "90s"], "title": "duration"}),
]
Positive = Annotated[Duration, Gt(0)]
Whole = Annotated[int, Strict()]
Count = Annotated[Whole, Ge(1)]
Switch = Annotated[
    bool,
    Strict(),
    Meaning("on or off"),
    BeforeValidator(_switch),
    WithJsonSchema({"enum": [True, False, "on", "off", "yes", "no"], "title": "switch"}),
]
# YAML 1.1 readers (and Python code) turn a bare `off` into False; both mean the same here.
Off = Annotated[Literal["off"], BeforeValidator(lambda value: "off" if value is False else value)]
Auto = Literal["auto"]
# A group of options that can be `off` altogether: the value's own form says which is meant, so only that one is judged.
OrOff = Discriminator(lambda value: "group" if isinstance(value, dict | BaseModel) else "off")
Network = Annotated[
    str,
    Meaning("an IP address or network like 10.0.0.0/8"),
    BeforeValidator(_network),
    WithJsonSchema({"type": "string"}),
]
Token = Annotated[str, Meaning("a name of HTTP, without spaces"), StringConstraints(pattern=f"^{HTTP_TOKEN}$")]
HostName = Annotated[
    str, Meaning("a host name, or an address without port"), StringConstraints(pattern=f"^{HOST}$", to_lower=True)
]
Text = Annotated[str, Meaning("text that is not empty"), StringConstraints(min_length=1)]

LIVE: dict[str, Any] = {"apply": "live"}  # of what stands below a group that is not
ROLLING: dict[str, Any] = {"apply": "rolling"}
RESTART: dict[str, Any] = {"apply": "restart"}
SECRET: dict[str, Any] = {"secret": True}


class Row(BaseModel):
    """A group of options: frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @classmethod
    def long_form(cls, value: object) -> object:
        """The whole form of a value that may be written shorter; anything else comes back as it is."""
        return value

    @model_validator(mode="before")
    @classmethod
    def _lengthen(cls, value: object) -> object:
        return cls.long_form(value)


class Contradiction(ValueError):
    """Options that are right one by one but not together. ``problems``: (key below the group, sentence) each."""

    def __init__(self, *problems: tuple[str, str]) -> None:
        super().__init__("; ".join(f"{key}: {sentence}" if key else sentence for key, sentence in problems))
        self.problems = problems
