"""A package client installs through the proxy: pip, from an index over HTTPS that a private authority vouches for."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import sys
import zipfile
from pathlib import Path

import pytest

from tests.clients import run
from tests.conftest import Authority, OpenHouse
from tests.origin import Origin, Reply

NAME, VERSION = "tinymadeup", "1.0"
WHEEL = f"{NAME}-{VERSION}-py3-none-any.whl"
MODULE = b'SAYS = "came through the proxy"\n'


def wheel() -> bytes:
    """The smallest wheel there is (PyPA binary distribution format), by hand."""
    info = f"{NAME}-{VERSION}.dist-info"
    files = {
        f"{NAME}.py": MODULE,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,{len(data)}\n" for name, data in files.items()) + f"{info}/RECORD,,\n"
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in [*files.items(), (f"{info}/RECORD", record.encode())]:
            archive.writestr(name, data)
    return memory.getvalue()


def index(data: bytes) -> bytes:
    """The project's page of the simple repository API (PEP 503), with the file's digest."""
    digest = hashlib.sha256(data).hexdigest()
    return (
        f'<!doctype html><html><body><a href="../../files/{WHEEL}#sha256={digest}">{WHEEL}</a></body></html>'.encode()
    )


@pytest.mark.loops("asyncio", "uvloop")
@pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="this environment has no pip")
@pytest.mark.parametrize("cache", ["auto", "off"])
async def test_pip_installs_from_an_index_with_a_private_authority(
    house: OpenHouse, secure_origin: Origin, authority: Authority, cache: str, tmp_path: Path
) -> None:
    data = wheel()
    secure_origin.script(f"/simple/{NAME}/", Reply(index(data), headers=(("Content-Type", "text/html"),)))
    secure_origin.script(f"/files/{WHEEL}", Reply(data))
    running = await house(
        {
            "upstreams": {"index": {"servers": [{"url": secure_origin.url}], "tls": {"ca": str(authority.pem)}}},
            "routes": [{"path": "/pypi/", "upstream": "index", "strip_prefix": True, "cache": cache}],
            "cache": {"disk": "off"},
        }
    )
    # Nothing of this machine's own pip settings, which may name other places to look.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    env |= {"PIP_CONFIG_FILE": os.devnull, "HOME": str(tmp_path), "no_proxy": "127.0.0.1"}
    for attempt in ("first", "second"):
        target = tmp_path / attempt
        options = ["--no-deps", "--no-cache-dir", "--no-input", "--disable-pip-version-check", "--target", str(target)]
        where = ["--index-url", f"{running.url}/pypi/simple"]
        done = await run(sys.executable, "-m", "pip", "install", *options, *where, f"{NAME}=={VERSION}", env=env)
        assert done.code == 0, (done.out, done.err)
        assert (target / f"{NAME}.py").read_bytes() == MODULE
    # Kept, its bytes cross the wire once (the origin's Date is old, so the second time asks whether it changed).
    assert secure_origin.sent[f"/files/{WHEEL}"] == len(data) * (1 if cache == "auto" else 2)
    await running.quiet()
    assert set(running.counts.endings) == {"completed"}
