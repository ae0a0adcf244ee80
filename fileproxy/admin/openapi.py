"""``openapi.json``: the table of calls as an OpenAPI 3.1 document (pure)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec

from fileproxy.admin.calls import PREFIX, ROUTES, Route
from fileproxy.http.problem import CONTENT_TYPE

_PROBLEM = {
    "type": "object",
    "description": "RFC 9457",
    "required": ["type", "title", "status", "detail", "instance", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "request_id": {"type": "string"},
    },
}


def document(version: str) -> dict[str, Any]:
    """The description of all calls."""
    bodies = [kind for route in ROUTES for kind in (route.takes, route.gives) if kind is not None]
    _, schemas = msgspec.json.schema_components(bodies, ref_template="#/components/schemas/{name}")
    paths: dict[str, Any] = {}
    for route in ROUTES:
        paths.setdefault(f"{PREFIX}{route.path}", {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "FileProxy's admin API", "version": version},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Problem": _PROBLEM},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    answers = {str(route.status): _said(HTTPStatus(route.status).phrase, "application/json", route.gives)}
    for status in sorted({401, 503, *route.errors}):
        answers[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    operation: dict[str, Any] = {"operationId": route.name, "summary": route.sentence, "responses": answers}
    if route.takes is not None:
        operation["requestBody"] = {"required": True, **_content("application/json", route.takes)}
    if "{id}" in route.path:
        operation["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
    return operation


def _said(phrase: str, content_type: str, kind: type | None) -> dict[str, Any]:
    return {"description": phrase, **_content(content_type, kind)}


def _content(content_type: str, kind: type | None) -> dict[str, Any]:
    schema = {"type": "object"} if kind is None else {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"content": {content_type: {"schema": schema}}}
