"""What the tables of the fast front (``fast.py``) are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fileproxy.model import Load, Meta, VaryRule
from fileproxy.server.known import Frame, Site

if TYPE_CHECKING:
    from fileproxy.server.pages import Pages
    from fileproxy.server.proof import Renew
    from fileproxy.server.service import Generation

BLOCK_OVERHEAD = 600  # bytes; measured with tracemalloc, rounded up
ROW_OVERHEAD = 2600
_NEVER = b"\0"  # what no request ends with


@dataclass(slots=True, eq=False, kw_only=True)
class Block:
    """A known header block of one peer. Its connections keep it, so that the next head need not be looked up for it."""

    rows: dict[bytes, Row]  # of its site, by request line
    text: bytes  # all behind the request line
    operator: bool
    trusted: bool  # the peer's X-Request-Id is taken over
    closes: bool  # the connection ends with the answer
    line: bytes  # its part of the access line
    weight: int

    def gone(self) -> None:
        """The connections that keep it must not go on by it."""
        self.text = _NEVER


@dataclass(slots=True, eq=False, kw_only=True)
class Answer:
    """An answer whose request's id is all that is missing."""

    line: bytes  # its part of the access line
    label: str | None  # of the route; None: a page of ours
    size: int  # bytes of the body
    before: bytes = b""  # the head up to the id, and behind it
    after: bytes = b""
    until: float = float("-inf")  # clock.now(); then it is to be made anew
    hits: dict[Block, list[bytes]] = field(default_factory=dict)  # not settled yet: their ids, by whose they are
    seconds: float = 0.0  # that answering takes


@dataclass(slots=True, eq=False, kw_only=True)
class Row(Answer):
    """The answer to a request line on a site: a file."""

    key: tuple[Site, bytes]  # site and request line
    rows: dict[bytes, Row]  # of the site
    frame: Frame
    record: Meta
    rule: VaryRule | None = None
    renew: Renew
    weight: int
    place: bytes  # of its body in memory
    small: bool  # its body is copied behind its head
    large: bool  # its body is on disk
    used: int = 0  # hits since the cache was last asked about it
    pages: Pages | None = None  # its body for sendfile

    def gone(self) -> None:
        if self.rows.get(self.key[1]) is self:
            del self.rows[self.key[1]]


@dataclass(slots=True, eq=False, kw_only=True)
class Report(Answer):
    """The answer to a request line that asks for a page of ours. ``after`` ends with its body."""

    generation: Generation  # and the load it was made under: under others it is worth nothing
    load: Load
    last: float  # clock.now(); until then it may be told while the next one is being made
    being_made: bool = False  # the next one


@dataclass(slots=True, eq=False)
class Again:
    """What several ask in one turn, as crowds do, and the answer to it: a small file's, on connections that stay."""

    raw: bytes
    peer: str
    before: bytes  # the answer up to the request's id, and behind it
    after: bytes
    hits: list[bytes]  # of the row
