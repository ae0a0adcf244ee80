"""``gunicorn -c gunicorn.conf.py``: gunicorn's own command line and listeners, our master's way with workers.

gunicorn offers no way to hand in an arbiter. Its ``on_starting`` hook is called before anything was opened or forked,
so there :func:`adopt` makes the arbiter one of ours. gunicorn keeps its log (stderr), its ``--bind``, ``--workers``,
``--pid`` and ``--daemon``. What differs from `fileproxy serve`: HUP always replaces the workers, the old ones finish
their downloads.
"""

from __future__ import annotations

from typing import Any

from fileproxy.server.arbiter import Arbiter, Masters, memory_folder
from fileproxy.server.reload import worker_count
from fileproxy.settings import Settings


class Plain(Arbiter):
    """Adopted, never made: see the module docstring."""

    always_rolls = True


def adopt(server: Any, masters: Masters) -> None:
    """Turn gunicorn's arbiter, which is about to start, into ours. It opens the listeners itself, as it was told."""
    server.__class__ = Plain
    server.app.masters = masters  # where the workers find their plan
    server.begin(masters)


def gunicorn_settings(settings: Settings) -> dict[str, object]:
    """What our settings mean in gunicorn's words."""
    host = settings.server.host
    return {
        "bind": f"[{host}]:{settings.server.port}" if ":" in host else f"{host}:{settings.server.port}",
        "backlog": settings.server.backlog,
        "workers": worker_count(settings),
        "worker_class": "fileproxy.server.worker.Worker",
        "wsgi_app": "fileproxy.boot:build",
        "preload_app": True,
        "timeout": 30,  # of a worker's heartbeat; no download ends by it
        "control_socket_disable": True,  # it would lie under the home directory
        "worker_tmp_dir": memory_folder(),
        "proc_name": "fileproxy",
    }
