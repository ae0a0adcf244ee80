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
* What is answered here is counted and logged like everything else, all of some milliseconds together (``tally.py``).
* Of our own pages those that watchers ask for are known as well, for a moment (``REPORT_LASTS_S``).

``known.py`` says which heads may be known, ``front.py`` when they may be answered, ``rows.py`` what the tables hold;
``pages.py`` sends larger bodies.
"""

from __future__ import annotations

import asyncio
import os
from email.utils import formatdate
from typing import TYPE_CHECKING

from fileproxy.errors import FileChanged
from fileproxy.model import Ask, Load, header
from fileproxy.server import known
from fileproxy.server.bounded import Bounded
from fileproxy.server.known import Frame, Site
from fileproxy.server.large import is_stored, open_stored
from fileproxy.server.pages import Pages, Shelf
from fileproxy.server.proof import Bans, Disk, Memory, Proof, Standing
from fileproxy.server.rows import BLOCK_OVERHEAD, ROW_OVERHEAD, Again, Answer, Block, Report, Row
from fileproxy.server.tally import Tally

if TYPE_CHECKING:
    from fileproxy.server.front import Asker, Front
    from fileproxy.server.reply import Reply
    from fileproxy.server.service import Generation, Service

LARGEST = 256 * 1024  # bytes of a file in memory; larger ones of one block are sent from the disk tier's open files
SHARE = 16  # of the memory tier's budget, a part of this size for each table
REPORT_LASTS_S = 0.25  # of a page of ours: short for whoever asks each second, and making it costs some milliseconds
REPORT_RENEWS_S = 0.05  # who comes first then makes the next one; the others are told the old one so much longer
_JOINED = 16 * 1024  # bytes of a file up to which copying it behind its head is cheaper than a second buffer
_OFTEN = 8  # hits within a second for which a larger body is put into pages, or a file is kept at hand
_LENT_S = 2.0  # how long a file is sent from without asking for it again
_CLOSES = b"\r\nConnection: close"  # behind the id
_IDS = 256  # made at a time


class Fast:
    """The tables of one worker. Belongs to the event loop it is made in."""

    def __init__(self, service: Service, memory: Memory, disk: Disk, bans: Bans) -> None:
        self._service = service
        self._memory = memory
        self._disk = disk
        self._record, self._block = memory.by_heart()
        self._bans = bans.by_heart()
        self._now = service.clock.now
        self._loop = asyncio.get_running_loop()
        self._tally = Tally(service, memory)
        self._blocks: Bounded[tuple[str, bytes], Block] = Bounded(0)
        self._rows: Bounded[tuple[Site, bytes], Row] = Bounded(0)
        self._sites: dict[Site, dict[bytes, Row]] = {}
        self._reports: dict[tuple[bool, bytes], Report] = {}  # by whether for operators, and request line
        self._generation: Generation | None = None
        self._longest = 0
        self._in_turn = False
        self._sound: Row | None = None  # holds for this turn
        self._again: Again | None = None
        self._sound_at = 0.0
        self._load: Load | None = None  # the last one that was no reason to shed
        self._ids: list[bytes] = []
        self._shelf = Shelf()

    # --- for each request -----------------------------------------------------------------------------------------

    def answer(self, raw: bytes, asker: Asker) -> float | None:  # noqa: C901, PLR0912 (a call less for each hit)
        """Answer ``raw`` if it is one known head and nothing else. Returns ``clock.now()``; None: nothing was done."""
        again = self._again
        if again is not None and raw == again.raw and asker.peer == again.peer:
            request_id = self._ids.pop() if self._ids else self._new_id()
            asker.write(b"".join((again.before, request_id, again.after)))
            again.hits.append(request_id)
            return self._sound_at
        line, _, text = raw.partition(b"\r\n")
        block, given = asker.block, b""
        if block is None or block.text != text:  # seldom
            if not raw:
                return None
            block = self._blocks.get((asker.peer, text))
            if block is None:
                text, given = known.without_id(text)
                if not given or len(raw) > self._longest or (block := self._blocks.get((asker.peer, text))) is None:
                    return None
            asker.block = block
        row = block.rows.get(line)
        if row is None:
            return self._answer_report(line, block, given, asker)
        stands = repeats = row is self._sound
        now = self._sound_at
        if not stands:
            now, record, service = self._now(), row.record, self._service
            if (
                now < row.until
                and record.ban == self._bans.newest[0]
                and service.current is self._generation
                and service.load is self._load
                and self._record(record.key) is record
                and ((rule := row.rule) is None or self._record(rule.key) is rule)
            ):
                stands = True
                if self._in_turn:
                    self._sound, self._sound_at = row, now
        if row.large:
            return (
                self._answer_large(row, block, given, asker, now)
                if stands or self._renewed(row, now) is not None
                else None
            )
        body = self._block(row.place) if stands else None
        if body is None:
            body = self._renewed(row, now)
        if body is None:
            return None
        ids = self._ids
        request_id = given if given and block.trusted else ids.pop() if ids else self._new_id()
        after = row.after if not block.closes else _CLOSES + row.after
        if row.small:
            asker.write(b"".join((row.before, request_id, after, body)))
        else:
            head = row.before + request_id + after
            if row.pages is None or row.pages.send(asker, head) is None:
                asker.writelines((head, body))
        try:
            row.hits[block].append(request_id)
        except KeyError:
            self._tally.first(row, block, request_id, now)
        if block.closes:
            asker.leave()
        elif repeats and row.small and not given:
            self._again = Again(raw, asker.peer, row.before, row.after + body, row.hits[block])
        return now

    def turn(self, begins: bool) -> None:
        """What is asked from now on until the next call came before this one, so that a row needs one proof for all.

        Nothing else happens meanwhile: no hits are settled, no settings replaced.
        """
        self._in_turn = begins
        self._sound = self._again = None

    def _answer_large(self, row: Row, block: Block, given: bytes, asker: Asker, now: float) -> float | None:
        """The same for a file on disk, whose row stands: by sendfile and in one go, or the long way."""
        request_id = given if given and block.trusted else self._new_id()
        counters, pages = self._service.counters, row.pages
        lent = pages is not None and pages.descriptor >= 0
        if not lent and row.used >= _OFTEN:
            pages = row.pages = self._lent(row)
            lent = pages is not None
        elif not lent:
            pages = open_stored(self._disk, row.record)
        if pages is None:
            return None
        try:
            sent = pages.send(asker, _head(row, block, request_id))
        except FileChanged as error:
            for name in (f"ending.{error.ending}", "requests", "errors", "downloads.cut"):
                counters.add(name)
            asker.abort()
            return now
        finally:
            if not lent:
                pages.gone()
        if sent is None:
            return None
        counters.add("bytes.sendfile", sent)
        self._answered(row, block, request_id, asker, now)
        return now

    def _answer_report(self, line: bytes, block: Block, given: bytes, asker: Asker) -> float | None:
        """The same for a page of ours."""
        report = self._reports.get((block.operator, line))
        if report is None or report.load is not self._service.load or report.generation is not self._service.current:
            return None
        now = self._now()
        if now >= report.until:
            first, report.being_made = not report.being_made, True
            if first or now >= report.last:
                return None
        request_id = given if given and block.trusted else self._new_id()
        asker.write(_head(report, block, request_id))
        self._answered(report, block, request_id, asker, now)
        return now

    def _answered(self, answer: Answer, block: Block, request_id: bytes, asker: Asker, began: float) -> None:
        """What ``answer`` does behind an answer, for who has more time."""
        if block in answer.hits:
            answer.hits[block].append(request_id)
        else:
            self._tally.first(answer, block, request_id, began)
        if block.closes:
            asker.leave()

    def _is_open(self) -> bool:
        """Whether this is a time to answer by what is known."""
        load = self._service.load
        if self._begin_anew() or not _is_light(load):
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
        self._reports.clear()
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
                if row.used >= _OFTEN and not (row.small or row.large):
                    row.pages = self._shelf.put(record.rid, body, self._share)
                row.used = 0
                row.until = now + known.lasts(standing.age_s, standing.status.ttl_s or 0.0, epoch)
                self._rows.refresh(row.key)
                return body
        self._rows.drop(row.key)
        return None

    def _lent(self, row: Row) -> Pages | None:
        """The row's stored file for the next moments: nobody else asks for it while they last."""
        pages = open_stored(self._disk, row.record)
        if pages is not None:
            self._shelf.keep(row.record.rid, pages, self._share)
            self._loop.call_later(_LENT_S, pages.gone)
        return pages

    @property
    def _share(self) -> int:
        return self._memory.budget // SHARE

    def _new_id(self) -> bytes:
        if not self._ids:
            self._ids = os.urandom(8 * _IDS).hex(" ", 8).encode().split()
        return self._ids.pop()

    def settle(self) -> None:
        """Count and log what was answered; called before counts are told."""
        self._tally.settle()

    def close(self) -> None:
        """Count what was answered, and forget everything."""
        self.settle()
        self._blocks.clear()
        self._rows.clear()
        self._reports.clear()
        self._shelf.clear()

    # --- what is learned ------------------------------------------------------------------------------------------

    def learn(self, front: Front, proof: Proof) -> None:
        """Know this head from now on, if its answer depends on nothing else than what the tables go by."""
        record = proof.record
        if proof.depends_on <= known.GUARDED and 0 < record.size <= record.block and record.status == 200:
            heads = self._heads(front, proof.ask, proof.generation)
            if heads is not None:
                site, line, text = heads
                rows = self._rows_of(site)
                if self._learn_row(proof, (site, line), rows):
                    self._learn_block(proof.ask, proof.generation, text, rows)

    def learn_report(
        self, front: Front, ask: Ask, generation: Generation, load: Load, made_at: float, reply: Reply, body: bytes
    ) -> None:
        """Know a page of ours for a moment. It was made at ``made_at`` (clock.now()) under this ``load``."""
        if reply.status != 200:
            self._reports.clear()  # from now on nobody is told that all is well
            return
        heads = self._heads(front, ask, generation)
        if heads is None or load is not self._service.load or not _is_light(load):
            return
        site, line, text = heads
        before, after = known.around_id(reply.head)
        self._reports[ask.client in generation.operators, line] = Report(
            line=self._access_part(ask, 200, len(body), None), label=None, size=len(body), before=before,
            after=after + body, generation=generation, load=load,
            until=made_at + REPORT_LASTS_S, last=made_at + REPORT_LASTS_S + REPORT_RENEWS_S,
        )  # fmt: skip
        self._learn_block(ask, generation, text, self._rows_of(site))

    def _heads(self, front: Front, ask: Ask, generation: Generation) -> tuple[Site, bytes, bytes] | None:
        """A head as the tables go by it: its site, its request line and its header block. None: it cannot be known."""
        self._begin_anew()
        if (
            self._service.current is not generation
            or not generation.settings.server.fast
            or not front.raw.startswith(b"GET /")
            or not (known.is_plain(front.head) and known.all_inert(ask.headers))
        ):
            return None
        line, _, text = front.raw.partition(b"\r\n")
        text, given = known.without_id(text)
        if not given and header(ask.headers, "X-Request-Id") is not None:
            return None  # one that is not taken over, and not left out of the key
        if text.count(b"\r\n") - 1 >= generation.settings.limits.headers:
            return None  # with the line that was left out it may be one too many
        if not known.fits(line, text, self._longest):
            return None
        return Site(ask.authority, ask.scheme, _codings(ask)), line, text

    def _learn_block(self, ask: Ask, generation: Generation, text: bytes, rows: dict[bytes, Row]) -> None:
        line = b'","%b,' % self._service.logs.part(client=ask.client, host=ask.authority)[1:]
        self._blocks.most_bytes = self._share
        self._blocks.add(
            (ask.peer, text),
            Block(
                rows=rows, text=text, operator=ask.client in generation.operators, trusted=ask.trusted_peer,
                closes=known.closes(ask.headers), line=line, weight=BLOCK_OVERHEAD + len(text) + len(line),
            ),
        )  # fmt: skip

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
        line = self._access_part(ask, record.status, record.size, route.path)
        row = Row(
            line=line, label=",".join(route.hosts) + route.path, size=record.size, key=key, rows=rows, frame=frame,
            record=record, renew=proof.renew, weight=ROW_OVERHEAD + len(key[1]) + 2 * frame.size + len(line),
            place=self._memory.first_block(record.rid), small=record.size <= _JOINED, large=record.size > LARGEST,
        )  # fmt: skip
        standing = proof.renew()
        if standing is None or standing.record is not record:
            return False
        if row.large and not is_stored(self._disk, record):
            return False
        if standing.rule is not None and not known.may_vary(standing.rule.fields):
            return False
        row.rule = standing.rule
        self._rows.most_bytes = self._share
        rows[key[1]] = row
        self._rows.add(key, row)
        return self._renewed(row, self._now()) is not None

    def _access_part(self, ask: Ask, status: int, size: int, route: str | None) -> bytes:
        """The end of an access line, with places for how long it took."""
        line = self._service.logs.part(
            method=ask.method, target=str(ask.target), status=status, bytes=size, ending="completed",
            cache=None if route is None else "HIT", route=route, mirror=None, tries=None,
        )  # fmt: skip
        return line.replace(b"%", b"%%") + b',"seconds":%.6f,"first_byte":%.6f}\n'

    def statistics(self) -> dict[str, int]:
        """For ``/stats``: what the tables hold, and how many asks they answered."""
        self.settle()
        return {
            "hits": self._tally.hits,
            "request_lines": len(self._rows),
            "header_blocks": len(self._blocks),
            "bodies": len(self._shelf),
            "bytes": self._rows.bytes + self._blocks.bytes + self._shelf.bytes,
        }


def _head(answer: Answer, block: Block, request_id: bytes) -> bytes:
    return answer.before + request_id + (_CLOSES + answer.after if block.closes else answer.after)


def _is_light(load: Load) -> bool:
    """Whether nothing about it is a reason to refuse."""
    return not (load.lagging or load.descriptors_low or load.draining)


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
