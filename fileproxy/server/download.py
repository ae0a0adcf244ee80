"""The whole trip of one download, on one screen: ask → route → guard → cache → fill → upstream → conditions → deliver.

With ``app.py`` the only place where rooms meet. Each step is one call; what it decides is decided in its own room.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from aiohttp import web

from fileproxy.cache.freshness import age_header
from fileproxy.cache.key import entry_url, primary_key
from fileproxy.cache.validation import SAFE, invalidates
from fileproxy.errors import (
    BadDigest,
    CannotContinue,
    FileChanged,
    FileProxyError,
    NoRoute,
    NotCached,
    Refused,
    UpstreamError,
)
from fileproxy.fill.insist import pauses_s
from fileproxy.fill.need import lean, need_of
from fileproxy.fill.origin import OriginSource
from fileproxy.fill.relay import lasting
from fileproxy.fill.values import Later, Need
from fileproxy.guard.policy import Rules, check
from fileproxy.http.cache_status import CacheStatus
from fileproxy.model import Answer, Ask, BytesBody, Meta, Target, Want, without
from fileproxy.server.cors import RouteCors
from fileproxy.server.deliver import Delivery
from fileproxy.server.exchange import downstream, select, want_of
from fileproxy.server.front import front_of
from fileproxy.server.hints import hints
from fileproxy.server.proof import Proof, Standing
from fileproxy.server.reply import Reply
from fileproxy.server.routing import Match
from fileproxy.server.service import Cached, Fetcher, Generation, Service
from fileproxy.server.trip import Trip

# What a request says of one file, and not of another beside it.
_OF_THE_FILE = frozenset(
    {"accept-encoding", "if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "range"}
)
BEGIN_AGAIN_S = 10.0  # later a fill has tried long enough by itself


async def download(
    request: web.Request,
    ask: Ask,
    trip: Trip,
    *,
    generation: Generation,
    service: Service,
    delivery: Delivery,
    cors: RouteCors,
) -> Reply:
    """Serve one ask to its end. Raises a FileProxyError when it cannot; ``trip`` tells whether a head went out.

    An answer whose body breaks before any of it went out is forgotten, and the trip begun again.
    """
    pauses = pauses_s()
    while True:
        before = trip.answer
        try:
            return await _begun(
                request, ask, trip, generation=generation, service=service, delivery=delivery, cors=cors
            )
        except UpstreamError as error:
            late = service.clock.now() > ask.received_at + BEGIN_AGAIN_S
            mends = error.retryable or isinstance(error, FileChanged | CannotContinue)
            had_one = trip.answer is not before and not trip.started_sending and ask.method == "GET"
            pause_s = next(pauses, None)
            if late or not mends or not had_one or isinstance(error, BadDigest) or pause_s is None:
                raise
        service.counters.add("downloads.begun_again")
        await service.clock.sleep(pause_s)


async def _begun(
    request: web.Request,
    ask: Ask,
    trip: Trip,
    *,
    generation: Generation,
    service: Service,
    delivery: Delivery,
    cors: RouteCors,
) -> Reply:
    """The trip itself, once."""
    settings = generation.settings

    match = generation.routes.match(ask.host, ask.target)
    if match is None:
        raise NoRoute(f"No route serves {ask.target.path} on host {ask.host}.")
    route = trip.route = match.route
    cors.note(request, route)
    if route.cors != "off" and cors.is_preflight_request(request):
        trip.reply = Reply(204, "No Content", await cors.preflight(request), length=None)
        await delivery.send(
            request,
            trip.reply,
            BytesBody(),
            idle_s=settings.limits.client_idle,
            on_first_byte=trip.first_byte,
            on_bytes=trip.sent,
        )
        return trip.reply

    verdict = check(ask, Rules(route, settings.limits, service.identity, service.load))
    if not verdict.allowed:
        raise Refused(verdict)

    compression = service.compression
    compress = "off" if compression is None or settings.profile == "baseline" else route.compress
    sent = ask
    if compression is not None:
        ask = compression.asked(ask, compress)
    told = hints(front_of(request), ask, trip, service.counters)
    want = Later(partial(want_of, ask, match.forwarded_target, settings.server.name, service.identity, told))
    served = await _served(ask, match, want, generation, service)
    trip.answer, trip.how = served.answer, served.how
    body, as_ever = served.answer.body, True
    try:
        if compression is not None:
            ask = compression.whole(ask, served.answer, compress)
        selected = select(ask, served.answer, service.clock.time())
        if compression is not None:
            selected, as_ever = await compression.code(
                sent,
                served.answer,
                selected,
                compress,
                served.rid,
                route=f"{route.upstream} {route.path}",
                beside=partial(_beside, sent, generation, service),
            )
            body = selected.body
        reply = trip.reply = Reply(
            selected.status,
            selected.reason,
            downstream(
                selected,
                ask,
                served.answer,
                settings.server.name,
                how=served.how,
                status=served.status,
                cors=route.cors != "off",
            ),
            length=selected.length,
            framed=selected.body.framed,
            close=service.load.draining,
        )
        await delivery.send(
            request,
            reply,
            selected.body,
            idle_s=settings.limits.client_idle,
            on_first_byte=trip.first_byte,
            on_bytes=trip.sent,
            held=trip.held,
        )
        whole = selected.body is served.answer.body and as_ever
        if served.hit is not None and service.fast is not None and whole and verdict.until is None:
            record, need = served.hit
            renew = partial(_standing, service.caching, lean(need, match.forwarded_target))
            proof = Proof(ask, generation, route, reply.head, record, verdict.depends_on, renew)
            service.fast.learn(front_of(request), proof)
        return reply
    finally:
        await body.aclose()
        await served.answer.body.aclose()


class _Served(NamedTuple):
    answer: Answer
    how: str  # X-Cache
    status: CacheStatus
    hit: tuple[Meta, Need] | None = None  # of one block, whole and fresh in memory
    rid: bytes | None = None  # of the stored representation it is made of


async def _served(ask: Ask, match: Match, want: Later, generation: Generation, service: Service) -> _Served:
    """The answer: from the cache, from a fill that others may share, or from the upstream for this ask alone."""
    route, upstream = match.route, generation.upstreams[match.route.upstream]
    policy = generation.policies[route.path, tuple(route.hosts)]
    caching = service.caching
    rest = partial(_rest, generation, service, route.upstream)
    if caching is None or policy.mode == "off" or ask.method not in ("GET", "HEAD"):
        answer = lasting(await _fetch(upstream, want()), want(), rest, service.clock, service.counters)
        if caching is not None and ask.method not in SAFE:
            await caching.invalidate(invalidates(ask.method, answer.status, _uri(ask), answer.headers), generation)
        return _Served(answer, "BYPASS", CacheStatus("bypass" if ask.method in ("GET", "HEAD") else "method"))
    url = entry_url(route.upstream, generation.keyed_host(route, ask.authority), match.forwarded_target, policy)
    key = primary_key(url, ask.scheme, ask.headers, policy, caching.secret)
    need = need_of(ask, want, url, key, policy, caching.source(match, generation, key))
    now = caching.filler.open_now(need)
    opened = now or await caching.filler.open(need)
    if opened.how == "TIMEOUT":
        raise NotCached("Nothing that is stored may answer this, and the request wants nothing else (only-if-cached).")
    if opened.body is not None and opened.entry is not None:
        meta = opened.entry.meta
        headers = (*meta.headers, ("Age", age_header(opened.age_s)))
        answer = Answer(meta.status, meta.reason, headers, opened.body, whole=opened.whole, stored=True)
        known = now is not None and ask.method == "GET" and policy.per_user is None and meta.blocks == 1
        return _Served(answer, opened.how, opened.status, (meta, need) if known else None, meta.rid)
    requested_at = service.clock.time()
    answer = opened.answer or await _fetch(upstream, want())
    answer = lasting(answer, want(), rest, service.clock, service.counters)
    if ask.method == "HEAD":
        await caching.filler.note_head(need, answer, requested_at)
    status = opened.status if opened.answer is not None else replace(opened.status, status=answer.status)
    return _Served(answer, opened.how, status)


async def _beside(ask: Ask, generation: Generation, service: Service, suffix: str) -> Answer:
    """What lies beside the file that was asked for, under its name and ``suffix``, as it is."""
    headers = (*without(ask.headers, _OF_THE_FILE), ("Accept-Encoding", "identity"))
    ask = replace(ask, target=Target(ask.target.path + suffix), headers=headers)
    match = generation.routes.match(ask.host, ask.target)
    if match is None:
        raise NoRoute(f"No route serves {ask.target.path} on host {ask.host}.")
    want = Later(partial(want_of, ask, match.forwarded_target, generation.settings.server.name, service.identity))
    return (await _served(ask, match, want, generation, service)).answer


def _rest(generation: Generation, service: Service, name: str) -> Any:
    """Where the rest of an answer comes from that is not kept."""
    if service.caching is not None:
        return service.caching.relay(generation, name)
    return OriginSource(generation.upstreams[name], writes=False, block=1, clock=service.clock, ban=lambda: 0)


def _standing(caching: Cached | None, need: Need) -> Standing | None:
    """How a file that the fast front knows stands now. None: it is to be served the long way."""
    assert caching is not None
    filler = caching.filler
    opened = filler.open_now(need)
    if opened is None or opened.how != "HIT" or (opened.entry.digest and not opened.entry.meta.verified):
        return None
    rule, age = filler.rule_of(need.primary), opened.age_s
    return Standing(opened.entry.meta, rule, age, age_header(age), opened.status)


def _uri(ask: Ask) -> str:
    """The absolute URI that was asked for."""
    return f"{ask.scheme}://{ask.authority}{ask.target}"


async def _fetch(upstream: Fetcher, want: Want) -> Answer:
    """Ask the upstream. When the client's own body was what failed, that is the error (and the client's fault)."""
    try:
        return await upstream.fetch(want)
    except FileProxyError as error:
        if want.body is not None and want.body.failure is not None:
            raise want.body.failure from error
        raise
