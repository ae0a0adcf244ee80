"""What ``fileproxy serve`` does about its start. Whole services are in tests/life."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fileproxy.cli import serve
from fileproxy.server import arbiter
from tests.conftest import Authority
from tests.service import ROOT


@pytest.fixture
def collector() -> Iterator[None]:
    yield
    gc.enable()
    gc.unfreeze()


@pytest.mark.usefixtures("collector")
def test_workers_start_with_a_frozen_heap_and_a_collector_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    class Runs:
        def __init__(self, application: object) -> None:
            seen.append(application)

        def run(self) -> None:
            seen.extend([gc.isenabled(), gc.get_freeze_count() > 1000])

    def prepare(*_: object) -> str:
        seen.append(gc.isenabled())
        return "masters"

    monkeypatch.setattr(serve, "prepare", prepare)
    monkeypatch.setattr(arbiter, "Application", lambda masters: masters)
    monkeypatch.setattr(arbiter, "Arbiter", Runs)
    serve.serve(host="127.0.0.1", port=0)
    assert seen == [False, "masters", True, True]


def test_what_serving_needs_and_no_more() -> None:
    """No wall clock: what a worker never uses is not imported before it serves."""
    script = "import fileproxy.boot, fileproxy.server.arbiter, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    unused = {"typer", "fileproxy.client", "fileproxy.cli.main", "sqlalchemy", "unittest", "tests", "yaml"}
    assert not unused & set(done.stdout.split())


def test_a_start_reads_no_certificates_that_it_does_not_use(authority: Authority, tmp_path: Path) -> None:
    """aiohttp makes two contexts of its own as it is imported; ours trusts what the environment names all the same."""
    script = """
import os
from fileproxy.cli.serve import prepare
masters = prepare(None, {}, ["redis.url=off"], {"upstreams.files.servers": ["https://127.0.0.1:1"]}, listening=False)
from aiohttp import connector
from fileproxy.settings.schema import Tls
from fileproxy.upstream.connections import tls_context
contexts = connector._SSL_CONTEXT_VERIFIED, connector._SSL_CONTEXT_UNVERIFIED, tls_context(Tls(), "upstreams.files")
print(*(context.cert_store_stats()["x509"] for context in contexts), os.environ["SSL_CERT_FILE"])
masters.close()
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SSL_CERT_FILE": str(authority.pem)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "0", "1", str(authority.pem)]
