"""CORS of each route, decided by aiohttp-cors.

aiohttp-cors wants routes of aiohttp's router; ours come from the settings generation a request runs under. This adapter
answers its questions from the route noted on the request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp_cors import CorsConfig, ResourceOptions
from aiohttp_cors.abc import AbstractRouterAdapter

from fileproxy.errors import Refused
from fileproxy.model import Headers, Verdict
from fileproxy.settings.schema import Cors, Route

Options = dict[str, ResourceOptions]
_ROUTE = web.RequestKey("fileproxy.route", Route)


class RouteCors(AbstractRouterAdapter):
    """The CORS rules of the current request's route; adds the response headers through ``on_response_prepare``."""

    def __init__(self, app: web.Application) -> None:
        self._preflight: Callable[[web.Request], Awaitable[web.Response]]
        CorsConfig(app, router_adapter=self).add(None, {})

    def note(self, request: web.Request, route: Route) -> None:
        """Remember which route a request belongs to."""
        request[_ROUTE] = route

    async def preflight(self, request: web.Request) -> Headers:
        """The headers that allow what a preflight asks for. Raises Refused, saying why not."""
        try:
            response = await self._preflight(request)
        except web.HTTPForbidden as refusal:
            raise Refused(
                Verdict(
                    False,
                    frozenset({"path", "method", "origin"}),
                    ending="forbidden",
                    status=403,
                    title="Forbidden",
                    detail=refusal.text or "",
                )
            ) from None
        allowed = tuple((name, value) for name, value in response.headers.items() if name.lower().startswith("access-"))
        return (*allowed, ("Vary", "Origin"))

    # --- what aiohttp-cors asks ---

    def add_preflight_handler(self, routing_entity: None, handler: Any, webview: bool = False) -> None:
        self._preflight = handler

    def set_config_for_routing_entity(self, routing_entity: None, config: Any) -> None:
        """Nothing to keep: the rules are in the settings."""

    def is_cors_enabled_on_request(self, request: web.Request) -> bool:
        return _cors(request) is not None

    def is_preflight_request(self, request: web.Request) -> bool:
        return (
            request.method == "OPTIONS"
            and "Origin" in request.headers
            and "Access-Control-Request-Method" in request.headers
        )

    async def get_preflight_request_config(
        self, preflight_request: web.Request, origin: str, requested_method: str
    ) -> Options:
        cors = _cors(preflight_request)
        if cors is None or requested_method not in cors.methods:
            raise KeyError(requested_method)
        return _options(cors)

    def get_non_preflight_request_config(self, request: web.Request) -> Options:
        cors = _cors(request)
        return {} if cors is None or request.method not in cors.methods else _options(cors)


def _cors(request: web.Request) -> Cors | None:
    route = request.get(_ROUTE)
    return route.cors if isinstance(route, Route) and isinstance(route.cors, Cors) else None


def _options(cors: Cors) -> Options:
    options = ResourceOptions(  # type: ignore[no-untyped-call]  # aiohttp-cors has no types
        allow_credentials=cors.credentials,
        expose_headers=cors.expose if "*" not in cors.expose else "*",
        allow_headers=cors.headers if "*" not in cors.headers else "*",
        max_age=int(cors.max_age),
    )
    return dict.fromkeys(cors.origins, options)
