from __future__ import annotations

import os
import resource
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fileproxy import process
from tests.conftest import Authority
from tests.life.tools import eventually
from tests.service import ROOT


@pytest.mark.parametrize(
    ("text", "processors"),
    [
        ("max 100000\n", None),
        ("100000 100000\n", 1),
        ("150000 100000\n", 2),
        ("50000 100000\n", 1),
        ("800000 100000", 8),
        ("", None),
        ("100000 0", None),
        ("lots of them", None),
    ],
)
def test_the_quota_of_a_container(text: str, processors: int | None, tmp_path: Path) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(text)
    assert process._cgroup_quota(path) == processors


def test_without_a_cgroup_there_is_no_quota(tmp_path: Path) -> None:
    assert process._cgroup_quota(tmp_path / "missing") is None


def test_the_number_of_processors_respects_affinity() -> None:
    own = os.sched_getaffinity(0)
    assert 1 <= process.cpu_count() <= len(own)
    try:
        os.sched_setaffinity(0, {min(own)})
        assert process.cpu_count() == 1
    finally:
        os.sched_setaffinity(0, own)


def test_the_soft_limit_of_descriptors_becomes_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
        assert process.raise_descriptor_limit() == (hard, hard)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
        assert process.raise_descriptor_limit() == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_limit_that_cannot_be_raised_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("not allowed")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert process.raise_descriptor_limit() == (256, 1024)


def test_alive() -> None:
    assert process.alive(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert not process.alive(child.pid)
    assert process.alive(1)  # perhaps somebody else's


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_dies_with_its_parent(number: signal.Signals) -> None:
    script = f"""
import os, signal, sys, time
from fileproxy.process import die_with_parent, set_title
parent = os.getpid()
child = os.fork()
if child == 0:
    die_with_parent(parent, signal.Signals({int(number)}))
    set_title("a-title-longer-than-15")
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(60)
else:
    os.waitpid(child, 0)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.name().startswith("a-title-longer-")
        parent.kill()
    eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the end of the child")


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_parent_that_has_gone_already_is_noticed() -> None:
    """The fork's pid as it was told is not its parent any more: it ends itself at once."""
    script = (
        "import os; from fileproxy.process import die_with_parent; "
        f"die_with_parent(os.getpid(), {int(signal.SIGTERM)}); print('lives')"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, timeout=30)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, b"")


def test_what_a_thread_worked() -> None:
    before, ran = process.worked_s(), time.thread_time()
    while time.thread_time() < ran + 0.05:
        pass
    assert process.worked_s() >= before + 0.04


@pytest.mark.parametrize("named", [True, False])
def test_contexts_without_a_ca_bundle(
    named: bool, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    if named:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.pem))
    before = dict(os.environ)
    with process.without_ca_bundle():
        assert ssl.create_default_context().cert_store_stats()["x509"] == 0
    assert dict(os.environ) == before
    if named:
        assert ssl.create_default_context().cert_store_stats()["x509"] == 1
