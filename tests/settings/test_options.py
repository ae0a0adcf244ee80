"""The options as a tree."""

from __future__ import annotations

import pytest

from fileproxy.settings.options import every, leaves, nearest, options


def test_the_tree_is_that_of_the_models() -> None:
    root = options()
    assert [*root.fields] == ["profile", "server", "limits", "upstreams", "routes", "cache", "redis", "logs"]
    idle = root.at(["upstreams", "any", "timeouts", "idle"])
    assert idle is not None
    assert (idle.key, idle.kind, idle.default) == ("upstreams.*.timeouts.idle", "value", "auto")
    assert root.at(["routes", 3, "methods", 0]) is not None
    assert root.at(["routes", "three"]) is None
    assert root.at(["server", "nothing", "below"]) is None


def test_apply_and_secret_are_inherited() -> None:
    root = options()

    def at(key: str) -> tuple[str, bool]:
        option = root.at(key.split("."))
        assert option is not None
        return option.apply, option.secret

    assert at("server.sockets.keepalive.idle") == ("rolling", False)
    assert at("upstreams.x.sockets.keepalive.idle") == ("live", False)
    assert at("upstreams.x.headers.X") == ("live", True)
    assert at("redis.url") == ("rolling", True)


@pytest.mark.parametrize(
    ("place", "meant"),
    [
        (("server", "prot"), "server.port"),
        (("Server",), "server"),
        (("keepalive_idel",), "limits.keepalive_idle"),
        (("server", "head_timeout"), "limits.head_timeout"),
        (("limits", "strip_prefix"), "routes.0.strip_prefix"),
        (("server", "weight"), "upstreams.NAME.servers.0.weight"),
        (("server", "qqqq"), None),
    ],
)
def test_the_nearest_key(place: tuple[str, ...], meant: str | None) -> None:
    assert nearest(place) == meant


def test_leaves_are_all_that_can_be_set() -> None:
    keys = [one.key for one in leaves()]
    assert len(keys) == len(set(keys))
    assert {"profile", "server.operators", "upstreams.*.headers", "routes.*.cors", "routes.*.cors.origins"} <= set(keys)
    assert not {"server", "server.sockets", "upstreams", "upstreams.*.servers", "routes"} & set(keys)


def test_each_option_says_what_it_is_and_accepts() -> None:
    for option in every(options()):
        assert option.accepts, option.key
        assert option.description or option.key.endswith("*"), option.key
        assert option.apply in ("live", "rolling", "restart")
