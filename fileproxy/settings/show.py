"""Settings for people and editors: the effective configuration (secrets masked) and its JSON Schema. Pure."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from fileproxy.settings.options import Option, Place, dotted, every, options
from fileproxy.settings.schema import Mirror, Settings, Upstream

MASK = "***"
_APPLIES = {
    "rolling": " A change starts new workers; running downloads end in the old ones.",
    "restart": " A change needs a restart.",
}


def effective(settings: Settings, mask: bool = True) -> dict[str, Any]:
    """The configuration as JSON-able values in human units (``64KiB``, ``90s``); with ``mask``, secrets as ``***``."""
    shown = settings.model_dump(mode="json")
    return {name: masked(one, (name,)) for name, one in shown.items()} if mask else shown


def flat(settings: Settings) -> dict[str, tuple[Place, Any]]:
    """Dotted key → (place, value as in :func:`effective`, unmasked) of every leaf that these settings have."""
    found: dict[str, tuple[Place, Any]] = {}

    def walk(value: Any, place: Place) -> None:
        option = options().at(place)
        if option is not None and option.item is not None and option.item.kind != "value" and not value:
            found[dotted(place)] = (place, value)  # no upstreams, no routes
        elif option is None or option.kind == "value" or (option.item is not None and option.item.kind == "value"):
            found[dotted(place)] = (place, value)
        elif isinstance(value, dict):
            for name, one in value.items():
                walk(one, (*place, name))
        elif isinstance(value, list):
            for number, one in enumerate(value):
                walk(one, (*place, number))
        else:
            found[dotted(place)] = (place, value)  # a group that is off

    walk(settings.model_dump(mode="json"), ())
    return found


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the file, for editors: units, short forms, and what a change needs."""
    root = Settings.model_json_schema()
    definitions = root["$defs"]
    rows = {one.model: one for one in [options(), *every(options())] if one.model is not None}
    for model, row in rows.items():
        defaults = model.model_construct().model_dump(mode="json", warnings=False)
        properties = (root if model is Settings else definitions[model.__name__])["properties"]
        for name, option in row.fields.items():
            properties[name] = _field(properties[name], option, defaults.get(name))
            if option.secret and option.kind == "value":
                about = f"File that holds the value of `{name}`."
                properties[f"{name}_file"] = {"type": "string", "description": about}
    url = definitions[Mirror.__name__]["properties"]["url"]
    servers = definitions[Upstream.__name__]["properties"]["servers"]
    definitions[Mirror.__name__] = {"anyOf": [definitions[Mirror.__name__], url]}
    definitions[Upstream.__name__] = {"anyOf": [definitions[Upstream.__name__], servers, url]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **root, "title": "FileProxy configuration"}


def _field(field: dict[str, Any], option: Option, default: Any) -> dict[str, Any]:
    """One option's schema: what a change needs, its default as people write it, and null for a group left empty."""
    kept = {key: one for key, one in field.items() if key not in ("apply", "secret", "description", "default")}
    about = {"description": option.description + _APPLIES.get(str(field.get("apply")), "")}
    if option.default is ...:
        return {**about, **kept}
    if option.kind != "value":  # a group with nothing below it is what is left when all its lines are comments
        kept = {"anyOf": [kept, {"type": "null"}]}
    return {**about, **kept} if option.kind == "row" else {**about, "default": default, **kept}


def masked(value: Any, place: Place) -> Any:
    """The value that stands at ``place`` as it may be shown."""
    option = options().at(place)
    if isinstance(value, dict):
        return {name: masked(one, (*place, name)) for name, one in value.items()}
    if isinstance(value, list):
        return [masked(one, (*place, number)) for number, one in enumerate(value)]
    if option is None or not option.secret or not isinstance(value, str):
        return value
    return _without_password(value) if option.key == "redis.url" else MASK


def _without_password(url: str) -> str:
    """A store's URL with the password masked, wherever it is written (userinfo, or a query's ``password=``)."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if at:
        user = f"{user.partition(':')[0]}:{MASK}"
    query = re.sub(r"(?i)((?:^|&)[^=&]*(?:pass|secret|token)[^=&]*=)[^&]*", rf"\g<1>{MASK}", parts.query)
    shown = parts._replace(netloc=f"{user}{at}{host}", query=query).geturl()
    # unix:///run/x without a user would come back with one slash.
    return shown if at or parts.scheme != "unix" else f"unix://{shown.removeprefix('unix:').removeprefix('//')}"
