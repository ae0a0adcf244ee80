"""Configuration: every option once, with its default, unit and one sentence.

* ``schema.py``    the options (frozen pydantic models; an unknown key is an error); of its groups ``server.py``,
  ``sockets.py``, ``upstreams.py`` and ``routes.py`` have files of their own
* ``types.py``     what values may look like;  ``units.py``  sizes like ``256MiB`` and times like ``90s``
* ``options.py``   the options as a tree, read from the models: what may stand where, and the nearest known key
* ``document.py``  YAML → plain values with their lines
* ``layers.py``    flags > environment > file > defaults, each value remembering where it came from
* ``load.py``      layers → validated :class:`Settings`, or one clear line for every mistake
* ``verify.py``    whether the files and folders that the settings name are there
* ``resolve.py``   what ``auto`` means
* ``change.py``    what differs between two generations, and whether it applies live or needs new workers
* ``show.py``      the effective configuration with secrets masked, and its JSON Schema
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fileproxy.settings.schema import Settings

__all__ = ["Settings"]


def __getattr__(name: str) -> Any:
    """Imported when it is used: the download client needs only ``units.py``, and starts without pydantic."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fileproxy.settings.schema import Settings  # noqa: PLC0415

    return Settings
