"""What differs between two generations, and what it takes to apply it."""

from __future__ import annotations

from typing import Any

import pytest

from fileproxy.settings import Settings
from fileproxy.settings.change import Difference, difference
from fileproxy.settings.options import Option, leaves

BASE: dict[str, Any] = {
    "upstreams": {"files": {"servers": ["http://a", "http://b"], "headers": {"Authorization": "geheim"}}},
    "routes": [{"path": "/", "upstream": "files"}],
}


def settings(**groups: Any) -> Settings:
    return Settings.model_validate({**BASE, **groups})


def changed(**groups: Any) -> Any:
    return difference(settings(), settings(**groups))


def test_nothing_changed() -> None:
    change = difference(settings(), settings())
    assert (bool(change), change.apply, change.keys) == (False, "nothing", ())


@pytest.mark.parametrize(
    ("groups", "keys", "apply"),
    [
        ({"limits": {"head_timeout": "5s"}}, ("limits.head_timeout",), "live"),
        ({"server": {"port": 1}}, ("server.port",), "rolling"),
        ({"server": {"sockets": {"keepalive": {"idle": "1s"}}}}, ("server.sockets.keepalive.idle",), "rolling"),
        ({"server": {"sockets": {"keepalive": "off"}}}, ("server.sockets.keepalive",), "rolling"),
        ({"server": {"run_dir": "x"}}, ("server.run_dir",), "restart"),
        ({"server": {"operators": []}}, ("server.operators",), "live"),
        ({"redis": {"url": "off"}}, ("redis.url",), "rolling"),
        ({"cache": {"disk": "off"}}, ("cache.disk",), "rolling"),
        ({"cache": {"disk": {"path": "x"}}}, ("cache.disk.path",), "rolling"),
        (
            {"cache": {"disk": {"size": 1, "min_free": 1, "scrub": 1}}},
            ("cache.disk.size", "cache.disk.min_free", "cache.disk.scrub"),
            "live",
        ),
        (
            {"logs": {"level": "debug"}, "server": {"port": 1, "run_dir": "x"}},
            ("server.port", "server.run_dir", "logs.level"),
            "restart",
        ),
        ({"routes": [{"path": "/", "upstream": "files", "cors": {"origins": ["*"]}}]}, ("routes.0.cors",), "live"),
        ({"routes": []}, ("routes.0",), "live"),
    ],
)
def test_what_changed_and_what_it_takes(groups: dict[str, Any], keys: tuple[str, ...], apply: str) -> None:
    change = changed(**groups)
    assert (change.keys, change.apply) == (keys, apply)


def test_each_difference_is_sorted_by_what_it_takes() -> None:
    change = changed(logs={"level": "debug"}, server={"port": 1, "run_dir": "x"})
    assert (change.live, change.rolling, change.restart) == (("logs.level",), ("server.port",), ("server.run_dir",))


def test_values_are_in_units_and_secrets_masked() -> None:
    upstream = {**BASE["upstreams"]["files"], "headers": {"Authorization": "anders"}, "timeouts": {"idle": "90s"}}
    assert changed(upstreams={"files": upstream}).differences == (
        Difference("upstreams.files.timeouts.idle", "live", "auto", "90s"),
        Difference("upstreams.files.headers", "live", {"Authorization": "***"}, {"Authorization": "***"}),
    )


def test_a_changed_password_is_a_difference_that_shows_none() -> None:
    old, new = (settings(redis={"url": f"redis://:{word}@a"}) for word in ("geheim", "anders"))
    (one,) = difference(old, new).differences
    assert (one.key, one.old, one.new) == ("redis.url", "redis://:***@a", "redis://:***@a")


def test_an_upstream_or_route_that_is_new_or_gone_is_one_difference() -> None:
    old = settings()
    new = settings(
        upstreams={"more": "http://c", **BASE["upstreams"]},
        routes=[*BASE["routes"], {"path": "/c/", "upstream": "more"}],
    )
    assert difference(old, new).keys == ("upstreams.more", "routes.1")
    assert difference(new, old).keys == ("upstreams.more", "routes.1")
    assert difference(new, old).differences[0].new is None


# Something for everybody: each option takes at least one of them that is not its default.
VALUES = ["off", "auto", "on", 5, 6, "7s", 300, 70000, 2**20, 0.5, "baseline", "round_robin", "debug", "x.example"]


@pytest.mark.parametrize(
    "option", [one for one in leaves() if "*" not in one.key and one.kind == "value"], ids=lambda one: one.key
)
def test_every_single_option_is_noticed(option: Option) -> None:
    """Whatever option changes, exactly it is the difference, with the ``apply`` that the schema says."""
    above, _, name = option.key.rpartition(".")
    for value in VALUES:
        tree: Any = {name: value}
        for group in reversed(above.split(".") if above else []):
            tree = {group: tree}
        try:
            new = Settings.model_validate(tree)
        except ValueError:
            continue
        change = difference(Settings(), new)
        if change:
            assert (change.keys, change.apply) == ((option.key,), option.apply)
            return
    raise AssertionError(f"no other value found for {option.key}")
