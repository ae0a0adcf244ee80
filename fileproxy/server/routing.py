"""Which route serves a host and path. One table for each settings generation; looking up costs the same for any number.

The routes that name the host come first, then those of the longest matching ``*.`` wildcard, then those for all hosts;
within these the longest prefix wins, and when none of them fits the next group is tried. A prefix ends at a ``/``:
``/files`` is not under ``/files/``.

The choice is made over the path as sent and over the decoded path. When they differ (``/files%2fx``, ``/%66iles/x``)
the target is ambiguous, two readers could apply two policies to it, and it is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from fileproxy.errors import BadTarget
from fileproxy.http.targets import decode_path
from fileproxy.model import Target
from fileproxy.settings.schema import Route

EMBEDDED = "files"  # the upstream that stands for all when nothing else is said


@dataclass(frozen=True, slots=True)
class Match:
    """The route that serves an ask, and the target its upstream is asked for."""

    route: Route
    forwarded_target: Target


class _Prefixes:
    """The routes of one host by prefix. Probes only the asked path's own prefixes, and none longer than the longest."""

    __slots__ = ("_longest", "_routes")

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}
        self._longest = 0

    def add(self, route: Route) -> None:
        self._routes[route.path] = route
        self._longest = max(self._longest, len(route.path))

    def find(self, path: str) -> Route | None:
        end = self._longest
        while (end := path.rfind("/", 0, end) + 1) > 0:
            if (route := self._routes.get(path[:end])) is not None:
                return route
            end -= 1
        return None


class RouteTable:
    """``routes`` as configured; without any, one route for all to the only upstream, or to the one named ``files``."""

    def __init__(self, routes: Iterable[Route], upstreams: Collection[str] = ()) -> None:
        chosen = list(routes)
        if not chosen:
            only = next(iter(upstreams)) if len(upstreams) == 1 else EMBEDDED
            chosen = [Route(path="/", upstream=only)]
        self.routes = tuple(chosen)
        self._exact: dict[str, _Prefixes] = {}
        self._wildcard: dict[str, _Prefixes] = {}  # by what follows the *, with its leading dot
        self._all = _Prefixes()
        for route in chosen:
            if not route.hosts:
                self._all.add(route)
            for host in route.hosts:
                group = self._wildcard if host.startswith("*.") else self._exact
                group.setdefault(host.removeprefix("*"), _Prefixes()).add(route)

    def match(self, host: str, target: Target) -> Match | None:
        """The route for ``host`` (without port, any case) and ``target``, or None.

        Raises BadTarget when the decoded path would choose another route than the path as sent. ``*`` (OPTIONS) has no
        route.
        """
        groups = list(self._groups(host.lower().removesuffix(".")))
        route = _first(groups, target.path)
        if "%" in target.path and _first(groups, decode_path(target.path)) is not route:
            raise BadTarget("the path is encoded where it selects a route")
        if route is None:
            return None
        if not route.strip_prefix:
            return Match(route, target)
        return Match(route, Target(target.path[len(route.path) - 1 :], target.query))

    def _groups(self, host: str) -> Iterator[_Prefixes]:
        if (exact := self._exact.get(host)) is not None:
            yield exact
        if self._wildcard:
            dot = host.find(".", 1)  # the * stands for at least one character
            while dot > 0:
                if (wildcard := self._wildcard.get(host[dot:])) is not None:
                    yield wildcard
                dot = host.find(".", dot + 1)
        yield self._all


def _first(groups: list[_Prefixes], path: str) -> Route | None:
    for group in groups:
        if (route := group.find(path)) is not None:
            return route
    return None
