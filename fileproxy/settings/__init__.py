"""Configuration: every option once, with its default, unit and one sentence.

* ``schema.py``  the options (frozen pydantic models; an unknown key is an error)
* ``units.py``   sizes like ``256MiB`` and times like ``90s``
* ``layers.py``  flags > environment > file > defaults, each value remembering where it came from
* ``load.py``    layers → validated :class:`Settings`, or one clear line for every mistake
* ``change.py``  what differs between two generations, and whether it applies live or needs new workers
"""

from fileproxy.settings.schema import Settings

__all__ = ["Settings"]
