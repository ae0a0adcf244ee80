"""Precompressed siblings: the ``/file.zst``, ``/file.br``, ``/file.gz`` that a site publishes beside ``/file``.

What nginx's ``gzip_static`` does with a folder, done for any upstream (``compress.siblings``). A sibling is asked for
as any other file, so it is cached, shared and healed like one; this module says only when that is worth a request:

* One ask at a time looks for a sibling nobody knows of; who comes meanwhile goes on without.
* A file without one is left alone for ABSENT_S.
* So is a kind of file (route, ending, coding) of which MISSES in a row had none: origins without siblings are asked
  that often, and not once for each miss.

Whether what came is the file in another coding is decided by ``http/coding.py`` (law 1). The rest is best effort: a
sibling that fails, or takes longer than WAIT_S to begin, leaves the answer as it would have been.
"""

from __future__ import annotations

import asyncio
import posixpath
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from fileproxy.errors import FileProxyError
from fileproxy.http import coding as rules
from fileproxy.http.coding import Coding
from fileproxy.model import Answer, Ask, FileBody, Headers, header

SUFFIXES: dict[Coding, str] = {"zstd": ".zst", "br": ".br", "gzip": ".gz"}
ABSENT_S = 600.0
MISSES = 3
WAIT_S = 2.0
MOST_ROWS = 10_000  # files remembered, of about 300 bytes each

# Asks for what lies at the target with this behind it. Raises FileProxyError.
Beside = Callable[[str], Awaitable[Answer]]


class Sibling(NamedTuple):
    coding: Coding
    answer: Answer
    length: int
    mark: str  # in the place of a level in its tag


class Siblings:
    """What is known of siblings in one worker."""

    def __init__(self) -> None:
        # When to look again; None: there is one.
        self._files: OrderedDict[tuple[str, str, Coding], float | None] = OrderedDict()
        self._kinds: OrderedDict[tuple[str, str, Coding], tuple[int, float]] = OrderedDict()  # misses, look again

    async def find(
        self, ask: Ask, headers: Headers, size: int, offered: list[Coding], route: str, beside: Beside
    ) -> Sibling | None:
        """The sibling that the client likes best of the file with this head. The caller closes its body."""
        if ask.target.query is not None or ask.target.path.endswith("/"):
            return None
        for coding in rules.ranked(ask.headers, offered):
            if self._may_ask(ask, coding, route):
                sibling = await self._ask(ask, headers, size, coding, beside)
                self._note(ask, coding, route, found=sibling is not None)
                if sibling is not None:
                    return sibling
        return None

    async def _ask(self, ask: Ask, headers: Headers, size: int, coding: Coding, beside: Beside) -> Sibling | None:
        try:
            async with asyncio.timeout(WAIT_S):
                answer = await beside(SUFFIXES[coding])
        except (FileProxyError, TimeoutError):
            return None
        said = header(answer.headers, "Content-Length") or ""
        length = int(said) if ask.method == "HEAD" and said.isdecimal() else answer.body.length
        # Kept, or in a folder: what is fetched for one client alone would be fetched twice for each.
        lasts = ask.method == "HEAD" or answer.stored or isinstance(answer.body, FileBody)
        if answer.status == 200 and lasts and length is not None and answer.body.framed:
            mark = rules.sibling_mark(headers, size, answer.headers, length, coding)
            if mark is not None:
                return Sibling(coding, answer, length, mark)
        await answer.body.aclose()
        return None

    def _may_ask(self, ask: Ask, coding: Coding, route: str) -> bool:
        """Notes as well that it was asked: that counts as a miss until it is found."""
        file, kind, now = _file(ask, coding), _kind(ask, coding, route), ask.received_at
        again = self._files.get(file, 0.0)
        if again is None:
            return True
        misses, silent_until = self._kinds.get(kind, (0, 0.0))
        if now < again or (misses >= MISSES and now < silent_until):
            return False
        self._files[file] = now + ABSENT_S
        self._kinds[kind] = (min(misses + 1, MISSES), now + ABSENT_S)
        for rows in (self._files, self._kinds):
            if len(rows) > MOST_ROWS:
                rows.popitem(last=False)
        return True

    def _note(self, ask: Ask, coding: Coding, route: str, *, found: bool) -> None:
        self._files[_file(ask, coding)] = None if found else ask.received_at + ABSENT_S
        if found:
            self._kinds.pop(_kind(ask, coding, route), None)


def _file(ask: Ask, coding: Coding) -> tuple[str, str, Coding]:
    return ask.authority, ask.target.path, coding


def _kind(ask: Ask, coding: Coding, route: str) -> tuple[str, str, Coding]:
    return route, posixpath.splitext(ask.target.path)[1], coding
