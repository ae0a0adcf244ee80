"""Sitemaps (sitemaps.org, 0.9) and indexes of them, from bytes nobody vouches for (pure).

No document type is accepted, so there are no entities to expand and nothing to load; bytes, depth and the number of
addresses are bounded.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple
from xml.parsers import expat

LARGEST_BYTES = 50 * 1024 * 1024  # of one sitemap, unpacked: the protocol's own limit
LONGEST_URL = 2048
_DEEPEST = 16


class BadSitemap(ValueError):
    """Why these bytes are not taken as a sitemap."""


class Sitemap(NamedTuple):
    urls: list[str]
    sitemaps: list[str]  # of an index: where the sitemaps are


def parse(data: bytes, most: int) -> Sitemap:
    """At most ``most`` addresses of a sitemap, plain or gzip. Raises BadSitemap."""
    reader = _Reader(most)
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = reader.refuse
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(_unpacked(data), True)
    except expat.ExpatError as error:
        raise BadSitemap(f"not well-formed XML: {error}") from error
    except _Enough:
        pass  # the rest is not wanted
    if not reader.root:
        raise BadSitemap("neither <urlset> nor <sitemapindex>")
    return Sitemap(reader.found["url"], reader.found["sitemap"])


class _Enough(Exception):
    pass


class _Reader:
    def __init__(self, most: int) -> None:
        self.root = ""
        self.found: dict[str, list[str]] = {"url": [], "sitemap": []}
        self._most = most
        self._path: list[str] = []
        self._text: list[str] = []
        self._length = 0

    def refuse(self, *_: object) -> None:
        raise BadSitemap("a document type is not accepted")

    def start(self, name: str, _attributes: object) -> None:
        local = name.rpartition(" ")[2]
        if not self._path:
            if local not in ("urlset", "sitemapindex"):
                raise BadSitemap(f"<{local[:40]}> is neither <urlset> nor <sitemapindex>")
            self.root = local
        if len(self._path) >= _DEEPEST:
            raise BadSitemap("nested too deeply")
        self._path.append(local)
        self._text.clear()
        self._length = 0

    def end(self, _name: str) -> None:
        if len(self._path) == 3 and self._path[2] == "loc" and (into := self.found.get(self._path[1])) is not None:
            if (url := "".join(self._text).strip()) and len(url) <= LONGEST_URL:
                into.append(url)
            if len(into) >= self._most:
                raise _Enough
        self._path.pop()
        self._text.clear()

    def text(self, text: str) -> None:
        self._length += len(text)
        if self._length <= LONGEST_URL + 512:
            self._text.append(text)


def _unpacked(data: bytes) -> bytes:
    if data[:2] == b"\x1f\x8b":
        unpacking = zlib.decompressobj(wbits=31)
        try:
            data = unpacking.decompress(data, LARGEST_BYTES + 1)
        except zlib.error as error:
            raise BadSitemap(f"broken gzip: {error}") from error
        if not unpacking.eof and len(data) <= LARGEST_BYTES:
            raise BadSitemap("cut short")
    if len(data) > LARGEST_BYTES:
        raise BadSitemap(f"longer than {LARGEST_BYTES} bytes")
    return data
