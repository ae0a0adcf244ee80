"""FileProxy: the client sees one uninterrupted, byte-exact download, whatever the origin does.

The rooms, in the order of a download's trip::

    client ──ask──▶ server ─▶ guard ─▶ download ──▶ cache ──miss──▶ fill ─▶ upstream ══▶ mirrors
           ◀─bytes─ deliver ◀──────── body ◀─────────┴◀── flight ◀═

* ``app.py``      builds every room, wires them, owns their lifetimes; ``caching.py``, ``administration.py``,
  ``reports.py``, ``pacing.py`` and ``boot.py`` do so for the cache, the admin API, the operators' pages, what all
  workers know of an upstream, and a process
* ``server/``     the ask and the delivery: gunicorn worker, client connections, routes, ``download.py`` (the whole
  trip on one screen), preconditions and ranges, bodies to the client. The only room that imports ``aiohttp.web``
* ``guard/``      may this ask be served: methods, limits, loops
* ``cache/``      what is kept: rules of RFC 9111 (pure), tiers in memory, Redis and on disk, purges. Passive
* ``fill/``       what is missing gets fetched once: contacts, flights with many readers, the worker that owns a key
* ``upstream/``   fetching: choose a mirror, try, judge, again. The only room that imports aiohttp's client
* ``control/``    how fast and how many at once, towards origins and clients: pure
* ``observe/``    counters, reports, logs; other rooms never import it, ``app.py`` hands counters in
* ``admin/``      purges, warming, their audit log
* ``client/``     the same engine without a server: ``fileproxy get``, ``fileproxy.download``, ``fileproxy.Client``
* ``bench/``      the load generator of ``fileproxy bench load`` and ``stress``
* ``cli/``        the ``fileproxy`` command

Base files, for anyone: ``model.py`` (frozen values and Protocols that cross borders), ``errors.py`` (whose fault, try
again or not, which status), ``clock.py`` (time as a value), ``tasks.py`` (the only ``create_task``), ``settings/``
(every option once) and ``http/`` (pure HTTP rules).

Rooms meet only in ``server/download.py`` and ``app.py``; import-linter checks it. The laws are in ``ARCHITECTURE.md``.
"""

from __future__ import annotations

TYPE_CHECKING = False  # without ``typing``, which the first request of ``fileproxy get`` need not wait for
if TYPE_CHECKING:
    from typing import Any

    from fileproxy.client import (
        ChecksumMismatch,
        Client,
        DownloadError,
        DownloadFailed,
        PartFileError,
        Progress,
        Result,
        Statistics,
        download,
    )

__version__ = "0.1.0"

__all__ = [
    "ChecksumMismatch",
    "Client",
    "DownloadError",
    "DownloadFailed",
    "PartFileError",
    "Progress",
    "Result",
    "Statistics",
    "__version__",
    "download",
]


def __getattr__(name: str) -> Any:
    """The download client's names, imported when the first of them is used: ``import fileproxy`` stays light."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module("fileproxy.client"), name)
