"""The command's frame: help, wrong usage, exit codes, completion."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fileproxy import __version__
from fileproxy.cli.main import COMMANDS
from tests.clients import program
from tests.life.tools import fileproxy
from tests.service import ROOT


def test_help_lists_every_command(tmp_path: Path) -> None:
    done = fileproxy("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert set(re.findall(r"^  ([a-z]+) ", done.stdout.partition("Commands:")[2], re.M)) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, tmp_path: Path) -> None:
    done = fileproxy(command, "-h", cwd=tmp_path)
    assert done.returncode == 0
    assert f"Usage: fileproxy {command}" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import sys; from fileproxy.cli.main import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "--help"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0
    assert not {"aiohttp", "pydantic", "gunicorn", "redis", "uvloop", "rich", "yaml", "asyncio"} & set(
        done.stderr.split()
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["srve"],
        ["serve", "--prot", "1"],
        ["serve", "--port", "many"],
        ["serve", "--port", "65536"],
        ["serve", "--workers", "none"],
        ["serve", "--set", "server.prot=1"],
        ["serve", "--set", "server"],
        ["serve", "ftp://a"],
        ["serve", "--config", "missing.yaml"],
        ["check", "--set", "server.prot=1"],
        ["origin"],
        ["completion", "tcsh"],
        ["health", "--url", "nowhere"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], tmp_path: Path) -> None:
    done = fileproxy(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["reload", "stop", "status", "health", "stats"])
def test_without_a_service_they_fail_with_a_sentence(command: str, tmp_path: Path) -> None:
    done = fileproxy(command, cwd=tmp_path, env={"FILEPROXY_SERVER__PORT": "1"})
    assert done.returncode == 1
    assert re.fullmatch(r"fileproxy: (no FileProxy runs with|http://127\.0\.0\.1:1 does not answer).*\n", done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_pipe_is_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", '"$0" -m fileproxy check --schema | head -n 1', sys.executable],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert "Traceback" not in done.stderr


def test_version_names_what_a_bug_report_needs(tmp_path: Path) -> None:
    rows = dict(line.split(maxsplit=1) for line in fileproxy("version", cwd=tmp_path).stdout.splitlines())
    assert set(rows) == {"fileproxy", "python", "aiohttp", "uvloop", "gunicorn", "kernel"}
    assert rows["fileproxy"] == __version__


@pytest.mark.parametrize(
    ("shell", "env"),
    [
        ("bash", {"COMP_WORDS": "fileproxy st", "COMP_CWORD": "1"}),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "fileproxy st"}),
        ("fish", {"_TYPER_COMPLETE_ARGS": "fileproxy st", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
    ],
)
def test_completion(shell: str, env: dict[str, str], tmp_path: Path) -> None:
    """The script names the variable by which the shell asks, and asked so, we answer."""
    script = fileproxy("completion", shell, cwd=tmp_path)
    assert script.returncode == 0
    assert f"_FILEPROXY_COMPLETE=complete_{shell}" in script.stdout
    answer = fileproxy(cwd=tmp_path, env={**env, "_FILEPROXY_COMPLETE": f"complete_{shell}"})
    assert answer.returncode == 0
    assert {"stop", "status", "stats"} <= set(re.findall(r"\w+", answer.stdout))
    assert "serve" not in answer.stdout


def test_bash_takes_the_script_and_completes_options(tmp_path: Path) -> None:
    bash = program("bash")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "fileproxy").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fileproxy "$@"\n')
    (tmp_path / "bin" / "fileproxy").chmod(0o755)
    ask = (
        "source <(fileproxy completion bash); COMP_WORDS=(fileproxy serve --po); COMP_CWORD=2; "
        '_fileproxy_completion fileproxy; echo "${COMPREPLY[@]}"'
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run([bash, "-c", ask], env=env, capture_output=True, text=True, timeout=30)
    assert done.stdout == "--port\n", done.stderr
