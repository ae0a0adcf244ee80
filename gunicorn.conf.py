"""FileProxy under plain gunicorn: ``gunicorn -c gunicorn.conf.py``.

The settings are FileProxy's: environment (``FILEPROXY_SERVER__PORT`` …), then ``$FILEPROXY_CONFIG`` or
``config/fileproxy.yaml``, then defaults. gunicorn's own flags ``--bind``, ``--workers``, ``--pid`` and ``--daemon``
come on top. HUP reads the settings again and replaces the workers one generation by the next: running downloads end
in the old ones; wrong settings change nothing. TERM waits for the last download (or ``server.drain_timeout``), a
second TERM, INT or QUIT does not. `fileproxy status`, `reload` and `stop` work as with `fileproxy serve`.
"""

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for a checkout that is not the working folder

from fileproxy.cli.serve import prepare
from fileproxy.errors import ConfigurationError
from fileproxy.server.control import AlreadyRunning
from fileproxy.server.plain import adopt, gunicorn_settings
from fileproxy.settings.load import load

try:
    configured = load(None, os.environ).settings
except ConfigurationError as error:
    sys.stderr.write("".join(f"{problem}\n" for problem in error.problems))
    raise SystemExit(2) from None

from_settings = gunicorn_settings(configured)
globals().update(from_settings)


def on_starting(server: Any) -> None:
    """Before anything is opened: run folder, logs, embedded origin and Valkey."""
    flags = {"server.workers": server.cfg.workers} if server.cfg.workers != from_settings["workers"] else {}
    try:
        masters = prepare(None, dict(os.environ), [], flags, listening=False)
    except (ConfigurationError, AlreadyRunning, OSError) as error:
        raise RuntimeError(error) from error  # gunicorn prints it without a traceback
    adopt(server, masters)


def on_exit(server: Any) -> None:
    """After the last worker has gone."""
    server.masters.close()
