"""The calls of ``/-/api/v1/…`` and the method PURGE: from an ask and its body to status, headers and body.

Each call is one row of ``calls.ROUTES`` and one method of :class:`Api`. Every call needs the token, every change is in
the audit log, every error is problem+json (RFC 9457).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any, Protocol, TypeVar

import msgspec

from fileproxy.admin.audit import Audit
from fileproxy.admin.calls import PREFIX, ROUTES, Kind, Purge, Purged, Route
from fileproxy.admin.openapi import document
from fileproxy.admin.token import Token, TokenUnusable
from fileproxy.admin.warm import TooManyJobs, WarmJobs, WarmOrder, WarmState
from fileproxy.http.problem import CONTENT_TYPE, problem
from fileproxy.model import Ask, Counters, Headers

LARGEST_BODY = 4 * 1024 * 1024

Answer = tuple[int, Headers, bytes]
T = TypeVar("T")


class Purger(Protocol):
    """What a purge acts on; ``app.py`` makes it of ``cache/bans.py``."""

    async def announce(self, wanted: Sequence[tuple[Kind, str, bool]]) -> Sequence[object]:
        """Add bans: kind, value, soft. Raises OSError when they cannot be kept."""
        ...


class Problem(Exception):
    """A call that cannot be answered as asked."""

    def __init__(self, status: int, detail: str, headers: Headers = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers


class Api:
    """The calls of one worker.

    ``resolve(address or path)`` gives the ``meta.url`` forms (``upstream/host/path?query``, ``*`` for any upstream or
    host) it may be stored under; none: no route serves it. ``present(urls)`` says whether any of them is stored.
    """

    def __init__(
        self,
        *,
        token: Token,
        audit: Audit,
        bans: Purger,
        resolve: Callable[[str], Sequence[str]],
        present: Callable[[Sequence[str]], Awaitable[bool]],
        warm: WarmJobs,
        counters: Counters,
        version: str,
    ) -> None:
        self._token = token
        self._audit = audit
        self._bans = bans
        self._resolve = resolve
        self._present = present
        self._warm = warm
        self._counters = counters
        self._version = version
        self._calls: dict[str, Callable[[Ask, bytes, str], Awaitable[Answer]]] = {
            "describe": self._describe,
            "purge": self._purge,
            "warm": self._warm_start,
            "warm_state": self._warm_state,
            "warm_stop": self._warm_stop,
        }

    async def answer(self, ask: Ask, body: bytes) -> Answer:
        """A call below ``/-/api/v1/``; ``body`` is the whole request body, at most ``LARGEST_BODY``. Never raises."""
        try:
            self._admit(ask, 401)
            route, argument = find(ask)
            return await self._calls[route.name](ask, body, argument)
        except Problem as error:
            return self._said(ask, error)

    async def purge(self, ask: Ask) -> Answer:
        """The method PURGE: 200 dropped, 404 was not there (and is dropped wherever it is), 403 without the token."""
        try:
            self._admit(ask, 403)
            address = f"{ask.scheme}://{ask.authority}{ask.target}"
            urls = self._urls(address)
            there = await self._present(urls)
            await self._ban(ask, "key", [address], urls, soft=False)
            if not there:
                raise Problem(404, "Nothing was stored under this address; whatever is on its way is dropped.")
            return _json(200, Purged("key", False, [_text(address)], len(urls)))
        except Problem as error:
            return self._said(ask, error)

    # --- the calls ----------------------------------------------------------------------------------------------------

    async def _describe(self, _ask: Ask, _body: bytes, _argument: str) -> Answer:
        return _json(200, document(self._version))

    async def _purge(self, ask: Ask, body: bytes, _argument: str) -> Answer:
        order = _decoded(body, Purge)
        given: dict[Kind, str | list[str]] = {}
        if order.key is not None:
            given["key"] = order.key
        if order.prefix is not None:
            given["prefix"] = order.prefix
        if order.tag is not None:
            given["tag"] = order.tag
        if order.all:
            given["all"] = ""
        if len(given) != 1:
            raise Problem(400, "Give exactly one of key, prefix, tag and all.")
        ((kind, some),) = given.items()
        values = [some] if isinstance(some, str) else some
        wanted = [url for value in values for url in self._urls(value)] if kind in ("key", "prefix") else values
        await self._ban(ask, kind, values, wanted, soft=order.soft)
        return _json(200, Purged(kind, order.soft, [] if kind == "all" else values, len(wanted)))

    async def _warm_start(self, ask: Ask, body: bytes, _argument: str) -> Answer:
        order = _decoded(body, WarmOrder)
        if bool(order.urls) == (order.sitemap is not None):
            raise Problem(400, "Give either urls or a sitemap.")
        try:
            state = await self._warm.start(order)
        except TooManyJobs as error:
            raise Problem(503, f"{error}.", (("Retry-After", "10"),)) from error
        except OSError as error:
            raise Problem(503, f"The job's progress cannot be written: {error.strerror or error}.") from error
        what: dict[str, Any] = {"sitemap": order.sitemap} if order.sitemap else {"urls": order.urls}
        self._audit.note("warm", ask, 202, job=state.id, **what)
        return _json(202, state, (("Location", f"{PREFIX}warm/{state.id}"),))

    async def _warm_state(self, _ask: Ask, _body: bytes, argument: str) -> Answer:
        return _json(200, _known(self._warm.state(argument)))

    async def _warm_stop(self, ask: Ask, _body: bytes, argument: str) -> Answer:
        try:
            state = _known(await self._warm.cancel(argument))
        except OSError as error:
            raise Problem(503, f"The job cannot be told to stop: {error.strerror or error}.") from error
        self._audit.note("warm.stop", ask, 200, job=argument)
        return _json(200, state)

    # ------------------------------------------------------------------------------------------------------------------

    def _admit(self, ask: Ask, status: int) -> None:
        """Raises Problem: 503 when there is no token to compare with, ``status`` for a caller without it."""
        try:
            standing = self._token.check(ask.headers)
        except TokenUnusable as error:
            raise Problem(503, str(error)) from error
        if standing == "granted":
            return
        self._counters.add("admin.refused")
        self._audit.note("refused", ask, status, standing=standing)
        challenge = 'Bearer realm="fileproxy"' + (', error="invalid_token"' if standing == "wrong" else "")
        detail = {
            "missing": "This needs the admin token: Authorization: Bearer …",
            "wrong": "This is not the admin token.",
        }
        raise Problem(status, detail[standing], (("WWW-Authenticate", challenge),) if status == 401 else ())

    def _urls(self, value: str) -> list[str]:
        urls = list(self._resolve(value))
        if not urls:
            raise Problem(404, f"No route serves {value}")
        return urls

    async def _ban(self, ask: Ask, kind: Kind, values: list[str], wanted: Sequence[str], *, soft: bool) -> None:
        try:
            await self._bans.announce([(kind, value, soft) for value in wanted])
        except OSError as error:
            self._audit.note("purge", ask, 503, kind=kind, values=values, soft=soft)
            raise Problem(
                503, f"The purge cannot be kept, so nothing was purged: {error.strerror or error}."
            ) from error
        self._counters.add("purge.requests")
        self._counters.add("bans.added", len(wanted))
        self._audit.note("purge", ask, 200, kind=kind, values=values, soft=soft)

    def _said(self, ask: Ask, error: Problem) -> Answer:
        body = problem(error.status, HTTPStatus(error.status).phrase, error.detail, ask.id, str(ask.target))
        return error.status, (("Content-Type", CONTENT_TYPE), ("Cache-Control", "no-store"), *error.headers), body


def find(ask: Ask) -> tuple[Route, str]:
    """The route of an ask, and what stands for ``{id}``. Raises Problem 404 or 405."""
    path = ask.target.path.removeprefix(PREFIX)
    fit = [
        (route, found[1] if found.lastindex else "") for route in ROUTES if (found := _pattern(route).fullmatch(path))
    ]
    if not fit:
        raise Problem(404, f"There is no call {ask.target.path}; {PREFIX}openapi.json lists them.")
    method = "GET" if ask.method == "HEAD" else ask.method
    for route, argument in fit:
        if route.method == method:
            return route, argument
    allowed = ", ".join(route.method for route, _ in fit)
    raise Problem(405, f"This call takes {allowed}.", (("Allow", allowed),))


def _pattern(route: Route) -> re.Pattern[str]:
    return re.compile(re.escape(route.path).replace(r"\{id\}", "([^/]+)"))


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, f"The body is not what this call takes: {error}") from error


def _known(state: WarmState | None) -> WarmState:
    if state is None:
        raise Problem(404, "There is no such job.")
    return state


def _json(status: int, value: object, headers: Headers = ()) -> Answer:
    body = msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
    return status, (("Content-Type", "application/json"), ("Cache-Control", "no-store"), *headers), body


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
