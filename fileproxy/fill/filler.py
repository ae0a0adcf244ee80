"""An ask becomes an opened entry: look up → judge → contact, join or pass on.

1. What is stored and fresh is opened. Its missing blocks are brought by flights when they are read.
2. What is stale is revalidated, once for all who ask (or behind the answer, where that is allowed).
3. What is not stored is contacted once; all who ask meanwhile wait for that head and read along.
4. What may not be shared is fetched by each ask for itself, and that is remembered for a while (hit-for-miss).
5. HEAD and conditional asks that nothing stored can answer are passed on and start no fill (law 6).
"""

from __future__ import annotations

import asyncio
import weakref
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from fileproxy.cache.freshness import Decision, Serve, Times, age_at_receipt, current_age, decide, reuse_of
from fileproxy.cache.key import variant_key
from fileproxy.cache.storing import may_queue, storable
from fileproxy.cache.validation import head_agrees, update_headers
from fileproxy.errors import (
    BadAnswer,
    BadDigest,
    FileChanged,
    FileProxyError,
    RedirectRefused,
    UpstreamError,
    UpstreamReset,
)
from fileproxy.fill.contact import Contact, Reached, Unshareable
from fileproxy.fill.entry import NEAR, Entry, Shared, passes
from fileproxy.fill.flight import Flight
from fileproxy.fill.plan import claimed, widened
from fileproxy.fill.reader import EntryBody
from fileproxy.fill.values import Contacted, Journal, Need
from fileproxy.http.cache_control import request_directives
from fileproxy.http.cache_status import CacheStatus, Forward
from fileproxy.http.ranges import resolve
from fileproxy.model import UNKNOWN_SIZE, Answer, Meta, Record, VaryRule

How = Literal["HIT", "MISS", "STALE", "REVALIDATED", "PARTIAL", "BYPASS", "TIMEOUT"]
ANSWERED = (BadAnswer, BadDigest, FileChanged, RedirectRefused)  # somebody was there, and said nothing of use
NO_RANGES_S = 600.0  # how long it is remembered that an origin sends no parts
LARGE_BLOCKS = 64  # finding out what is stored of a larger file takes a look at many
LARGE_S, LARGE_MOST = 5.0, 16  # so long, and of so many, it is remembered when nobody reads
MOST_ROUNDS = 4  # of an ask that finds, each time it waited, another variant than its own


@dataclass(frozen=True, slots=True)
class Opened:
    """What an ask gets.

    ``body`` over an entry; or ``answer``, for this client only; or neither: the caller fetches for itself (BYPASS), or
    says that nothing stored will do (TIMEOUT, only-if-cached).
    """

    how: How
    status: CacheStatus
    entry: Entry | None = None
    body: EntryBody | None = None
    answer: Answer | None = None
    age_s: float = 0.0
    whole: bool = False  # a Range gets the whole file: its part cannot be had by itself
    shared: bool = True  # others may have it without asking the origin


class Filler:
    """The fills of one worker."""

    def __init__(self, shared: Shared, journal: Journal) -> None:
        self._shared = shared
        self._journal = journal
        self._entries: weakref.WeakValueDictionary[bytes, Entry] = weakref.WeakValueDictionary()  # by rid
        self._current: weakref.WeakValueDictionary[bytes, Entry] = weakref.WeakValueDictionary()  # by key
        self._large: dict[bytes, tuple[Entry, float]] = {}  # by rid, and until when they live though nobody reads them
        self._contacts: dict[bytes, Contact] = {}
        self._unshareable = Unshareable(shared.clock)

    async def open(self, need: Need) -> Opened:
        """See the module's docstring. Raises FileProxyError when nothing can be had."""
        if need.for_origin:
            return Opened("BYPASS", CacheStatus("request", detail="conditional"))
        for _ in range(MOST_ROUNDS):
            record, need, forward = await self._find(need)
            now = self._shared.clock.time()
            if record is None:
                opened = await self._missed(need, forward)
            else:
                reuse = reuse_of(record.status, record.headers, record.received_at, need.policy)
                times = Times(record.received_at, record.age_s, record.expired_at)
                decision = decide(reuse, times, need.headers, now, need.policy)
                opened = await self._stored(need, record, decision, must=reuse.validate_stale)
            if opened is not None:
                return opened
        return Opened("BYPASS", CacheStatus("vary-miss", detail="too many variants at once"))

    def open_now(self, need: Need) -> Opened | None:
        """The same, when memory alone can answer; None when it cannot."""
        if need.for_origin:
            return None
        record, need = self._find_now(need)
        if record is None or len(self._shared.store.held_now(record)) < record.blocks:
            return None
        reuse = reuse_of(record.status, record.headers, record.received_at, need.policy)
        times = Times(record.received_at, record.age_s, record.expired_at)
        decision = decide(reuse, times, need.headers, self._shared.clock.time(), need.policy)
        if decision.serve is not Serve.FRESH:
            return None
        entry = self._entries.get(record.rid)
        if entry is None or entry.gone:
            entry = self._live(record, set(range(record.blocks)), writes=need.source.writes)
        return self._opened("HIT", CacheStatus(ttl_s=decision.ttl_s), entry, need, decision.age_s)

    async def continued(self, need: Need, rid: bytes) -> EntryBody | None:
        """A body over the entry ``rid``, for who has begun to read it elsewhere; None when it is not here any more."""
        entry = self._entries.get(rid)
        if entry is None:
            record = self._known(need.key) or await self._shared.store.find(need.key)
            if not isinstance(record, Meta) or record.rid != rid:
                return None
            entry = await self._entry(record, need)
        return None if entry is None or entry.gone else EntryBody(entry, need)

    def knows(self, key: bytes) -> bool:
        """Whether something is being fetched or filled under this key."""
        return key in self._contacts or self._known(key) is not None

    # --- looking up ---------------------------------------------------------------------------------------------------

    def _known(self, key: bytes) -> Record | None:
        """What is stored or being filled under a key, as far as this worker knows without looking below memory."""
        entry = self._current.get(key)
        if entry is None or entry.gone or not entry.joinable:
            return self._shared.store.find_now(key)
        record = self._shared.store.judged(entry.meta)
        if isinstance(record, Meta):
            entry.meta = record
        else:
            entry.gone = True
        return record

    def _find_now(self, need: Need) -> tuple[Meta | None, Need]:
        record = self._known(need.primary)
        if isinstance(record, VaryRule):
            need = replace(need, key=variant_key(record.key, record.fields, need.headers))
            record = self._known(need.key)
        return (record if isinstance(record, Meta) else None), need

    async def _find(self, need: Need) -> tuple[Meta | None, Need, Forward]:
        """The entry that the key and Vary select; the need with the key of its variant; why there is none."""
        store = self._shared.store
        record = self._known(need.primary) or await store.find(need.primary)
        if isinstance(record, VaryRule):
            need = replace(need, key=variant_key(record.key, record.fields, need.headers))
            record = self._known(need.key) or await store.find(need.key)
            return (record if isinstance(record, Meta) else None), need, "vary-miss"
        return record, need if need.key == need.primary else replace(need, key=need.primary), "uri-miss"

    async def _entry(self, meta: Meta, need: Need) -> Entry | None:
        """The live entry of a record; None when it is of no use any more (bytes are gone that cannot be had again)."""
        self._let_go()
        entry = self._entries.get(meta.rid)
        if entry is not None and not entry.gone and (meta.pinned or (entry.flights and entry.joinable)):
            if entry.meta.received_at < meta.received_at:
                entry.meta = meta
            return entry
        held = await self._shared.store.held(meta)
        if not meta.pinned and len(held) < meta.blocks:
            if entry is not None and entry.flights:
                return None  # who comes now comes too late for it
            if entry is not None:
                entry.gone = True
            self._shared.store.drop(meta)
            return None
        entry = self._entries.get(meta.rid)  # another ask may have made it meanwhile
        usable = entry is not None and not entry.gone and entry.joinable
        return entry if usable else self._live(meta, held, writes=need.source.writes)

    def _live(self, meta: Meta, held: set[int], *, writes: bool) -> Entry:
        entry = Entry(self._shared, meta, held, writes=writes)
        entry.kept |= held
        self._entries[meta.rid] = entry
        self._current[meta.key] = entry
        # Where another worker writes, what is missing here may be stored a moment later.
        knows = writes or len(held) == meta.blocks
        if knows and meta.pinned and meta.blocks > LARGE_BLOCKS and meta.size != UNKNOWN_SIZE:
            self._large[meta.rid] = entry, self._shared.clock.now() + LARGE_S
            if len(self._large) > LARGE_MOST:
                del self._large[next(iter(self._large))]
        return entry

    def _let_go(self) -> None:
        """Of large files whose time is over: who asks next looks anew at what of them is stored."""
        now = self._shared.clock.now()
        for rid, (_, until) in tuple(self._large.items()):
            if now >= until:
                del self._large[rid]

    # --- stored -------------------------------------------------------------------------------------------------------

    async def _stored(self, need: Need, meta: Meta, decision: Decision, *, must: bool) -> Opened | None:
        if decision.serve is Serve.TIMEOUT:
            return Opened("TIMEOUT", CacheStatus("request", detail="only-if-cached"))
        if decision.serve is Serve.BYPASS:
            return Opened("BYPASS", CacheStatus("request", detail="authorization"))
        entry = await self._entry(meta, need)
        if entry is None:
            return await self._missed(need, "uri-miss")
        if decision.serve is Serve.REVALIDATE:
            return await self._revalidated(need, entry, decision, must=must)
        if decision.refresh and need.key not in self._contacts:
            self._shared.counters.add("cache.refreshed_behind")
            self._start(need, entry.meta, behind=True)
        how: How = "HIT" if decision.serve is Serve.FRESH else "STALE"
        return self._opened(how, CacheStatus(ttl_s=decision.ttl_s), entry, need, decision.age_s)

    async def _revalidated(self, need: Need, entry: Entry, decision: Decision, *, must: bool) -> Opened | None:
        """``must``: the origin wants to be asked, come what may (must-revalidate: else 504, RFC 9111 §5.2.2.2)."""
        leader = need.key not in self._contacts
        contact = self._contacts.get(need.key) or self._start(need, entry.meta)
        reason: Forward = "request" if decision.by_request else "stale"
        try:
            reached = await self._reached(contact, leader)
        except UpstreamError as error:
            if isinstance(error, ANSWERED) or not decision.if_disconnected:
                if must and not isinstance(error, ANSWERED):
                    error.status = 504
                raise
            self._shared.counters.add("cache.stale_on_error")
            return self._opened("STALE", CacheStatus(ttl_s=decision.ttl_s), entry, need, decision.age_s)
        if (reached.status or 0) >= 500 and decision.if_error:
            if leader and reached.answer is not None:
                await reached.answer.body.aclose()
            self._shared.counters.add("cache.stale_on_error")
            return self._opened("STALE", CacheStatus(ttl_s=decision.ttl_s), entry, need, decision.age_s)
        return self._took(need, reached, leader, reason)

    # --- not stored ---------------------------------------------------------------------------------------------------

    async def _missed(self, need: Need, forward: Forward) -> Opened | None:
        if not need.policy.ignore_request and request_directives(need.headers).only_if_cached:
            return Opened("TIMEOUT", CacheStatus(forward, detail="only-if-cached"))
        if need.method != "GET":
            return Opened("BYPASS", CacheStatus("method"))
        if need.conditional:
            return Opened("BYPASS", CacheStatus(forward, detail="conditional"))
        if not may_queue(need.method, need.headers, need.policy):
            return Opened("BYPASS", CacheStatus("request"))
        if need.key in self._unshareable:
            self._shared.counters.add("cache.hit_for_miss")
            return Opened("BYPASS", CacheStatus(forward, detail="hit-for-miss"))
        leader = need.key not in self._contacts
        if leader and self._known(need.key) is not None:
            return None  # another ask's contact ended while this one looked below memory: what it brought is here
        contact = self._contacts.get(need.key) or self._start(need, None)
        if not leader:
            contact.ask_beside(self._shared, need)
        return self._took(need, await self._reached(contact, leader), leader, forward)

    def _took(self, need: Need, reached: Reached, leader: bool, forward: Forward) -> Opened | None:
        """What a contact means for one of those who waited; None: look again (it was another variant)."""
        entry = reached.entry
        if entry is None:
            if leader and reached.answer is not None:
                status = CacheStatus(forward, reached.status, detail=reached.reason or None)
                return Opened("BYPASS", status, answer=reached.answer)
            return Opened("BYPASS", CacheStatus(forward, detail=reached.reason or None))
        if not leader:
            if entry.meta.key not in (need.key, variant_key(need.primary, reached.vary, need.headers)):
                return None  # of another variant
            if not reached.shared:
                return Opened("BYPASS", CacheStatus(forward, detail="not shared"))
            self._shared.counters.add("cache.collapsed")
        how: How = "REVALIDATED" if reached.confirmed else "MISS"
        age = current_age(entry.meta.age_s, entry.meta.received_at, self._shared.clock.time())
        status = CacheStatus(forward, reached.status, stored=not reached.confirmed, collapsed=not leader)
        return self._opened(how, status, entry, need, age, reached)

    def vary_of(self, primary: bytes) -> tuple[str, ...]:
        """The request fields that choose among the answers under this key."""
        rule = self.rule_of(primary)
        return () if rule is None else rule.fields

    def rule_of(self, primary: bytes) -> VaryRule | None:
        """What chooses among the answers under this key, if memory knows it."""
        record = self._shared.store.find_now(primary)
        return record if isinstance(record, VaryRule) else None

    def _opened(
        self, how: How, status: CacheStatus, entry: Entry, need: Need, age_s: float, reached: Reached | None = None
    ) -> Opened:
        counters = self._shared.counters
        body = EntryBody(entry, need)
        position = 0
        if need.ranges and entry.meta.size and (spans := resolve(need.ranges, entry.meta.size)):
            position = spans[0][0]
            here = all(entry.has_all(*span) for span in spans)
        else:
            here = entry.complete
        if how in ("HIT", "STALE", "REVALIDATED") and not here and need.method == "GET":
            status = replace(status, forward="partial", stored=True)
            how = "PARTIAL" if how == "HIT" else how
        if need.counted:
            counters.add(f"cache.{how.lower()}")
        # What the origin only sends from the start is waited for when it is near, else passed on from the start.
        whole = not here and position > NEAR and self._shared.clock.now() < entry.no_ranges_until
        if how in ("MISS", "REVALIDATED", "PARTIAL"):
            body.expect(0 if whole else position, None if reached is None else reached.flight)
        shared = reached is None or reached.shared
        return Opened(how, status, entry, body, None, age_s, whole=whole, shared=shared)

    async def note_head(self, need: Need, answer: Answer, requested_at: float) -> None:
        """What the origin's answer to a HEAD, sent at ``requested_at``, says of what is stored (§4.3.5)."""
        record, need, _ = await self._find(need)
        if record is None or answer.status != 200:
            return
        now = self._shared.clock.time()
        if not head_agrees(record.headers, answer.headers, now):
            self._shared.store.drop(record)
            return
        headers = update_headers(record.headers, answer.headers, now, need.policy)
        if not storable("GET", need.headers, record.status, headers, need.policy, received_at=now).store:
            self._shared.store.drop(record)
            return
        age_s = age_at_receipt(answer.headers, requested_at, now)
        record = msgspec.structs.replace(
            record, headers=headers, requested_at=requested_at, received_at=now, age_s=age_s
        )
        if (entry := self._entries.get(record.rid)) is not None:
            entry.meta = record
        self._shared.store.save(record, disk=need.source.writes)

    # --- contacts -----------------------------------------------------------------------------------------------------

    def _start(self, need: Need, stale: Meta | None, *, behind: bool = False) -> Contact:
        claim = claimed(need.ranges if stale is None else None, self._shared.block, NEAR)
        contact = self._contacts[need.key] = Contact(need.key, claim, behind=behind)
        contact.task = self._shared.tasks.start(self._reach(contact, need, stale), "contact")
        return contact

    async def _reached(self, contact: Contact, leader: bool) -> Reached:
        try:
            return await contact.wait()
        except asyncio.CancelledError:
            if leader and (answer := contact.abandon()) is not None:
                self._shared.tasks.start(answer.body.aclose(), "close")
            if contact.waiters == 0 and not contact.done and not contact.behind and contact.task is not None:
                contact.task.cancel()  # nobody wants it any more; who asks from now on begins anew
                self._forget(contact)
            raise

    def _forget(self, contact: Contact) -> None:
        if self._contacts.get(contact.key) is contact:
            del self._contacts[contact.key]

    async def _reach(self, contact: Contact, need: Need, stale: Meta | None) -> None:
        error: FileProxyError = UpstreamReset("the fetch was stopped")
        try:
            spec = widened(need.ranges, self._shared.block, NEAR) if need.ranges else None
            contacted = await need.source.contact(need, spec, stale)
            try:
                contact.reach(await self._adopt(need, contacted, stale), ranges=contacted.ranges)
            except BaseException:
                if contacted.answer is not None:
                    await contacted.answer.body.aclose()
                raise
            if contact.unclaimed is not None:
                await contact.unclaimed.body.aclose()
            return
        except FileProxyError as ours:
            error = ours
        finally:
            self._forget(contact)
            contact.close_beside()
            if not contact.done:
                contact.fail(error)
        if contact.waiters == 0:  # nobody learns of it otherwise
            self._journal.event("warning", "refresh_failed", url=need.url, detail=error.detail)

    async def _adopt(self, need: Need, contacted: Contacted, stale: Meta | None) -> Reached:
        """Make the answer an entry with its first flight, or remember that it cannot be one."""
        answer, meta, shared = contacted.answer, contacted.meta, self._shared
        status = None if answer is None else answer.status
        if meta is None:
            if contacted.hit_for_miss_s:
                self._unshareable.add(need.key, contacted.hit_for_miss_s)
            return Reached(answer=answer, reason=contacted.reason, status=status)
        if contacted.vary:
            rule = VaryRule(
                key=need.primary, url=need.url, fields=contacted.vary, ban=meta.ban, stored_at=meta.received_at
            )
            shared.store.save(rule, disk=need.source.writes)
            meta = msgspec.structs.replace(meta, key=variant_key(need.primary, contacted.vary, need.headers))
        if answer is None:  # confirmed (by the origin, or by the worker that owns the key)
            entry = await self._entry(meta, need)
            if entry is None:
                return Reached(reason="not held", status=304)
            entry.meta = meta
            if not contacted.keep:  # for whom it was confirmed it still holds; then it goes
                entry.gone = True
                weakref.finalize(entry, shared.store.drop, meta).atexit = False
                return Reached(entry, confirmed=stale is not None, shared=False, status=304)
            shared.store.save(meta, disk=need.source.writes)
            if need.source.writes and entry.complete:
                shared.store.finished(meta)
            return Reached(entry, confirmed=stale is not None, shared=contacted.shared, status=304)
        held = await shared.store.held(meta) if not need.source.writes else set()
        entry = self._live(meta, held, writes=need.source.writes)
        entry.passing = all(passes(one, need.policy) for one in (meta, stale) if one is not None)
        if meta.pinned or meta.size == 0:
            shared.store.save(meta, disk=entry.to_disk)
        if contacted.end == contacted.offset:
            await answer.body.aclose()
            return Reached(entry, vary=contacted.vary, shared=contacted.shared, status=status)
        if not contacted.ranges:
            entry.no_ranges_until = shared.clock.now() + NO_RANGES_S
        flight = entry.launch(Flight(entry, need, contacted.offset, contacted.end, answer.body))
        return Reached(entry, flight, contacted.vary, shared=contacted.shared, status=status)
