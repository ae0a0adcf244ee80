"""FETCH: the only room that imports aiohttp's client.

* ``pool.py``         choose → try → judge → again, elsewhere, or give up
* ``balance.py``      in which order the mirrors are asked (pure)
* ``gauge.py``        what a mirror has to do, and how quickly it answers (pure)
* ``breaker.py``      when a failing mirror is passed over, and how it comes back (pure)
* ``turns.py``        which mirror a request is sent to now, or that it waits: breakers and their queue
* ``gate.py``         before each try: the upstream's rate and concurrency limits, and the fair line before them
* ``probes.py``       asking mirrors how they are, beside the requests
* ``retry.py``        whether and when to try again; how much of that an upstream may bear (pure)
* ``redirects.py``    whether a redirect is followed, where to, with which headers (pure)
* ``mirrors.py``      the servers of an upstream, and one try with one of them, redirects followed
* ``transport.py``    one try with one HTTP server
* ``names.py``        addresses of the mirrors' names: kept, all used, dead ones last
* ``services.py``     mirrors that SRV records name, looked up again and again
* ``srv.py``          SRV records asked for and read
* ``connections.py``  the tuned connector and session that the mirrors of an upstream share
* ``request.py``      aiohttp's request, made exact
* ``body.py``         the bytes of an answer, with their end proved or an error raised
* ``progress.py``     under 1 KiB in an idle window is a stall (pure)
* ``translate.py``    foreign exceptions become ours here
* ``file.py``         a local folder as an origin
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fileproxy.upstream.pool import Upstream

__all__ = ["Upstream"]


def __getattr__(name: str) -> Any:
    """Imported when it is used: the download client needs only pure parts of this room and starts without aiohttp."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fileproxy.upstream.pool import Upstream  # noqa: PLC0415

    return Upstream
