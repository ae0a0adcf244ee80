"""What no schema can see: whether the files and folders that the settings name are there and usable."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fileproxy.settings.schema import Settings


def verify(settings: Settings, sources: Mapping[str, str] | None = None) -> list[str]:
    """Problems of these settings on this machine, a line each (``SOURCE: KEY: sentence``); [] when there are none.

    Args:
        sources: of ``Loaded``, so that a line can say where the value is written.
    """
    lines: list[str] = []
    for key, sentence in _findings(settings):
        source = (sources or {}).get(key, "default")
        lines.append(": ".join(part for part in ("" if source == "default" else source, key, sentence) if part))
    return lines


def _findings(settings: Settings) -> Iterator[tuple[str, str]]:
    for name, upstream in settings.upstreams.items():
        for number, mirror in enumerate(upstream.servers):
            if mirror.url.startswith("file:"):
                sentence = _folder(Path(unquote(urlsplit(mirror.url).path)))
                if sentence:
                    yield f"upstreams.{name}.servers.{number}.url", sentence
        if upstream.tls.ca is not None and (sentence := _authorities(upstream.tls.ca)):
            yield f"upstreams.{name}.tls.ca", sentence
    logs = settings.logs
    for key, log in (("logs.access", logs.access), ("logs.error", logs.error), ("logs.audit", logs.audit)):
        if log not in ("stdout", "stderr", "off") and (sentence := _writable(Path(log))):
            yield key, sentence
    if sentence := _writable(Path(settings.server.run_dir) / "fileproxy.pid"):
        yield "server.run_dir", sentence
    token = Path(settings.server.admin_token_file)
    if sentence := _readable(token) if token.is_file() else _writable(token):  # a mounted one may be read-only
        yield "server.admin_token_file", sentence
    # Not the folder of the disk cache: without it downloads go on, and /health says what is wrong with it (law 9).


def _folder(path: Path) -> str:
    if not os.path.isdir(path):
        return f"{path} is not a folder" if os.path.exists(path) else f"there is no folder {path}"
    return "" if os.access(path, os.R_OK | os.X_OK) else f"{path} cannot be read"


def _authorities(path: str) -> str:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        return f"{path} holds no certificate in PEM form"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    return ""


def _readable(path: Path) -> str:
    return "" if os.access(path, os.R_OK) else f"{path} cannot be read"


def _writable(path: Path) -> str:
    """Whether a file could be made or written there, its folders included.

    With os.path: pathlib raises where a folder on the way may not be looked into.
    """
    if os.path.isdir(path):
        return f"{path} is a folder, not a file"
    if os.path.exists(path):
        return "" if os.access(path, os.W_OK) else f"{path} cannot be written"
    folder = path.parent
    while not os.path.exists(folder) and folder != folder.parent:
        folder = folder.parent
    if not os.path.isdir(folder):
        return f"{folder} is not a folder"
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"{folder} cannot be written"
