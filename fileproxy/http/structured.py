"""Structured field values (RFC 9651): reading dictionaries, lists and items (§4.2), writing what we send (§4.1).

Reading is strict, as §4.2 asks: a field that breaks the grammar anywhere is None altogether, so that nobody acts on
half of it. Several lines of one field are joined by commas before.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_TOKEN = re.compile(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_KEY = re.compile(r"[a-z*][a-z0-9_.*-]*")
_NUMBER = re.compile(r"(-?[0-9]+)(\.[0-9]*)?", re.ASCII)
_STRING = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_BYTES = re.compile(r":([A-Za-z0-9+/]*={0,2}):")
_DISPLAY = re.compile(r'%"((?:[\x20-\x21\x23-\x24\x26-\x7e]|%[0-9a-f]{2})*)"')
_MOST_MEMBERS = 256  # more of anything than a header worth reading has


class Token(str):
    """A Token: what is written without quotes. Equal to the str of the same text."""

    __slots__ = ()


class Date(int):
    """A Date: ``@`` and seconds since the epoch."""

    __slots__ = ()


class Display(str):
    """A Display String: text beyond ASCII."""

    __slots__ = ()


Bare = int | float | str | bytes | bool
"""Integer, Decimal, String (or :class:`Token`, :class:`Display`), Byte Sequence, Boolean; :class:`Date` is an int."""


@dataclass(frozen=True, slots=True)
class Item:
    value: Bare
    parameters: Mapping[str, Bare] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InnerList:
    items: tuple[Item, ...]
    parameters: Mapping[str, Bare] = field(default_factory=dict)


Member = Item | InnerList


def parse_dictionary(lines: Sequence[str]) -> dict[str, Member] | None:
    """A Dictionary (§4.2.2); of a key given twice the last value counts. ``{}`` when empty, None when malformed."""
    reader = _Reader(lines)
    members: dict[str, Member] = {}
    try:
        while not reader.ended():
            key = reader.match(_KEY)[0]
            if reader.take("="):
                members[key] = reader.member()
            else:
                members[key] = Item(True, reader.parameters())
            if not reader.separator(len(members)):
                return members
    except _MalformedError:
        return None
    return members


def parse_list(lines: Sequence[str]) -> list[Member] | None:
    """A List (§4.2.1). ``[]`` when empty, None when malformed."""
    reader = _Reader(lines)
    members: list[Member] = []
    try:
        while not reader.ended():
            members.append(reader.member())
            if not reader.separator(len(members)):
                return members
    except _MalformedError:
        return None
    return members


def parse_item(lines: Sequence[str]) -> Item | None:
    """One Item (§4.2.3), or None."""
    reader = _Reader(lines)
    try:
        item = reader.item()
    except _MalformedError:
        return None
    return item if reader.ended() else None


class _MalformedError(Exception):
    """The text is no structured field."""


class _Reader:
    """A place in the text, and the steps of §4.2 from there."""

    def __init__(self, lines: Sequence[str]) -> None:
        # Empty lines are no members: joined as they are they would leave a comma without one.
        self._text = ",".join(line.strip(" \t") for line in lines if line.strip(" \t")).strip(" ")
        self._at = 0

    def ended(self) -> bool:
        return self._at >= len(self._text)

    def take(self, character: str) -> bool:
        if self._text.startswith(character, self._at):
            self._at += 1
            return True
        return False

    def match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise _MalformedError
        self._at = found.end()
        return found

    def _skip(self, characters: str) -> None:
        while self._at < len(self._text) and self._text[self._at] in characters:
            self._at += 1

    def separator(self, members: int) -> bool:
        """Past the comma to the next member; False at the end. A comma at the end is malformed."""
        self._skip(" \t")
        if self.ended():
            return False
        if not self.take(",") or members >= _MOST_MEMBERS:
            raise _MalformedError
        self._skip(" \t")
        if self.ended():
            raise _MalformedError
        return True

    def member(self) -> Member:
        return self._inner_list() if self.take("(") else self.item()

    def _inner_list(self) -> InnerList:
        items: list[Item] = []
        while len(items) < _MOST_MEMBERS:
            self._skip(" ")
            if self.take(")"):
                return InnerList(tuple(items), self.parameters())
            items.append(self.item())
            if not self._text.startswith((" ", ")"), self._at):
                break
        raise _MalformedError

    def item(self) -> Item:
        return Item(self._bare(), self.parameters())

    def parameters(self) -> dict[str, Bare]:
        found: dict[str, Bare] = {}
        while self.take(";"):
            self._skip(" ")
            key = self.match(_KEY)[0]
            found[key] = self._bare() if self.take("=") else True
            if len(found) > _MOST_MEMBERS:
                raise _MalformedError
        return found

    def _bare(self) -> Bare:
        first = self._text[self._at : self._at + 1]
        if first == '"':
            return re.sub(r"\\(.)", r"\1", self.match(_STRING)[1])
        if first == ":":
            return _decode(self.match(_BYTES)[1])
        if first == "?":
            self._at += 1
            if self.take("1"):
                return True
            if self.take("0"):
                return False
            raise _MalformedError
        if first == "@":
            self._at += 1
            when = self._number()
            if isinstance(when, float):
                raise _MalformedError
            return Date(when)
        if first == "%":
            return _display(self.match(_DISPLAY)[1])
        if first == "-" or "0" <= first <= "9":
            return self._number()
        return Token(self.match(_TOKEN)[0])

    def _number(self) -> int | float:
        found = self.match(_NUMBER)
        whole, fraction = found[1], found[2]
        digits = len(whole.lstrip("-"))
        if fraction is None:
            if digits > 15:
                raise _MalformedError
            return int(whole)
        if digits > 12 or not 1 < len(fraction) <= 4:
            raise _MalformedError
        return float(found[0])


def _decode(text: str) -> bytes:
    """Base64; padding may be missing (§4.2.7)."""
    try:
        return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)
    except binascii.Error:
        raise _MalformedError from None


def _display(text: str) -> Display:
    data = re.sub(rb"%([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), text.encode("ascii"))
    try:
        return Display(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise _MalformedError from None


# --- writing ---------------------------------------------------------------------------------------------------------


def sf_string(text: str) -> str:
    """``text`` as a String. Strings are ASCII: other characters are written as Python escapes, controls as a space."""
    ascii_text = _CONTROL.sub(" ", text).encode("ascii", "backslashreplace").decode("ascii")
    return '"' + ascii_text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def sf_token_or_string(text: str) -> str:
    """``text`` as a Token where it can be one, else as a String."""
    return text if _TOKEN.fullmatch(text) else sf_string(text)


def sf_bytes(data: bytes) -> str:
    """``data`` as a Byte Sequence."""
    return f":{base64.b64encode(data).decode('ascii')}:"
