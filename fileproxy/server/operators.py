"""The pages that are ours: /livez, /readyz, /health, /stats. Everything else but ``/-/`` is the files'."""

from __future__ import annotations

from typing import Any

import msgspec

from fileproxy.errors import NoRoute, Refused
from fileproxy.model import Ask, Headers, Verdict
from fileproxy.server.service import Generation, Service

_PAGES = frozenset({"livez", "readyz", "health", "stats"})
_REFUSED = Verdict(
    False,
    frozenset({"client", "path"}),
    ending="forbidden",
    status=403,
    title="Forbidden",
    detail="Only operators may read this; see server.operators.",
)
_NOT_A_METHOD = Verdict(
    False,
    frozenset({"method", "path"}),
    ending="method_refused",
    status=405,
    title="Method Not Allowed",
    detail="This page can only be read.",
    headers=(("Allow", "GET, HEAD"),),
)


def page_of(path: str, *, short_names: bool) -> str | None:
    """The name of our page at ``path``, or None when the path belongs to the files. Raises NoRoute inside ``/-/``."""
    if path.startswith("/-/"):
        if (name := path[3:]) in _PAGES:
            return name
        raise NoRoute(f"FileProxy has no page {path}.")
    return path[1:] if short_names and path[1:] in _PAGES else None


def is_known(page: str, ask: Ask) -> bool:
    """Whether the answer may be told again for a moment: to what load balancers and watchers ask, with no wishes."""
    return page != "stats" and ask.target.query is None


async def answer(page: str, ask: Ask, generation: Generation, service: Service) -> tuple[int, Headers, bytes]:
    """Status, headers and body of one of our pages. Raises Refused."""
    if ask.method not in ("GET", "HEAD"):
        raise Refused(_NOT_A_METHOD)
    operator = ask.client in generation.operators
    match page:
        case "livez":
            return await _alive(ask, service, operator)
        case "readyz":
            return await _ready(ask, service, operator)
        case "health":
            report = await service.health()
            status = 503 if report["status"] == "failing" else 200
            return _json(status, report if operator else {"status": report["status"]})
        case _:
            if not operator:
                raise Refused(_REFUSED)
            if service.fast is None:
                return _json(200, await service.stats())
            fast = service.fast.statistics()  # counts what waits to be counted
            return _json(200, {**await service.stats(), "fast_front": fast})


async def _alive(ask: Ask, service: Service, operator: bool) -> tuple[int, Headers, bytes]:
    return await _verbose(200, {"status": "alive"}, ask, service, operator)


async def _ready(ask: Ask, service: Service, operator: bool) -> tuple[int, Headers, bytes]:
    if service.load.draining:
        return await _verbose(503, {"status": "draining"}, ask, service, operator)
    return await _verbose(200, {"status": "ready"}, ask, service, operator)


async def _verbose(
    status: int, report: dict[str, Any], ask: Ask, service: Service, operator: bool
) -> tuple[int, Headers, bytes]:
    """``?verbose`` lists the parts: names and status for anyone, the details for operators."""
    if "verbose" in (ask.target.query or "").split("&"):
        parts = (await service.health())["parts"]
        report["parts"] = parts if operator else {name: {"status": part["status"]} for name, part in parts.items()}
    return _json(status, report)


def _json(status: int, report: dict[str, Any]) -> tuple[int, Headers, bytes]:
    body = msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
    return status, (("Content-Type", "application/json"), ("Cache-Control", "no-store")), body
