"""The fast front: a request head that was seen before gets its answer without being parsed.

Two look-ups find the answer: the *header block* (by the peer's address and the bytes behind the request line) gives the
*site*, which is all the block has to say; the site and the *request line* give the row. So M files and N clients need
M + N rows. A connection keeps its last block: while it sends the same one, the first look-up is a comparison.

Laws kept here:

* The slow path adds a row, and only when it has proved that the answer depends on nothing else (``learn``).
* A row is a head with gaps. The bytes of the file stay in the memory tier and are looked up for each answer, together
  with the record they belong to: what was purged, replaced or pushed out there is not answered here.
* A row holds until its head would say something wrong (Age, the freshness left), a second at most. Then the cache
  itself is asked anew (``renew``): it alone judges what is fresh. Only where an origin sends neither validator nor
  length may a newer answer that is still on its way be overlooked so long.
* Another settings generation empties the tables, and what connections kept of them is worth nothing then (``gone``).
  While the worker sheds or leaves, nothing is answered here.
* What is answered here is counted and logged like everything else, all of some milliseconds together (``settle``).

``known.py`` says which heads may be known, ``front.py`` when they may be answered; ``pages.py`` sends larger bodies.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING

from fileproxy.errors import FileChanged
from fileproxy.model import Ask, Load, Meta, VaryRule, header
from fileproxy.server import known
from fileproxy.server.bounded import Bounded
from fileproxy.server.known import Frame, Site
from fileproxy.server.large import is_stored, send_stored
from fileproxy.server.pages import Pages, Shelf
from fileproxy.server.proof import Bans, Disk, Memory, Proof, Renew, Standing
from fileproxy.server.trip import Hits

if TYPE_CHECKING:
    from fileproxy.server.front import Front
    from fileproxy.server.service import Generation, Service

LARGEST = 256 * 1024  # bytes of a file in memory; larger ones of one block are sent from the disk tier's open files
SETTLE_S = 0.01  # how long hits wait to be counted: alone, counting costs more than answering
SHARE = 16  # of the memory tier's budget, a part of this size for each table
BLOCK_OVERHEAD = 600  # bytes; measured with tracemalloc, rounded up
ROW_OVERHEAD = 2600
_JOINED = 16 * 1024  # bytes of a file up to which copying it behind its head is cheaper than a second buffer
_NEVER = b"\0"  # what no request ends with
_OFTEN = 8  # hits within a second for which a larger body is put into pages
_CLOSES = b"\r\nConnection: close"  # behind the id
_IDS = 256  # made at a time


@dataclass(slots=True, eq=False)
class Block:
    """A known header block of one peer. Its connections keep it, so that the next head need not be looked up for it."""

    rows: dict[bytes, Row]  # of its site, by request line
    text: bytes
    cut: int  # its length, negative
    trusted: bool  # the peer's X-Request-Id is taken over
    closes: bool  # the connection ends with the answer
    line: bytes  # its part of the access line
    weight: int

    def gone(self) -> None:
        """The connections that keep it must not go on by it."""
        self.text = _NEVER


@dataclass(slots=True, eq=False)
class Row:
    """The answer to a request line on a site."""

    key: tuple[Site, bytes]  # site and request line
    rows: dict[bytes, Row]  # of the site
    frame: Frame
    record: Meta
    rule: VaryRule | None
    renew: Renew
    label: str  # of the route
    line: bytes  # its part of the access line
    weight: int
    place: bytes  # of its body in memory
    large: bool  # its body is on disk
    before: bytes = b""  # the head up to the id, and behind it
    after: bytes = b""
    until: float = float("-inf")  # clock.now()
    hits: dict[Block, list[bytes]] = field(default_factory=dict)  # not settled yet: their ids, by whose they are
    seconds: float = 0.0  # that answering takes
    used: int = 0  # hits since the cache was last asked about it
    pages: Pages | None = None  # its body for sendfile

    def gone(self) -> None:
        if self.rows.get(self.key[1]) is self:
            del self.rows[self.key[1]]


class Fast:
    """The tables of one worker. Belongs to the event loop it is made in."""

    def __init__(self, service: Service, memory: Memory, disk: Disk, bans: Bans) -> None:
        self._service = service
        self._memory = memory
        self._disk = disk
        self._record, self._block = memory.by_heart()
        self._bans = bans
        self._now = service.clock.now
        self._loop = asyncio.get_running_loop()
        self._blocks: Bounded[tuple[str, bytes], Block] = Bounded(0)
        self._rows: Bounded[tuple[Site, bytes], Row] = Bounded(0)
        self._sites: dict[Site, dict[bytes, Row]] = {}
        self._generation: Generation | None = None
        self._longest = 0
        self._load: Load | None = None  # the last one that was no reason to shed
        self._answered: list[Row] = []  # rows with hits that are not settled
        self._timer: asyncio.TimerHandle | None = None
        self._ids: list[bytes] = []
        self._shelf = Shelf()
        self._hits = 0

    # --- for each request -----------------------------------------------------------------------------------------

    def answer(self, raw: bytes, front: Front) -> float | None:  # noqa: C901, PLR0912 (a call less for each hit)
        """Answer ``raw`` if it is one known head and nothing else. Returns ``clock.now()``; None: nothing was done."""
        block, given = front.block, b""
        if block is not None and raw.endswith(block.text):  # as nearly always
            row = block.rows.get(raw[: block.cut])
        else:
            end = raw.find(b"\r\n")
            lines = raw[end:]
            block = self._blocks.get((front.peer, lines))
            if block is None:
                lines, given = known.without_id(lines)
                if not given or (block := self._blocks.get((front.peer, lines))) is None:
                    return None
            front.block = block
            row = block.rows.get(raw[:end])
        if row is None or len(raw) > self._longest:
            return None
        now, body, record, service = self._now(), None, row.record, self._service
        if (
            now < row.until
            and record.ban == self._bans.seq
            and service.current is self._generation
            and service.load is self._load
            and self._record(record.key) is record
            and ((rule := row.rule) is None or self._record(rule.key) is rule)
        ):
            body = self._block(row.place)
        if body is None:
            if row.large:
                return self._answer_large(row, block, given, front, now)
            body = self._renewed(row, now)
        if body is None:
            return None
        request_id = given if given and block.trusted else self._ids.pop() if self._ids else self._new_id()
        after = row.after if not block.closes else _CLOSES + row.after
        if len(body) <= _JOINED:
            front.transport.write(b"".join((row.before, request_id, after, body)))
        else:
            head = row.before + request_id + after
            if row.pages is None or not row.pages.send(front, head, body):
                front.transport.writelines((head, body))
        try:
            row.hits[block].append(request_id)
        except KeyError:
            self._note(row, block, request_id, now)
        if block.closes:
            front.finish()
        return now

    def _answer_large(self, row: Row, block: Block, given: bytes, front: Front, now: float) -> float | None:
        """The same for a file on disk: by sendfile and in one go, or the long way."""
        if not self._stands(row, now) and self._renewed(row, now) is None:
            return None
        request_id = given if given and block.trusted else self._ids.pop() if self._ids else self._new_id()
        counters = self._service.counters
        try:
            after = row.after if not block.closes else _CLOSES + row.after
            sent = send_stored(front, self._disk, row.record, row.before + request_id + after)
        except FileChanged as error:
            for name in (f"ending.{error.ending}", "requests", "errors", "downloads.cut"):
                counters.add(name)
            front.abort()
            return now
        if sent is None:
            return None
        counters.add("bytes.sendfile", sent)
        if block in row.hits:
            row.hits[block].append(request_id)
        else:
            self._note(row, block, request_id, now)
        if block.closes:
            front.finish()
        return now

    def _stands(self, row: Row, now: float) -> bool:
        """What ``answer`` asks of a row, for who has more time."""
        return (
            now < row.until
            and row.record.ban == self._bans.seq
            and self._service.current is self._generation
            and self._service.load is self._load
            and self._record(row.record.key) is row.record
            and ((rule := row.rule) is None or self._record(rule.key) is rule)
        )

    def _is_open(self) -> bool:
        """Whether this is a time to answer by what is known."""
        load = self._service.load
        if self._begin_anew() or load.lagging or load.descriptors_low or load.draining:
            return False
        self._load = load
        return True

    def _begin_anew(self) -> bool:
        """Empty the tables under another settings generation. Whether it was another."""
        current = self._service.current
        if current is self._generation:
            return False
        self._generation = current
        self._longest = min(current.settings.limits.head, known.LONGEST_HEAD)
        self._blocks.clear()
        self._rows.clear()
        self._sites.clear()
        return True

    def _renewed(self, row: Row, now: float) -> bytes | None:
        """Ask the cache what it thinks of the row's file now. The bytes, or None: this is to be served the long way."""
        if not self._is_open():
            return None
        standing = row.renew()
        if standing is not None and _same(row, standing):
            row.record, row.rule = record, rule = standing.record, standing.rule
            body = None
            if self._record(record.key) is record:
                body = b"" if row.large else self._block(row.place)
            if body is not None and (rule is None or self._record(rule.key) is rule):
                epoch = self._service.clock.time()
                name = self._service.current.settings.server.name
                row.before, row.after = row.frame.render(
                    standing.age, standing.status.member(name), formatdate(epoch, usegmt=True)
                )
                if len(body) > _JOINED and row.used >= _OFTEN:
                    row.pages = self._shelf.put(row.record.rid, body, self._memory.budget // SHARE)
                row.used = 0
                row.until = now + known.lasts(standing.age_s, standing.status.ttl_s or 0.0, epoch)
                self._rows.refresh(row.key)
                return body
        self._rows.drop(row.key)
        return None

    def _new_id(self) -> bytes:
        data = os.urandom(8 * _IDS).hex().encode()
        self._ids = [data[at : at + 16] for at in range(0, len(data), 16)]
        return self._ids.pop()

    # --- what was answered ----------------------------------------------------------------------------------------

    def _note(self, row: Row, block: Block, request_id: bytes, now: float) -> None:
        """The first hit of a row since ``settle`` is the one that is timed: all are the same work."""
        if not row.hits:
            row.seconds = self._now() - now
            self._answered.append(row)
            if self._timer is None:
                self._timer = self._loop.call_later(SETTLE_S, self.settle)
        row.hits[block] = [request_id]

    def settle(self) -> None:
        """Count and log what was answered since this was last done; also called before counts are told."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        rows, self._answered = self._answered, []
        logs = self._service.logs
        start = logs.access_start()
        lines: list[bytes] = []
        for row in rows:
            hits, row.hits = row.hits, {}
            times = sum(map(len, hits.values()))
            row.used += times
            self._hits += times
            self._memory.used_now(row.record, 0 if row.large else times)
            Hits(row.label, times, row.record.size, row.seconds).add_to(self._service.counters)
            if start is not None:
                end = row.line % (row.seconds, row.seconds)
                for block, ids in hits.items():
                    rest = block.line + end
                    lines.append(start + (rest + start).join(ids) + rest)
        if lines:
            logs.access_batch(b"".join(lines))

    def close(self) -> None:
        """Count what was answered, and forget everything."""
        self.settle()
        self._blocks.clear()
        self._rows.clear()
        self._shelf.clear()

    # --- what is learned ------------------------------------------------------------------------------------------

    def learn(self, front: Front, proof: Proof) -> None:
        """Know this head from now on, if its answer depends on nothing else than what the tables go by."""
        self._begin_anew()
        raw, ask, record = front.raw, proof.ask, proof.record
        if (
            self._service.current is not proof.generation
            or not proof.generation.settings.server.fast
            or not (raw.startswith(b"GET /") and len(raw) <= self._longest)
            or not (known.is_plain(front.head) and known.all_inert(ask.headers))
            or not proof.depends_on <= known.GUARDED
            or not 0 < record.size <= record.block
            or record.status != 200
        ):
            return
        end = raw.find(b"\r\n")
        lines, given = known.without_id(raw[end:])
        if not given and header(ask.headers, "X-Request-Id") is not None:
            return  # one that is not taken over, and not left out of the key
        if lines.count(b"\r\n") - 2 >= proof.generation.settings.limits.headers:
            return  # with the line that was left out it may be one too many
        site = Site(ask.authority, ask.scheme, _codings(ask))
        rows = self._rows_of(site)
        if self._learn_row(proof, (site, raw[:end]), rows):
            line = b'","%b,' % self._service.logs.part(client=ask.client, host=ask.authority)[1:]
            weight = BLOCK_OVERHEAD + len(lines) + len(line)
            block = Block(rows, lines, -len(lines), ask.trusted_peer, known.closes(ask.headers), line, weight)
            self._blocks.most_bytes = self._memory.budget // SHARE
            self._blocks.add((ask.peer, lines), block)

    def _rows_of(self, site: Site) -> dict[bytes, Row]:
        """A site's rows. A block whose site was left out here while it had none is learned anew."""
        rows = self._sites.get(site)
        if rows is None:
            if len(self._sites) > 2 * len(self._rows) + 64:
                self._sites = {site: rows for site, rows in self._sites.items() if rows}
            rows = self._sites[site] = {}
        return rows

    def _learn_row(self, proof: Proof, key: tuple[Site, bytes], rows: dict[bytes, Row]) -> bool:
        """False when the file or the answer's head is of a kind that cannot be known."""
        ask, route, record = proof.ask, proof.route, proof.record
        if (old := self._rows.get(key)) is not None and old.record is record:
            return True
        try:
            frame = Frame(proof.head, dated=header(record.headers, "Date") is not None)
        except ValueError:
            return False
        line = self._service.logs.part(
            method=ask.method, target=str(ask.target), status=record.status, bytes=record.size, ending="completed",
            cache="HIT", route=route.path, mirror=None, tries=None,
        )  # fmt: skip
        line = line.replace(b"%", b"%%") + b',"seconds":%.6f,"first_byte":%.6f}\n'
        weight = ROW_OVERHEAD + len(key[1]) + 2 * frame.size + len(line)
        label = ",".join(route.hosts) + route.path
        row = Row(
            key, rows, frame, record, None, proof.renew, label, line, weight, self._memory.first_block(record.rid),
            record.size > LARGEST,
        )  # fmt: skip
        standing = proof.renew()
        if standing is None or standing.record is not record:
            return False
        if row.large and not is_stored(self._disk, record):
            return False
        if standing.rule is not None and not known.may_vary(standing.rule.fields):
            return False
        row.rule = standing.rule
        self._rows.most_bytes = self._memory.budget // SHARE
        rows[key[1]] = row
        self._rows.add(key, row)
        return self._renewed(row, self._now()) is not None

    def statistics(self) -> dict[str, int]:
        """For ``/stats``: what the tables hold, and how many asks they answered."""
        self.settle()
        return {
            "hits": self._hits,
            "request_lines": len(self._rows),
            "header_blocks": len(self._blocks),
            "bodies": len(self._shelf),
            "bytes": self._rows.bytes + self._blocks.bytes + self._shelf.bytes,
        }


def _same(row: Row, standing: Standing) -> bool:
    """Whether the row's head is still that of the file, and still chosen in the same way."""
    old, new = row.record, standing.record
    return (
        new.rid == old.rid
        and new.headers == old.headers
        and new.status == old.status
        and new.reason == old.reason
        and (None if row.rule is None else row.rule.fields) == (None if standing.rule is None else standing.rule.fields)
    )


def _codings(ask: Ask) -> str | None:
    values = [value for name, value in ask.headers if name.lower() == known.CHOOSING]
    return ", ".join(values) if values else None
