"""What a request of the client looks like. Imports nothing: the first one is written before anything else is loaded."""

from __future__ import annotations

from fileproxy import __version__

# Bytes are wanted as they are: a coding would make other bytes of them.
BASE = (
    ("User-Agent", f"fileproxy/{__version__}"),
    ("Accept", "*/*"),
    ("Accept-Encoding", "identity"),
)


def first_range(first: int, length: int) -> tuple[str, str]:
    """The field that asks for ``length`` bytes from ``first`` on, before the file's size is known."""
    return "Range", f"bytes={first}-{first + length - 1}"


def get_request(path_query: str, authority: str, headers: tuple[tuple[str, str], ...]) -> bytes:
    """A GET (RFC 9112 §3). ``headers`` may bring their own Host."""
    lines = [f"GET {path_query} HTTP/1.1"]
    if not any(name.lower() == "host" for name, _ in headers):
        lines.append(f"Host: {authority}")
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")
