"""GET: the download client. The same engine without a server: a file is fetched over several connections and mirrors.

* ``api.py``       ``fileproxy.Client`` and ``fileproxy.download``: what other programs call
* ``trip.py``      the whole trip on one screen: contact → name → part file → segments → checksum → final name
* ``contact.py``   the first answer: how large the file is, and whether its parts may be joined
* ``engine.py``    which segment is asked where, until every byte is here;  ``flight.py``  one segment on its way
* ``stream.py``    files that are one answer only: a single stream, no resume
* ``plan.py``      which bytes are missing, which segment is next (pure). How long it is, which one is late and how
  many connections there are: ``control/segments.py``, ``control/growth.py``
* ``server.py``    asking one server;  ``http1.py``  a connection to it;  ``framing.py``  what its octets say (pure)
* ``connect.py``   opening connections;  ``asking.py``  what a request looks like (pure)
* ``early.py``     the first request of ``fileproxy get``, sent before the rest of this is imported
* ``mirrors.py``   one URL of the file: redirects, rests, what it gave
* ``partfile.py``  ``OUT.part`` and its journal ``OUT.part.json``
* ``checksum.py``  what the whole file must hash to;  ``names.py``  safe file names (pure);  ``rate.py``  rate limit
* ``lists.py``     the input of ``-i`` (pure);  ``progress.py``  a bar on a terminal, plain lines elsewhere
* ``values.py``    options, progress, results, statistics;  ``failures.py``  what can go wrong here

Law 1 is kept by ``fill/join.py``: bytes join only under the same strong validator and size, or when a checksum that the
user gave proves the whole. Nothing here imports gunicorn, redis, aiohttp or pydantic: it starts in a tenth of a second.
"""

TYPE_CHECKING = False  # without ``typing``: see ``early.py``
if TYPE_CHECKING:
    from typing import Any

    from fileproxy.client.api import Client, download
    from fileproxy.client.failures import ChecksumMismatch, DownloadError, DownloadFailed, PartFileError
    from fileproxy.client.values import Progress, Result, Statistics

__all__ = [
    "ChecksumMismatch",
    "Client",
    "DownloadError",
    "DownloadFailed",
    "PartFileError",
    "Progress",
    "Result",
    "Statistics",
    "download",
]

_HOMES = {"Client": "api", "download": "api", "Progress": "values", "Result": "values", "Statistics": "values"}


def __getattr__(name: str) -> "Any":
    """Imported when it is used: ``early.py`` has to begin before the rest."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(f"fileproxy.client.{_HOMES.get(name, 'failures')}"), name)
