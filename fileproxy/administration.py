"""Builds the admin API of one worker: what its calls act on."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from fileproxy import __version__
from fileproxy.admin.api import Api
from fileproxy.admin.audit import Audit
from fileproxy.admin.token import Token
from fileproxy.admin.warm import Fetched, WarmJobs
from fileproxy.cache.key import entry_url, primary_key
from fileproxy.caching import Caching, urls_of
from fileproxy.clock import Clock
from fileproxy.errors import BadTarget, BodyTooLarge, NoRoute, UpstreamError
from fileproxy.fill.need import need_of
from fileproxy.http.targets import parse_target
from fileproxy.model import Answer, Ask, Counters, FileSlice, Target
from fileproxy.server.exchange import want_of
from fileproxy.server.service import Generation, LogLines
from fileproxy.tasks import Tasks


class Administration:
    """Purges and warming over the cache of this service. ``api`` answers the calls."""

    def __init__(
        self,
        caching: Caching,
        *,
        generation: Callable[[], Generation],
        run_dir: Path,
        identity: str,
        counters: Counters,
        clock: Clock,
        tasks: Tasks,
        logs: LogLines,
    ) -> None:
        self._caching = caching
        self._generation = generation
        self._identity = identity
        self.api = Api(
            token=Token(Path(generation().settings.server.admin_token_file)),
            audit=Audit(logs.audit, clock),
            bans=caching.bans,
            resolve=self._resolve,
            present=self._present,
            warm=WarmJobs(
                run_dir / "warm", fetch=self._fetch, read=self._read, tasks=tasks, counters=counters, clock=clock
            ),
            counters=counters,
            version=__version__,
        )

    def _resolve(self, value: str) -> Sequence[str]:
        """What is stored under an address; under a path: by every route that could serve it, whatever the host."""
        generation = self._generation()
        if not value.startswith("/"):
            return urls_of(value, generation)
        path, mark, query = value.partition("?")
        target = Target(path, query if mark else None)
        urls = []
        for route in generation.routes.routes:
            if path.startswith(route.path):
                forwarded = Target(path[len(route.path) - 1 :], target.query) if route.strip_prefix else target
                policy = generation.policies[route.path, tuple(route.hosts)]
                urls.append(entry_url(route.upstream, "*", forwarded, policy))
        return list(dict.fromkeys(urls))

    async def _present(self, urls: Sequence[str]) -> bool:
        return await self._caching.present(urls, self._generation())

    async def _fetch(self, url: str) -> Fetched:
        """Bring one file into the cache, whole."""
        size = 0
        answer = await self._asked(url)
        try:
            if answer.status != 200:
                return Fetched(False, detail=f"status {answer.status}")
            async for piece in answer.body:
                size += piece.length if isinstance(piece, FileSlice) else len(piece)
        finally:
            await answer.body.aclose()
        return Fetched(True, size)

    async def _read(self, url: str, most: int) -> bytes:
        """A small file of ours (a sitemap): fetched like any other, not kept."""
        answer = await self._asked(url, keep=False)
        try:
            if answer.status != 200:
                raise UpstreamError(f"{url}: status {answer.status}")
            data = bytearray()
            async for piece in answer.body:
                if isinstance(piece, FileSlice):
                    raise UpstreamError(f"{url}: a local file cannot be read here")
                data += piece
                if len(data) > most:
                    raise BodyTooLarge(f"{url}: longer than {most} bytes")
            return bytes(data)
        finally:
            await answer.body.aclose()

    async def _asked(self, url: str, *, keep: bool = True) -> Answer:
        """The answer that a client without wishes of its own would get. Raises FileProxyError."""
        generation = self._generation()
        parts = urlsplit(url)
        raw = url if url.startswith("/") else url[len(f"{parts.scheme}://{parts.netloc}") :] or "/"
        target, _ = parse_target(raw, "GET")
        ask = Ask(
            id=secrets.token_hex(8),
            method="GET",
            target=target,
            authority=parts.netloc or "localhost",
            scheme=parts.scheme or "http",
            client="127.0.0.1",
            peer="127.0.0.1",
            trusted_peer=False,
            headers=(),
        )
        match = generation.routes.match(ask.host, target)
        if match is None:
            raise NoRoute(f"No route serves {url}.")
        route = match.route
        want = want_of(ask, match.forwarded_target, generation.settings.server.name, self._identity)
        policy = generation.policies[route.path, tuple(route.hosts)]
        upstream = generation.upstreams[route.upstream]
        if policy.mode == "off" or not keep:
            return await upstream.fetch(want)
        stored = urls_of(f"{ask.scheme}://{ask.authority}{target}", generation)
        if not stored:
            raise BadTarget("the path is encoded where it selects a route")
        key = primary_key(stored[0], ask.scheme, (), policy, self._caching.secret)
        need = need_of(ask, want, stored[0], key, policy, self._caching.source(match, generation, key))
        opened = await self._caching.filler.open(need)
        if opened.body is not None and opened.entry is not None:
            return Answer(opened.entry.meta.status, opened.entry.meta.reason, opened.entry.meta.headers, opened.body)
        return opened.answer or await upstream.fetch(want)
