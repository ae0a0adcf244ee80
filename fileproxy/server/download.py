"""The whole trip of one download, on one screen: ask → route → guard → upstream → conditions → deliver.

With ``app.py`` the only place where rooms meet. Each step is one call; what it decides is decided in its own room.
"""

from __future__ import annotations

from aiohttp import web

from fileproxy.errors import FileProxyError, NoRoute, Refused
from fileproxy.guard.policy import Rules, check
from fileproxy.model import Answer, Ask, BytesBody, Want
from fileproxy.server.cors import RouteCors
from fileproxy.server.deliver import Delivery
from fileproxy.server.exchange import downstream, select, want_of
from fileproxy.server.reply import Reply
from fileproxy.server.service import Fetcher, Generation, Service
from fileproxy.server.trip import Trip


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
    """Serve one ask to its end. Raises a FileProxyError when it cannot; ``trip`` tells whether a head went out."""
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

    want = want_of(ask, match.forwarded_target, settings.server.name, service.identity)
    answer = await _fetch(generation.upstreams[route.upstream], want)
    trip.answer = answer
    try:
        selected = select(ask, answer, service.clock.time())
        reply = trip.reply = Reply(
            selected.status,
            selected.reason,
            downstream(selected, ask, answer, settings.server.name, cors=route.cors != "off"),
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
        )
        return reply
    finally:
        await answer.body.aclose()


async def _fetch(upstream: Fetcher, want: Want) -> Answer:
    """Ask the upstream. When the client's own body was what failed, that is the error (and the client's fault)."""
    try:
        return await upstream.fetch(want)
    except FileProxyError as error:
        if want.body is not None and want.body.failure is not None:
            raise want.body.failure from error
        raise
