"""The input of ``-i``. Pure.

One file a line: its URL, or several mirrors of it separated by tabs. Indented lines that follow are options of that
file (``out=NAME``, ``checksum=sha256=…``), as aria2 has them. Empty lines and lines that begin with ``#`` are skipped.
"""

from __future__ import annotations

from dataclasses import dataclass

from fileproxy.client.checksum import Checksum


@dataclass(frozen=True, slots=True)
class Line:
    """One file of the list. ``out`` is a relative path, or None."""

    number: int
    urls: tuple[str, ...]
    out: str | None = None
    checksum: Checksum | None = None


def parse_list(text: str) -> list[Line]:
    """The files of a list, in order. ValueError names the line that is wrong."""
    found: list[Line] = []
    for number, raw in enumerate(text.splitlines(), 1):
        if not raw.strip() or raw.lstrip().startswith("#"):
            continue
        if raw[0] in " \t":
            if not found:
                raise ValueError(f"line {number}: an option without a URL above it")
            found[-1] = _with_option(found[-1], raw.strip(), number)
        else:
            found.append(Line(number, tuple(part.strip() for part in raw.split("\t") if part.strip())))
    return found


def _with_option(line: Line, text: str, number: int) -> Line:
    name, mark, value = text.partition("=")
    if not mark or not value or name not in ("out", "checksum"):
        raise ValueError(f"line {number}: {text!r} is not out=NAME or checksum=sha256=…")
    if name == "out":
        if value.startswith("/") or ".." in value.split("/"):
            raise ValueError(f"line {number}: out must stay inside the folder")
        if value.startswith("/") or ".." in value.split("/"):
            raise ValueError(f"line {number}: out must stay inside the folder")
        return Line(line.number, line.urls, value, line.checksum)
    try:
        return Line(line.number, line.urls, line.out, Checksum.parse(value))
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from None
