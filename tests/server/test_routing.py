from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileproxy.errors import BadTarget
from fileproxy.http.targets import decode_path, parse_target
from fileproxy.model import Target
from fileproxy.server.routing import Match, RouteTable
from fileproxy.settings.schema import Route


def table(*rows: dict[str, Any]) -> RouteTable:
    return RouteTable([Route.model_validate({"upstream": "files", **row}) for row in rows])


def found(routes: RouteTable, host: str, path: str) -> Route | None:
    match = routes.match(host, Target(path))
    return match.route if match else None


@pytest.mark.option("routes.hosts", "routes.path")
@pytest.mark.parametrize(
    ("host", "path", "number"),
    [
        ("files.example.org", "/a/b/c", 1),
        ("files.example.org", "/a/b", 0),  # /a/b is not under /a/b/
        ("files.example.org", "/b", 4),  # no prefix for this very host: the wildcard's
        ("FILES.example.org.", "/a/b/", 1),
        ("x.y.example.org", "/", 3),  # the longer suffix wins
        ("x.example.org", "/q", 4),
        ("example.org", "/q", 5),  # the * stands for something
        (".example.org", "/q", 5),
        ("other", "/a/b/c", 5),
        ("", "/", 5),
        ("other", "/deep/er", 6),
    ],
)
def test_hosts_then_prefixes(host: str, path: str, number: int) -> None:
    routes = table(
        {"path": "/a/", "hosts": ["files.example.org"]},
        {"path": "/a/b/", "hosts": ["files.example.org", "also"]},
        {"path": "/", "hosts": ["third"]},
        {"path": "/", "hosts": ["*.y.example.org"]},
        {"path": "/", "hosts": ["*.example.org"]},
        {"path": "/"},
        {"path": "/deep/"},
    )
    assert found(routes, host, path) is routes.routes[number]


def test_nothing_serves_it() -> None:
    routes = table({"path": "/files/"})
    assert found(routes, "a", "/files") is None
    assert found(routes, "a", "/filesystem/x") is None
    assert found(routes, "a", "//files/x") is None
    assert found(routes, "a", "*") is None
    assert found(routes, "a", "/files/x") is routes.routes[0]


@pytest.mark.option("routes.strip_prefix")
@pytest.mark.parametrize(
    ("path", "query", "forwarded"),
    [
        ("/files/", None, "/"),
        ("/files/a%2fb", "q=%zz", "/a%2fb?q=%zz"),
        ("/files//evil.example/x", None, "//evil.example/x"),
    ],
)
def test_stripping_keeps_the_slash_and_everything_after_it(path: str, query: str | None, forwarded: str) -> None:
    routes = table({"path": "/files/", "strip_prefix": True})
    match = routes.match("a", Target(path, query))
    assert isinstance(match, Match)
    assert str(match.forwarded_target) == forwarded


@pytest.mark.option("routes.upstream")
@pytest.mark.parametrize(
    ("upstreams", "chosen"), [([], "files"), (["only"], "only"), (["files", "other"], "files"), (["files"], "files")]
)
def test_without_routes_everything_goes_to_one_upstream(upstreams: list[str], chosen: str) -> None:
    route = found(RouteTable([], upstreams), "any", "/x/y")
    assert route is not None
    assert (route.upstream, route.path) == (chosen, "/")


@pytest.mark.parametrize(
    "path", ["/files%2fx", "/files%2Fsecret%2fx", "/%66iles/x", "/files/%73ecret/x", "/files/secret%2fx"]
)
def test_encoding_that_selects_a_route_is_refused(path: str) -> None:
    routes = table({"path": "/"}, {"path": "/files/"}, {"path": "/files/secret/"})
    with pytest.raises(BadTarget):
        routes.match("a", Target(path))


def test_encoding_below_the_route_is_fine() -> None:
    routes = table({"path": "/"}, {"path": "/npm/"})
    assert found(routes, "a", "/npm/@scope%2fname") is routes.routes[1]
    assert found(routes, "a", "/@scope%2fname") is routes.routes[0]


def test_an_encoded_way_to_a_route_where_nothing_else_serves_is_refused() -> None:
    with pytest.raises(BadTarget):
        table({"path": "/files/"}).match("a", Target("/files%2fx"))


def test_many_slashes_do_not_cost_probes() -> None:
    class Counting(dict[str, Route]):
        probes = 0

        def get(self, key: str, default: Any = None) -> Any:
            self.probes += 1
            return super().get(key, default)

    routes = table(*({"path": f"/r{number}/"} for number in range(5000)), {"path": "/"})
    counting = Counting(routes._all._routes)
    routes._all._routes = counting
    assert found(routes, "a", "/" * 8000) is not None
    assert counting.probes <= len("/r4999/")


SEGMENTS = st.sampled_from(["a", "b", "%61", "%2f", "ab", "%2F", "%62", ""])
PATHS = st.lists(SEGMENTS, max_size=5).map(lambda parts: "/" + "/".join(parts))
PREFIXES = st.lists(st.sampled_from(["a", "b", "ab"]), max_size=3).map(
    lambda parts: "/" + "".join(f"{p}/" for p in parts)
)


@given(st.sets(PREFIXES, min_size=1), PATHS, PATHS)
def test_paths_never_alias(prefixes: set[str], one: str, other: str) -> None:
    """What decodes to the same path is served by the same route, or refused."""
    routes = table(*({"path": prefix} for prefix in sorted(prefixes)))

    def choose(path: str) -> str | None:
        match = routes.match("a", parse_target(path, "GET")[0])
        return match.route.path if match else None

    for path in (one, other):
        try:
            chosen = choose(path)
        except BadTarget:
            continue
        fitting = [prefix for prefix in prefixes if path.startswith(prefix)]
        decoded = [prefix for prefix in prefixes if decode_path(path).startswith(prefix)]
        assert chosen == max(fitting, key=len, default=None) == max(decoded, key=len, default=None)
        if decode_path(one) == decode_path(other):
            with contextlib.suppress(BadTarget):
                assert choose(one) == choose(other)
