"""The effective configuration for people: human units, everything there, secrets masked."""

from __future__ import annotations

from typing import Any

import pytest

from fileproxy.settings import Settings
from fileproxy.settings.load import load
from fileproxy.settings.options import leaves
from fileproxy.settings.show import effective, flat, masked

FULL: dict[str, Any] = {
    "upstreams": {
        "files": {
            "servers": ["http://a"],
            "headers": {"Authorization": "geheim"},
            "follow_redirects": {},
            "health_check": {},
        }
    },
    "routes": [{"upstream": "files", "cors": {"origins": ["*"]}}],
    "redis": {"url": "redis://me:geheim@a/0", "secret": "geheim"},
}


def test_values_are_in_human_units() -> None:
    shown = effective(Settings())
    assert shown["server"]["half_close_grace"] == "5s"
    assert shown["limits"]["request_body"] == "1GiB"
    assert shown["redis"]["timeout"] == "50ms"
    assert shown["server"]["short_names"] is True


def test_what_is_shown_can_be_configured_again() -> None:
    settings = Settings.model_validate(FULL)
    assert Settings.model_validate(effective(settings, mask=False)) == settings


def test_secrets_are_masked_wherever_they_are() -> None:
    settings = Settings.model_validate(FULL)
    assert "geheim" not in str(effective(settings))
    assert str(effective(settings, mask=False)).count("geheim") == 3
    assert effective(settings)["upstreams"]["files"]["headers"] == {"Authorization": "***"}
    assert effective(settings)["redis"] == {
        **effective(Settings())["redis"],
        "url": "redis://me:***@a/0",
        "secret": "***",
    }


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("embedded", "embedded"),
        ("off", "off"),
        ("redis://a:6379/0", "redis://a:6379/0"),
        ("redis://:geheim@a", "redis://:***@a"),
        ("redis://geheim@a", "redis://geheim:***@a"),
        ("rediss://me:ge@heim@a:1/2?x=1", "rediss://me:***@a:1/2?x=1"),
        ("unix:///run/r.sock?password=geheim&db=1", "unix:///run/r.sock?password=***&db=1"),
        ("unix://me:geheim@/run/r.sock", "unix://me:***@/run/r.sock"),
    ],
)
def test_the_stores_url_keeps_what_is_no_secret(url: str, shown: str) -> None:
    assert masked(url, ("redis", "url")) == shown


def test_a_null_secret_is_shown_as_null() -> None:
    assert effective(Settings())["redis"]["secret"] is None


def test_flat_has_every_option_with_its_place() -> None:
    found = flat(Settings.model_validate(FULL))
    keys = {one.key.replace("upstreams.*", "upstreams.files").replace("*", "0") for one in leaves()}
    groups = {"server.sockets.keepalive", "upstreams.files.sockets.keepalive", "upstreams.files.follow_redirects"}
    groups |= {"upstreams.files.circuit_breaker", "upstreams.files.health_check"}
    assert keys - set(found) == {*groups, "routes.0.cors", "routes.0.compress", "cache.redis", "cache.disk"}
    assert set(found) <= keys
    assert found["routes.0.cors.origins"] == (("routes", 0, "cors", "origins"), ["*"])


def test_flat_shows_groups_that_are_off_or_empty() -> None:
    found = flat(load(sets=["server.sockets.keepalive=off"]).settings)
    assert found["server.sockets.keepalive"][1] == "off"
    assert found["upstreams"][1] == {}
    assert found["routes"][1] == []
