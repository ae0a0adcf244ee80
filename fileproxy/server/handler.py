"""From an aiohttp request to an ending that has a name.

Every request passes here once: it becomes an :class:`Ask`, is served (our own page, or the trip of ``download.py``),
and its ending is counted and logged, whatever happened.
"""

from __future__ import annotations

import asyncio
import secrets
import traceback
from http import HTTPStatus

from aiohttp import web

from fileproxy.errors import BadTarget, BodyTooLarge, ClientError, ClientGone, FileProxyError, Refused
from fileproxy.http.forwarded import client_view, request_id
from fileproxy.http.problem import problem, proxy_status
from fileproxy.http.targets import parse_target
from fileproxy.model import Ask, BytesBody, Fields, Headers, Target
from fileproxy.server import operators
from fileproxy.server.cors import RouteCors
from fileproxy.server.deliver import Delivery, abort
from fileproxy.server.download import download
from fileproxy.server.front import front_of
from fileproxy.server.intake import RequestBody, has_body
from fileproxy.server.reply import Reply
from fileproxy.server.service import Generation, Service
from fileproxy.server.trip import Trip

LARGEST_ADMIN_BODY = 4 * 1024 * 1024


class Handler:
    """Serves the requests of one worker."""

    def __init__(self, service: Service, delivery: Delivery, cors: RouteCors) -> None:
        self._service = service
        self._delivery = delivery
        self._cors = cors

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        service, generation = self._service, self._service.current
        trip = Trip(service, front_of(request).head.received_at)
        generation.enter()
        service.counters.add("downloads.active")
        service.downloads.enter(trip, getattr(request.protocol, "pace", None))
        try:
            return await self._serve(request, trip, generation)
        except asyncio.CancelledError:
            trip.failed("drained_out" if service.cutting else "client_gone")
            raise
        finally:
            service.counters.add("downloads.active", -1)
            service.downloads.leave(trip)
            generation.leave()
            trip.finish()

    async def _serve(self, request: web.Request, trip: Trip, generation: Generation) -> Reply:
        service = self._service
        try:
            ask = self._ask(request, generation, trip)
            if (called := await self._administered(ask)) is not None:
                return await self._say(request, trip, *called)
            page = operators.page_of(ask.target.path, short_names=generation.settings.server.short_names)
            if page is None:
                return await download(
                    request,
                    ask,
                    trip,
                    generation=generation,
                    service=service,
                    delivery=self._delivery,
                    cors=self._cors,
                )
            load, made_at = service.load, service.clock.now()
            status, headers, body = await operators.answer(page, ask, generation, service)
            reply = await self._say(request, trip, status, headers, body)
            if service.fast is not None and operators.is_known(page, ask):
                service.fast.learn_report(front_of(request), ask, generation, load, made_at, reply, body)
            return reply
        except FileProxyError as error:
            return await self._fail(request, trip, error)
        except Exception:  # a bug of ours: named, logged with its traceback, and the client told
            service.logs.event("error", "bug", id=trip.id, traceback=traceback.format_exc())
            return await self._fail(
                request, trip, FileProxyError("FileProxy made a mistake; its error log says which.")
            )

    async def _administered(self, ask: Ask) -> tuple[int, Headers, bytes] | None:
        """The answer of the admin API, when the ask is one for it. Raises BodyTooLarge, ClientGone."""
        admin = self._service.admin
        if admin is None:
            return None
        if ask.method == "PURGE":
            return await admin.purge(ask)
        if not ask.target.path.startswith("/-/api/"):
            return None
        data = bytearray()
        if ask.body is not None:
            async for piece in ask.body:
                data += piece
                if len(data) > LARGEST_ADMIN_BODY:
                    raise BodyTooLarge(f"The body of an admin call may have {LARGEST_ADMIN_BODY} bytes.")
        return await admin.answer(ask, bytes(data))

    def _ask(self, request: web.Request, generation: Generation, trip: Trip) -> Ask:
        """What the client wants and who it is. Noted in ``trip``, also when its target is refused: raises BadTarget."""
        front = front_of(request)
        headers = Fields(
            [(name.decode("ascii"), value.decode("utf-8", "surrogateescape")) for name, value in request.raw_headers]
        )
        refused: BadTarget | None = None
        try:
            target, authority = parse_target(front.head.target, request.method)
        except BadTarget as error:
            target, authority, refused = Target(front.head.target), None, error
        view = client_view(front.peer, headers, "http", authority or front.head.authority, generation.trusted)
        expects = (request.headers.get("Expect") or "").lower()
        body = None
        if request.method not in ("GET", "HEAD", "TRACE") and has_body(request):
            body = RequestBody(
                request,
                generation.settings.limits.request_body,
                self._service.counters,
                expects_continue=expects == "100-continue" and not front.head.http10,
            )
        ask = trip.ask = Ask(
            id=request_id(headers, view.trusted_peer, _make_id),
            method=request.method,
            target=target,
            authority=view.authority,
            scheme=view.scheme,
            client=view.client,
            peer=front.peer,
            trusted_peer=view.trusted_peer,
            headers=headers,
            http10=front.head.http10,
            body=body,
            received_at=front.head.received_at,
        )
        if refused is not None:
            raise refused
        return ask

    async def _fail(self, request: web.Request, trip: Trip, error: FileProxyError) -> Reply:
        """End with an error answer while none is out; afterwards the only honest thing is to cut the connection."""
        service = self._service
        trip.failed(error.ending, ours=error.source != "client" and error.status >= 500)
        if error.source != "client" and not isinstance(error, Refused):
            service.logs.event("warning", error.ending, id=trip.id, detail=error.detail, cut=trip.started_sending)
        if trip.started_sending or error.proxy_error is None:
            trip.cut = trip.started_sending and not isinstance(error, ClientGone)
            reply = trip.reply or Reply(error.status, "", (), length=0)
            abort(request, reply)
            return reply
        name = service.current.settings.server.name
        title = getattr(error, "title", "") or HTTPStatus(error.status).phrase
        headers: Headers = (
            ("Content-Type", "application/problem+json"),
            ("Cache-Control", "no-store"),
            ("Proxy-Status", proxy_status(name, error.proxy_error, error.detail)),
            *error.headers,
        )
        if error.retry_after_s is not None:
            headers = (*headers, ("Retry-After", str(max(1, round(error.retry_after_s)))))
        body = problem(error.status, title, error.detail, trip.id, instance=trip.target)
        try:
            return await self._say(request, trip, error.status, headers, body)
        except ClientError:  # the client left before it could be told; the first error stays the ending
            reply = trip.reply or Reply(error.status, "", (), length=0)
            abort(request, reply)
            return reply

    async def _say(self, request: web.Request, trip: Trip, status: int, headers: Headers, body: bytes) -> Reply:
        """A small answer of our own."""
        reply = trip.reply = Reply(
            status,
            HTTPStatus(status).phrase,
            (*headers, ("X-Request-Id", trip.id)),
            length=len(body),
            close=front_of(request).last or status in (413, 503),
        )
        await self._delivery.send(
            request,
            reply,
            BytesBody(body),
            idle_s=self._service.current.settings.limits.client_idle,
            on_first_byte=trip.first_byte,
            on_bytes=trip.sent,
        )
        return reply


def _make_id() -> str:
    return secrets.token_hex(8)
