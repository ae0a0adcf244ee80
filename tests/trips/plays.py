"""Settings in one line, for plays that are about something else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.origin import Origin

# Retries come at once, so that no test waits for a pause that it is not about.
QUICK = {"base": "1ms", "cap": "50ms"}


def settings(
    *servers: Origin | str,
    upstream: Mapping[str, Any] | None = None,
    route: Mapping[str, Any] | None = None,
    **rest: Any,
) -> dict[str, Any]:
    """One upstream named ``files`` over these servers, and one route to it when ``route`` says something of it."""
    options = dict(upstream or {})
    retry = {**QUICK, **options.pop("retry", {})}
    urls = [server if isinstance(server, str) else server.url for server in servers]
    options.setdefault("balance", "round_robin")  # in their order, whatever came of it before
    result: dict[str, Any] = {"upstreams": {"files": {"servers": urls, "retry": retry, **options}}, **rest}
    if route is not None:
        result["routes"] = [{"path": "/", "upstream": "files", **route}]
    return result


WRITABLE = {"methods": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]}
